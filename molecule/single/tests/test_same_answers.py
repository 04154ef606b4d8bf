"""The patches for speed change no answer: each program of tests/release asks the release with its patch and without it, and measures what it saves.

Minutes of processor time in all: with the drills' long forms only.
"""

from __future__ import annotations

from pathlib import Path

import patches
import pytest
from machines import Machine

# Each program with its patch, how long it may take, and what it says where it came to its end.
PROGRAMS = {
    "permissions": ("speed-03-one-permission.patch", 300, "one question with"),
    "references": ("speed-04-references-once.patch", 120, "loose references:"),
    "streams": ("speed-05-large-reads.patch", 300, "2 GB out"),
    "verified_passwords": ("speed-06-verified-passwords.patch", 120, "changed, the old one: 401"),
    "pull_log": ("speed-07-pull-log.patch", 180, "git: a bot's clone"),
    "pull_bundles": ("speed-09-pull-bundles.patch", 900, "with its bundle"),
    "long_lists": ("speed-08-long-lists.patch", 900, "seconds of processor time"),
}


@pytest.mark.parametrize("program", PROGRAMS)
def test_same_answers(node: Machine, tmp_path: Path, program: str) -> None:
    """The program fails where an answer differs."""
    patch, seconds, end = PROGRAMS[program]
    with patches.compared(node, program, patch, tmp_path) as command:
        said = node.run(f"{command} 2>&1", seconds=seconds)
    print(said)
    assert end in said, said
