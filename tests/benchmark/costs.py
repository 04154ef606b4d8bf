"""What one operation costs each tier's processor: the figures that docs/sizing.md computes with."""

from __future__ import annotations

import contextlib
import math
import shutil
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

from client import Git
from content import Content
from figures import Figure
from hosts import Hosts, cpu_seconds

# Operations of each kind in a run; the slow ones cost enough to be seen.
PAGES, QUESTIONS, TRANSFERS = 30, 10, 4
IDLE_SECONDS = 10
TIERS = ("app", "loadbalancer", "database")
Result = TypeVar("Result")


class Meter:
    """Reads the processor time of the first host of each tier, less what it uses by itself: checks, timers, its own services."""

    def __init__(self, hosts: Hosts) -> None:
        """Measure what the hosts use while nobody asks them."""
        self.hosts = {tier: hosts.of(tier)[0] for tier in TIERS}
        self.read = hosts.use
        before, begin = self.seconds(), time.monotonic()
        time.sleep(IDLE_SECONDS)
        self.idle = {tier: (now - before[tier]) / (time.monotonic() - begin) for tier, now in self.seconds().items()}

    def seconds(self) -> dict[str, float]:
        """Return what each host has used so far."""
        return {tier: cpu_seconds(self.read(host)) for tier, host in self.hosts.items()}

    def cost(self, count: int, do: Callable[[int], object]) -> dict[str, float]:
        """Return the milliseconds that one of so many operations cost each tier."""
        do(-1)
        return self.weigh(count, do)[1]

    def weigh(self, count: int, do: Callable[[int], Result], limit: float = math.inf) -> tuple[list[Result], dict[str, float]]:
        """Return what so many operations said, or as many of them as began within the limit, and the milliseconds that one cost each tier."""
        results: list[Result] = []
        before, begin = self.seconds(), time.monotonic()
        while len(results) < count and (not results or time.monotonic() - begin < limit):
            results.append(do(len(results)))
        taken = time.monotonic() - begin
        return results, {tier: max(0.0, (now - before[tier] - self.idle[tier] * taken) / len(results) * 1000) for tier, now in self.seconds().items()}


class Work:
    """The operations, done by real clients one after the other."""

    def __init__(self, content: Content, git: Git, url: str) -> None:
        """Remember whom they ask."""
        self.content, self.git, self.url = content, git, url

    def page(self, path: str) -> None:
        """Look at a page."""
        self.content.admin.page(path)

    @contextlib.contextmanager
    def copy(self) -> Iterator[str]:
        """Have a folder's name for a copy, and remove what comes to stand there."""
        yield "cost-copy"
        shutil.rmtree(self.content.folder / "cost-copy", ignore_errors=True)

    def git_clone(self, _: int) -> None:
        """Clone without a working copy."""
        with self.copy() as folder:
            self.git.run("clone", "-q", "--bare", f"{self.url}/{self.content.git}", folder)

    def git_push(self, number: int) -> None:
        """Push one small commit to a branch of its own."""
        name = ("-c", "user.name=Bench", "-c", "user.email=bench@localhost")
        commit = ["git", "-C", "source", *name, "commit-tree", "-p", "master", "-m", f"cost {number} {time.monotonic_ns()}", "master^{tree}"]
        done = subprocess.run(commit, cwd=self.content.folder, env=self.git.environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True)
        made = done.stdout.strip()
        self.git.run("-C", "source", "push", "-q", f"{self.url}/{self.content.git}", f"{made}:refs/heads/cost-{made[:12]}")

    def hg_clone(self, _: int) -> None:
        """Clone without a working copy."""
        with self.copy() as folder:
            self.content.mercurial.run("clone", "-q", "--noupdate", f"{self.url}/{self.content.hg}", str(self.content.folder / folder))

    def all(self) -> dict[str, tuple[int, Callable[[int], object]]]:
        """Return the operations by name, each with how often it is done in a run."""
        git, hg = f"{self.url}/{self.content.git}", f"{self.url}/{self.content.hg}"
        return {
            "repository page, git": (PAGES, lambda _: self.page(f"/{self.content.git}")),
            "changelog": (PAGES, lambda _: self.page(f"/{self.content.git}/changelog")),
            "git ls-remote": (QUESTIONS, lambda _: self.git.run("ls-remote", "-q", git)),
            "git clone of 20 MB": (TRANSFERS, self.git_clone),
            "git push": (TRANSFERS, self.git_push),
            "hg identify": (QUESTIONS, lambda _: self.content.mercurial.run("identify", hg)),
            "hg clone": (TRANSFERS, self.hg_clone),
        }


def measure(hosts: Hosts, work: Work, rounds: int, say: Callable[[str], None]) -> list[Figure]:
    """Return the processor time of each operation on the application host, and beside it what the balancer and the database spent."""
    meter = Meter(hosts)
    found: dict[str, list[dict[str, float]]] = {}
    for number in range(rounds):
        for name, (count, do) in work.all().items():
            say(f"{name}, run {number + 1} of {rounds}")
            found.setdefault(name, []).append(meter.cost(count, do))
    figures = []
    for name, runs in found.items():
        beside = ", ".join(f"{tier} {statistics.median(run[tier] for run in runs):.1f}" for tier in TIERS[1:])
        figures.append(Figure(f"{name} (beside it: {beside} ms)", "ms", [run["app"] for run in runs]))
    return figures
