"""A run that is killed in the middle of a host's restart is completed by the next."""

from __future__ import annotations

import playbook_runs
from balancer import Balancer
from machines import Machine, wait_until
from settings import Settings

RUN_SECONDS = 200.0
STARTED = "systemctl show --property=ActiveEnterTimestampMonotonic kallithea-web"


def test_host_that_a_killed_run_left_drained_is_put_back(machines: dict[str, Machine], balancer: Balancer, settings: Settings) -> None:
    """Its Apache runs with the new files already, so nothing but the drain is left to be seen of the killed run."""
    host = machines[settings.groups["app"][1]]

    def states() -> set[str]:
        return {status.split()[0] for (_, server), status in balancer.statuses().items() if server == host.name}

    # What it was started with: without it a restart is needed.
    host.run("rm /run/kallithea-web/web")
    before = host.run(STARTED)
    with playbook_runs.killed("app", "--limit", host.name):
        wait_until(f"{host.name} restarted", lambda: host.run(STARTED) != before, RUN_SECONDS)
    wait_until(f"{host.name} ready and drained", lambda: states() == {"DRAIN"}, RUN_SECONDS)
    before = host.run(STARTED)
    run = playbook_runs.run("app", "--limit", host.name, seconds=RUN_SECONDS)
    run.check_success(host.name)
    assert balancer.all_up(), f"{host.name} was not put back: {states()}"
    assert host.run(STARTED) == before, "it was restarted once more"
    assert [change.rpartition(" : ")[2] for change in run.changes] == [
        "Take the node out of the balancer, or put it back",
        "Take away the note that a restart has begun",
    ]
