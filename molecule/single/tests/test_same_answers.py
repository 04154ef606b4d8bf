"""The patches for speed change no answer: each program of tests/release asks the release with its patch and without it, and measures what it saves.

Minutes of processor time in all; in a short run what all pages, the permissions of one random world and some pushes cost, three quarters of one.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import drills
import patches
import pytest
from machines import Machine

# Each program with its patch, how long it may take, and what it says where it came to its end.
PROGRAMS = {
    "pages": ("speed-", 300, "pages and answers"),
    "permissions": ("speed-03-one-permission.patch", 600, "worlds of postgresql, asked alone: 0 differ"),
    "references": ("speed-04-references-once.patch", 120, "loose references:"),
    "streams": ("speed-05-large-reads.patch", 300, "2 GB out"),
    "verified_passwords": ("speed-06-verified-passwords.patch", 120, "changed, the old one: 401"),
    "pull_log": ("speed-07-pull-log.patch", 180, "git: a bot's clone"),
    "pull_bundles": ("speed-09-pull-bundles.patch", 900, "with its bundle"),
    "new_branches": ("speed-10-new-branches.patch", 120, "new branches, seconds of processor time"),
    "changesets": ("speed-11-changeset-numbers.patch", 300, "seconds of Kallithea's own processor time"),
    "long_lists": ("speed-08-long-lists.patch", 900, "seconds of processor time"),
}
# What access rights, pages, the journal of pushes and every changeset need is held in every run.
ALWAYS = ("pages", "permissions", "new_branches", "changesets")
DATABASE = "kallithea_test_permissions"
SQL = "cd / && runuser -u postgres -- psql -X -q -v ON_ERROR_STOP=1"


@pytest.fixture(scope="module")
def databases(node: Machine) -> Iterator[str]:
    """Make databases beside the cluster's own; return their address for root, whom PostgreSQL takes for its superuser."""
    names = [f"{DATABASE}_{number}" for number in range(3)]
    drop = "".join(f"DROP DATABASE IF EXISTS {name} WITH (FORCE);\n" for name in names)
    # What a killed run has left goes first.
    node.run(SQL, stdin=drop + "".join(f"CREATE DATABASE {name} TEMPLATE template0 ENCODING 'UTF8';\n" for name in names))
    yield f"postgresql://postgres@/{DATABASE}_{{}}?host=/var/run/postgresql"
    node.run(SQL, stdin=drop)


@pytest.mark.parametrize("program", PROGRAMS if drills.IS_LONG else ALWAYS)
def test_same_answers(node: Machine, databases: str, tmp_path: Path, program: str) -> None:
    """The program fails where an answer differs."""
    patch, seconds, end = PROGRAMS[program]
    more = [] if drills.IS_LONG else ["short"]
    if program == "permissions":
        # The cluster's kind of database; SQLite beside it is for the costs.
        more += [f"'{databases}'", *(["sqlite://"] if drills.IS_LONG else [])]
    with patches.compared(node, program, patch, tmp_path) as command:
        said = node.run(f"{command} {' '.join(more)} 2>&1", seconds=seconds)
    print(said)
    assert end in said, said
