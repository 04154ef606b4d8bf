"""What NFS costs: pushes, clones and pages of one application host on the mount, and on a copy of it on the host's own disk, in one run.

A program starts slowly on a machine, the same for both, so what counts is the difference.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from balancer import Balancer
from machines import Machine, wait_until
from mounts import UNITS, health
from repositories import Make
from scm import Client
from settings import Settings
from web import Site

ROUNDS = 3
MEGABYTES = 20
OWN_DISK = "/var/tmp/test-own-disk"
READY_SECONDS = 120.0
# A host's application on its own disk instead of the network's may not be slower by more than this.
MOST_TIMES = 2.0


@contextmanager
def own_disk(host: Machine, settings: Settings) -> Iterator[None]:
    """Let a host work with a copy on its own disk, in the same place, and with the storage again afterwards."""

    def ready() -> bool:
        return health(host).startswith("200 ")

    host.run("systemctl stop kallithea-storage.timer")
    try:
        # The file server shows root nothing.
        host.run(f"install -d -o kallithea -g kallithea {OWN_DISK} && cd / && runuser -u kallithea -- cp -a {settings.storage}/. {OWN_DISK}", seconds=120)
        host.run(f"umount {settings.storage}; mount --bind {OWN_DISK} {settings.storage}; systemctl start {' '.join(UNITS)}", seconds=120)
        wait_until("the application on its own disk", ready, READY_SECONDS)
        yield
    finally:
        host.run(f"systemctl stop {' '.join(UNITS)}; umount {settings.storage}; rm -rf {OWN_DISK}; systemctl start kallithea-storage.timer", seconds=120)
    wait_until("the application on the storage", ready, READY_SECONDS)


def median(rounds: int, do: Callable[[], object]) -> float:
    """Return the median of so many times in seconds; the first is not counted."""
    times = []
    for _ in range(rounds + 1):
        begin = time.monotonic()
        do()
        times.append(time.monotonic() - begin)
    return statistics.median(times[1:])


def measure(node: str, client: Client, site: Site, settings: Settings, names: dict[str, str], word: str) -> dict[str, float]:
    """Push, clone and look straight at a node's pools; return medians in seconds."""
    found: dict[str, float] = {}
    for kind, name in names.items():
        write, read = client.url(name, node=node, pool="write"), client.url(name, node=node, pool="scm")
        folder = f"figures-{word}-{kind}"
        client.run(f"{kind} clone -q {read} {folder}")

        def push(kind: str = kind, folder: str = folder, write: str = write) -> None:
            client.commit(kind, folder, f"{word}-{time.monotonic_ns()}")
            client.push(kind, folder, write)

        found[f"{kind} push"] = median(ROUNDS, push)
        found[f"{kind} clone of {MEGABYTES} MB"] = median(ROUNDS, lambda kind=kind, read=read: client.run(f"rm -rf in && {kind} clone -q {read} in"))
        port = settings.host_pools[node]["ui"]["port"]
        found[f"{kind} page"] = median(4 * ROUNDS, lambda name=name, port=port: site.get(f"/{name}", port=port, node=node))
    return found


def test_what_nfs_costs(machines: dict[str, Machine], settings: Settings, client: Client, site: Site, balancer: Balancer, make_repository: Make) -> None:
    """The same repositories, the same host, first on NFS."""
    node = settings.groups["app"][1]
    names = {kind: make_repository(kind, f"figures-{kind}") for kind in ("git", "hg")}
    for kind, name in names.items():
        folder = f"figures-{kind}"
        client.commit(kind, folder, "first")
        client.run(f"cd {folder} && head -c {MEGABYTES}M /dev/urandom > big && {kind} add big")
        client.commit(kind, folder, "big")
        client.push(kind, folder, client.url(name))
    on_nfs = measure(node, client, site, settings, names, "nfs")
    with own_disk(machines[node], settings):
        on_disk = measure(node, client, site, settings, names, "disk")
    wait_until("every server up", balancer.all_up, READY_SECONDS)
    for what, seconds in on_nfs.items():
        print(f"{what}: {seconds:.3f} s on NFS, {on_disk[what]:.3f} s on the host's own disk: {seconds / on_disk[what]:.2f} times")
    slow = {what: seconds / on_disk[what] for what, seconds in on_nfs.items() if seconds > MOST_TIMES * on_disk[what]}
    assert not slow, f"on NFS more than {MOST_TIMES} times slower: {slow}"
