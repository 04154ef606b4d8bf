"""The demo's inventory: each of inventories/ with containers as its hosts."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.kallithea.cluster.plugins.filter.preflight import memory_problems

ROOT = Path(__file__).resolve().parents[2]
SPEC = importlib.util.spec_from_file_location("demo_inventory", ROOT / "scripts/lib/demo_inventory.py")
assert SPEC is not None and SPEC.loader is not None
demo_inventory: Any = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(demo_inventory)


def written(shape: str, state: Path, machines: bool = False) -> tuple[dict[str, Any], dict[str, Any]]:
    """Write a demo's inventory and return its hosts file and the variables of all hosts."""
    demo_inventory.write(ROOT / "inventories" / shape, state, "demo", "scm.test", "ci.test", machines)
    folder = state / "inventory"
    return yaml.safe_load((folder / "hosts.yml").read_text())["all"], yaml.safe_load((folder / "group_vars/test_hosts.yml").read_text())


def test_several_hosts_share_a_volume_with_a_keeper_outside_the_cluster(tmp_path: Path) -> None:
    """Whoever serves the repositories has them from the keeper; nobody takes the machine for itself."""
    inventory, common = written("cluster", tmp_path)
    hosts = inventory["hosts"]
    assert list(hosts) == ["lb1", "app1", "app2", "ci1", "db1", "mq1", "keeper"]
    assert [host for host, values in hosts.items() if values.get("test_volumes") == ["demo-share:/srv/kallithea"]] == ["app1", "app2", "ci1", "keeper"]
    assert not any("keeper" in values["hosts"] for group, values in inventory["children"].items() if group != "test_hosts")
    assert {host: values["ansible_host"] for host, values in hosts.items()} == {host: f"demo-{host}" for host in hosts}
    assert hosts["ci1"]["kallithea_app_pools"] == {"ci": {"processes": 2}}
    assert hosts["db1"]["kallithea_database_memory_share"] < 0.5
    assert common["kallithea_app_pools"]["ui"] == {"processes": 2}


def test_machines_serve_and_mount_the_repositories(tmp_path: Path) -> None:
    """The file server and whoever mounts it have kernels of their own; the rest stays in containers, and builds the release."""
    inventory, common = written("cluster", tmp_path, machines=True)
    hosts, children = inventory["hosts"], inventory["children"]
    assert list(hosts) == ["lb1", "app1", "app2", "ci1", "db1", "mq1", "store1"]
    machines = ["app1", "app2", "ci1", "store1"]
    assert [host for host, values in hosts.items() if values.get("test_kind") == "machine"] == machines
    assert list(children["test_machines"]["hosts"]) == machines
    assert [host for host, values in hosts.items() if values.get("kallithea_firewall") == "external"] == machines
    assert not any("test_volumes" in values for values in hosts.values())
    assert list(children["kallithea_storage"]["hosts"]) == ["store1"]
    assert common["kallithea_storage_kind"] == "nfs"
    assert common["kallithea_app_build_host"] == "lb1"
    # A machine's kernel keeps some 3 % of its memory for itself.
    node = {"name": "app1", "pools": common["kallithea_app_pools"], "celery": 2}
    assert memory_problems(node, {"memory_mb": hosts["app1"]["test_memory"] * 0.97, "cores": 1}) == []
    reached = yaml.safe_load((tmp_path / "inventory/group_vars/test_machines.yml").read_text())
    assert reached["ansible_group_priority"] > children["test_hosts"]["vars"]["ansible_group_priority"]


def test_one_host_stays_as_the_user_gets_it(tmp_path: Path) -> None:
    """Its pools are the defaults, its tree is its own."""
    inventory, common = written("single-host", tmp_path)
    assert inventory["hosts"] == {"node1": {"ansible_host": "demo-node1"}}
    assert "kallithea_app_pools" not in common


@pytest.mark.parametrize(
    ("shape", "group", "expected"),
    [("cluster", "kallithea_app", ["192.0.2.11", "192.0.2.12"]), ("cluster", "kallithea_storage", []), ("single-host", "kallithea_app", ["192.0.2.20"])],
)
def test_addresses_of_a_group(tmp_path: Path, shape: str, group: str, expected: list[str]) -> None:
    """They come from what the containers got."""
    written(shape, tmp_path)
    known = {"lb1": "192.0.2.10", "app1": "192.0.2.11", "app2": "192.0.2.12", "node1": "192.0.2.20"}
    (tmp_path / "state.json").write_text(json.dumps({"addresses": known}))
    assert demo_inventory.addresses(tmp_path, group) == expected
