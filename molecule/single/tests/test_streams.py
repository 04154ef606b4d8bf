"""What git answers comes through the release's streams as through stock's, for less."""

from __future__ import annotations

from pathlib import Path

import patches
from machines import Machine

STREAMS = "kallithea/lib/vcs/subprocessio.py"
FOLDER = "/root/streams"


def test_streams_give_what_stock_gives(node: Machine, tmp_path: Path) -> None:
    """Bytes, errors, clients that go away, slow ones, memory and processor time: see the program."""
    packages = patches.packages(node)
    stock = patches.original(node.run(f"cat {packages}/{STREAMS}"), STREAMS, tmp_path)
    node.write(f"{FOLDER}/stock/{STREAMS}", stock)
    node.write(f"{FOLDER}/streams.py", (patches.PROGRAMS / "streams.py").read_text())
    try:
        said = node.run(f"{patches.PYTHON} {FOLDER}/streams.py {packages} {FOLDER}/stock", seconds=300)
    finally:
        node.run(f"rm -r {FOLDER}")
    print(said)
    assert "early close" in said and "2 GB out" in said, said
