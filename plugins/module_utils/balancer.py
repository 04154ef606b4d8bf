# Copyright: The kallithea.cluster maintainers
# GPL-3.0-or-later (see LICENSE)
"""HAProxy's run-time socket: take a node out of its backends, wait until it is idle, put it back."""

from __future__ import annotations

import csv
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass

PREFIX = "be_"
# Requests of these pools may last hours; the others' last seconds, so they are held later and shorter.
STREAMS = ("scm", "write", "ci")
# Bits of srv_admin_state that an operator sets: forced maintenance, forced drain.
FORCED_MAINTENANCE = 0x01
FORCED_DRAIN = 0x08
RUNNING = 2


class BalancerError(Exception):
    """What is wrong, in one sentence."""


@dataclass(frozen=True)
class Server:
    """A server of a backend as HAProxy sees it."""

    backend: str
    name: str
    running: bool
    drained: bool

    @property
    def usable(self) -> bool:
        """Tell whether it takes new requests."""
        return self.running and not self.drained


def parse_state(text: str) -> list[Server]:
    """Return the servers in the answer to «show servers state»."""
    lines = text.splitlines()
    header = next((line[1:].split() for line in lines if line.startswith("# ")), [])
    servers = []
    for line in lines:
        fields = dict(zip(header, line.split(), strict=False))
        if not fields.get("be_name", "").startswith(PREFIX) or line.startswith("#"):
            continue
        admin = int(fields["srv_admin_state"])
        servers.append(
            Server(
                backend=fields["be_name"],
                name=fields["srv_name"],
                running=int(fields["srv_op_state"]) == RUNNING,
                drained=bool(admin & (FORCED_DRAIN | FORCED_MAINTENANCE)),
            )
        )
    return servers


def parse_sessions(text: str) -> dict[tuple[str, str], int]:
    """Return running and waiting requests of each backend and server in the answer to «show stat»."""
    rows = csv.DictReader(text.lstrip("# ").splitlines())
    result = {}
    for row in rows:
        if (row.get("pxname") or "").startswith(PREFIX):
            queued = int(row["qcur"] or 0)
            result[row["pxname"], row["svname"]] = queued if row["svname"] == "BACKEND" else int(row["scur"] or 0) + queued
    return result


@dataclass(frozen=True)
class Plan:
    """What a drain does: backends where others take over, and pools whose new requests are held since nobody can."""

    drain: tuple[str, ...]
    hold: tuple[str, ...]


def plan(servers: list[Server], node: str) -> Plan:
    """Return for each backend that has the node whether it is drained or its pool is held."""
    drain, hold = [], []
    for backend in dict.fromkeys(server.backend for server in servers if server.name == node):
        deputies = [server for server in servers if server.backend == backend and server.name != node and server.usable]
        if deputies:
            drain.append(backend)
        else:
            hold.append(backend[len(PREFIX) :])
    return Plan(tuple(drain), tuple(hold))


def ask_socket(path: str) -> Callable[[str], str]:
    """Return a function that sends a command to HAProxy's socket and returns its answer."""

    def ask(command: str) -> str:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(10)
            connection.connect(path)
            connection.sendall(command.encode() + b"\n")
            chunks: list[bytes] = []
            while True:
                chunk = connection.recv(65536)
                if not chunk:
                    return b"".join(chunks).decode()
                chunks.append(chunk)

    return ask


class Balancer:
    """One HAProxy."""

    def __init__(self, ask: Callable[[str], str], hold_map: str, clock: Callable[[], float] = time.time, sleep: Callable[[float], None] = time.sleep) -> None:
        self.ask = ask
        self.hold_map = hold_map
        self.clock = clock
        self.sleep = sleep

    def servers(self) -> list[Server]:
        """Return all servers."""
        return parse_state(self.ask("show servers state"))

    def command(self, command: str) -> None:
        """Send a command that answers nothing where it works."""
        answer = self.ask(command).strip()
        if answer:
            raise BalancerError(f"HAProxy refused '{command}': {answer}")

    def held(self) -> dict[str, int]:
        """Return the pools that are held, each with the moment at which that ends by itself."""
        fields = [line.split() for line in self.ask(f"show map {self.hold_map}").splitlines()]
        moments = {entry[1]: int(entry[2]) for entry in fields if len(entry) == 3 and entry[2].isdigit()}
        return {pool: moment for pool, moment in moments.items() if moment > self.clock()}

    def hold(self, pools: list[str], seconds: int) -> bool:
        """Hold new requests of the pools; tell whether one was not held before."""
        held = self.held()
        present = {line.split()[1] for line in self.ask(f"show map {self.hold_map}").splitlines() if len(line.split()) == 3}
        for pool in pools:
            verb = "set" if pool in present else "add"
            self.command(f"{verb} map {self.hold_map} {pool} {int(self.clock()) + seconds}")
        return any(pool not in held for pool in pools)

    def release(self, pools: list[str]) -> bool:
        """Let held requests go on; tell whether there was a hold."""
        present = {line.split()[1] for line in self.ask(f"show map {self.hold_map}").splitlines() if len(line.split()) == 3}
        for pool in pools:
            if pool in present:
                self.command(f"del map {self.hold_map} {pool}")
        return any(pool in present for pool in pools)

    def running(self, node: str, backends: list[str], with_queue: list[str]) -> int:
        """Return the requests that the node works on, and those that wait in queues that only it empties."""
        sessions = parse_sessions(self.ask("show stat"))
        own = sum(count for (backend, server), count in sessions.items() if server == node and backend in backends)
        return own + sum(sessions.get((backend, "BACKEND"), 0) for backend in with_queue)

    def wait_idle(self, node: str, backends: list[str], with_queue: list[str], until: float) -> int:
        """Wait until the node works on nothing; return what is left when the time is over."""
        calm = 0
        while True:
            count = self.running(node, backends, with_queue)
            calm = calm + 1 if count == 0 else 0
            # Twice: a request may be between its verdict and the queue.
            if calm == 2 or (count and self.clock() >= until):
                return count
            self.sleep(0.2)

    def drain(self, node: str, timeout: int, hold_seconds: int) -> dict[str, object]:
        """Take the node out and wait until it is idle; what is still running when the time is over is cut."""
        servers = self.servers()
        wanted = plan(servers, node)
        until = self.clock() + timeout
        changed = False
        for backend in wanted.drain:
            if not next(server for server in servers if server.backend == backend and server.name == node).drained:
                self.command(f"set server {backend}/{node} state drain")
                changed = True
        streams = [pool for pool in wanted.hold if pool in STREAMS]
        pages = [pool for pool in wanted.hold if pool not in STREAMS]
        # A hold ends by itself, so that nobody waits for ever where this run dies.
        life = timeout + hold_seconds
        changed = self.hold(streams, life) or changed
        backends = [*wanted.drain, *(PREFIX + pool for pool in streams)]
        left = self.wait_idle(node, backends, [PREFIX + pool for pool in streams], until) if backends else 0
        if pages:
            changed = self.hold(pages, life) or changed
            names = [PREFIX + pool for pool in pages]
            left += self.wait_idle(node, names, names, max(until, self.clock() + 10))
        # From now on only the restart has to be waited for: where this run dies, requests wait no longer than that.
        self.hold(list(wanted.hold), hold_seconds)
        if left:
            for backend in (*wanted.drain, *(PREFIX + pool for pool in wanted.hold)):
                self.command(f"shutdown sessions server {backend}/{node}")
        return {"changed": changed, "drained": list(wanted.drain), "held": list(wanted.hold), "cut": left}

    def undrain(self, node: str, timeout: int) -> dict[str, object]:
        """Wait until the node's checks pass, then let it take requests again and release the held ones."""
        until = self.clock() + timeout
        calm = 0
        while True:
            own = [server for server in self.servers() if server.name == node]
            # A check that fails now shows only after a second or two.
            calm = calm + 1 if all(server.running for server in own) else 0
            if calm >= 5:
                break
            if calm == 0 and self.clock() >= until:
                away = ", ".join(server.backend for server in own if not server.running)
                raise BalancerError(
                    f"{node} did not pass the balancer's checks within {timeout} s ({away}): see what its health service says, "
                    "then run the playbook again; held requests are answered 503 by then."
                )
            self.sleep(0.3)
        changed = False
        for server in own:
            if server.drained:
                self.command(f"set server {server.backend}/{node} state ready")
                changed = True
        changed = self.release([server.backend[len(PREFIX) :] for server in own]) or changed
        return {"changed": changed, "drained": [], "held": [], "cut": 0}
