"""The topology filter: groups and variables to nodes."""

from __future__ import annotations

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.kallithea.cluster.plugins.filter.topology import host_pattern, node_address, site_report, topology

DEFAULTS = {"ui": {"processes": 3, "port": 8081}, "ci": {"processes": 2, "port": 8084}}


def test_every_host_of_the_cluster_and_no_other() -> None:
    assert host_pattern({"all": ["a", "b"], "kallithea_app": ["a"], "kallithea_ci": [], "web": ["b"]}) == "kallithea_app:kallithea_ci"
    assert host_pattern({"all": ["a"]}) == "all:!all"


def test_address_prefers_the_given_one() -> None:
    assert node_address("a", {"kallithea_address": "192.0.2.1", "ansible_host": "192.0.2.2"}) == "192.0.2.1"


def test_address_falls_back_to_ansible_host_and_to_the_name() -> None:
    assert node_address("a", {"ansible_host": "2001:db8::1"}) == "2001:db8::1"
    assert node_address("localhost", {}) in ("127.0.0.1", "::1")


@pytest.mark.parametrize("variables", [{"kallithea_address": "nowhere"}, {"ansible_host": "no-such-host.invalid"}])
def test_no_address_is_one_sentence_that_names_the_variable(variables: dict) -> None:
    with pytest.raises(AnsibleFilterError, match="kallithea_address"):
        node_address("a", variables)


def test_own_pools_override_single_keys() -> None:
    hostvars = {"a": {"ansible_host": "192.0.2.1", "kallithea_app_pools": {"ui": {"processes": 9}, "ci": {}}}}
    nodes = topology({"kallithea_app": ["a"]}, hostvars, DEFAULTS, 2)
    assert nodes["app"][0]["pools"] == {"ui": {"processes": 9, "port": 8081}, "ci": {"processes": 2, "port": 8084}}
    assert nodes["storage"] == []


def test_a_ci_node_has_the_ci_pool_alone() -> None:
    nodes = topology({"kallithea_ci": ["a"]}, {"a": {"ansible_host": "192.0.2.1"}}, DEFAULTS, 1)
    assert nodes["ci"] == [{"name": "a", "address": "192.0.2.1", "ci": True, "pools": {"ci": {"processes": 2, "port": 8084}}, "celery": 1}]


def test_pool_that_is_no_dictionary_is_refused() -> None:
    with pytest.raises(AnsibleFilterError, match="pool ui is not a dictionary"):
        topology({"kallithea_app": ["a"]}, {"a": {"ansible_host": "192.0.2.1", "kallithea_app_pools": {"ui": 3}}}, DEFAULTS, 1)


def test_report_names_address_password_place_and_pools() -> None:
    nodes = topology({"kallithea_app": ["a"]}, {"a": {"ansible_host": "192.0.2.1"}}, DEFAULTS, 1)
    lines = "\n".join(site_report(nodes, {"kallithea_hostname": "scm.example.org", "kallithea_secrets_file": "/x/secrets.yml"}))
    assert "https://scm.example.org/" in lines
    assert "/x/secrets.yml" in lines
    assert "ui 3" in lines


def test_report_names_the_server_of_the_storage() -> None:
    nodes = topology({"kallithea_storage": ["s"]}, {"s": {"ansible_host": "192.0.2.9"}}, DEFAULTS, 1)
    line = "Host s (192.0.2.9): NFS server"
    assert line in site_report(nodes, {"kallithea_hostname": "scm.example.org", "kallithea_storage_kind": "nfs"})
    assert line not in site_report(nodes, {"kallithea_hostname": "scm.example.org"})


def test_pools_that_are_no_dictionary_are_refused() -> None:
    with pytest.raises(AnsibleFilterError, match="kallithea_app_pools of host a is no dictionary; give pools like"):
        topology({"kallithea_app": ["a"]}, {"a": {"kallithea_address": "192.0.2.1", "kallithea_app_pools": ["ui"]}}, DEFAULTS, 2)


def test_celery_processes_that_are_no_number_are_refused() -> None:
    with pytest.raises(AnsibleFilterError, match="kallithea_app_celery_processes of host a is 'abc'; give a whole number"):
        topology({"kallithea_app": ["a"]}, {"a": {"kallithea_address": "192.0.2.1", "kallithea_app_celery_processes": "abc"}}, DEFAULTS, 2)
