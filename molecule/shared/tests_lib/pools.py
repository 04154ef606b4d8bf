"""The application's processes as the host's own process table shows them."""

from __future__ import annotations

from dataclasses import dataclass

from machines import Machine
from settings import Settings


@dataclass(frozen=True)
class Process:
    """One process."""

    pid: int
    parent: int
    kib: int
    command: str


class Pools:
    """Looks at the pools of a host from outside the application."""

    def __init__(self, node: Machine, settings: Settings) -> None:
        """Remember the host."""
        self.node = node
        self.settings = settings

    def table(self) -> list[Process]:
        """Return all processes."""
        lines = self.node.run("ps -e -o pid= -o ppid= -o rss= -o args= --width 400").splitlines()
        return [Process(int(pid), int(parent), int(kib), command) for pid, parent, kib, command in (line.split(None, 3) for line in lines)]

    def processes(self, pool: str) -> list[Process]:
        """Return a pool's processes, known by their name."""
        return [process for process in self.table() if process.command.split(" ")[0].strip("()") == f"kallithea-{pool}"]

    def at_work(self, pool: str) -> dict[int, int]:
        """Return how many git commands each of a pool's processes runs, without the idle ones."""
        table = self.table()
        pids = {process.pid for process in table if process.command.split(" ")[0].strip("()") == f"kallithea-{pool}"}
        working: dict[int, int] = {}
        for process in table:
            if process.parent in pids and "upload-pack" in process.command:
                working[process.parent] = working.get(process.parent, 0) + 1
        return working

    def are_at_work(self, pool: str, count: int) -> bool:
        """Tell whether just so many of a pool's processes run git commands."""
        return len(self.at_work(pool)) == count
