#!/usr/bin/env python3
"""Makes the demo's inventory: inventories/single-host as a user copies it, and what reaches the demo's containers."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import yaml

# Above the groups of the inventory that is copied.
PRIORITY = 10


def test_group(hosts: list[str], name: str) -> dict[str, Any]:
    """Return the group that says how to reach the containers."""
    return {
        "hosts": {host: {"ansible_host": f"{name}-{host}"} for host in hosts},
        "vars": {
            "ansible_connection": "community.docker.docker",
            "ansible_user": "root",
            "ansible_group_priority": PRIORITY,
        },
    }


def variables(name: str, state: Path, hostname: str, ci_hostname: str) -> dict[str, Any]:
    """Return what differs from the copied inventory."""
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


def write(source: Path, state: Path, name: str, hostname: str, ci_hostname: str) -> None:
    """Write the inventory; secrets that an earlier run left there stay."""
    target = state / "inventory"
    shutil.copytree(source, target, dirs_exist_ok=True)
    inventory = yaml.safe_load((source / "hosts.yml").read_text())
    group = test_group(list(inventory["all"]["hosts"]), name)
    inventory["all"]["children"]["test_hosts"] = group
    for host, values in group["hosts"].items():
        inventory["all"]["hosts"][host] = {**(inventory["all"]["hosts"][host] or {}), **values}
    (target / "hosts.yml").write_text("---\n" + yaml.safe_dump(inventory, sort_keys=False))
    (target / "group_vars" / "test_hosts.yml").write_text("---\n" + yaml.safe_dump(variables(name, state, hostname, ci_hostname), sort_keys=False, width=1000))


if __name__ == "__main__":
    write(Path(sys.argv[1]), Path(sys.argv[2]), *sys.argv[3:6])
