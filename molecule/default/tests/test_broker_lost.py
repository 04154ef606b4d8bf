"""Without the broker everything goes on that does not need it; what needs it is refused soon and in words."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import count

import faults
import pytest
from faults import Users
from machines import Machine, wait_until
from repositories import Make
from scm import Client
from settings import Settings
from web import ApiError, Site

UNIT = "rabbitmq-server"
# The promise is 10 s; a busy machine with two cores gets five more.
REFUSAL_SECONDS = 15.0
HEAL_SECONDS = 90.0
# So many ask at once, to meet as many processes, with and without a connection to the broker.
ASKED = 3
FAULTS: dict[str, Callable[[Machine, str], AbstractContextManager[None]]] = {"stopped": faults.stopped, "frozen": faults.hung}


@dataclass(frozen=True)
class Asked:
    """A repository that the API was asked for: in how many seconds it answered, and what it said where it refused."""

    name: str
    seconds: float
    refusal: str


def ask(settings: Settings, name: str) -> Asked:
    """Ask the API for a repository."""
    arguments = {"repo_name": name, "repo_type": "git", "private": True}
    body = json.dumps({"id": 1, "api_key": settings.secrets["admin_api_key"], "method": "create_repo", "args": arguments})
    begin = time.monotonic()
    answer = Site(settings).request("POST", "/_admin/api", {"Content-Type": "application/json"}, body, seconds=60)
    refusal = (json.loads(answer.text)["error"] or "") if answer.status == 200 else answer.text
    return Asked(name, time.monotonic() - begin, refusal)


@pytest.fixture
def names(site: Site) -> Iterator[list[str]]:
    """Return names for repositories; those that were made are removed."""
    names = [f"test-{secrets.token_hex(4)}-asked" for _ in range(ASKED)]
    yield names
    for name in names:
        if site.repository_is_there(name):
            site.call("delete_repo", repoid=name)


@pytest.mark.parametrize("fault", ["stopped", "frozen"])
def test_broker_lost(fault: str, machines: dict[str, Machine], settings: Settings, site: Site, client: Client, make_repository: Make, names: list[str]) -> None:
    """Pages, pushes and clones go on; a new repository is refused within seconds, not half made; with the broker all is well again by itself."""
    users = Users(site, client, settings, make_repository)
    with FAULTS[fault](machines[settings.groups["broker"][0]], UNIT):
        users.go_on(f"broker-{fault}")
        with ThreadPoolExecutor(ASKED) as executor:
            asked = list(executor.map(lambda name: ask(settings, name), names))
        for one in asked:
            assert one.seconds < REFUSAL_SECONDS, f"{one.name} was answered after {one.seconds:.1f} s (the aim is 10 s, the limit {REFUSAL_SECONDS:.0f} s)"
            assert "Traceback" not in one.refusal and "<html" not in one.refusal.lower(), one.refusal[:500]
            assert len(one.refusal.split()) > 2, f"no sentence but {one.refusal!r}: the API accepted what it cannot do"
    numbers = count()

    def makes_one() -> bool:
        try:
            make_repository("git", f"after-broker-{fault}-{next(numbers)}")
        except (ApiError, AssertionError):
            return False
        return True

    wait_until("a repository made again", makes_one, HEAL_SECONDS, 1.0)
    # What a frozen broker's kernel had taken already is done afterwards; then it has to be whole.
    late = [name for name in names if site.repository_is_there(name)]
    assert not late or fault == "frozen", f"refused and made all the same: {late}"
    for name in late:
        client.run(f"git ls-remote {client.url(name)}")
