"""Hosts that serve the application go away in every way there is; people and bots go on with those that are left."""

from __future__ import annotations

import time

import faults
import pytest
from balancer import Balancer
from faults import Users
from machines import Machine
from repositories import Make
from scm import Client
from settings import Settings
from web import Site

PAGES = 20


@pytest.mark.parametrize(("fault", "number"), [("stopped", 0), ("killed", 1), ("frozen", 0), ("hung", 1)])
def test_application_and_ci_host_lost_at_once(
    fault: str,
    number: int,
    machines: dict[str, Machine],
    balancer: Balancer,
    settings: Settings,
    site: Site,
    client: Client,
    make_repository: Make,
) -> None:
    """Whatever begins a few seconds after the loss succeeds on the last host, bots' reads included, and the hosts come back by themselves.

    Both at once, since bots then have to find their way past the dead CI host and the dead application host.
    """
    users = Users(site, client, settings, make_repository)
    application, ci = machines[settings.groups["app"][number]], machines[settings.groups["ci"][0]]
    with faults.lost(balancer, fault, application, ci):
        begin = time.time()
        users.go_on(f"{application.name}-{fault}", PAGES)
        log = [request for request in balancer.log(begin) if request["backend"] in ("be_ui", "be_scm", "be_write", "be_ci")]
        servers = {request["server"] for request in log}
        assert not servers & {application.name, ci.name}, f"{servers} served although {application.name} and {ci.name} were {fault}"
        assert {request["backend"] for request in log if request["who"] == "bot"} == {"be_ci"}, "bots took people's processes"
    users.look(8)
    users.push(f"{application.name}-back")
