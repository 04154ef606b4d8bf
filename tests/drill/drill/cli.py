"""The command line."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import secrets
import shlex
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import Any

from drill import journal, proof, report
from drill.commands import DrillFailed
from drill.journal import Journal
from drill.load import Limits, Load
from drill.places import Place, Storage, place_of
from drill.race import BY_NUMBER, Race
from drill.scm import COPIES, Tools
from drill.site import Person, Site

DESCRIPTION = """\
Real git and hg push to a Kallithea, people look at pages meanwhile, and at the end every acknowledged push has to be there.

  push   push, and read each push back at once: through the balancer, through every node, every tenth by a clone
  race   two pushes to one branch at the same moment: exactly one may win
  run    push and look at pages for some time, while something else breaks the cluster
  mark   write a line into a running drill's log: here begins a fault
  check  look for what a log says was acknowledged, also after the drill was killed
  remove remove the repositories that a log names

The account is read from KALLITHEA_ADMIN_USER (admin) and the file that KALLITHEA_ADMIN_PASSWORD_FILE names. Each option
that names an address or a file has the variable beside it as its default; scripts/demo env prints them.
It ends with 1 where a push is lost, a repository is damaged or something was seen that must not happen, and with 2 where it cannot work.
"""
BALANCER = "balancer"
WAYS_AT_ONCE = 2


def place(text: str) -> Place:
    """Read a place; argparse makes a sentence of the error."""
    try:
        return place_of(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def positive(text: str) -> int:
    """Read a number above zero."""
    if not text.isdigit() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no number above 0")
    return int(text)


def kinds(text: str) -> list[str]:
    """Read the kinds of repositories, in turns."""
    names = text.split(",")
    if set(names) - set(COPIES):
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of {' and '.join(COPIES)} with commas")
    return names


def parser() -> argparse.ArgumentParser:
    """Return what reads the arguments."""
    log = argparse.ArgumentParser(add_help=False)
    log.add_argument("--log", type=Path, required=True, help="the log: JSON lines, appended")

    site = argparse.ArgumentParser(add_help=False)
    site.add_argument("--url", default=os.environ.get("KALLITHEA_URL", ""), help="the site through its balancer (KALLITHEA_URL)")
    site.add_argument("--ca-file", default=os.environ.get("KALLITHEA_CA_FILE", ""), help="authorities to believe for https (KALLITHEA_CA_FILE)")
    site.add_argument("--timeout", type=float, default=60.0, metavar="SECONDS", help="the limit of each command and request")

    look = argparse.ArgumentParser(add_help=False)
    look.add_argument("--node", type=place, action="append", default=[], metavar="NAME=READ_URL[,WRITE_URL]", help="a node's own pools; any number")
    look.add_argument("--storage", type=PurePosixPath, metavar="PATH", help="the repositories' folder on the storage")
    look.add_argument(
        "--storage-command",
        type=shlex.split,
        default=[],
        metavar="COMMAND",
        help="what runs a command where the storage is, with its standard input, as a user who may read it: 'docker exec -i -u kallithea app1', 'ssh store1'",
    )
    look.add_argument("--json", type=Path, metavar="FILE", help="write the report there too")
    look.add_argument("--at-once", type=positive, default=4, metavar="N", help="so many clones at once when looking (%(default)s)")

    work = argparse.ArgumentParser(add_help=False)
    work.add_argument("--prefix", default="drill", help="the repositories' names begin so (%(default)s)")
    work.add_argument("--kinds", type=kinds, default=["git", "git", "hg"], help="kinds of repositories in turns (git,git,hg)")
    work.add_argument("--keep", action="store_true", help="leave the repositories there; they stay also where something is wrong")

    many = argparse.ArgumentParser(add_help=False)
    many.add_argument("--pushers", type=positive, default=4, help="so many push at once (%(default)s)")
    many.add_argument("--repositories", type=positive, default=8, help="over so many repositories, each with one pusher at a time (%(default)s)")
    many.add_argument("--browsers", type=int, default=2, help="so many look at pages (%(default)s)")

    root = argparse.ArgumentParser(prog="drill", description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter)
    modes = root.add_subparsers(dest="mode", required=True, metavar="MODE")
    push = modes.add_parser("push", parents=[log, site, look, work, many], help="push and read back at once")
    push.add_argument("--pushes", type=positive, default=100, help="so many pushes (%(default)s)")
    push.add_argument("--within", type=float, default=600.0, metavar="SECONDS", help="no push begins later (%(default)s)")
    race = modes.add_parser("race", parents=[log, site, look, work], help="two pushes to one branch at the same moment")
    race.add_argument(
        "--way",
        action="append",
        required=True,
        metavar="SIDE/SIDE",
        help=f"who meets: {BALANCER}, a node's name, {BY_NUMBER} (the address /_NUMBER), web (an edit)",
    )
    race.add_argument("--rounds", type=positive, default=5, help="rounds of each way, in turns over the kinds (%(default)s)")
    race.add_argument("--within", type=float, default=600.0, metavar="SECONDS", help="no round begins later (%(default)s)")
    run = modes.add_parser("run", parents=[log, site, look, work, many], help="push and look at pages for some time")
    run.add_argument("--for", dest="within", type=float, required=True, metavar="SECONDS", help="how long")
    run.add_argument("--pushes", type=positive, default=100_000, help="at most so many (%(default)s)")
    mark = modes.add_parser("mark", parents=[log], help="a fault begins")
    mark.add_argument("text", help="what it is")
    modes.add_parser("check", parents=[log, site, look], help="look for what a log says was acknowledged")
    modes.add_parser("remove", parents=[log, site], help="remove the repositories that a log names")
    return root


def account() -> tuple[str, str]:
    """Return the name and the password."""
    file = os.environ.get("KALLITHEA_ADMIN_PASSWORD_FILE", "")
    if not file:
        raise DrillFailed("KALLITHEA_ADMIN_PASSWORD_FILE is not set: it has to name a file with the administrator's password.")
    try:
        return os.environ.get("KALLITHEA_ADMIN_USER", "admin"), Path(file).read_text().strip()
    except OSError as error:
        raise DrillFailed(f"the password cannot be read: {error}.") from error


class Drill:
    """One call."""

    def __init__(self, options: argparse.Namespace, folder: Path) -> None:
        """Prepare the private files of git and hg."""
        self.options = options
        only_storage = options.mode == "check" and options.storage and not options.url
        if not options.url and not only_storage:
            raise DrillFailed("there is no address: give --url or set KALLITHEA_URL (check does without where --storage is given).")
        url = options.url.rstrip("/")
        self.places = [*([Place(BALANCER, url, url)] if url else []), *getattr(options, "node", [])]
        self.user, self.password = account() if self.places else ("", "")
        self.tools = Tools(folder, options.timeout, str(Path(options.ca_file).resolve()) if options.ca_file else "")
        self.tools.prepare(self.user, self.password)

    def site(self) -> Person:
        """Return a new browser, logged in."""
        site = Site(self.places[0].read, self.user, self.password, self.tools.ca_file, self.options.timeout)
        site.login()
        return site

    def storage(self) -> Storage | None:
        """Return where the storage is, if that was said."""
        return Storage(self.options.storage, tuple(self.options.storage_command)) if self.options.storage else None

    def names(self, count: int) -> dict[str, str]:
        """Return new repositories' names and kinds."""
        token = secrets.token_hex(3)
        return {f"{self.options.prefix}-{token}-{number}": self.options.kinds[number % len(self.options.kinds)] for number in range(count)}

    def create(self, log: Journal, person: Person, names: dict[str, str]) -> None:
        """Make repositories; the log names them first, so that whoever reads it can remove them."""
        log.add("start", mode=self.options.mode)
        for name, kind in names.items():
            log.add("repository", name=name, kind=kind)
        person.create(names)

    def load(self, log: Journal, person: Person) -> None:
        """Push and browse."""
        options = self.options
        names = self.names(max(options.repositories, options.pushers))
        self.create(log, person, names)
        limits = Limits(options.pushes, options.within, options.pushers)
        Load(log, self.tools, self.places, names, limits, read_back=options.mode == "push").run([self.site() for _ in range(options.browsers)])

    def race(self, log: Journal, person: Person) -> None:
        """Race each way on repositories of its own, some at a time."""
        options = self.options
        race = Race(log, self.tools, self.places, time.monotonic() + options.within)
        for way in options.way:
            race.sides_of(way)
        names = self.names(len(options.kinds) * len(options.way))
        self.create(log, person, names)
        pairs = list(names.items())

        def one(index: int) -> None:
            mine = pairs[index * len(options.kinds) :][: len(options.kinds)]
            race.run(options.way[index], dict(mine), self.site(), options.rounds)

        with ThreadPoolExecutor(WAYS_AT_ONCE) as executor:
            try:
                list(executor.map(one, range(len(options.way))))
            finally:
                race.end = 0.0

    def prove(self) -> dict[str, Any]:
        """Look for all that was acknowledged, everywhere."""
        story = journal.read(self.options.log)
        found = [one for place in self.places for one in proof.through(place, story.repositories, self.tools, self.options.at_once)]
        if storage := self.storage():
            found += proof.on(storage, story.repositories, self.options.timeout, self.options.at_once)
        return report.summary(story, found)

    def work(self) -> int:
        """Do what was asked for."""
        options = self.options
        if options.mode == "remove":
            self.site().remove(list(journal.read(options.log).repositories))
            return 0
        if options.mode != "check":
            if options.log.exists() and options.log.stat().st_size:
                raise DrillFailed(f"{options.log} is another drill's log: name a new file, or check it first.")
            with Journal(options.log) as log:
                (self.race if options.mode == "race" else self.load)(log, self.site())
        said = self.prove()
        print(report.as_text(said))
        if options.json:
            options.json.write_text(json.dumps(said, indent=1) + "\n")
        bad = report.is_bad(said)
        if options.mode != "check" and not options.keep:
            if bad:
                print(f"The repositories stay there to be looked at; drill remove --log {options.log} removes them.")
            else:
                self.site().remove(list(journal.read(options.log).repositories))
        return int(bad)


@contextlib.contextmanager
def ended_by_signal() -> Iterator[None]:
    """Let a signal end the drill as Ctrl-C does, so that no process of ours stays."""

    def end(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def main(arguments: Sequence[str] | None = None) -> int:
    """Return the exit status."""
    options = parser().parse_args(arguments)
    try:
        if options.mode == "mark":
            with Journal(options.log) as log:
                log.add("mark", text=options.text)
            return 0
        if options.mode in ("check", "remove") and not options.log.exists():
            raise DrillFailed(f"there is no log {options.log}.")
        with ended_by_signal(), tempfile.TemporaryDirectory(prefix="drill-") as folder:
            return Drill(options, Path(folder)).work()
    except DrillFailed as error:
        print(f"drill: {error}", file=sys.stderr)
    except KeyboardInterrupt:
        print(f"drill: ended early; drill check --log {options.log} looks for what was acknowledged until then.", file=sys.stderr)
    return 2
