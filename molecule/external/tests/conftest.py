"""What all tests of this scenario share besides: the passwords that came from outside, the application's host, and the journals where a test fails."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import repositories
import settings as cluster_settings
import yaml
from machines import Machine, wait_until
from settings import Settings
from web import Site

pytest_plugins = ["every_scenario"]

SCENARIO = Path(__file__).resolve().parents[1]
cluster_settings.use(SCENARIO / "inventory/hosts.yml")

UNITS = ("kallithea-web", "kallithea-celery", "kallithea-health", "kallithea-hooks", "haproxy")
JOURNAL = "journalctl --no-pager --quiet --lines=60 " + " ".join(f"--unit={unit}" for unit in UNITS)


@pytest.fixture(scope="session")
def state_folder(settings: Settings) -> Path:
    """Return the controller's folder with everything that the scenario keeps."""
    return settings.ca_file.parents[2]


@pytest.fixture(scope="session")
def given(state_folder: Path) -> dict[str, str]:
    """Return the passwords that the owners of database and broker have made."""
    found: dict[str, str] = yaml.safe_load((state_folder / "secrets/given.yml").read_text())
    return found


@pytest.fixture(scope="session")
def app(machines: dict[str, Machine]) -> Machine:
    """Return the application's host."""
    return machines["app1"]


@pytest.fixture(scope="session")
def make_repository(site: Site, app: Machine, settings: Settings) -> Iterator[repositories.Make]:
    """Return a function that makes a repository and tells its name; all of them are removed at the end."""
    yield from repositories.maker(site, app, settings)


@pytest.fixture(autouse=True)
def _healthy_afterwards(request: pytest.FixtureRequest, app: Machine) -> Iterator[None]:
    """See that a test leaves the site working."""
    yield
    wait_until(f"the units active again after {request.node.name}", lambda: app.try_run(f"systemctl is-active --quiet {' '.join(UNITS)}").status == 0, 20)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Any:
    """Print the journals of the application's host where a test fails."""
    report = yield
    machine = getattr(item, "funcargs", {}).get("app")
    if report.failed and isinstance(machine, Machine):
        report.sections.append((f"journals of {machine.name}", machine.try_run(JOURNAL).output))
    return report
