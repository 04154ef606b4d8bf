"""One pool, one queue: a request a process, as many processes at work as there are requests, and no pool takes another's."""

from __future__ import annotations

import time
from functools import partial

from machines import Machine, wait_until
from pools import Pools
from scm import SLOW_RATE, Client
from settings import Settings
from web import Site

# A clone stays on for this long, and the pages are looked at; raise it for a longer look.
BUSY_SECONDS = 12.0
PAGE_SECONDS = 5.0
UNIT_SECONDS = 150.0


def test_processes_by_name(pools: Pools, settings: Settings) -> None:
    """Every pool has as many processes as the inventory says, each with its pool's name."""
    for pool, wanted in settings.pools.items():
        found = pools.processes(pool)
        assert len(found) == wanted["processes"], f"pool {pool} has the processes {found}"


def test_one_request_a_process(client: Client, pools: Pools, settings: Settings, heavy_repository: tuple[str, float]) -> None:
    """With one, two, … clones as many processes work, each on one; the one too many waits in the balancer and is served afterwards."""
    processes = settings.pools["scm"]["processes"]
    repository = heavy_repository[0]
    client.clear_slow_clones(processes + 1)
    try:
        for number in range(processes):
            client.slow_clone(number, repository, SLOW_RATE, UNIT_SECONDS)
            wait_until(f"{number + 1} processes at work", partial(pools.are_at_work, "scm", number + 1))
        client.slow_clone(processes, repository, SLOW_RATE, UNIT_SECONDS)
        time.sleep(2)
        working = pools.at_work("scm")
        assert len(working) == processes and set(working.values()) == {1}, f"git commands of each process: {working}"
        client.machine.stop("slow-clone-0")
        # The freed process goes to the clone that waited.
        wait_until("all processes at work again", lambda: sorted(pools.at_work("scm").values()) == [1] * processes)
        assert not pools.at_work("ui") and not pools.at_work("ci") and not pools.at_work("write")
    finally:
        client.clear_slow_clones(processes + 1)
    wait_until("no process at work", lambda: not pools.at_work("scm"))


def test_clone_storm_takes_no_page(client: Client, node: Machine, pools: Pools, settings: Settings, site: Site, heavy_repository: tuple[str, float]) -> None:
    """While clones hold every process of their pool, pages come in time, bots clone and people push, and the host stays in."""
    repository, _ = heavy_repository
    processes = settings.pools["scm"]["processes"]
    before = node.run("systemctl show -p NRestarts,ActiveEnterTimestampMonotonic kallithea-web")
    slowest = 0.0
    pages = 0
    begin = time.time()
    with client.slow_clones(repository, processes + 1, UNIT_SECONDS):
        wait_until("all processes at work", lambda: len(pools.at_work("scm")) == processes)
        client.run(f"git ls-remote {client.url(repository, settings.ci_hostname)}", seconds=PAGE_SECONDS)
        client.commit_git("storm", "storm")
        client.run(f"cd storm && git push -q {client.url(repository)} HEAD:refs/heads/storm", seconds=20)
        end = time.monotonic() + BUSY_SECONDS
        while time.monotonic() < end:
            asked = time.monotonic()
            page = site.get(f"/{repository}" if pages % 2 else "/_admin/my_account")
            assert page.status == 200, f"page {pages} was answered {page.status}: {page.text[:200]}"
            slowest = max(slowest, time.monotonic() - asked)
            pages += 1
            time.sleep(0.2)
        assert len(pools.at_work("scm")) == processes, "the clones ended too early to prove anything"
    assert pages > BUSY_SECONDS / 2
    assert slowest < PAGE_SECONDS
    assert node.run("systemctl show -p NRestarts,ActiveEnterTimestampMonotonic kallithea-web") == before
    down = node.try_run(f"journalctl --quiet --since=@{begin:.0f} --unit=haproxy | grep -E 'is DOWN|has no server available'")
    assert not down.output, f"the balancer took a server out: {down.output}"
