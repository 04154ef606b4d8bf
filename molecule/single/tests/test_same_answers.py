"""The patches for speed change no answer: the release is compared with itself without them, on data made for it; what they save is measured."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from machines import Machine
from settings import ROOT

FOLDER = "/var/tmp/kallithea-test-trees"
PYTHON = "/opt/kallithea/current/bin/python3"
PATCHES = ROOT / "roles/app/files/patches"
PROGRAMS = ROOT / "tests/release"


@pytest.fixture(scope="module")
def programs(node: Machine) -> Iterator[Machine]:
    """Put the programs there, and the package as it is and as it is without the patches for speed."""
    where = node.run(f"cd / && {PYTHON} -c 'import os, kallithea; print(os.path.dirname(kallithea.__file__))'").strip()
    node.run(f"rm -rf {FOLDER} && mkdir -p {FOLDER}/stock {FOLDER}/patched && for tree in stock patched; do cp -r {where} {FOLDER}/$tree/; done")
    for program in sorted(PROGRAMS.glob("*.py")):
        node.write(f"{FOLDER}/{program.name}", program.read_text())
    for patch in sorted(PATCHES.glob("speed-*.patch"), reverse=True):
        node.write(f"{FOLDER}/{patch.name}", patch.read_text())
        node.run(f"cd {FOLDER}/stock && git apply --reverse -p1 {FOLDER}/{patch.name}")
    yield node
    node.run(f"rm -rf {FOLDER}")


def compare(node: Machine, program: str, seconds: float) -> None:
    """Run a program, which fails where an answer differs."""
    print(node.run(f"cd {FOLDER} && nice {PYTHON} {program} {FOLDER}/stock {FOLDER}/patched 2>&1", seconds=seconds))


def test_permissions(programs: Machine) -> None:
    """Every pair of user and repository, group, user group in random worlds; one question costs the same with 10 and with 5,000 repositories."""
    compare(programs, "permissions.py", 300)


def test_references(programs: Machine) -> None:
    """Branches and tags of every kind of repository, before and after changes; read once for a page of changesets."""
    compare(programs, "references.py", 120)


def test_long_lists(programs: Machine) -> None:
    """Pages, order and search of the home page and of a group's page, for anonymous and other users; times with up to 20,000 repositories."""
    compare(programs, "long_lists.py", 900)
