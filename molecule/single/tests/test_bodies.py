"""Large bodies that nobody wants cost no memory: neither the balancer's nor Apache's nor the application's; one whose client vanished costs no process."""

from __future__ import annotations

import http.client
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from balancer import Balancer
from machines import Machine, wait_until
from repositories import Make
from scm import SLOW_RATE, Client, curl
from settings import Settings
from web import Site

MIB = 1024
BODY_MIB = 2048
LIMIT_SECONDS = 60
GROWTH_KIB = 96 * MIB
# The balancer waits a minute for the word that something has arrived; the kernel counts it by its own retransmissions.
VANISHED_SECONDS = 90
DROPPED = "inet test_vanished"
# Keeps the size in KiB of the largest process that a request goes through, until it is ended.
SAMPLER = r"""
import os, re, time
names = re.compile(r"apache2|kallithea-|haproxy|git|python")
largest = 0
while True:
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/cmdline") as source:
                watched = names.search(source.read().split("\0")[0])
            if watched:
                with open(f"/proc/{pid}/statm") as source:
                    largest = max(largest, int(source.read().split()[1]) * 4)
        except (OSError, IndexError, UnicodeDecodeError):
            pass
    with open("/run/test-memory.new", "w") as target:
        target.write(str(largest))
    os.replace("/run/test-memory.new", "/run/test-memory")
    time.sleep(0.1)
"""


@pytest.fixture(scope="module")
def repository(make_repository: Make, client: Client) -> str:
    """Return a repository with something in it."""
    name = make_repository("git", "bodies")
    client.commit_git("bodies", "word")
    client.run(f"cd bodies && git push -q {client.url(name)} master")
    return name


def fullest_connection(node: Machine, address: str) -> str:
    """Return the client's port of the connection with most bytes on the way to an address, if any is full."""
    lines = node.run(f"ss -Htn state established dst {address} sport = :443").splitlines()
    full = sorted((int(sent), peer.rpartition(":")[2]) for _, sent, _, peer in map(str.split, lines) if int(sent))
    return full[-1][1] if full else ""


@pytest.fixture(scope="module")
def vanished(node: Machine, client: Client, settings: Settings, heavy_repository: tuple[str, float]) -> Iterator[tuple[float, str]]:
    """Let a client vanish in the middle of a clone, so that not even its end is heard of; return when, and its port. The tests in between fill the wait."""
    client.clear_slow_clones(1)
    address = settings.addresses[client.machine.name]
    try:
        client.slow_clone(0, heavy_repository[0], SLOW_RATE, 2 * VANISHED_SECONDS)
        port = wait_until("the clone on its way", lambda: fullest_connection(node, address), 20)
        when = time.time()
        node.run(f"nft add table {DROPPED}; nft 'add chain {DROPPED} input {{ type filter hook input priority -300; }}'")
        node.run(f"nft add rule {DROPPED} input ip saddr {address} tcp sport {port} drop")
        client.clear_slow_clones(1)
        yield when, port
    finally:
        node.try_run(f"nft delete table {DROPPED}")
        client.clear_slow_clones(1)


@contextmanager
def flat_memory(node: Machine) -> Iterator[None]:
    """Fail where a process grows meanwhile."""
    node.write("/run/test-sampler.py", SAMPLER)
    node.start("test-sampler", "exec python3 /run/test-sampler.py", 180)
    try:
        before = int(node.run("sleep 0.5; cat /run/test-memory"))
        yield
        after = int(node.run("sleep 0.3; cat /run/test-memory"))
    finally:
        node.stop("test-sampler")
        node.run("rm -f /run/test-sampler.py /run/test-memory*")
    assert after - before < GROWTH_KIB, f"the largest process grew from {before // MIB} to {after // MIB} MiB"


@pytest.mark.parametrize(
    ("config", "service", "expected"),
    [
        ("", "git-receive-pack", ("401",)),
        ("curl-wrong", "git-receive-pack", ("401",)),
        ("curl-wrong", "git-upload-pack", ("401",)),
        # git itself says what is wrong with zeros.
        ("curl-right", "git-upload-pack", ("200", "417")),
    ],
    ids=["push-without-credentials", "push-with-wrong-ones", "fetch-with-wrong-ones", "fetch-with-right-ones"],
)
def test_two_gigabytes_through_the_balancer(
    node: Machine, client: Client, site: Site, vanished: tuple[float, str], repository: str, config: str, service: str, expected: tuple[str, ...]
) -> None:
    """2 GB of zeros in chunks leave memory flat, and the site goes on."""
    sent = f"--header Content-Type:application/x-{service}-request --header Expect: {client.url(f'{repository}/{service}')}"
    command = curl(f"--max-time {LIMIT_SECONDS} --request POST --upload-file - {sent}", config)
    with flat_memory(node):
        # A server that has answered may close before all is sent, which curl calls a failure.
        status = client.run(f"head -c {BODY_MIB}M /dev/zero | {command} || true", seconds=LIMIT_SECONDS + 10)
    assert status.strip() in expected
    assert site.get("/_admin/my_account").status == 200


def test_two_gigabytes_straight_to_a_pool(node: Machine, settings: Settings, repository: str) -> None:
    """Kallithea's own answer to a push without credentials keeps none of the body, also where no balancer stands before it."""
    connection = http.client.HTTPConnection(settings.address, settings.pools["write"]["port"], timeout=LIMIT_SECONDS)
    block = bytes(MIB * MIB)
    headers = {"Host": settings.hostname, "Content-Type": "application/x-git-receive-pack-request", "Content-Length": str(BODY_MIB * MIB * MIB)}
    try:
        with flat_memory(node):
            connection.request("POST", f"/{repository}/git-receive-pack", (block for _ in range(BODY_MIB)), headers)
            status = connection.getresponse().status
    finally:
        connection.close()
    assert status == 401


def test_a_client_that_vanishes_gives_its_process_back(node: Machine, vanished: tuple[float, str]) -> None:
    """No packet of it comes any more: the balancer ends its clone, and git and its process are free."""
    when, port = vanished
    wait_until("git's processes gone", lambda: node.try_run("pgrep -f 'git[ ]upload-pack'").status == 1, when + VANISHED_SECONDS - time.time())
    clones = [entry for entry in Balancer(node).log(when) if entry["client"].endswith(f":{port}")]
    assert [(entry["status"], entry["end"][:2]) for entry in clones] == [("200", "CD")], clones
    assert int(clones[0]["bytes"]) < 200 * MIB * MIB, "the clone was not cut"
