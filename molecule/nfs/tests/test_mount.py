"""The application never runs on an empty mount point, writes nothing beneath, and comes back by itself when the storage does."""

from __future__ import annotations

import faults
from balancer import Balancer
from faults import Users
from machines import Machine, wait_until
from mounts import BACK_SECONDS, HEALTH, UNITS, check_nothing_beneath, health, is_mounted, started
from repositories import Make
from scm import Client
from settings import Settings
from web import Site


def test_mount_that_goes_away(machines: dict[str, Machine], balancer: Balancer, settings: Settings, site: Site, client: Client, make_repository: Make) -> None:
    """Whoever unmounts it by hand finds it mounted again, and the application started anew on it; people go on with the other host."""
    users = Users(site, client, settings, make_repository)
    users.push("before-unmount")
    there = {repository["repo_name"] for repository in site.call("get_repos")}
    host = machines[settings.groups["app"][1]]
    before = started(host)
    host.run(f"umount --lazy {settings.storage}")
    wait_until("the application stopped with its mount", lambda: started(host) != before or not host.is_running("kallithea-web"), 20)
    wait_until("the storage mounted again", lambda: is_mounted(host, settings), BACK_SECONDS)
    for unit in UNITS:
        wait_until(f"{unit} running again", lambda unit=unit: host.is_running(unit), BACK_SECONDS)
    assert all(old != new for old, new in zip(before, started(host), strict=True)), "a unit went on without its mount"
    wait_until("every server up", balancer.all_up, BACK_SECONDS)
    check_nothing_beneath(host, settings)
    assert {repository["repo_name"] for repository in site.call("get_repos")} == there
    users.clone("before-unmount")


def test_only_the_path_to_the_storage_lost(
    machines: dict[str, Machine], balancer: Balancer, settings: Settings, site: Site, client: Client, make_repository: Make
) -> None:
    """Drill 5: the host is out in seconds although Apache answers, says why even when its health service starts anew, and comes back by itself."""
    users = Users(site, client, settings, make_repository)
    host = machines[settings.groups["app"][1]]

    def states() -> set[str]:
        return {status.split()[0] for (_, server), status in balancer.statuses().items() if server == host.name}

    with host.cut_off([settings.addresses[settings.groups["storage"][0]]]):
        wait_until(f"{host.name} out", lambda: states() == {"DOWN"}, faults.LEAVE_SECONDS, 0.2)
        static = site.request("GET", "/css/style.css", port=settings.static_port, node=host.name)
        assert static.status == 200, "Apache has to answer, else this shows nothing"
        assert host.probe(HEALTH).startswith("503 storage: "), host.probe(HEALTH)
        host.run("systemctl restart kallithea-health", seconds=30)
        answer = wait_until("the health service started anew", lambda: health(host), 20)
        assert answer.startswith("503") and "storage: " in answer, answer
        assert states() == {"DOWN"}
        users.go_on("cut-off", 6)
    wait_until(f"{host.name} back by itself", balancer.all_up, faults.RETURN_SECONDS)
    users.go_on("cut-back", 6)
