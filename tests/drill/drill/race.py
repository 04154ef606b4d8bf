"""Two people push to one branch at the same moment, by two ways to the repository."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from drill.commands import DrillFailed
from drill.journal import ACKNOWLEDGED, Journal, Outcome
from drill.places import Place
from drill.report import judge_round
from drill.scm import COPIES, Copy, Tools
from drill.site import Person

# Beside the names of places: the address that stays when a repository is renamed, and the editor in the browser.
BY_NUMBER, WEB = "id", "web"

Action = Callable[[], Outcome]
T = TypeVar("T")


@dataclass
class Court:
    """A repository, the two copies that push to it, and what it has acknowledged."""

    name: str
    number: int
    copies: tuple[Copy, Copy]
    # The newest commit, and all that lead to it.
    tip: str
    acknowledged: set[str]


class Race:
    """Rounds of two pushes each."""

    def __init__(self, journal: Journal, tools: Tools, places: Sequence[Place], end: float) -> None:
        """The first place is the balancer; no round begins after the end, a moment of time.monotonic()."""
        self.journal, self.tools, self.end = journal, tools, end
        self.places = {place.name: place for place in places}
        self.main = places[0]
        self.word = f"drill-{time.time_ns():x}"

    def sides_of(self, way: str) -> tuple[str, str]:
        """Return the two sides of a way such as balancer/web."""
        one, _, other = way.partition("/")
        for side in (one, other):
            if side not in (*self.places, BY_NUMBER, WEB):
                raise DrillFailed(f"the way {way!r} names {side!r}; there are {', '.join(self.places)}, {BY_NUMBER} and {WEB}.")
        return one, other

    def run(self, way: str, repositories: Mapping[str, str], person: Person, rounds: int) -> None:
        """Run the rounds of one way, in turns over its repositories; the person is this way's alone."""
        sides = self.sides_of(way)
        courts = [self._court(name, kind, person.number(name)) for name, kind in repositories.items()]
        for number in range(rounds):
            if time.monotonic() > self.end:
                raise DrillFailed(f"the time was over after {number} of {rounds} rounds of {way}.")
            self._round(way, sides, courts[number % len(courts)], person, number + 1)

    def _court(self, name: str, kind: str, number: int) -> Court:
        one, other = (COPIES[kind](self.tools.folder / "copies" / f"{name}-{side}", self.tools) for side in ("one", "other"))
        word = f"{self.word}-{name}-0"
        commit = one.commit(word)
        outcome = self._logged(name, commit, word, self.main.name, lambda: one.push(f"{self.main.write}/{name}", commit))()
        if outcome.result != ACKNOWLEDGED:
            raise DrillFailed(f"the first push to {name} was {outcome.result}: {outcome.reason}")
        return Court(name, number, (one, other), commit, {commit})

    def _logged(self, name: str, commit: str, word: str, side: str, action: Action) -> Action:
        """Have the beginning in the log now, and the end when the action has ended."""
        number = self.journal.begin(name, commit, word, side)

        def act() -> Outcome:
            outcome = action()
            self.journal.end(number, outcome)
            return outcome

        return act

    def _action(self, side: str, court: Court, copy: Copy, person: Person, tip: str, word: str) -> Action:
        """Prepare one side, so that nothing but the push itself is left to do."""
        if side == WEB:
            content = (copy.folder / "word").read_text() + f"{word}\n"
            # On top of this commit and no other: the site refuses if it is no longer the newest.
            return self._logged(court.name, "", word, side, lambda: person.edit(court.name, tip, "word", content, word))
        base = f"{self.main.write}/_{court.number}" if side == BY_NUMBER else f"{self.places[side].write}/{court.name}"
        commit = copy.commit(word)
        return self._logged(court.name, commit, word, side, lambda: copy.push(base, commit))

    def _round(self, way: str, sides: tuple[str, str], court: Court, person: Person, number: int) -> None:
        url, tip = f"{self.main.read}/{court.name}", court.tip
        for copy in court.copies:
            copy.go_to(tip, url)
        words = [f"{self.word}-{court.name}-{number}-{letter}" for letter in "ab"]
        actions = [self._action(side, court, copy, person, tip, word) for side, copy, word in zip(sides, court.copies, words, strict=True)]
        results = [outcome.result for outcome in at_once(actions)]
        asked = at_once([partial(court.copies[0].tip, f"{place.read}/{court.name}") for place in self.places.values()])
        # In the order of the places: the balancer's word is where the next round begins.
        court.tip = asked[0]
        court.copies[0].go_to(court.tip, url)
        history = court.copies[0].history(court.tip)
        present = [word in history.values() for word in words]
        decided, faults = judge_round(results, present, sorted(court.acknowledged - set(history)), asked)
        court.acknowledged = set(history)
        self.journal.add("round", way=way, round=number, repository=court.name, results=results, decided=decided, faults=faults)


def at_once(actions: Sequence[Callable[[], T]]) -> list[T]:
    """Start all actions at the same moment and wait for them."""
    barrier = threading.Barrier(len(actions))

    def act(action: Callable[[], T]) -> T:
        barrier.wait()
        return action()

    with ThreadPoolExecutor(len(actions)) as executor:
        return list(executor.map(act, actions))
