"""Who clones again is answered from the cache of packs, through Kallithea, Apache and the walls that systemd puts around them."""

from __future__ import annotations

from machines import Machine
from repositories import Make
from scm import Client

FOLDER = "/var/cache/kallithea/packs"
COUNTERS = f"{FOLDER}/kallithea_pack_cache.prom"


def counted(node: Machine) -> list[int]:
    """Return hits, misses and failures; anybody may read them."""
    lines = node.run(f"cd / && runuser -u nobody -- cat {COUNTERS} || true").splitlines()
    values = dict(line.split() for line in lines if not line.startswith("#"))
    return [int(values.get(f"kallithea_pack_cache_{name}_total", 0)) for name in ("hits", "misses", "failures")]


def test_who_clones_again_is_answered_from_the_cache(node: Machine, client: Client, make_repository: Make) -> None:
    """A pack of 3 MB, cloned three times; then one more commit."""
    url = client.url(make_repository("git", "packs"))
    client.run("rm -rf packs-out")
    client.commit("git", "packs-out", "one")
    client.run("cd packs-out && head -c 3000000 /dev/urandom >large && git add large && git commit -q -m large")
    client.push("git", "packs-out", url)
    before = counted(node)
    for _round in range(3):
        assert client.clone("git", url, "packs-in") == "one\n"
    assert [now - then for now, then in zip(counted(node), before, strict=True)] == [2, 1, 0]
    client.commit("git", "packs-out", "two")
    client.push("git", "packs-out", url)
    assert client.clone("git", url, "packs-in") == "one\ntwo\n"
    assert [now - then for now, then in zip(counted(node), before, strict=True)] == [2, 2, 0]
    entries = node.run(f"find {FOLDER} -maxdepth 1 -type f -name '{'?' * 64}' -printf '%u %m\\n' | sort -u")
    assert entries == "kallithea 600\n"
