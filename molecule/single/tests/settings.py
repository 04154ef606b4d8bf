"""What the tests know of the cluster: the inventories' variables as Ansible sees them, and the secrets file they name."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[3]
INVENTORIES = (ROOT / "inventories/single-host/hosts.yml", Path(__file__).resolve().parents[1] / "inventory/hosts.yml")
# The roles' defaults, where the inventory says nothing.
DEFAULTS: dict[str, Any] = {
    "kallithea_hostname": "",
    "kallithea_ci_hostname": "",
    "kallithea_address": "",
    "kallithea_secrets_file": "",
    "kallithea_storage_path": "/srv/kallithea",
    "kallithea_loadbalancer_ca_dir": "",
    "kallithea_app_mail": {},
    "kallithea_app_direct_clients": [],
    "kallithea_app_static_port": 8080,
    "kallithea_app_pools": yaml.safe_load((ROOT / "playbooks/vars/topology.yml").read_text())["__kallithea_default_pools"],
}


@dataclass(frozen=True)
class Settings:
    """The cluster under test."""

    node: str
    node_container: str
    client: str
    client_container: str
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


def ansible(command: str, *arguments: str) -> Any:
    """Run one of Ansible's commands on the inventories and return its JSON."""
    environment = {**os.environ, "ANSIBLE_NOCOLOR": "1", "ANSIBLE_STDOUT_CALLBACK": "ansible.builtin.minimal"}
    inventories = [f"--inventory={path}" for path in INVENTORIES]
    done = subprocess.run([command, *inventories, *arguments], env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, f"{command} ended with {done.returncode}: {done.stderr or done.stdout}"
    return json.loads(done.stdout[done.stdout.index("{") :])


def first(inventory: dict[str, Any], group: str) -> str:
    """Return the first host of a group."""
    hosts = inventory.get(group, {}).get("hosts", [])
    assert hosts, f"the inventory's group {group} has no host"
    return str(hosts[0])


def load() -> Settings:
    """Ask Ansible for the variables, and read the secrets."""
    inventory = ansible("ansible-inventory", "--list")
    node, client = first(inventory, "kallithea_app"), first(inventory, "clients")
    wanted = ", ".join(f"'{name}': {name} | default('')" for name in DEFAULTS)
    arguments = json.dumps({"msg": f"{{{{ {{{wanted}}} }}}}"})
    variables = ansible("ansible", node, "--module-name=ansible.builtin.debug", f"--args={arguments}")["msg"]
    values = {name: variables[name] if variables[name] != "" else default for name, default in DEFAULTS.items()}
    secrets_file = Path(values["kallithea_secrets_file"])
    hostvars = inventory["_meta"]["hostvars"]
    return Settings(
        node=node,
        node_container=hostvars[node].get("ansible_host", node),
        client=client,
        client_container=hostvars[client].get("ansible_host", client),
        hostname=values["kallithea_hostname"],
        ci_hostname=values["kallithea_ci_hostname"],
        address=values["kallithea_address"],
        storage=values["kallithea_storage_path"],
        static_port=values["kallithea_app_static_port"],
        pools=values["kallithea_app_pools"],
        mail=values["kallithea_app_mail"],
        direct_clients=values["kallithea_app_direct_clients"],
        ca_file=Path(values["kallithea_loadbalancer_ca_dir"] or secrets_file.parent / "ca") / "ca.crt",
        secrets=yaml.safe_load(secrets_file.read_text())["kallithea_secrets"],
    )
