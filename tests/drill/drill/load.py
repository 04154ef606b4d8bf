"""Many people push, each to repositories of their own, while others look at pages."""

from __future__ import annotations

import itertools
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from drill.journal import ACKNOWLEDGED, Journal
from drill.places import Place
from drill.proof import inspect
from drill.scm import COPIES, Copy, Tools, Unreadable
from drill.site import Person

# People do not try again at once.
AGAIN_SECONDS = 0.5
READ_SECONDS = 0.5
CLONE_EVERY = 10


@dataclass(frozen=True)
class Limits:
    """What ends the load: a number of pushes or a time, whichever comes first."""

    pushes: int
    seconds: float
    pushers: int


class Repository:
    """A repository with the one copy that pushes to it."""

    def __init__(self, name: str, copy: Copy) -> None:
        """Nothing is acknowledged yet."""
        self.name = name
        self.copy = copy
        self.last = ""


class Load:
    """Pushes and pages until a limit is reached."""

    def __init__(self, journal: Journal, tools: Tools, places: Sequence[Place], repositories: Mapping[str, str], limits: Limits, *, read_back: bool) -> None:
        """Make the working copies; the first place is where pushes go."""
        self.journal, self.tools, self.places, self.limits, self.read_back = journal, tools, places, limits, read_back
        self.repositories = [Repository(name, COPIES[kind](tools.folder / "copies" / name, tools)) for name, kind in repositories.items()]
        self.word = f"drill-{time.time_ns():x}"
        self.lock = threading.Lock()
        self.stop = threading.Event()
        self.taken = 0
        self.end = 0.0
        self.readers = ThreadPoolExecutor(limits.pushers * len(places))

    def run(self, browsers: Sequence[Person]) -> None:
        """Do it all; browsers are logged in."""
        self.end = time.monotonic() + self.limits.seconds
        pushers = min(self.limits.pushers, len(self.repositories))
        with ThreadPoolExecutor(pushers + len(browsers)) as executor:
            try:
                looking = [executor.submit(self._browse, site) for site in browsers]
                pushing = [executor.submit(self._push, self.repositories[number::pushers]) for number in range(pushers)]
                for one in pushing:
                    one.result()
            finally:
                self.stop.set()
        for one in looking:
            one.result()

    def _take(self) -> int:
        """Return the number of the next push, or nothing when there is to be none."""
        with self.lock:
            if self.taken >= self.limits.pushes or time.monotonic() > self.end or self.stop.is_set():
                return 0
            self.taken += 1
            return self.taken

    def _give_back(self) -> None:
        with self.lock:
            self.taken -= 1

    def _push(self, repositories: Sequence[Repository]) -> None:
        for repository in itertools.cycle(repositories):
            number = self._take()
            if not number:
                return
            if not self._ready(repository):
                self._give_back()
                self.stop.wait(AGAIN_SECONDS)
            elif not self._push_one(repository, number):
                self.stop.wait(AGAIN_SECONDS)

    def _asked(self, what: str, ask: Callable[[], str]) -> str | None:
        """Ask a repository; log a question that failed."""
        begun = time.time()
        try:
            return ask()
        except Unreadable as error:
            self.journal.add("pull", sync=False, begun=begun, text=f"{what}: {error}")
            return None

    def _ready(self, repository: Repository) -> bool:
        """Go on from where the server is, as people do; see that it has what it acknowledged."""
        name, last = repository.name, repository.last
        tip = self._asked(name, lambda: repository.copy.sync(f"{self.places[0].read}/{name}"))
        if tip is None:
            return False
        if last and tip != last and last not in (repository.copy.history(tip) if tip else {}):
            self.journal.add("fault", text=f"{name} went back: {last} was acknowledged, and the newest commit is {tip or 'none'} without it")
            repository.last = ""
        return True

    def _push_one(self, repository: Repository, number: int) -> bool:
        word = f"{self.word}-{number}"
        commit = repository.copy.commit(word)
        logged = self.journal.begin(repository.name, commit, word, self.places[0].name)
        outcome = repository.copy.push(f"{self.places[0].write}/{repository.name}", commit)
        self.journal.end(logged, outcome)
        if outcome.result != ACKNOWLEDGED:
            return False
        repository.last = commit
        if self.read_back:
            self._read_back(repository, commit)
            if number % CLONE_EVERY == 0:
                self._clone(repository, commit)
        return True

    def _read_back(self, repository: Repository, commit: str) -> None:
        """Read through every place at the same moment: one that did not take the push is always among the nodes."""

        def read(place: Place) -> str | None:
            return self._asked(f"{repository.name} through {place.name}", lambda: repository.copy.tip(f"{place.read}/{repository.name}"))

        for place, tip in zip(self.places, self.readers.map(read, self.places), strict=True):
            if tip is not None and tip != commit:
                self.journal.add("fault", text=f"miss: {commit} was acknowledged, and {place.name} said at once that {repository.name} had {tip or 'nothing'}")

    def _clone(self, repository: Repository, commit: str) -> None:
        """Clone afresh and look for the commit in it."""
        copy = repository.copy
        with tempfile.TemporaryDirectory(dir=self.tools.folder) as folder:
            path = Path(folder) / "clone"
            begun = time.time()
            if not copy.clone(self.tools, f"{self.places[0].read}/{repository.name}", path).well:
                self.journal.add("pull", begun=begun, text=f"{repository.name}: clone")
                return
            found = inspect("clone", copy.kind, repository.name, str(path), (), self.tools.environment, self.tools.seconds)
        if commit not in (found.commits or {}):
            self.journal.add("fault", text=f"miss: {commit} was acknowledged, and a clone of {repository.name} made at once has it not")

    def _browse(self, site: Person) -> None:
        paths = itertools.cycle(("/_admin/my_account", *(f"/{repository.name}" for repository in self.repositories)))
        for path in paths:
            begun = time.time()
            well = site.look(path)
            self.journal.add("page", sync=False, begun=begun, well=well, path=path)
            if self.stop.wait(READ_SECONDS):
                return
