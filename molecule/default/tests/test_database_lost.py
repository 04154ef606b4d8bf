"""The database is restarted, or away for a while: visitors read why, and nobody has to restart anything."""

from __future__ import annotations

import faults
from balancer import Balancer
from faults import Users
from machines import Machine, wait_until
from repositories import Make
from scm import Client
from settings import Settings
from web import Answer, Site

UNIT = "postgresql"
HEAL_SECONDS = 60.0


def test_database_restarted(machines: dict[str, Machine], balancer: Balancer, settings: Settings, site: Site, client: Client, make_repository: Make) -> None:
    """After a restart no process of any host answers an error from its old connection."""
    users = Users(site, client, settings, make_repository)
    machines[settings.groups["database"][0]].run(f"systemctl restart {UNIT}", seconds=90)
    wait_until("a page", lambda: site.get("/_admin/my_account").status == 200, HEAL_SECONDS)
    wait_until("every server up", balancer.all_up, HEAL_SECONDS)
    users.look(3 * sum(settings.host_pools[host]["ui"]["processes"] for host in settings.groups["app"]))
    users.go_on("database-restarted")


def test_database_stopped(machines: dict[str, Machine], balancer: Balancer, settings: Settings, site: Site, client: Client, make_repository: Make) -> None:
    """Without it visitors get 503, when to come again, and the reason; with it all heals by itself."""
    users = Users(site, client, settings, make_repository)

    def refusal() -> Answer | None:
        answer = site.get("/_admin/login")
        return answer if answer.status == 503 and "database" in answer.text.lower() else None

    with faults.stopped(machines[settings.groups["database"][0]], UNIT):
        refused: Answer = wait_until("503 that names the database", refusal, 30)
        assert refused.header("Retry-After").isdigit()
        assert "Traceback" not in refused.text
    wait_until("a page again", lambda: site.get("/_admin/my_account").status == 200, HEAL_SECONDS)
    wait_until("every server up", balancer.all_up, HEAL_SECONDS)
    users.go_on("database-back")
