"""Drill 7: hosts rebooted in turn, then the power of all cut at once and the storage the last to be back; the site comes back without a hand."""

from __future__ import annotations

import time

import faults
import playbook_runs
from balancer import Balancer
from drills import IS_LONG
from faults import Users
from machines import Machine, wait_until
from mounts import check_nothing_beneath, check_waits_for_the_storage
from repositories import Make
from scm import Client
from settings import Settings
from web import Site

SITE_SECONDS = 400.0


def reboot(machine: Machine) -> None:
    """Reboot as an administrator does; a container has no kernel to reboot, so it is reset."""
    if machine.access:
        machine.reboot()
    else:
        machine.reset()


def test_hosts_in_turn_then_all_at_once(
    cluster: dict[str, Machine], settings: Settings, site: Site, client: Client, balancer: Balancer, make_repository: Make, machines: dict[str, Machine]
) -> None:
    """What was pushed before is there after each, and the playbook has nothing to do afterwards."""
    users = Users(site, client, settings, make_repository)
    for name, machine in (cluster if IS_LONG else {}).items():
        users.push(f"before-{name}")
        begin = time.monotonic()
        reboot(machine)
        booted = time.monotonic() - begin
        wait_until(f"every server up after {name}", balancer.all_up, faults.RETURN_SECONDS)
        print(f"{name}: booted {booted:.0f} s after the reboot began, every server up after {time.monotonic() - begin:.0f} s")
        users.look(2)
        users.clone(f"before-{name}")
    users.push("before-all")
    there = {repository["repo_name"] for repository in site.call("get_repos")}
    store, hosts = machines[settings.groups["storage"][0]], [machines[name] for name in settings.groups["app"]]
    # In the short form the one host that is not cut off from its power but shut down, which has to let go of the storage.
    orderly = [] if IS_LONG else hosts[:1]
    for host in orderly:
        begin = time.monotonic()
        host.shut_down()
        print(f"{host.name}: shut down in {time.monotonic() - begin:.0f} s")
    for machine in cluster.values():
        if machine not in orderly:
            machine.power_off()
    for machine in cluster.values():
        if machine is not store:
            machine.power_on(wait=machine not in hosts)
    for host in hosts:
        check_waits_for_the_storage(host, settings)
    begin = time.monotonic()
    store.power_on()
    for host in hosts:
        host.wait_booted()
    wait_until("every server up after all", balancer.all_up, faults.RETURN_SECONDS)
    print(f"every server up {time.monotonic() - begin:.0f} s after the storage had power")
    for host in hosts:
        check_nothing_beneath(host, settings)
        assert host.run(f"cat /sys/class/bdi/$(mountpoint --fs-devno {settings.storage})/read_ahead_kb").strip() == "1024"
    assert {repository["repo_name"] for repository in site.call("get_repos")} == there
    users.clone("before-all")
    users.go_on("after-all", 4)
    run = playbook_runs.run("site", seconds=SITE_SECONDS)
    run.check(settings.secrets)
    run.check_success("app1")
