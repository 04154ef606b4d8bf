"""What is wrong with variables by themselves, where the inventory's own mistakes end the run before any host is asked."""

from __future__ import annotations

from typing import Any

import pytest
from ansible.errors import AnsibleUndefinedVariable
from ansible_collections.kallithea.cluster.plugins.filter.variables import variable_problems

PORTS = {"ui": 8081, "scm": 8082, "write": 8083, "ci": 8084}
POOLS = {pool: {"processes": 2, "port": port} for pool, port in PORTS.items()}
GROUPS = {"kallithea_storage": ["nas1"], "kallithea_app": ["app1"], "kallithea_ci": ["ci1"], "kallithea_loadbalancer": ["lb1"]}
HOSTS: dict[str, dict[str, Any]] = {
    name: {"kallithea_address": f"192.0.2.{number}", "kallithea_storage_kind": "nfs", "kallithea_hostname": "scm.example.org"}
    for number, name in enumerate(["nas1", "app1", "ci1", "lb1"], start=1)
}


def problems(groups: dict[str, list[str]] | None = None, **variables: Any) -> list[str]:
    """Return what is wrong where every host has some variables otherwise."""
    hostvars = {name: {**own, **variables} for name, own in HOSTS.items()}
    found: list[str] = variable_problems({**GROUPS, **(groups or {})}, hostvars, POOLS, 2)
    return found


def test_good_variables_have_no_problem() -> None:
    assert problems() == []


@pytest.mark.parametrize(
    ("variable", "value", "says"),
    [
        ("kallithea_hostname", "http://scm.example.org", "kallithea_hostname is 'http://scm.example.org', which is no host name"),
        ("kallithea_timezone", "Mars/Olympus", "kallithea_timezone is 'Mars/Olympus', which the tz database does not have"),
        ("kallithea_storage_path", "srv/kallithea", "kallithea_storage_path is 'srv/kallithea'; give an absolute path"),
        ("kallithea_storage_mount_timeo", 1, "kallithea_storage_mount_timeo is 1; give a whole number from 10 to 6000"),
        ("kallithea_storage_nfs_threads", 0, "kallithea_storage_nfs_threads is 0; give a whole number from 1 to 4096"),
        ("kallithea_app_purge_deleted_after", "soon", "kallithea_app_purge_deleted_after is 'soon'; give days or hours"),
        ("kallithea_app_ini", {"sqlalchemy.url": "x"}, "kallithea_app_ini sets 'sqlalchemy.url', which the role owns"),
        ("kallithea_app_extra_requirements", ["python-ldap"], "kallithea_app_extra_requirements has 'python-ldap'; pin one version"),
        ("kallithea_app_static_port", 443, "kallithea_app_static_port"),
        ("kallithea_loadbalancer_bot_networks", ["build"], "kallithea_loadbalancer_bot_networks holds 'build', which is neither an address nor a network"),
    ],
)
def test_mistake_has_its_sentence_once(variable: str, value: Any, says: str) -> None:
    groups = {"kallithea_loadbalancer": ["app1"]} if variable == "kallithea_app_static_port" else {}
    found = problems(groups, **{variable: value})
    assert len(found) == 1, found
    assert says in found[0]


def test_pools_and_ports_are_looked_at() -> None:
    pools = {**POOLS, "ui": {"processes": 0, "port": 22}, "ci": {"processes": 2, "port": 8083}}
    assert sorted(sentence.partition(";")[0] for sentence in problems(kallithea_app_pools=pools)) == [
        "Port 22 of host app1 is wanted by kallithea_app_pools.ui and SSH",
        "kallithea_app_pools.ci of host app1 has the port 8083 of pool write",
        "kallithea_app_pools.ui of host app1 has processes 0",
    ]


def test_mistake_of_the_inventory_hides_no_other() -> None:
    (sentence,) = problems({"kallithea_app": [], "kallithea_ci": []}, kallithea_hostname="Scm")
    assert sentence.startswith("kallithea_hostname is 'Scm'")
    nameless = {**HOSTS, "app1": {**HOSTS["app1"], "kallithea_address": "nowhere"}}
    assert variable_problems(GROUPS, {name: {**own, "kallithea_timezone": "Mars"} for name, own in nameless.items()}, POOLS, 2) == [
        "kallithea_timezone is 'Mars', which the tz database does not have; give a name such as Europe/Berlin."
    ]


def test_value_of_a_wrong_type_is_left_to_its_own_sentence() -> None:
    assert problems(kallithea_hostname=["scm.example.org"], kallithea_app_ini="debug = true", kallithea_storage_path={}) == []
    (sentence,) = problems(kallithea_loadbalancer_bot_networks="build", kallithea_timezone="Mars/Olympus")
    assert sentence.startswith("kallithea_timezone")


class Templates(dict[str, Any]):
    """A host's variables of which one is a template of facts that nobody has asked for."""

    def get(self, name: str, default: Any = None) -> Any:
        """Return a value, or fail as Ansible does."""
        if name == "kallithea_timezone":
            raise AnsibleUndefinedVariable("ansible_facts")
        return super().get(name, default)


def test_template_of_facts_is_left_out() -> None:
    hostvars = {name: Templates(own, kallithea_hostname="Scm") for name, own in HOSTS.items()}
    (sentence,) = variable_problems(GROUPS, hostvars, POOLS, 2)
    assert sentence.startswith("kallithea_hostname is 'Scm'")


def test_host_in_two_groups_has_no_clash_with_itself() -> None:
    assert problems({"kallithea_ci": ["app1"]}) == []
