"""A repository whose clones take long over slow lines, made once for all tests that name this module in pytest_plugins."""

from __future__ import annotations

import pytest
from repositories import Make
from scm import Client

MEGABYTES = 160


@pytest.fixture(scope="session")
def big_repository(client: Client, make_repository: Make) -> str:
    """Return a repository with one file that does not compress."""
    name = make_repository("git", "big")
    client.run(f"rm -rf big && git init -q big && cd big && head -c {MEGABYTES}M /dev/urandom > random && git add random && git commit -q -m big")
    client.run(f"cd big && git push -q {client.url(name)} master && cd .. && rm -rf big", seconds=180)
    return name
