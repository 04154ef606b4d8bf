"""References that another host has packed are seen at once, for readers and writers, while a clone on this host holds the old packed references open."""

from __future__ import annotations

from machines import Machine, quote, wait_until
from repositories import Make
from scm import Client
from settings import Settings

AS_USER = "cd / && exec runuser -u kallithea -- "
# As git holds them while it serves a clone.
HOLD = "import mmap, sys, time; file = open(sys.argv[1], 'rb'); held = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ); file.close(); time.sleep(120)"


def test_packed_references_that_a_clone_holds(machines: dict[str, Machine], settings: Settings, client: Client, make_repository: Make) -> None:
    """What one host pushes and packs the other one knows, although its client has each name of it in memory."""
    name = make_repository("git", "packed")
    packer, reader = (machines[host] for host in settings.groups["app"])
    path = f"{settings.repositories}/{name}"
    address = client.url(name, node=reader.name, pool="scm")

    def push(word: str, node: Machine) -> str:
        commit = client.commit("git", "packed", word)
        client.push("git", "packed", client.url(name, node=node.name, pool="write"))
        return commit

    def seen() -> str:
        return client.run(f"git ls-remote {address} refs/heads/master").split()[0]

    def pack() -> None:
        packer.run(f"{AS_USER} git -C {path} pack-refs --all --prune")

    first = push("first", packer)
    pack()
    assert seen() == first
    reader.start("hold-packed", f"{AS_USER} python3 -c {quote(HOLD)} {path}/packed-refs", 120)
    try:
        wait_until("the old packed references held", lambda: reader.try_run(f"grep -q {name}/packed-refs /proc/[0-9]*/maps").status == 0, 20)
        # Nobody looks on the reader before it is packed: whoever finds a file gone that he knew asks the server for the folders above it too.
        second = push("second", packer)
        pack()
        assert seen() == second, "a branch went back to what it was before references were packed"
        third = push("third", reader)
        pack()
        fourth = push("fourth", reader)
        assert third != fourth == seen()
        # On the storage itself, whatever the clients remember.
        assert packer.run(f"{AS_USER} git -C {path} rev-parse master").strip() == fourth
    finally:
        reader.stop("hold-packed")
    assert len(client.run(f"rm -rf packed-in; git clone -q {address} packed-in && git -C packed-in log --format=%H").split()) == 4
