"""What the tests of every scenario with several hosts share besides: the cluster, a robot as client, and the journals where a test fails."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import repositories
from balancer import Balancer
from drills import Drills
from machines import Machine, wait_until
from scm import Client, client_on
from settings import Settings
from web import Site

pytest_plugins = ["every_scenario"]

UNITS = {
    "storage": ("nfs-server",),
    "database": ("postgresql@*",),
    "broker": ("rabbitmq-server",),
    "app": ("kallithea-web", "kallithea-celery", "kallithea-health", "kallithea-hooks"),
    "ci": ("kallithea-web", "kallithea-celery", "kallithea-health"),
    "loadbalancer": ("haproxy",),
}
RECOVERY_SECONDS = 40


def units_of(settings: Settings, host: str) -> list[str]:
    """Return the units that serve on a host."""
    return list(dict.fromkeys(unit for tier, units in UNITS.items() if host in settings.groups[tier] for unit in units))


def idle_units(machine: Machine, units: list[str]) -> list[str]:
    """Return the units that do not run although nobody disabled them."""
    names = " ".join(f"'{unit}'" for unit in units)
    script = f'for unit in {names}; do systemctl -q is-active "$unit" || [ "$(systemctl is-enabled "$unit" 2>/dev/null)" = disabled ] || echo "$unit"; done'
    return machine.run(script).split()


def storage_of(machines: dict[str, Machine], settings: Settings) -> Machine:
    """Return a host that may do everything on the storage: the file server, or one that has the common volume."""
    return machines[(settings.groups["storage"] or [settings.node])[0]]


@pytest.fixture(scope="session")
def machine(machines: dict[str, Machine]) -> Callable[[str], Machine]:
    """Return a function that finds a test host by its name."""
    return machines.__getitem__


@pytest.fixture(scope="session")
def cluster(machines: dict[str, Machine], settings: Settings) -> dict[str, Machine]:
    """Return the hosts of the cluster alone."""
    return {name: machines[name] for name in settings.hosts}


@pytest.fixture(scope="session")
def robot(machines: dict[str, Machine], settings: Settings) -> Iterator[Client]:
    """Return git and hg in a network of bots."""
    yield from client_on(machines["robot"], settings)


@pytest.fixture(scope="session")
def drills(client: Client, machines: dict[str, Machine], settings: Settings) -> Drills:
    """Return a way to run drills on the client."""
    return Drills(client, storage_of(machines, settings), settings)


@pytest.fixture(scope="session")
def balancer(machines: dict[str, Machine], settings: Settings) -> Balancer:
    """Return a view of the first balancer."""
    return Balancer(machines[settings.groups["loadbalancer"][0]])


@pytest.fixture(scope="session")
def balancer_log(balancer: Balancer) -> Callable[[float], list[dict[str, str]]]:
    """Return a function that tells which requests the balancer served since a moment of time.time()."""
    return balancer.log


@pytest.fixture(scope="session")
def make_repository(site: Site, machines: dict[str, Machine], settings: Settings) -> Iterator[repositories.Make]:
    """Return a function that makes a repository and tells its name; all of them are removed at the end."""
    yield from repositories.maker(site, storage_of(machines, settings), settings)


@pytest.fixture(autouse=True)
def _healthy_afterwards(request: pytest.FixtureRequest, cluster: dict[str, Machine], balancer: Balancer, settings: Settings) -> Iterator[None]:
    """See that a test leaves the cluster working: every unit active, every server of the balancer up."""
    yield

    units = {name: units_of(settings, name) for name in cluster}
    served = [name for name in cluster if units[name]]

    def all_active() -> bool:
        with ThreadPoolExecutor() as executor:
            return not any(executor.map(lambda name: idle_units(cluster[name], units[name]), served))

    wait_until(f"the units active again after {request.node.name}", all_active, RECOVERY_SECONDS)
    wait_until(f"all servers up again after {request.node.name}", balancer.all_up, RECOVERY_SECONDS)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Any:
    """Print the journals of the cluster's hosts, and the consoles of machines, where a test fails."""
    report = yield
    fixtures = getattr(item, "funcargs", {})
    cluster, settings = fixtures.get("cluster"), fixtures.get("settings")
    if report.failed and cluster and settings:
        for name, machine in cluster.items():
            if units := units_of(settings, name):
                journal = "journalctl --no-pager --quiet --lines=40 " + " ".join(f"--unit='{unit}'" for unit in units)
                report.sections.append((f"journals of {name}", machine.try_run(journal).output))
            if machine.access:
                report.sections.append((f"console of {name}", machine.console()))
    return report
