# Copyright: The kallithea.cluster maintainers
# GPL-3.0-or-later (see LICENSE)
"""What is wrong with the application's variables: each problem one sentence."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ansible_collections.kallithea.cluster.plugins.module_utils.addresses import bind_problem, network

AGE = re.compile(r"[1-9][0-9]*[dh]")
LEAST = {
    "index_seconds": 60,
    "cleanup_seconds": 60,
    "session_days": 1,
    "beaker_keep_days": 1,
    "maintenance_seconds": 60,
    "maintenance_run_seconds": 1,
    "maintenance_repository_seconds": 1,
    "write_wait_seconds": 0,
    "pull_log_days": 1,
    "verified_password_seconds": 0,
}
MOST = {"verified_password_seconds": 300}


def application_problems(settings: Mapping[str, Any]) -> list[str]:
    """Return a sentence for each variable of the role app that cannot work; pools and ini have filters of their own."""
    problems = []
    if str(settings["static_port"]) in [str(pool.get("port")) for pool in settings["pools"].values()]:
        problems.append(
            f"kallithea_app_static_port {settings['static_port']} is the port of a pool of host {settings['name']}; give static files a port of their own."
        )
    age = settings["purge_deleted_after"]
    if age != "" and not AGE.fullmatch(str(age)):
        problems.append(f"kallithea_app_purge_deleted_after is '{age}'; give days or hours such as 30d, or leave it empty to keep deleted repositories.")
    if not settings["trusted_proxies"]:
        problems.append("kallithea_app_trusted_proxies is empty, so no balancer could reach the pools; name the balancers' addresses.")
    problems += bind_problem("kallithea_app_metrics_bind", settings["metrics_bind"])
    for variable in ("trusted_proxies", "direct_clients", "metrics_networks"):
        for entry in settings[variable]:
            if not network(str(entry)):
                problems.append(f"kallithea_app_{variable} holds '{entry}', which is neither an address nor a network such as 192.0.2.0/24.")
    for variable, least in LEAST.items():
        if not str(settings[variable]).isdigit() or int(settings[variable]) < least:
            problems.append(f"kallithea_app_{variable} is {settings[variable]}; give at least {least}.")
    for variable, most in MOST.items():
        if str(settings[variable]).isdigit() and int(settings[variable]) > most:
            problems.append(f"kallithea_app_{variable} is {settings[variable]}; give at most {most}.")
    return problems


class FilterModule:
    """Filters of the collection."""

    def filters(self) -> dict[str, Any]:
        """Return the filters by name."""
        return {"application_problems": application_problems}
