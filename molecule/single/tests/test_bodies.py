"""Large bodies that nobody wants cost no memory: neither the balancer's nor Apache's nor the application's."""

from __future__ import annotations

import http.client
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from machines import Machine
from repositories import Make
from scm import Client, curl
from settings import Settings
from web import Site

MIB = 1024
BODY_MIB = 2048
LIMIT_SECONDS = 60
GROWTH_KIB = 96 * MIB
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
    node: Machine, client: Client, site: Site, repository: str, config: str, service: str, expected: tuple[str, ...]
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
