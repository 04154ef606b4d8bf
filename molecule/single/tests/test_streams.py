"""What git answers comes through the release's streams as through stock's, for less."""

from __future__ import annotations

from pathlib import Path

import patches
from machines import Machine


def test_streams_give_what_stock_gives(node: Machine, tmp_path: Path) -> None:
    """Bytes, errors, clients that go away, slow ones, memory and processor time: see the program."""
    with patches.compared(node, "streams", "speed-05-large-reads.patch", tmp_path) as command:
        said = node.run(command, seconds=300)
    print(said)
    assert "early close" in said and "2 GB out" in said, said
