"""A balancer from outside: what it wrote down of each request, and what it thinks of its servers."""

from __future__ import annotations

import csv

from machines import Machine, quote

ASK = """
import socket, sys
with socket.socket(socket.AF_UNIX) as connection:
    connection.settimeout(10)
    connection.connect("/run/haproxy/admin.sock")
    connection.sendall(sys.argv[1].encode() + b"\\n")
    print(b"".join(iter(lambda: connection.recv(65536), b"")).decode(), end="")
"""


class Balancer:
    """HAProxy on a host."""

    def __init__(self, machine: Machine) -> None:
        """Remember the host."""
        self.machine = machine

    def ask(self, command: str) -> str:
        """Send a command to HAProxy's socket and return its answer."""
        return self.machine.run(f"python3 -c {quote(ASK)} {quote(command)}")

    def statuses(self) -> dict[tuple[str, str], str]:
        """Return the status of each backend's servers, such as UP, DOWN, DRAIN, MAINT."""
        rows = csv.DictReader(self.ask("show stat").lstrip("# ").splitlines())
        return {(row["pxname"], row["svname"]): row["status"] for row in rows if row["svname"] not in ("FRONTEND", "BACKEND")}

    def failed_checks(self) -> dict[tuple[str, str], int]:
        """Return how often each server has been taken out since the balancer's start."""
        rows = csv.DictReader(self.ask("show stat").lstrip("# ").splitlines())
        return {(row["pxname"], row["svname"]): int(row["chkdown"]) for row in rows if row["chkdown"]}

    def all_up(self) -> bool:
        """Tell whether every server takes requests."""
        statuses = self.statuses()
        return bool(statuses) and all(status in ("UP", "no check") for status in statuses.values())

    def log(self, since: float) -> list[dict[str, str]]:
        """Return the requests that ended since a moment of time.time(), each as the keys and values of its line."""
        text = self.machine.run(f"journalctl --sync; journalctl --quiet --no-pager --output=cat --unit=haproxy --since=@{since:.3f}")
        return [dict(word.split("=", 1) for word in line.split() if "=" in word) for line in text.splitlines() if line.startswith("client=")]
