"""A password that a process remembers answers as a compared one does."""

from __future__ import annotations

from pathlib import Path

import patches
from machines import Machine


def test_remembered_passwords_change_no_answer(node: Machine, tmp_path: Path) -> None:
    """Each step of the program, with the release's own packages, on SQLite."""
    with patches.compared(node, "verified_passwords", "speed-06-verified-passwords.patch", tmp_path) as command:
        said = node.run(command, seconds=120)
    print(said)
    assert "changed, the old one: 401" in said, said
