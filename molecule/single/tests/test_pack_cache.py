"""Who clones again is answered from the cache of packs, through Kallithea, Apache and the walls that systemd puts around them."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator

import pytest
from machines import CommandFailed, Machine, wait_until
from repositories import Make
from scm import HOME, Client
from web import Site

FOLDER = "/var/cache/kallithea/packs"
COUNTERS = f"{FOLDER}/kallithea_pack_cache.prom"
# Less than who waits for another's pack waits (60 s).
HELD_SECONDS = 50
# Longer than Kallithea waits for the beginning of git's answer.
CLONE_SECONDS = 8


def counted(node: Machine) -> list[int]:
    """Return hits, misses and failures; anybody may read them."""
    lines = node.run(f"cd / && runuser -u nobody -- cat {COUNTERS} || true").splitlines()
    values = dict(line.split() for line in lines if not line.startswith("#"))
    return [int(values.get(f"kallithea_pack_cache_{name}_total", 0)) for name in ("hits", "misses", "failures")]


def counted_since(node: Machine, before: list[int]) -> list[int]:
    """Return how many hits, misses and failures there were since then."""
    return [now - then for now, then in zip(counted(node), before, strict=True)]


def push_3_mb(client: Client, folder: str, url: str, word: str) -> None:
    """Push a commit of a word and one that is large enough for the cache, from a new working copy."""
    client.run(f"rm -rf {folder}")
    client.commit("git", folder, word)
    client.run(f"cd {folder} && head -c 3000000 /dev/urandom >large && git add large && git commit -q -m large")
    client.push("git", folder, url)


@pytest.fixture
def reader(site: Site, client: Client) -> Iterator[str]:
    """Make an account that is nobody's but this test's; git asks reader-askpass for it."""
    name, password = f"packs{secrets.token_hex(4)}", secrets.token_hex(12)
    site.call("create_user", username=name, email=f"{name}@localhost.test", password=password, firstname="Only", lastname="Reader")
    client.machine.write(f"{HOME}/reader-password", password)
    client.machine.write(f"{HOME}/reader-askpass", f'#!/bin/sh\ncase "$1" in Username*) echo {name};; *) cat {HOME}/reader-password;; esac\n', "0700")
    yield name
    site.call("delete_user", userid=name)


def test_who_may_read_no_more_gets_nothing_from_a_warm_cache(node: Machine, site: Site, client: Client, make_repository: Make, reader: str) -> None:
    """At once, and who may read is answered from it as before; history that is rewritten and a repository of the same name have their own answers."""
    name = make_repository("git", "withdrawn")
    url = client.url(name)
    clone = f"export GIT_ASKPASS={HOME}/reader-askpass; rm -rf withdrawn-in && git clone -q {url} withdrawn-in && cat withdrawn-in/word"
    push_3_mb(client, "withdrawn", url, "first")
    site.call("grant_user_permission", repoid=name, userid=reader, perm="repository.read")
    before = counted(node)
    assert [client.run(clone) for _round in range(2)] == ["first\n"] * 2
    assert counted_since(node, before) == [1, 1, 0], "the cache was not warm"
    site.call("revoke_user_permission", repoid=name, userid=reader)
    with pytest.raises(CommandFailed, match=r"error: 40[34]"):
        client.run(clone)
    assert counted_since(node, before) == [1, 1, 0]
    assert client.clone("git", url, "withdrawn-in") == "first\n"
    assert counted_since(node, before) == [2, 1, 0]
    client.run(f"cd withdrawn && echo rewritten >word && git commit -q -a --amend -m rewritten && git push -q --force {url} master")
    assert client.clone("git", url, "withdrawn-in") == "rewritten\n"
    site.call("delete_repo", repoid=name)
    site.create_repository(name, "git")
    client.run("rm -rf withdrawn")
    client.commit("git", "withdrawn", "again")
    client.push("git", "withdrawn", url)
    assert client.clone("git", url, "withdrawn-in") == "again\n"
    assert client.run("git -C withdrawn-in rev-list --all --count") == "1\n"


def test_who_clones_again_is_answered_from_the_cache(node: Machine, client: Client, make_repository: Make) -> None:
    """A pack of 3 MB, cloned three times; then one more commit."""
    url = client.url(make_repository("git", "packs"))
    push_3_mb(client, "packs-out", url, "one")
    before = counted(node)
    for _round in range(3):
        assert client.clone("git", url, "packs-in") == "one\n"
    assert counted_since(node, before) == [2, 1, 0]
    client.commit("git", "packs-out", "two")
    client.push("git", "packs-out", url)
    assert client.clone("git", url, "packs-in") == "one\ntwo\n"
    assert counted_since(node, before) == [2, 2, 0]
    entries = node.run(f"find {FOLDER} -maxdepth 1 -type f -name '{'?' * 64}' -printf '%u %m\\n' | sort -u")
    assert entries == "kallithea 600\n"


def test_who_goes_away_while_a_pack_is_slow_to_begin_is_noticed(node: Machine, client: Client, make_repository: Make) -> None:
    """Long before there is a pack; its git and its process are free."""
    name = make_repository("git", "slow-pack")
    url = client.url(name)
    push_3_mb(client, "slow-pack-out", url, "one")
    client.clone("git", url, "slow-pack-in")
    # Another request for the same that never comes to its end: who clones waits for it.
    entry = node.run(f"ls -t {FOLDER} | grep -xE '[0-9a-f]{{64}}' | head -n 1").strip()
    node.run(f"cd {FOLDER} && rm {entry} && install -o kallithea -m 600 /dev/null {entry}.new")
    holder = node.run(f"nohup flock {FOLDER}/{entry}.new sleep {HELD_SECONDS} >/dev/null 2>&1 & echo $!").strip()
    try:
        begin = time.monotonic()
        client.run(f"nohup timeout --signal=KILL {CLONE_SECONDS} git clone -q {url} slow-pack-late >/dev/null 2>&1 &")
        # Not the one that lists the references before.
        at_work = f"pgrep --full '[g]it upload-pack --stateless-rpc /.*/{name}'"
        wait_until("git at work", lambda: node.try_run(at_work).status == 0, CLONE_SECONDS)
        wait_until("git's end", lambda: node.try_run(at_work).status == 1, HELD_SECONDS - 10)
        took = time.monotonic() - begin
        print(f"a client that went away after {CLONE_SECONDS} s was noticed after {took:.0f} s")
        assert took > CLONE_SECONDS, "git ended before its client did"
        assert node.try_run(f"kill -0 {holder}").status == 0, "git was not waiting for another"
    finally:
        node.try_run(f"pkill --parent {holder}")
    client.run("rm -rf slow-pack-late")
    assert client.clone("git", url, "slow-pack-late") == "one\n"
