"""What preflight says: each problem one sentence with what, where and how to mend it."""

from __future__ import annotations

import pathlib
from typing import Any

import pytest
from ansible.errors import AnsibleUndefinedVariable
from ansible_collections.kallithea.cluster.plugins.filter import preflight

POOLS = {pool: {"processes": 2, "port": 8081 + number} for number, pool in enumerate(preflight.POOLS)}
NODE = {"name": "node1", "ci": False, "pools": POOLS, "celery": 2}
STATE = {
    "memory_mb": 4096,
    "cores": 2.0,
    "listening": [],
    "clock_ahead": 0.0,
    "timezone": "Etc/UTC",
    "uid_owner": "",
    "gid_owner": "",
    "user_uid": -1,
    "group_gid": -1,
    "identity": {"exists": False, "cluster_id": ""},
    "marker": {"exists": False, "cluster_id": ""},
}


def with_pool(**settings: object) -> dict:
    """Return the node with other settings of its pool ui."""
    return {**NODE, "pools": {**POOLS, "ui": {**POOLS["ui"], **settings}}}


def test_a_good_node_has_no_problem() -> None:
    assert preflight.pool_problems(NODE) == []
    assert preflight.memory_problems(NODE, STATE) == []


@pytest.mark.parametrize("processes", [0, -1, "2", True, None, 1.5])
def test_processes_below_one_or_no_number(processes: object) -> None:
    (problem,) = preflight.pool_problems(with_pool(processes=processes))
    assert "kallithea_app_pools.ui of host node1" in problem
    assert "at least 1" in problem


def test_one_process_is_enough() -> None:
    assert preflight.pool_problems(with_pool(processes=1)) == []


def test_threads_are_not_offered_and_why() -> None:
    (problem,) = preflight.pool_problems(with_pool(threads=2))
    assert "not thread-safe" in problem
    assert "raise processes" in problem


@pytest.mark.parametrize("port", [0, 65536, "8081", POOLS["scm"]["port"]])
def test_port_out_of_range_or_twice(port: object) -> None:
    assert len(preflight.pool_problems(with_pool(port=port))) == 1


def test_missing_and_unknown_pool() -> None:
    node = {**NODE, "pools": {"ui": POOLS["ui"], "scm": POOLS["scm"], "write": POOLS["write"], "web": {"processes": 1, "port": 9000}}}
    text = " ".join(preflight.pool_problems(node))
    assert "lacks the pool ci" in text
    assert "kallithea_app_pools.web" in text


def test_memory_boundary() -> None:
    need = preflight.process_count(NODE) * preflight.PROCESS_MB + preflight.RESERVED_MB
    assert preflight.memory_problems(NODE, {**STATE, "memory_mb": need}) == []
    (problem,) = preflight.memory_problems(NODE, {**STATE, "memory_mb": need - 1})
    assert "lower kallithea_app_pools" in problem


def test_proposal_fits_the_memory_it_was_made_for() -> None:
    for memory in range(2048, 32768, 512):
        pools = {pool: {"processes": count, "port": 1} for pool, count in preflight.proposed_pools(memory, 2.0).items()}
        assert preflight.memory_problems({**NODE, "pools": pools}, {**STATE, "memory_mb": memory}) == []


@pytest.mark.parametrize(("ahead", "count"), [(0.0, 0), (2.0, 0), (5.0, 0), (7.1, 1), (-2.0, 0), (-2.1, 1), (3600.0, 1)])
def test_clock_allows_for_the_time_that_asking_took(ahead: float, count: int) -> None:
    assert len(preflight.clock_problems("node1", {**STATE, "clock_ahead": ahead}, 5.0)) == count


def test_timezone(tmp_path: pathlib.Path) -> None:
    (tmp_path / "Europe").mkdir()
    (tmp_path / "Europe" / "Berlin").write_text("")
    assert preflight.timezone_problems("Europe/Berlin", tmp_path) == []
    assert "kallithea_timezone" in preflight.timezone_problems("Europe/Nowhere", tmp_path)[0]
    assert preflight.timezone_problems("../../etc/passwd", tmp_path)


def test_mistyped_variable_gets_a_suggestion() -> None:
    known = {"kallithea_hostname", "kallithea_app_pools"}
    assert preflight.unknown_variables(["kallithea_hostname"], known=known) == []
    assert preflight.unknown_variables(["kallithea_hostnme"], known=known) == [
        "The variable kallithea_hostnme is set but nothing reads it; did you mean kallithea_hostname?"
    ]
    assert preflight.unknown_variables(["kallithea_zzz"], ["kallithea_zzz"], known) == []


def test_every_role_documents_its_variables() -> None:
    assert {"kallithea_hostname", "kallithea_app_pools", "kallithea_loadbalancer_tls"} <= preflight.documented_variables()


@pytest.mark.parametrize(
    ("name", "ci", "count"),
    [("scm.example.org", "", 0), ("scm.example.org", "ci.example.org", 0), ("", "", 1), ("https://x", "", 1), ("a b", "", 1), ("x.org", "x.org", 1)],
)
def test_hostnames(name: str, ci: str, count: int) -> None:
    assert len(preflight.hostname_problems(name, ci)) == count


def test_port_in_use_by_something_else() -> None:
    state = {**STATE, "listening": [{"port": 443, "programs": ["nginx"]}, {"port": 5432, "programs": ["postgres"]}]}
    (problem,) = preflight.port_problems("node1", state, {443: ["haproxy"], 5432: ["postgres"]})
    assert "Port 443" in problem
    assert "nginx" in problem


ONE_HOST = {
    "app": [{"name": "node1", "pools": {"ui": {"processes": 3, "port": 8081}, "ci": {"processes": 2, "port": 8084}}}],
    "ci": [],
    "database": [{"name": "node1"}],
    "broker": [{"name": "node1"}],
    "loadbalancer": [{"name": "node1"}],
}


def test_ports_of_their_own_are_fine() -> None:
    assert preflight.port_clashes(ONE_HOST, "node1", {}) == []


@pytest.mark.parametrize(
    ("variables", "sentence"),
    [
        ({"kallithea_app_static_port": "8084"}, "Port 8084 of host node1 is wanted by kallithea_app_pools.ci and kallithea_app_static_port;"),
        ({"kallithea_app_health_port": 5432}, "Port 5432 of host node1 is wanted by kallithea_app_health_port and PostgreSQL;"),
        ({"kallithea_loadbalancer_https_port": 8081}, "Port 8081 of host node1 is wanted by kallithea_app_pools.ui and kallithea_loadbalancer_https_port;"),
        ({"kallithea_app_metrics_bind": "0.0.0.0:8081"}, "Port 8081 of host node1 is wanted by kallithea_app_pools.ui and kallithea_app_metrics_bind;"),
        (
            {"kallithea_loadbalancer_metrics_bind": "[::]:443"},
            "Port 443 of host node1 is wanted by kallithea_loadbalancer_https_port and kallithea_loadbalancer_metrics_bind;",
        ),
        (
            {"kallithea_app_metrics_bind": "127.0.0.1:8405"},
            "Port 8405 of host node1 is wanted by kallithea_app_metrics_bind and kallithea_loadbalancer_metrics_bind;",
        ),
        ({"kallithea_app_static_port": 22}, "Port 22 of host node1 is wanted by kallithea_app_static_port and SSH;"),
    ],
)
def test_a_port_that_two_want(variables: dict[str, Any], sentence: str) -> None:
    (problem,) = preflight.port_clashes(ONE_HOST, "node1", variables)
    assert problem.startswith(sentence)


def test_an_address_is_no_hostname() -> None:
    (problem,) = preflight.hostname_problems("192.0.2.7", "")
    assert "an address; give a name" in problem


def test_numeric_id_of_somebody_else() -> None:
    state = {**STATE, "uid_owner": "alice", "gid_owner": "kallithea", "group_gid": 2200}
    (problem,) = preflight.account_problems("node1", state, "kallithea", 2200, 2200)
    assert "kallithea_uid 2200 belongs to alice" in problem


def test_service_user_with_another_number() -> None:
    there = {**STATE, "uid_owner": "kallithea", "gid_owner": "kallithea", "user_uid": 2200, "group_gid": 2200}
    assert preflight.account_problems("node1", there, "kallithea", 2200, 2200) == []
    (problem,) = preflight.account_problems("node1", {**there, "uid_owner": "", "user_uid": 998}, "kallithea", 2200, 2200)
    assert "the number 998, but kallithea_uid is 2200" in problem


@pytest.mark.parametrize(
    ("key", "entry", "says"),
    [
        ("identity", {"exists": True, "cluster_id": "ours"}, ""),
        ("identity", {"exists": True, "cluster_id": "theirs"}, "/etc/x.json"),
        ("identity", {"exists": True, "cluster_id": ""}, "damaged"),
        ("marker", {"exists": True, "cluster_id": "ours"}, ""),
        ("marker", {"exists": True, "cluster_id": ""}, "/srv/k/.kallithea-cluster"),
    ],
)
def test_host_or_storage_of_another_cluster(key: str, entry: dict, says: str) -> None:
    problems = preflight.identity_problems("node1", {**STATE, key: entry}, "ours", "/etc/x.json", "/srv/k")
    assert len(problems) == bool(says)
    assert says in " ".join(problems)


@pytest.mark.parametrize(
    ("system", "version", "python", "count"),
    [("Debian", "12", "3.11.2", 0), ("Debian", "13", "3.13.5", 0), ("Debian", "11", "3.9.2", 1), ("Ubuntu", "24", "3.12.3", 1), ("Debian", "12", "3.12.1", 1)],
)
def test_system(system: str, version: str, python: str, count: int) -> None:
    facts = {"distribution": system, "distribution_major_version": version, "python_version": python}
    assert len(preflight.system_problems(facts)) == count


def test_expected_ports_follow_the_tiers() -> None:
    topology = {"app": [NODE], "loadbalancer": [{"name": "other"}], "database": [{"name": "node1"}]}
    ports = preflight.expected_ports(topology, "node1", {"kallithea_app_static_port": 9000})
    assert ports[8081] == ["apache2"]
    assert ports[9000] == ["apache2"]
    assert ports[8406] == ["apache2"]
    assert 8405 not in ports
    assert preflight.expected_ports(topology, "other", {"kallithea_loadbalancer_metrics_bind": "[::]:9405"})[9405] == ["haproxy"]
    assert ports[5432] == ["postgres"]
    assert 443 not in ports


OWN = {"addresses": ["127.0.0.1", "192.0.2.11", "::1", "2001:db8::11"]}


def known_by(address: str, **others: str) -> dict[str, list[dict[str, str]]]:
    """Return a topology in which app1 has the address."""
    return {"app": [{"name": "app1", "address": address}], "broker": [{"name": name, "address": other} for name, other in others.items()]}


@pytest.mark.parametrize("address", ["192.0.2.11", "2001:db8::11", "2001:0db8:0::0011"])
def test_a_host_has_the_address_by_which_the_others_know_it(address: str) -> None:
    assert preflight.address_problems(known_by(address, mq1="192.0.2.12"), "app1", OWN) == []


def test_an_address_that_is_somebody_elses() -> None:
    assert preflight.address_problems(known_by("198.51.100.1", mq1="192.0.2.12"), "app1", OWN) == [
        "The other hosts know host app1 by 198.51.100.1, but its own addresses are 192.0.2.11, 2001:db8::11; "
        "set kallithea_address to the one by which they reach it (an address that a router translates cannot be used)."
    ]


@pytest.mark.parametrize("address", ["127.0.0.1", "127.0.1.1", "::1"])
def test_loopback_is_for_a_host_that_is_alone(address: str) -> None:
    assert preflight.address_problems(known_by(address, app1=address), "app1", OWN) == []
    assert len(preflight.address_problems(known_by(address, mq1="192.0.2.12"), "app1", OWN)) == 1


def test_a_host_that_tells_no_address_is_taken_at_its_word() -> None:
    assert preflight.address_problems(known_by("192.0.2.99", mq1="192.0.2.12"), "app1", {"addresses": []}) == []


OPTIONS: dict[str, dict[str, Any]] = {
    "kallithea_tls": {"type": "str", "choices": ["given", "off"]},
    "kallithea_port": {"type": "int"},
    "kallithea_share": {"type": "float"},
    "kallithea_on": {"type": "bool"},
    "kallithea_path": {"type": "path"},
    "kallithea_any": {},
    "kallithea_names": {"type": "list", "elements": "str"},
    "kallithea_rules": {"type": "list", "elements": "dict", "options": {"port": {"type": "int"}}},
    "kallithea_kinds": {"type": "list", "elements": "str", "choices": ["soft", "async"]},
    "kallithea_free": {"type": "list"},
    "kallithea_limits": {"type": "dict", "options": {"bytes": {"type": "int"}, "count": {"type": "int"}}},
    "kallithea_settings": {"type": "dict"},
    "kallithea_password": {"type": "str", "no_log": True},
    "kallithea_tokens": {"type": "list", "elements": "dict", "no_log": True},
}


def judged(**variables: Any) -> list[str]:
    """Return what is wrong with one host's variables."""
    problems: list[str] = preflight.spec_problems(["app1"], {"app1": variables}, OPTIONS)
    return problems


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("tls", "off"),
        ("port", 8080),
        ("port", "8080"),
        ("share", 0.5),
        ("share", 1),
        ("share", "0.5"),
        ("on", False),
        ("path", "/srv"),
        ("any", "text"),
        ("any", 5),
        ("names", []),
        ("names", ["a", 5]),
        ("rules", [{"port": 1}]),
        ("kinds", ["async", "soft"]),
        ("free", [None, {}]),
        ("limits", {"bytes": 1, "count": "2"}),
        ("settings", {"a": None}),
        ("password", "secret"),
        ("unknown", None),
    ],
)
def test_values_that_a_role_takes(variable: str, value: Any) -> None:
    assert judged(**{f"kallithea_{variable}": value}) == []


@pytest.mark.parametrize(
    ("variable", "value", "sentence"),
    [
        ("tls", "maybe", "kallithea_tls is the text 'maybe' on app1; give one of given, off."),
        ("tls", False, "kallithea_tls is false on app1; give one of given, off in quotes."),
        ("tls", "x" * 100, f"kallithea_tls is the text '{'x' * 60}' on app1; give one of given, off."),
        ("port", "abc", "kallithea_port is the text 'abc' on app1; give a whole number."),
        ("port", 1.5, "kallithea_port is 1.5 on app1; give a whole number."),
        ("port", True, "kallithea_port is true on app1; give a whole number."),
        ("share", "much", "kallithea_share is the text 'much' on app1; give a number."),
        ("on", "false", "kallithea_on is the text 'false' on app1; give true or false without quotes."),
        ("on", None, "kallithea_on has no value on app1; give true or false without quotes."),
        ("path", True, "kallithea_path is true on app1; give a path in quotes."),
        ("any", ["a"], "kallithea_any is a list on app1; give a text."),
        ("names", "a,b", "kallithea_names is the text 'a,b' on app1; give a list, such as [a, b]."),
        ("names", ["a", ["b"]], "kallithea_names[1] is a list on app1; give a text."),
        ("kinds", ["soft", "hard"], "kallithea_kinds[1] is the text 'hard' on app1; give one of soft, async."),
        ("rules", ["a"], "kallithea_rules[0] is the text 'a' on app1; give a dictionary, such as {a: b}."),
        ("rules", [{"port": "a"}], "kallithea_rules[0].port is the text 'a' on app1; give a whole number."),
        ("settings", "a=b", "kallithea_settings is the text 'a=b' on app1; give a dictionary, such as {a: b}."),
        ("limits", {"bytes": "x", "count": 1}, "kallithea_limits.bytes is the text 'x' on app1; give a whole number."),
        ("limits", {"bytes": 1, "count": 1, "byte": 1}, "kallithea_limits.byte has no meaning on app1; kallithea_limits takes bytes, count."),
        ("limits", {"bytes": 1}, "kallithea_limits lacks count on app1; give all of it, since what is given replaces the default as a whole."),
        ("password", ["secret"], "kallithea_password is a list on app1; give a text."),
        ("password", True, "kallithea_password is a number or truth value on app1; give a text in quotes."),
        ("tokens", ["secret"], "kallithea_tokens[0] is a text on app1; give a dictionary, such as {a: b}."),
    ],
)
def test_values_that_a_role_does_not_take(variable: str, value: Any, sentence: str) -> None:
    assert judged(**{f"kallithea_{variable}": value}) == [sentence]


def test_one_mistake_is_said_once_for_all_hosts_that_have_it() -> None:
    hosts: dict[str, dict[str, Any]] = {"app2": {"kallithea_port": "a"}, "app1": {"kallithea_port": "a"}, "db1": {"kallithea_port": "b"}, "mq1": {}}
    assert preflight.spec_problems(hosts, hosts, OPTIONS) == [
        "kallithea_port is the text 'a' on app1, app2; give a whole number.",
        "kallithea_port is the text 'b' on db1; give a whole number.",
    ]
    alike = {host: {"kallithea_port": "a"} for host in hosts}
    assert preflight.spec_problems(hosts, alike, OPTIONS) == ["kallithea_port is the text 'a' on every host; give a whole number."]


class Facts(dict[str, Any]):
    """Variables of which one is a template of facts that nobody has asked for yet."""

    def __getitem__(self, name: str) -> Any:
        if name == "kallithea_port":
            raise AnsibleUndefinedVariable("'ansible_facts' is undefined")
        return super().__getitem__(name)


def test_a_value_that_only_the_host_knows_is_left_to_the_role() -> None:
    assert preflight.spec_problems(["app1"], {"app1": Facts(kallithea_port=1, kallithea_on="yes")}, OPTIONS) == [
        "kallithea_on is the text 'yes' on app1; give true or false without quotes."
    ]


def test_the_roles_own_defaults_fit_their_specifications() -> None:
    options = preflight.role_options()
    assert len(options) > 100
    given = {name: option["default"] for name, option in options.items() if "{{" not in str(option.get("default", "{{")) and not option.get("required")}
    assert len(given) > 80
    assert preflight.spec_problems(["app1"], {"app1": given}) == []


def test_the_kernel_itself_serves_nfs() -> None:
    topology = {"storage": [{"name": "store1"}]}
    assert preflight.expected_ports(topology, "store1", {}) == {}
    wanted = preflight.expected_ports(topology, "store1", {"kallithea_storage_kind": "nfs"})
    assert wanted == {2049: []}
    assert preflight.port_problems("store1", {"listening": [{"port": 2049, "programs": []}]}, wanted) == []
    (problem,) = preflight.port_problems("store1", {"listening": [{"port": 2049, "programs": ["ganesha.nfsd"]}]}, wanted)
    assert problem.startswith("Port 2049 of host store1 is in use by ganesha.nfsd;")
    clash = {"kallithea_storage_kind": "nfs", "kallithea_loadbalancer_https_port": 2049}
    (problem,) = preflight.port_clashes({**topology, "loadbalancer": [{"name": "store1"}]}, "store1", clash)
    assert problem.startswith("Port 2049 of host store1 is wanted by NFS and kallithea_loadbalancer_https_port;")
