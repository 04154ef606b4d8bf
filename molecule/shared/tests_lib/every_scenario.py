"""What the tests of every scenario share: what the inventory says, the hosts, a client outside the cluster, and the site."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import settings as cluster_settings
from machines import Machine, all_of, wait_prepared
from scm import Client, client_on
from settings import Settings
from web import Site


@pytest.fixture(scope="session")
def settings() -> Settings:
    """Return what the inventory says."""
    return cluster_settings.load()


@pytest.fixture(scope="session")
def machines(settings: Settings) -> dict[str, Machine]:
    """Return all test hosts by their names, those outside the cluster with what they need."""
    machines = all_of(settings)
    wait_prepared(machine for name, machine in machines.items() if name not in settings.hosts)
    return machines


@pytest.fixture(scope="session")
def client(machines: dict[str, Machine], settings: Settings) -> Iterator[Client]:
    """Return a person's git and hg."""
    yield from client_on(machines[settings.client], settings)


@pytest.fixture(scope="session")
def site(settings: Settings) -> Site:
    """Return a browser on the controller in which the administrator is logged in."""
    site = Site(settings)
    site.login()
    return site
