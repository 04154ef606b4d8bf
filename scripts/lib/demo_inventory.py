#!/usr/bin/env python3
"""Makes the demo's inventory: one of inventories/ as a user copies it, and what reaches the demo's containers.

Called as: write INVENTORY STATE NAME HOSTNAME CI_HOSTNAME [--machines], or: addresses STATE GROUP.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import yaml

# Above the groups of the inventory that is copied.
PRIORITY = 10
# Several hosts share one machine: small pools, and no database that takes the memory for itself.
POOLS = {"ui": {"processes": 2}, "scm": {"processes": 2}, "write": {"processes": 2}, "ci": {"processes": 1}}
# What a machine's memory carries.
MACHINE_POOLS = {"ui": {"processes": 2}, "scm": {"processes": 2}, "write": {"processes": 1}, "ci": {"processes": 1}}
CI_POOLS = {"ci": {"processes": 2}}
DATABASE_SHARE = 0.25
# Stands for the file server: no host of the cluster.
KEEPER = "keeper"
# With machines the file server is one of the cluster.
STORE = "store1"
# How machines are reached is the same for the scenarios.
MACHINES = Path(__file__).resolve().parents[2] / "molecule/shared/inventory/group_vars/test_machines.yml"
# A kernel without IP filters; their memory is files of this machine.
MACHINE = {"test_kind": "machine", "test_memory": 2176, "kallithea_firewall": "external"}
# A release is built in a container in a third of the time.
BUILDER = "kallithea_loadbalancer"


def is_spread(inventory: dict[str, Any]) -> bool:
    """Tell whether there are several hosts."""
    return len(inventory["all"]["hosts"]) > 1


def hosts_of(inventory: dict[str, Any], *groups: str) -> list[str]:
    """Return the hosts of the groups."""
    children = inventory["all"]["children"]
    return [host for group in groups for host in children.get(group, {}).get("hosts") or {}]


def differences(inventory: dict[str, Any], name: str, machines: bool) -> dict[str, dict[str, Any]]:
    """Return the variables of single hosts that differ: the common volume with its keeper or the machines, and sizes."""
    found: dict[str, dict[str, Any]] = {host: {"kallithea_app_pools": CI_POOLS} for host in hosts_of(inventory, "kallithea_ci")}
    found |= {host: {"kallithea_database_memory_share": DATABASE_SHARE} for host in hosts_of(inventory, "kallithea_database")}
    for host in [*hosts_of(inventory, "kallithea_app", "kallithea_ci"), STORE if machines else KEEPER]:
        found.setdefault(host, {}).update(MACHINE if machines else {"test_volumes": [f"{name}-share:/srv/kallithea"]})
    return found


def demo(inventory: dict[str, Any], name: str, machines: bool = False) -> dict[str, Any]:
    """Return the inventory with the containers and machines as its hosts."""
    given = inventory["all"]["hosts"]
    different = differences(inventory, name, machines) if is_spread(inventory) else {}
    names = dict.fromkeys([*given, *different])
    hosts = {host: {**(given.get(host) or {}), "ansible_host": f"{name}-{host}", **different.get(host, {})} for host in names}
    reached = {"ansible_connection": "community.docker.docker", "ansible_user": "root", "ansible_group_priority": PRIORITY}
    children = {**inventory["all"]["children"], "test_hosts": {"hosts": {host: {} for host in hosts}, "vars": reached}}
    if machines:
        children["kallithea_storage"] = {"hosts": {STORE: {}}}
        children["test_machines"] = {"hosts": {host: {} for host, values in hosts.items() if values.get("test_kind") == "machine"}}
    return {"all": {**inventory["all"], "hosts": hosts, "children": children}}


def spread_variables(inventory: dict[str, Any], machines: bool) -> dict[str, Any]:
    """Return what differs on all hosts where there are several."""
    storage = {"kallithea_storage_kind": "nfs", "kallithea_app_build_host": hosts_of(inventory, BUILDER)[0]} if machines else {}
    return {"kallithea_app_pools": MACHINE_POOLS if machines else POOLS, **storage}


def variables(name: str, state: Path, hostname: str, ci_hostname: str) -> dict[str, Any]:
    """Return what differs from the copied inventory on all hosts."""
    return {
        "test_name": name,
        "test_state_dir": str(state),
        "test_state": "{{ lookup('ansible.builtin.file', test_state_dir ~ '/state.json') | from_json }}",
        "kallithea_hostname": hostname,
        "kallithea_ci_hostname": ci_hostname,
        "kallithea_address": "{{ test_state.addresses[inventory_hostname] }}",
        "kallithea_app_build_environment": "{{ test_state.build_environment }}",
        # The machine that runs the demo may ask the nodes past the balancer, to compare.
        "kallithea_app_direct_clients": ["{{ test_state.gateway }}"],
    }


def write(source: Path, state: Path, name: str, hostname: str, ci_hostname: str, machines: bool = False) -> None:
    """Write the inventory; secrets that an earlier run left there stay."""
    target = state / "inventory"
    shutil.copytree(source, target, dirs_exist_ok=True)
    inventory = yaml.safe_load((source / "hosts.yml").read_text())
    common = variables(name, state, hostname, ci_hostname) | (spread_variables(inventory, machines) if is_spread(inventory) else {})
    for path, content in (("hosts.yml", demo(inventory, name, machines)), ("group_vars/test_hosts.yml", common)):
        (target / path).write_text("---\n" + yaml.safe_dump(content, sort_keys=False, width=1000))
    if machines:
        shutil.copy(MACHINES, target / "group_vars")


def addresses(state: Path, group: str) -> list[str]:
    """Return the addresses of a group's hosts."""
    known = json.loads((state / "state.json").read_text())["addresses"]
    return [known[host] for host in hosts_of(yaml.safe_load((state / "inventory" / "hosts.yml").read_text()), group)]


if __name__ == "__main__":
    if sys.argv[1] == "write":
        write(Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4], sys.argv[5], sys.argv[6], "--machines" in sys.argv[7:])
    else:
        print("\n".join(addresses(Path(sys.argv[2]), sys.argv[3])))
