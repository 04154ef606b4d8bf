"""What the tests know of the cluster: the inventories' variables as Ansible sees them, and the secrets file they name."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[3]
TIERS = ("storage", "database", "broker", "app", "ci", "loadbalancer")
# The roles' defaults, where the inventory says nothing.
DEFAULTS: dict[str, Any] = {
    "kallithea_hostname": "",
    "kallithea_ci_hostname": "",
    "kallithea_secrets_file": "",
    "kallithea_storage_path": "/srv/kallithea",
    "kallithea_loadbalancer_ca_dir": "",
    "kallithea_app_mail": {},
    "kallithea_app_direct_clients": [],
    "kallithea_app_static_port": 8080,
    "kallithea_app_pools": yaml.safe_load((ROOT / "roles/topology/vars/main/topology.yml").read_text())["__kallithea_default_pools"],
}

_inventories: list[Path] = []


def use(*paths: Path) -> None:
    """Say which inventories the scenario has: the one that a user copies first, then what the test adds to it."""
    _inventories[:] = paths


def inventories() -> tuple[Path, ...]:
    """Return the scenario's inventories."""
    assert _inventories, "the scenario's conftest.py has to name its inventories by settings.use()"
    return tuple(_inventories)


@dataclass(frozen=True)
class Settings:
    """The cluster under test; node is its first application host, address that of its first balancer."""

    node: str
    client: str
    # All test hosts, also those outside the cluster: the container and the address of each.
    machines: dict[str, str]
    addresses: dict[str, str]
    # Those of them that have a kernel of their own; where what reaches them lies.
    kernels: frozenset[str]
    state_dir: Path
    machine_dir: Path
    # The hosts of each tier.
    groups: dict[str, list[str]]
    # The pools of each application and CI host; those of node are in pools.
    host_pools: dict[str, dict[str, dict[str, int]]]
    hostname: str
    ci_hostname: str
    address: str
    storage: str
    static_port: int
    pools: dict[str, dict[str, int]]
    mail: dict[str, Any]
    direct_clients: list[str]
    ca_file: Path
    # Not in any failure's text.
    secrets: dict[str, str] = field(repr=False)

    @property
    def repositories(self) -> str:
        """Where the repositories lie."""
        return f"{self.storage}/repositories"

    @property
    def hosts(self) -> list[str]:
        """The hosts of the cluster, each once."""
        return list(dict.fromkeys(host for tier in TIERS for host in self.groups[tier]))


def ansible(command: str, *arguments: str, environment: Mapping[str, str] | None = None) -> Any:
    """Run one of Ansible's commands on the inventories and return its JSON."""
    environment = {**os.environ, "ANSIBLE_NOCOLOR": "1", "ANSIBLE_STDOUT_CALLBACK": "ansible.builtin.minimal", **(environment or {})}
    options = [f"--inventory={path}" for path in inventories()]
    done = subprocess.run([command, *options, *arguments], env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, f"{command} ended with {done.returncode}: {done.stderr or done.stdout}"
    return json.loads(done.stdout[done.stdout.index("{") :])


def first(inventory: dict[str, Any], group: str) -> str:
    """Return the first host of a group."""
    hosts = inventory.get(group, {}).get("hosts", [])
    assert hosts, f"the inventory's group {group} has no host"
    return str(hosts[0])


def pools_of(host: str, inventory: dict[str, Any], defaults: dict[str, dict[str, int]]) -> dict[str, dict[str, int]]:
    """Return a host's pools: its own over the defaults; a CI host has the pool ci alone."""
    given = inventory["_meta"]["hostvars"][host].get("kallithea_app_pools", defaults)
    only_ci = host in inventory.get("kallithea_ci", {}).get("hosts", [])
    return {pool: {**defaults.get(pool, {}), **values} for pool, values in given.items() if pool == "ci" or not only_ci}


def load() -> Settings:
    """Ask Ansible for the variables, and read the secrets."""
    inventory = ansible("ansible-inventory", "--list")
    node, client = first(inventory, "kallithea_app"), first(inventory, "clients")
    wanted = ", ".join(f"'{name}': {name} | default('')" for name in (*DEFAULTS, "test_state", "test_state_dir"))
    arguments = json.dumps({"msg": f"{{{{ {{{wanted}}} }}}}"})
    variables = ansible("ansible", node, "--module-name=ansible.builtin.debug", f"--args={arguments}")["msg"]
    values = {name: variables[name] if variables[name] != "" else default for name, default in DEFAULTS.items()}
    secrets_file = Path(values["kallithea_secrets_file"])
    hostvars = inventory["_meta"]["hostvars"]
    groups = {tier: list(inventory.get(f"kallithea_{tier}", {}).get("hosts", [])) for tier in TIERS}
    addresses = variables["test_state"]["addresses"]
    host_pools = {host: pools_of(host, inventory, DEFAULTS["kallithea_app_pools"]) for host in groups["app"] + groups["ci"]}
    return Settings(
        node=node,
        client=client,
        machines={host: hostvars[host].get("ansible_host", host) for host in inventory["test_hosts"]["hosts"]},
        addresses=addresses,
        kernels=frozenset(inventory.get("test_machines", {}).get("hosts", [])),
        state_dir=Path(variables["test_state_dir"]),
        machine_dir=Path(variables["test_state"]["machine_dir"]),
        groups=groups,
        host_pools=host_pools,
        hostname=values["kallithea_hostname"],
        ci_hostname=values["kallithea_ci_hostname"],
        address=addresses[first(inventory, "kallithea_loadbalancer")],
        storage=values["kallithea_storage_path"],
        static_port=values["kallithea_app_static_port"],
        pools=host_pools[node],
        mail=values["kallithea_app_mail"],
        direct_clients=values["kallithea_app_direct_clients"],
        ca_file=Path(values["kallithea_loadbalancer_ca_dir"] or secrets_file.parent / "ca") / "ca.crt",
        secrets=yaml.safe_load(secrets_file.read_text())["kallithea_secrets"],
    )
