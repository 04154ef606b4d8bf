"""The drill on NFS: read at once what was pushed, two pushes at the same moment, a storage that restarts, is cut off, is full; a writer that vanishes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import Any

import faults
import pytest
from balancer import Balancer
from drills import IS_LONG, ON_MACHINES, Drills, size
from faults import Users
from machines import Machine, quote, wait_until
from repositories import Make
from scm import Client
from settings import Settings
from web import Site

SIZE = size(ON_MACHINES)
DRILL_SECONDS = 300.0
# The default grace time, and what the promise adds to it.
GRACE_SECONDS = 15.0
BACK_SECONDS = GRACE_SECONDS + 10.0
CUT_SECONDS = 30.0
PAGE_SECONDS = 5.0
# No push can be acknowledged for so long.
FELT_SECONDS = {"power cut": 5.0, "cut off": CUT_SECONDS - 5.0}
FILL = "/srv/test-fill"


def check_nothing_lost(report: dict[str, Any]) -> None:
    """What was acknowledged is in clones through every node and on the storage, and nothing is damaged."""
    assert (report["lost"], report["damage"], report["faults"]) == ([], [], [])
    assert "storage" in report["places"]


def test_push_is_read_at_once(drills: Drills) -> None:
    """Drill 1: whichever node is asked, although each host remembers for itself what it has seen of the storage."""
    report = drills.push(SIZE)
    check_nothing_lost(report)
    assert (report["acknowledged"], report["unknown"], report["refused"], report["failed"]) == (SIZE.pushes, 0, 0, 0), report["reasons"]
    assert (report["questions_failed"], report["pages_failed"]) == (0, 0)
    assert report["pages"] > 0
    assert report["places"] == ["balancer", *drills.settings.groups["app"], "storage"]


def test_exactly_one_of_two_wins(drills: Drills) -> None:
    """Drill 2: by every way there is, git and hg in turns."""
    ways = drills.ways()
    report = drills.race(ways, SIZE.rounds)
    check_nothing_lost(report)
    counts = {way: (count["rounds"], count["decided"]) for way, count in report["races"].items()}
    assert counts == dict.fromkeys(ways, (SIZE.rounds, SIZE.rounds)), report["reasons"]


def test_exactly_one_of_two_wins_while_the_repository_is_maintained(drills: Drills, machines: dict[str, Machine]) -> None:
    """Drill 2 again, by one way: the maintenance on one host excludes the writers on all of them."""
    drills.check_race_while_maintained(machines[drills.settings.groups["app"][1]], drills.ways()[1:2], SIZE.rounds, "git")


def pages_back(site: Site, name: str, seconds: float) -> float:
    """Return how long it took until a repository's page, which reads the storage, comes."""

    def comes() -> bool:
        # Who asked a host that was still without its storage asks again.
        with suppress(TimeoutError):
            return site.get(f"/{name}", seconds=PAGE_SECONDS).status == 200
        print(f"a page was not there in {PAGE_SECONDS:.0f} s")
        return False

    begin = time.monotonic()
    wait_until("pages back", comes, seconds, 0.5)
    took = time.monotonic() - begin
    # The last answer may have been waited for.
    assert took <= seconds, f"pages were back after {took:.0f} s instead of {seconds:.0f}"
    return took


@pytest.mark.parametrize("fault", ["power cut", "cut off"])
def test_storage_away_for_a_while(
    fault: str, machines: dict[str, Machine], drills: Drills, settings: Settings, site: Site, client: Client, balancer: Balancer, make_repository: Make
) -> None:
    """Drill 3: everything waits or fails cleanly, no acknowledged push is lost, and pages are back soon without a hand."""
    users = Users(site, client, settings, make_repository)
    users.push(f"before-{fault.split()[0]}")
    store = machines[settings.groups["storage"][0]]
    with ThreadPoolExecutor(1) as executor:
        drill = executor.submit(drills.run, "run", "--for=45", "--pushers=2", "--repositories=3", "--kinds=git,hg", "--timeout=40", seconds=DRILL_SECONDS)
        drills.wait_for_pushes(2)
        drills.mark(fault)
        if fault == "cut off":
            with store.cut_off([settings.addresses[host] for host in settings.groups["app"]]):
                time.sleep(CUT_SECONDS)
        else:
            store.reset()
        drills.mark("the storage is there again")
        took = pages_back(site, users.repositories[0], BACK_SECONDS)
        report = drill.result()
    print(f"{fault}: pages back {took:.0f} s after the storage")
    check_nothing_lost(report)
    # A bare error 500 is no clean failure.
    assert not [reason for reason in report["reasons"] if " 500" in reason], report["reasons"]
    assert report["longest_gap"]["push"] > FELT_SECONDS[fault], f"the fault was not felt: {report['longest_gap']}"
    wait_until("every server up", balancer.all_up, faults.RETURN_SECONDS)
    for host in settings.groups["app"]:
        assert site.get(f"/{users.repositories[0]}", port=settings.pools["ui"]["port"], node=host).status == 200, f"no page from {host} itself"
    users.go_on(f"after-{fault.split()[0]}", 4)


@contextmanager
def full(store: Machine, balancer: Balancer) -> Iterator[None]:
    """Take all of the storage's space to the last byte; wait until the balancer knows, and afterwards until it has forgotten."""

    def writers() -> set[str]:
        return {status.split()[0] for (backend, _), status in balancer.statuses().items() if backend == "be_write"}

    # What is reserved for root too; the rest is written, since no file can be told the size that fits.
    store.run(f"fallocate -l $(( $(stat -f -c '%f * %S' /srv) * 98 / 100 )) {FILL}")
    store.run(f"dd if=/dev/zero of={FILL} bs=64k oflag=append conv=notrunc 2>/dev/null || :; sync")
    assert store.run("stat -f -c %a /srv").strip() == "0"
    try:
        wait_until("no node takes pushes", lambda: writers() == {"DOWN"}, faults.LEAVE_SECONDS)
        yield
    finally:
        store.run(f"rm {FILL}")
    wait_until("every server up", balancer.all_up, faults.RETURN_SECONDS)


def test_storage_full(machines: dict[str, Machine], settings: Settings, site: Site, client: Client, balancer: Balancer, make_repository: Make) -> None:
    """Drill 4: who pushes reads why it is refused, clones and pages go on, and all heals when space returns."""
    users = Users(site, client, settings, make_repository)
    users.push("before-full")
    git, hg = users.repositories[0], users.repositories[-1]
    with full(machines[settings.groups["storage"][0]], balancer):
        client.commit("git", f"out-{git}", "full")
        client.commit("hg", f"out-{hg}", "full")
        for push in (f"git -C out-{git} push {client.url(git)} master", f"hg -R out-{hg} push {client.url(hg)}"):
            said = client.run(f"{push} 2>&1 && exit 1 || true")
            assert "storage is writable: less than 5% of the space is free" in said, said
        users.look(4)
        stranger = Site(settings)
        assert [stranger.get("/_admin/login").status for _ in range(3)] == [200] * 3
        users.clone("before-full")
    users.push("after-full")
    users.clone("after-full")


# How long Mercurial waits for a lock (ui.timeout in safety-08-mercurial-lock.patch).
HG_WAIT_SECONDS = 30.0
# Take Mercurial's lock and git's lock of a branch as their own programs do in the middle of a write, and stay there.
HOLD_HG = "import sys, time; from mercurial import hg, ui; lock = hg.repository(ui.ui.load(), sys.argv[1].encode()).lock(); time.sleep(600)"
HOLD_GIT = "(printf 'start\\nupdate refs/heads/master {new} {old}\\nprepare\\n'; sleep 600) | git -C {path} update-ref --stdin"


@contextmanager
def vanished(host: Machine, how: str, others: list[str]) -> Iterator[None]:
    """Let a host lose its power or its network; writers that come back with the network are ended, since they hold their locks still."""
    if how == "power cut":
        host.power_off()
        try:
            yield
        finally:
            host.power_on()
        return
    with host.cut_off(others):
        yield
    host.stop("hold-git", "hold-hg")


@pytest.mark.parametrize("how", ["network cut", *(["power cut"] if IS_LONG else [])])
def test_writer_that_vanishes(
    how: str, machines: dict[str, Machine], settings: Settings, site: Site, client: Client, balancer: Balancer, make_repository: Make
) -> None:
    """Drill 6: the locks of a host that is gone stay; others go on in all other repositories, and in that one read who holds it."""
    users = Users(site, client, settings, make_repository)
    users.push("before-vanishing")
    client.run("rm -rf locked-git locked-hg locked-git-in locked-hg-in")
    git, hg = (make_repository(kind, f"locked-{kind}-{how.split()[0]}") for kind in ("git", "hg"))
    client.commit("git", "locked-git", "first")
    client.push("git", "locked-git", client.url(git))
    client.commit("hg", "locked-hg", "first")
    client.push("hg", "locked-hg", client.url(hg))
    host = machines[settings.groups["app"][1]]
    path = f"{settings.repositories}/{git}"
    as_user = "cd / && exec runuser -u kallithea -- "
    head = host.run(f"{as_user} git -C {path} rev-parse master").strip()
    new = host.run(f"{as_user} git -C {path} -c user.name=Test -c user.email=test@localhost commit-tree -p {head} -m new {head}^{{tree}}").strip()
    host.start("hold-git", f"{as_user} bash -c {quote(HOLD_GIT.format(new=new, old=head, path=path))}", 600)
    host.start("hold-hg", f"{as_user} /opt/kallithea/current/bin/python3 -c {quote(HOLD_HG)} {settings.repositories}/{hg}", 600)
    locks = (f"{path}/refs/heads/master.lock", f"{settings.repositories}/{hg}/.hg/store/lock")
    wait_until("both locks held", lambda: host.try_run(f"{as_user} sh -c 'test -e {locks[0]} && test -L {locks[1]}'").status == 0, 30)
    host_name, holder = host.run("uname -n").strip(), host.run(f"{as_user} readlink {locks[1]}").strip().rpartition(":")[2]
    client.commit("git", "locked-git", "second")
    client.commit("hg", "locked-hg", "second")
    with vanished(host, how, [address for name, address in settings.addresses.items() if name != host.name]):
        time.sleep(faults.LEAVE_SECONDS)
        users.go_on(f"while-vanished-{how.split()[0]}", 4)
        said = client.run(f"git -C locked-git push {client.url(git)} master 2>&1 && exit 1 || true")
        assert "cannot lock ref" in said or "failed to update ref" in said, said
        begin = time.monotonic()
        said = client.run(f"hg -R locked-hg push {client.url(hg)} 2>&1 && exit 1 || true")
        took = time.monotonic() - begin
        assert f"The repository is locked by process {holder} on {host_name}, which did not end in time." in said, said
        assert took < HG_WAIT_SECONDS + 15, f"the push to a locked repository ended after {took:.0f} s"
        assert site.get(f"/{git}").status == 200 and site.get(f"/{hg}").status == 200
        assert client.clone("git", client.url(git), "locked-git-in").strip() == "first"
        assert client.clone("hg", client.url(hg), "locked-hg-in").strip() == "first"
    wait_until("every server up", balancer.all_up, faults.RETURN_SECONDS)
    # Until the verb that does it comes: by hand, once nobody writes there any more. Whoever writes to the branch that HEAD names locks HEAD too.
    host.run(f"{as_user} rm -f {' '.join(locks)} {path}/HEAD.lock")
    for kind, name in (("git", git), ("hg", hg)):
        client.push(kind, f"locked-{kind}", client.url(name))
