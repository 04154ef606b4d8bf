"""A host is added to the inventory and site run: it serves, and nothing else is restarted; taken out again, it is forgotten."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import playbook_runs
import pytest
import yaml
from balancer import Balancer
from faults import Users
from machines import Machine, wait_until
from repositories import Make
from scm import Client
from settings import Settings
from web import Site

NEW = "keeper"
RUN_SECONDS = 600.0
# The host as the database sees it: whether the service user gets in as the application does.
CONNECT = """
cd / && exec timeout 15 setpriv --reuid=kallithea --regid=kallithea --init-groups env LC_ALL=C.UTF-8 HOME=/var/lib/kallithea \\
  PGCONNECT_TIMEOUT=5 PYTHONPATH=/usr/local/lib/kallithea /opt/kallithea/current/bin/python3 -B -c "
import kallithea_database
print(kallithea_database.value(kallithea_database.connect(), 'SELECT count(*) FROM repositories'))"
"""
UNITS = "kallithea-web kallithea-celery kallithea-health kallithea-hooks haproxy postgresql@* rabbitmq-server"
# Neither a restart nor one by a crash leaves all of these as they were; a reload does.
LIVES = f"systemctl show --property=Id,MainPID,NRestarts,ActiveEnterTimestampMonotonic {UNITS}"
GIVE_UP = """
for unit in index.timer cleanup.timer maintenance.timer freshen.timer celery web health; do
  systemctl disable --quiet --now kallithea-$unit || true
done
"""


def add_to_group(inventory: Path, group: str, host: str) -> None:
    """Put a host into a group of a copied inventory."""
    content: dict[str, Any] = yaml.safe_load(inventory.read_text())
    entry = content["all"]["children"][group]
    entry["hosts"] = {**(entry.get("hosts") or {}), host: {}}
    inventory.write_text("---\n" + yaml.safe_dump(content, sort_keys=False))


def lives(cluster: dict[str, Machine]) -> dict[str, str]:
    """Return what a restart would change, of each host."""
    return {name: machine.run(LIVES) for name, machine in cluster.items()}


@pytest.fixture
def new_host(machines: dict[str, Machine], balancer: Balancer, settings: Settings, tmp_path: Path) -> Iterator[tuple[Machine, tuple[Path, ...]]]:
    """Return a host and inventories in which it serves the application; afterwards it does not, and the cluster knows nothing of it."""
    inventories = playbook_runs.copy_inventories(tmp_path)
    add_to_group(inventories[0], "kallithea_app", NEW)
    machine = machines[NEW]
    try:
        yield machine, inventories
    finally:
        # Celery first ends what it has begun.
        machine.run(GIVE_UP, seconds=120)
        # The hosts that know who serves the application; those that serve it keep of it only that it tried the storage with them.
        knowing = [host for tier in ("database", "broker", "loadbalancer") for host in settings.groups[tier]]
        run = playbook_runs.run("site", f"--limit={','.join(knowing)}", seconds=RUN_SECONDS)
        for host in knowing:
            run.check_success(host)
    assert not [server for server in balancer.statuses() if server[1] == NEW], "the balancer has not forgotten the host"
    assert machine.try_run(CONNECT).status != 0, "PostgreSQL still lets the host in"


def test_host_is_added_without_a_restart_of_others(
    new_host: tuple[Machine, tuple[Path, ...]],
    cluster: dict[str, Machine],
    balancer: Balancer,
    settings: Settings,
    site: Site,
    client: Client,
    make_repository: Make,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """One run of site is all; it says nothing to processes that serve already."""
    machine, inventories = new_host
    users = Users(site, client, settings, make_repository)
    users.push("before-the-new-host")
    before = lives(cluster)
    begin = time.monotonic()
    run = playbook_runs.run("site", inventories=inventories, seconds=RUN_SECONDS)
    seconds = time.monotonic() - begin
    run.check_success(NEW)
    with capsys.disabled():
        print(f"\nsite with one more application host took {seconds:.0f} s and changed {run.changed}")
    # With a new host all try the storage again, and each remembers it; nothing else is another one.
    assert {run.changed[host] for host in settings.groups["app"] + settings.groups["ci"]} == {1}, f"a neighbour changed a host: {run.changed}"
    after = lives(cluster)
    restarted = [name for name in before if before[name] != after[name]]
    assert not restarted, f"something was restarted on {restarted}: {[(before[name], after[name]) for name in restarted]}"

    # Straight to its pools: the session, the database and the storage are there.
    pools = settings.pools
    for path in ("/_admin/my_account", f"/{users.repositories[0]}"):
        answer = site.get(path, port=pools["ui"]["port"], node=NEW)
        assert answer.status == 200, f"{path} straight from {NEW} was answered {answer.status}: {answer.text[:200]}"
    assert int(machine.run(CONNECT)) >= len(users.repositories)
    head = client.run(f"git ls-remote http://{settings.addresses[NEW]}:{pools['scm']['port']}/{users.repositories[0]} refs/heads/master")
    assert head.split()[0] == client.run(f"git -C out-{users.repositories[0]} rev-parse HEAD").strip()

    wait_until("every server up", balancer.all_up, 60)
    since = time.time()

    def serves() -> bool:
        users.look(len(cluster))
        return any(request["server"] == NEW for request in balancer.log(since))

    wait_until(f"a page served by {NEW} through the balancer", serves, 60)
