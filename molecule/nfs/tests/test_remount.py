"""Other options of the mount are applied one host at a time, and nobody who looks at pages meanwhile notices."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import playbook_runs
from balancer import Balancer
from faults import Users
from machines import Machine
from repositories import Make
from scm import Client
from settings import Settings
from web import Site

RUN_SECONDS = 500.0
OPTION = {"kallithea_storage_mount_timeo": 200}


def test_other_options_one_host_at_a_time(
    machines: dict[str, Machine], balancer: Balancer, settings: Settings, site: Site, client: Client, make_repository: Make, tmp_path: Path
) -> None:
    """Each host is drained, mounts anew and is back before the next; then a run without the option does the same the other way."""
    users = Users(site, client, settings, make_repository)
    users.push("before-remount")
    hosts = settings.groups["app"]

    def timeo() -> list[str]:
        return [machines[host].run(f"grep -o ' {settings.storage} .*timeo=[0-9]*' /proc/self/mountinfo | grep -o 'timeo=[0-9]*'").strip() for host in hosts]

    before = timeo()
    for variables, wanted in ((OPTION, ["timeo=200"] * len(hosts)), ({}, before)):
        away: list[set[str]] = []
        with ThreadPoolExecutor(1) as executor:
            run = executor.submit(playbook_runs.run, "site", variables=variables, folder=tmp_path, seconds=RUN_SECONDS)
            while not run.done():
                users.look(4)
                out = {server for (_, server), status in balancer.statuses().items() if server in hosts and status.split()[0] != "UP"}
                if out and out not in away[-1:]:
                    away.append(out)
                time.sleep(0.5)
        run.result().check_success(hosts[0])
        assert timeo() == wanted
        assert sorted(host for out in away for host in out) == sorted(hosts), f"out of the balancer, one after the other: {away}"
        assert balancer.all_up()
    users.clone("before-remount")
