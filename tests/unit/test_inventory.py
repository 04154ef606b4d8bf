"""What is wrong with an inventory as a whole, and with hosts that have to be alike."""

from __future__ import annotations

from typing import Any

import pytest
from ansible.errors import AnsibleUndefinedVariable
from ansible_collections.kallithea.cluster.plugins.filter.inventory import all_problems, connection_problems, host_differences, inventory_problems

POOLS = {"ui": {"processes": 3, "port": 8081}, "ci": {"processes": 2, "port": 8084}}
GROUPS = {
    "kallithea_database": ["db1"],
    "kallithea_broker": ["mq1"],
    "kallithea_app": ["app1", "app2"],
    "kallithea_ci": ["ci1"],
    "kallithea_loadbalancer": ["lb1"],
}
HOSTS: dict[str, dict[str, Any]] = {
    name: {"kallithea_address": f"192.0.2.{number}", "kallithea_storage_kind": "existing"}
    for number, name in enumerate(["db1", "mq1", "app1", "app2", "ci1", "lb1"], start=1)
}


def problems(groups: dict[str, list[str]] | None = None, **hosts: dict[str, Any]) -> dict[str, list[str]]:
    """Return what is wrong with the inventory where some groups and some hosts' variables are others."""
    hostvars = {name: {**HOSTS.get(name, {}), **hosts.get(name, {})} for name in HOSTS.keys() | hosts.keys()}
    found: dict[str, list[str]] = inventory_problems({**GROUPS, **(groups or {})}, hostvars, POOLS, 2)
    return found


def everywhere(**variables: Any) -> dict[str, dict[str, Any]]:
    """Return the variables for every host."""
    return dict.fromkeys(HOSTS, variables)


def test_a_good_inventory_has_no_problem() -> None:
    assert problems() == {"fatal": [], "all": []}


@pytest.mark.parametrize("tier", ["app", "loadbalancer", "database", "broker"])
def test_an_empty_group_is_named(tier: str) -> None:
    found = problems({f"kallithea_{tier}": []})
    assert any(f"The inventory group kallithea_{tier} is empty or missing" in sentence for sentence in found["fatal"])


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("kallithea_apps", "kallithea_app"),
        ("kalithea_app", "kallithea_app"),
        ("kallithea_load_balancer", "kallithea_loadbalancer"),
        ("kallithea-ci", "kallithea_ci"),
    ],
)
def test_a_misspelt_group_is_named(written: str, meant: str) -> None:
    found = problems({meant: [], written: GROUPS[meant]})["fatal"]
    assert f"The inventory group {written} is none that anything reads; did you mean {meant}?" in found


def test_other_groups_are_the_users_own() -> None:
    assert problems({"kallithea_apps": ["app1"], "kallithea": list(HOSTS), "kallithea_cis": [], "kallithea_berlin": ["app1"]}) == {"fatal": [], "all": []}


ONE = {"kallithea_app": ["app1"], "kallithea_ci": []}


def test_local_storage_needs_its_host() -> None:
    (sentence,) = problems(ONE, **everywhere(kallithea_storage_kind="local"))["fatal"]
    assert "kallithea_storage is empty" in sentence
    assert problems({**ONE, "kallithea_storage": ["app1"]}, **everywhere(kallithea_storage_kind="local"))["all"] == []


@pytest.mark.parametrize("groups", [{}, {"kallithea_storage": ["app1"]}, {**ONE, "kallithea_storage": ["db1"]}])
def test_local_storage_serves_the_one_application_host(groups: dict[str, list[str]]) -> None:
    (sentence,) = problems(groups, **everywhere(kallithea_storage_kind="local"))["all"]
    assert "kallithea_storage_kind is local" in sentence and "set kallithea_storage_kind: existing" in sentence


def test_existing_storage_has_no_host() -> None:
    (sentence,) = problems({"kallithea_storage": ["db1"]})["all"]
    assert "kallithea_storage has db1" in sentence


NFS = everywhere(kallithea_storage_kind="nfs")


def test_nfs_has_one_host_of_its_own() -> None:
    assert problems({"kallithea_storage": ["db1"]}, **NFS)["all"] == []


@pytest.mark.parametrize(
    ("members", "says"),
    [
        ([], "kallithea_storage is empty or missing, but with kallithea_storage_kind nfs one host serves the storage"),
        (["db1", "mq1"], "kallithea_storage has db1, mq1, but with kallithea_storage_kind nfs one host serves the storage"),
        (["app2"], "Host app2 stands in kallithea_storage and runs the application, but the locks of the server's own processes"),
        (["db1", "app1"], "kallithea_storage has app1, db1, but"),
        (["ci1"], "Host ci1 stands in kallithea_storage and runs the application"),
    ],
)
def test_nfs_on_other_hosts_is_refused(members: list[str], says: str) -> None:
    found = problems({"kallithea_storage": members}, **NFS)["fatal"]
    # Two hosts of which one runs the application are two mistakes.
    assert len(found) == (2 if members == ["db1", "app1"] else 1)
    assert says in found[0]


def test_a_storage_host_that_cannot_be_found_out_is_fatal() -> None:
    unknown = {**NFS["db1"], "kallithea_address": "", "ansible_host": "no-such-host.invalid"}
    (sentence,) = problems({"kallithea_storage": ["db1"]}, **{**NFS, "db1": unknown})["fatal"]
    assert "host db1 has no kallithea_address and 'no-such-host.invalid' does not resolve on the controller" in sentence


@pytest.mark.parametrize(("tier", "host"), [("database", "db1"), ("broker", "mq1")])
def test_external_needs_no_group_and_takes_none_beside_it(tier: str, host: str) -> None:
    given = everywhere(**{f"kallithea_{tier}_hosts": ["192.0.2.99"]})
    assert problems({f"kallithea_{tier}": []}, **given)["all"] == []
    (sentence,) = problems(None, **given)["all"]
    assert f"kallithea_{tier} has {host}" in sentence and f"kallithea_{tier}_hosts" in sentence


def test_external_hosts_are_a_list() -> None:
    (sentence,) = problems({"kallithea_database": []}, **everywhere(kallithea_database_hosts="pg.example.org"))["fatal"]
    assert sentence == "kallithea_database_hosts is the text 'pg.example.org'; give a list, such as [pg.example.org]."


def test_two_databases_are_too_many() -> None:
    (sentence,) = problems({"kallithea_database": ["db1", "mq1"]})["all"]
    assert "db1, mq1" in sentence


def test_a_ci_host_is_no_app_host() -> None:
    (sentence,) = problems({"kallithea_ci": ["app2"]})["all"]
    assert sentence.startswith("Host app2 stands in kallithea_app and in kallithea_ci")


def test_an_address_that_cannot_be_found_out_is_fatal() -> None:
    (sentence,) = problems(None, app2={"kallithea_address": "", "ansible_host": "no-such-host.invalid"})["fatal"]
    assert "app2" in sentence and "set kallithea_address" in sentence


def test_two_hosts_of_one_address() -> None:
    (sentence,) = problems(None, app2={"kallithea_address": "192.0.2.3"})["all"]
    assert "app1, app2" in sentence and "192.0.2.3" in sentence


def test_numbers_and_paths_have_to_be_alike() -> None:
    (sentence,) = problems(None, app2={"kallithea_uid": 2300})["all"]
    assert sentence == (
        "kallithea_uid is 2300 on app2 and its default on app1, ci1, db1, lb1, mq1; it must be the same on every host, so set it once in group_vars/all.yml."
    )


def test_a_value_that_a_role_does_not_take_ends_it_with_all_the_rest() -> None:
    found = problems(None, app2={"kallithea_firewall": "on", "kallithea_uid": 2300, "kallithea_hostnmae": "x"}, lb1={"kallithea_firewall": "on"})
    assert found["fatal"] == ["kallithea_firewall is the text 'on' on app2, lb1; give one of managed, external."]
    assert [sentence.split()[:3] for sentence in found["all"][1:]] == [["The", "variable", "kallithea_hostnmae"], ["kallithea_uid", "is", "2300"]]


def test_what_has_a_sentence_of_its_own_is_said_once() -> None:
    (sentence,) = problems(None, app2={"kallithea_app_pools": "many"})["fatal"]
    assert sentence.startswith("kallithea_app_pools of host app2 is no dictionary")


def test_own_variables_are_left_alone() -> None:
    assert problems(None, app2={"kallithea_mine": 1, "kallithea_ignore_variables": ["kallithea_mine"]})["all"] == []


def test_all_is_said_at_once() -> None:
    found = problems({"kallithea_ci": ["app2"], "kallithea_broker": []}, app2={"kallithea_uid": 2300, "kallithea_address": "192.0.2.3"})
    assert len(found["fatal"]) == 2
    assert len(found["all"]) == 4


def state(release: str = "12", architecture: str = "x86_64", timezone: str = "Etc/UTC", hostname: str = "") -> dict[str, Any]:
    """Return what a host says of itself."""
    return {"release": release, "architecture": architecture, "state": {"timezone": timezone, "hostname": hostname}}


def test_hosts_that_are_alike() -> None:
    assert host_differences({"app1": state(hostname="app1"), "db1": state("13", hostname="db1")}, ["app1"]) == []


def test_mixed_releases_among_the_application_hosts() -> None:
    (sentence,) = host_differences({"app1": state(hostname="app1"), "app2": state("13", hostname="app2")}, ["app1", "app2"])
    assert "Debian 12 on app1 and Debian 13 on app2" in sentence


def test_mixed_architectures_among_the_application_hosts() -> None:
    (sentence,) = host_differences({"app1": state(hostname="app1"), "app2": state(architecture="aarch64", hostname="app2")}, ["app1", "app2"])
    assert "aarch64 on app2" in sentence


def test_time_zones_apart() -> None:
    (sentence,) = host_differences({"app1": state(hostname="app1"), "db1": state(timezone="Europe/Berlin", hostname="db1")}, ["app1"])
    assert "Europe/Berlin on db1" in sentence and "timedatectl" in sentence


def test_two_hosts_of_one_name() -> None:
    (sentence,) = host_differences({"app1": state(hostname="debian"), "app2": state(hostname="debian")}, ["app1", "app2"])
    assert "app1, app2" in sentence and "debian" in sentence


@pytest.mark.parametrize("own", ["localhost", "localhost.localdomain"])
def test_a_host_without_a_name_of_its_own(own: str) -> None:
    (sentence,) = host_differences({"app1": state(hostname=own), "app2": state(hostname="app2")}, ["app1", "app2"])
    assert sentence.startswith(f"Host app1 calls itself {own}, ") and "hostnamectl" in sentence


def test_more_connections_than_memory() -> None:
    assert connection_problems(200, 1024, "db1") == []
    (sentence,) = connection_problems(2000, 1024, "db1")
    assert "2000 connections" in sentence and "db1" in sentence


def host(release: str, *sentences: str) -> dict[str, Any]:
    """Return the variables of a host that was asked."""
    return {
        "__kallithea_common_host": {
            "state": {
                "timezone": "Etc/UTC",
                "hostname": f"host-{release}",
                "storage": {"path": "/srv", "is_mount": False},
                "marker": {"exists": False},
                "storage_identity": {"exists": True, "cluster_id": "ours"},
                "identity": {"exists": True, "cluster_id": "another" if release == "store" else "ours"},
            }
        },
        "ansible_facts": {"distribution_major_version": release, "architecture": "x86_64"},
        "__kallithea_preflight_problems": list(sentences),
    }


def test_the_same_words_are_said_once_and_differences_last() -> None:
    hostvars = {"app1": host("12", "b.", "c."), "app2": host("13", "c.", "a.")}
    found = all_problems(["a."], ["app1", "app2"], hostvars, ["app1", "app2"])
    assert found[:3] == ["a.", "b.", "c."]
    assert len(found) == 4 and "Debian 13 on app2" in found[3]


def test_a_lost_storage_is_said_too() -> None:
    hostvars = {"store1": host("store"), "app1": host("12")}
    (sentence,) = all_problems([], ["store1", "app1"], hostvars, ["app1"], ["store1"])
    assert "of host store1 has no marker .kallithea-cluster, though app1 used" in sentence


def test_another_servers_storage_is_said_too() -> None:
    hostvars = {"store1": host("store"), "app1": host("12")}
    hostvars["store1"]["__kallithea_common_host"]["state"] |= {"marker": {"exists": True}, "addresses": ["192.0.2.40"]}
    hostvars["app1"]["__kallithea_common_host"]["state"]["storage"] |= {
        "is_mount": True,
        "answers": True,
        "readable": False,
        "fstype": "nfs4",
        "source": "files:/srv",
        "super_options": ["addr=192.0.2.50"],
    }
    (sentence,) = all_problems([], ["store1", "app1"], hostvars, ["app1"], ["store1"])
    assert "of host app1 is mounted from files:/srv, which is not that of the storage host store1" in sentence


def test_a_run_limited_to_one_host_compares_nothing() -> None:
    assert all_problems([], ["app1"], {"app1": host("12")}, ["app1", "app2"]) == []


def test_a_template_of_what_is_known_later_is_no_difference() -> None:
    class Templates(dict[str, Any]):
        def get(self, name: str, default: Any = None) -> Any:
            if name == "kallithea_app_data_dir":
                raise AnsibleUndefinedVariable("'kallithea_storage_path' is undefined")
            return super().get(name, default)

    hostvars = {name: Templates(own) for name, own in HOSTS.items()}
    hostvars["app2"]["kallithea_uid"] = 2299
    (sentence,) = inventory_problems(GROUPS, hostvars, POOLS, 2)["all"]
    assert sentence.startswith("kallithea_uid is 2299 on app2")


def test_a_slip_in_the_first_word_of_a_variable_is_named() -> None:
    (sentence,) = problems(None, app1={"kalithea_uid": 2299, "kubernetes_uid": 1, "kallisto_uid": 2})["all"]
    assert sentence == "The variable kalithea_uid is set but nothing reads it; did you mean kallithea_uid?"
