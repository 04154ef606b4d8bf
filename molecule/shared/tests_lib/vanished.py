"""A client that vanishes in the middle of a clone: no packet of it comes any more, so that the balancer has to notice by itself."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from machines import Machine, wait_until
from scm import SLOW_RATE, Client

# The balancer's tcp-ut is a minute; the kernel counts it by its own retransmissions.
NOTICED_SECONDS = 90
DROPPED = "inet test_vanished"


@dataclass(frozen=True)
class Vanished:
    """When it vanished, by time.time(), and its port."""

    when: float
    port: str


def fullest_connection(node: Machine, address: str) -> str:
    """Return the client's port of the connection with most bytes on the way to an address, if any is full."""
    lines = node.run(f"ss -Htn state established dst {address} sport = :443").splitlines()
    full = sorted((int(sent), peer.rpartition(":")[2]) for _, sent, _, peer in map(str.split, lines) if int(sent))
    return full[-1][1] if full else ""


@contextmanager
def vanished_client(node: Machine, client: Client, address: str, repository: str) -> Iterator[Vanished]:
    """Drop what comes from a client that clones, until the block ends; all its other connections go on."""
    client.clear_slow_clones(1)
    try:
        client.slow_clone(0, repository, SLOW_RATE, 2 * NOTICED_SECONDS)
        port = wait_until("the clone on its way", lambda: fullest_connection(node, address), 20)
        when = time.time()
        node.run(f"nft add table {DROPPED}; nft 'add chain {DROPPED} input {{ type filter hook input priority -300; }}'")
        node.run(f"nft add rule {DROPPED} input ip saddr {address} tcp sport {port} drop")
        client.clear_slow_clones(1)
        yield Vanished(when, port)
    finally:
        node.try_run(f"nft delete table {DROPPED}")
        client.clear_slow_clones(1)
