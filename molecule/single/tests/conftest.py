"""What all tests of this scenario share besides: the host, a foreign host as its client, and the journals where a test fails."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import repositories
import settings as cluster_settings
from machines import Machine, wait_until
from pools import Pools
from scm import Client
from settings import Settings
from vanished import Vanished, vanished_client
from web import Site

pytest_plugins = ["every_scenario"]

cluster_settings.use(cluster_settings.ROOT / "inventories/single-host/hosts.yml", Path(__file__).resolve().parents[1] / "inventory/hosts.yml")

UNITS = ("kallithea-web", "kallithea-celery", "kallithea-health", "kallithea-hooks", "haproxy")
JOURNAL = "journalctl --no-pager --quiet --lines=60 " + " ".join(f"--unit={unit}" for unit in UNITS)


@pytest.fixture(scope="session")
def node(machines: dict[str, Machine], settings: Settings) -> Machine:
    """Return the host with every tier on it."""
    return machines[settings.node]


@pytest.fixture(scope="session")
def foreign(machines: dict[str, Machine], settings: Settings) -> Machine:
    """Return a host on the same network that the cluster knows nothing of."""
    return machines[settings.client]


@pytest.fixture(scope="session")
def pools(node: Machine, settings: Settings) -> Pools:
    """Return a view of the application's processes."""
    return Pools(node, settings)


@pytest.fixture(scope="session")
def make_repository(site: Site, node: Machine, settings: Settings) -> Iterator[repositories.Make]:
    """Return a function that makes a repository and tells its name; all of them are removed at the end."""
    yield from repositories.maker(site, node, settings)


@pytest.fixture(scope="session")
def heavy_repository(client: Client, make_repository: repositories.Make) -> Iterator[tuple[str, float]]:
    """Push 200 MB that do not compress in one commit, in chunks; return the repository and the seconds it took."""
    name = make_repository("git", "heavy")
    client.run("rm -rf heavy && git init -q heavy && cd heavy && head -c 200M /dev/urandom > random && git add random && git commit -q -m heavy")
    begin = time.monotonic()
    client.run(f"cd heavy && git push -q {client.url(name)} master", seconds=120)
    yield name, time.monotonic() - begin
    client.run("rm -rf heavy")


@pytest.fixture(scope="session", autouse=True)
def vanished(node: Machine, client: Client, settings: Settings, heavy_repository: tuple[str, float]) -> Iterator[Vanished]:
    """Let a client vanish in the middle of a clone, so that not even its end is heard of. It is done first, since the balancer takes a minute to notice."""
    with vanished_client(node, client, settings.addresses[client.machine.name], heavy_repository[0]) as found:
        yield found


@pytest.fixture(autouse=True)
def _healthy_afterwards(request: pytest.FixtureRequest, node: Machine) -> Iterator[None]:
    """See that a test leaves the cluster working."""
    yield
    wait_until(f"the units active again after {request.node.name}", lambda: node.try_run(f"systemctl is-active --quiet {' '.join(UNITS)}").status == 0, 20)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Any:
    """Print the journals of the host where a test fails."""
    report = yield
    machine = getattr(item, "funcargs", {}).get("node")
    if report.failed and isinstance(machine, Machine):
        report.sections.append((f"journals of {machine.name}", machine.try_run(JOURNAL).output))
    return report
