"""Ways to lose a host or a service for a while, and people and bots who go on working meanwhile."""

from __future__ import annotations

import functools
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager

from balancer import Balancer
from machines import Machine, wait_until
from repositories import Make
from scm import Client
from settings import Settings
from web import Site

# The promise: requests begun so long after a loss succeed.
LEAVE_SECONDS = 6.0
# A container that was killed boots first.
RETURN_SECONDS = 120.0
KINDS = ("git", "git", "hg")


def docker(command: str, machine: Machine) -> None:
    """Do something with a whole host."""
    subprocess.run(["docker", command, machine.container], check=True, capture_output=True, timeout=60)


@contextmanager
def stopped(machine: Machine, unit: str = "kallithea-web") -> Iterator[None]:
    """Stop a unit as an administrator does; its clients are refused at once."""
    machine.run(f"systemctl stop {unit}", seconds=90)
    try:
        yield
    finally:
        machine.run(f"systemctl start {unit}", seconds=90)


@contextmanager
def hung(machine: Machine, unit: str = "kallithea-web") -> Iterator[None]:
    """Let all processes of a unit stand still; the kernel goes on taking connections for them."""
    machine.run(f"systemctl kill --signal=SIGSTOP {unit}")
    try:
        yield
    finally:
        machine.run(f"systemctl kill --signal=SIGCONT {unit}")


@contextmanager
def frozen(machine: Machine) -> Iterator[None]:
    """Let all processes of a host stand still."""
    docker("pause", machine)
    try:
        yield
    finally:
        docker("unpause", machine)


@contextmanager
def killed(machine: Machine) -> Iterator[None]:
    """Kill all processes of a host at once, as a power failure does; it boots afterwards."""
    docker("kill", machine)
    try:
        yield
    finally:
        docker("start", machine)


FAULTS: dict[str, Callable[[Machine], AbstractContextManager[None]]] = {"stopped": stopped, "killed": killed, "frozen": frozen, "hung": hung}


@contextmanager
def lost(balancer: Balancer, fault: str, *machines: Machine) -> Iterator[None]:
    """Lose hosts; begin when the balancers have had their time to find out, and come back when all hosts serve again."""
    with ExitStack() as stack:
        for machine in machines:
            stack.enter_context(FAULTS[fault](machine))
        time.sleep(LEAVE_SECONDS)
        yield
    wait_until(f"every server back by itself after {', '.join(machine.name for machine in machines)} {fault}", balancer.all_up, RETURN_SECONDS, 1.0)


@functools.cache
def repositories(make_repository: Make) -> tuple[str, ...]:
    """Make the repositories that these tests use, once for all of them."""
    return tuple(make_repository(kind, f"faults-{number}") for number, kind in enumerate(KINDS))


class Users:
    """People and a bot; whatever they do has to succeed at the first try."""

    def __init__(self, site: Site, client: Client, settings: Settings, make_repository: Make) -> None:
        """Have repositories to work on."""
        self.site = site
        self.client = client
        self.settings = settings
        self.repositories = repositories(make_repository)

    def look(self, pages: int) -> None:
        """Look at pages, one after the other."""
        paths = ("/_admin/my_account", *(f"/{name}" for name in self.repositories))
        for number in range(pages):
            path = paths[number % len(paths)]
            answer = self.site.get(path)
            assert answer.status == 200, f"page {number}, {path}, was answered {answer.status}: {answer.text[:200]}"

    def push(self, word: str) -> None:
        """Push a commit to each repository, all at the same time."""

        def push(kind: str, name: str) -> None:
            self.client.commit(kind, f"out-{name}", word)
            self.client.push(kind, f"out-{name}", self.client.url(name))

        with ThreadPoolExecutor() as executor:
            list(executor.map(push, KINDS, self.repositories))

    def clone(self, word: str, hostname: str = "") -> None:
        """Clone each repository, all at the same time, and find what was pushed last."""

        def clone(kind: str, name: str) -> None:
            cloned = self.client.clone(kind, self.client.url(name, hostname), f"in-{name}")
            assert cloned.splitlines()[-1:] == [word], f"the clone of {name} ends with {cloned[-100:]!r} instead of {word}"

        with ThreadPoolExecutor() as executor:
            list(executor.map(clone, KINDS, self.repositories))

    def clone_as_bot(self, word: str) -> None:
        """Clone by the name for bots."""
        self.clone(word, self.settings.ci_hostname)

    def go_on(self, word: str, pages: int = 10) -> None:
        """Look, push, and clone as a person and as a bot."""
        self.look(pages)
        self.push(word)
        self.clone(word)
        self.clone_as_bot(word)
