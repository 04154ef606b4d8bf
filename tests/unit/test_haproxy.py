"""The load balancer's filters and what it computes from HAProxy's answers."""

from __future__ import annotations

import datetime
from typing import Any

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.kallithea.cluster.plugins.filter.haproxy import balancer_backends, balancer_problems, certificate_problems, name_matches
from ansible_collections.kallithea.cluster.plugins.module_utils.balancer import Balancer, Plan, parse_sessions, parse_state, plan
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from haproxy_rig import make_certificate

POOLS = {
    "ui": {"processes": 3, "port": 8081},
    "scm": {"processes": 3, "port": 8082},
    "write": {"processes": 2, "port": 8083},
    "ci": {"processes": 2, "port": 8084},
}
NODES = [
    {"name": "node1", "address": "192.0.2.11", "ci": False, "pools": POOLS},
    {"name": "node2", "address": "2001:db8::12", "ci": False, "pools": POOLS},
    {"name": "ci1", "address": "192.0.2.13", "ci": True, "pools": {"ci": {"processes": 4, "port": 8084}}},
]
SETTINGS: dict[str, Any] = {
    "nodes": [{"name": "lb1", "address": "192.0.2.1"}],
    "app_nodes": NODES,
    "hostname": "scm.example.org",
    "tls": "private_ca",
    "certificate": "",
    "certificate_key": "",
    "trusted_proxies": [],
    "proxy_protocol": False,
    "balance": "leastconn",
    "bot_networks": [],
    "bot_accounts": [],
    "bot_user_agents": [],
    "metrics_networks": [],
    "queue_seconds": {"ui": 60, "scm": 300, "write": 300, "ci": 480},
}


def test_one_backend_a_pool() -> None:
    backends = balancer_backends(NODES, ["lb1"], "lb1", 8080)
    assert [server["name"] for server in backends["ui"]] == ["node1", "node2"]
    assert [server["name"] for server in backends["ci"]] == ["node1", "node2", "ci1"]
    assert [server["endpoint"] for server in backends["static"]] == ["192.0.2.11:8080", "[2001:db8::12]:8080"]
    assert backends["ui"][0] == {"name": "node1", "endpoint": "192.0.2.11:8081", "maxconn": 3}


@pytest.mark.parametrize("count", [1, 2])
def test_the_shares_sum_to_the_processes(count: int) -> None:
    balancers = [f"lb{number}" for number in range(count)]
    shares = [balancer_backends(NODES, balancers, name) for name in balancers]
    for pool, settings in POOLS.items():
        for position in (0, 1):
            assert sum(share[pool][position]["maxconn"] for share in shares) == settings["processes"]
    assert {share["ui"][0]["maxconn"] + share["ui"][1]["maxconn"] for share in shares} == {6 // count}


def test_fewer_processes_than_balancers() -> None:
    with pytest.raises(AnsibleFilterError, match="pool write of node1 has 2 processes for 3 load balancers: give"):
        balancer_backends(NODES, ["a", "b", "c"], "a")


def test_a_host_that_is_no_balancer() -> None:
    with pytest.raises(AnsibleFilterError, match="x is not in kallithea_loadbalancer_nodes"):
        balancer_backends(NODES, ["a"], "x")


def test_good_settings() -> None:
    assert balancer_problems(SETTINGS) == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"hostname": ""}, "kallithea_hostname is empty"),
        ({"nodes": []}, "nodes is empty"),
        ({"tls": "on"}, "it must be one of given, private_ca, off"),
        ({"tls": "off"}, "trusted_proxies is empty: name the proxies"),
        ({"proxy_protocol": True}, "trusted_proxies is empty"),
        ({"balance": "random"}, "balance is 'random'"),
        ({"bot_networks": ["192.0.2.0/33"]}, "'192.0.2.0/33', which is neither"),
        ({"trusted_proxies": ["proxy.example.org"]}, "neither an address"),
        ({"bot_accounts": ["a b"]}, "'a b', which cannot be"),
        ({"bot_user_agents": ["(jenkins"]}, "no regular expression"),
        ({"queue_seconds": {"ui": 600, "scm": 1, "write": 1, "ci": 1}}, "queue_seconds.ui is '600'"),
        ({"queue_seconds": {"scm": 1, "write": 1, "ci": 1}}, "queue_seconds.ui is 'None'"),
        ({"app_nodes": [{"name": "n", "pools": {"ui": {}, "scm": {}, "ci": {}}}]}, "no application node has the pool write"),
    ],
)
def test_bad_settings_get_one_sentence(change: dict[str, Any], words: str) -> None:
    (problem,) = balancer_problems({**SETTINGS, **change})
    assert words in problem


def test_given_needs_two_files() -> None:
    assert len(balancer_problems({**SETTINGS, "tls": "given"})) == 2


def test_certificate_that_fits() -> None:
    certificate, key = make_certificate(["scm.example.org", "ci.scm.example.org"])
    assert certificate_problems(certificate, key, ["scm.example.org", "CI.scm.example.org", ""]) == []


def test_certificate_problems() -> None:
    certificate, key = make_certificate(["scm.example.org"])
    other = make_certificate(["scm.example.org"])[1]
    assert "does not fit" in certificate_problems(certificate, other, ["scm.example.org"])[0]
    assert "not for www.example.org" in certificate_problems(certificate, key, ["www.example.org"])[0]
    assert "no PEM certificate" in certificate_problems("x", key, [])[0]
    assert "no PEM private key" in certificate_problems(certificate, "x", [])[0]
    assert "valid until" in certificate_problems(*make_certificate(["a.example"], days=-1), ["a.example"])[0]
    early = datetime.datetime(2000, 1, 1, tzinfo=datetime.UTC)
    assert "valid from" in certificate_problems(certificate, key, [], early)[0]
    locked = ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b"secret")
    )
    (problem,) = certificate_problems(certificate, locked.decode(), [])
    assert "passphrase" in problem


@pytest.mark.parametrize(
    ("pattern", "name", "fits"),
    [
        ("*.example.org", "scm.example.org", True),
        ("*.example.org", "ci.scm.example.org", False),
        ("*.example.org", "example.org", False),
        ("SCM.example.org", "scm.example.org", True),
    ],
)
def test_names_of_certificates(pattern: str, name: str, fits: bool) -> None:
    assert name_matches(pattern, name) is fits


STATE = """1
# be_id be_name srv_id srv_name srv_addr srv_op_state srv_admin_state srv_uweight
5 be_scm 1 node1 192.0.2.11 2 0 1
5 be_scm 2 node2 192.0.2.12 2 0 1
6 be_ui 1 node1 192.0.2.11 2 0 1
6 be_ui 2 node2 192.0.2.12 0 0 1
7 be_write 1 node1 192.0.2.11 2 0 1
7 be_write 2 node2 192.0.2.12 2 8 1
8 other 1 node1 192.0.2.11 2 0 1
"""


def test_a_pool_is_held_where_nobody_can_take_over() -> None:
    assert plan(parse_state(STATE), "node1") == Plan(drain=("be_scm",), hold=("ui", "write"))
    assert plan(parse_state(STATE), "node3") == Plan((), ())


def test_sessions_count_what_runs_and_waits() -> None:
    text = "# pxname,svname,qcur,qmax,scur\nfe_main,FRONTEND,,,9\nbe_ui,node1,2,0,3\nbe_ui,BACKEND,4,0,3\n"
    assert parse_sessions(text) == {("be_ui", "node1"): 5, ("be_ui", "BACKEND"): 4}


class FakeHaproxy:
    """Answers like the socket and remembers what it was told."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.map: dict[str, str] = {}

    def __call__(self, command: str) -> str:
        words = command.split()
        if command == "show servers state":
            return STATE
        if command == "show stat":
            return "# pxname,svname,qcur,scur\n"
        if command.startswith("show map"):
            return "".join(f"0x1 {key} {value}\n" for key, value in self.map.items())
        self.told.append(command)
        if words[0] in ("add", "set") and words[1] == "map":
            self.map[words[3]] = words[4]
        if words[0] == "del":
            del self.map[words[3]]
        return "\n"


def test_drain_with_and_without_a_deputy() -> None:
    fake = FakeHaproxy()
    balancer = Balancer(fake, "m", clock=lambda: 1000, sleep=lambda _: None)
    assert balancer.drain("node1", 10, 20) == {"changed": True, "drained": ["be_scm"], "held": ["ui", "write"], "cut": 0}
    assert fake.told == ["set server be_scm/node1 state drain", "add map m write 1030", "add map m ui 1030"]
    assert balancer.undrain("node1", 10)["changed"] is True
    assert fake.map == {}


def test_a_hold_of_yesterday_counts_for_nothing() -> None:
    fake = FakeHaproxy()
    fake.map = {"ui": "900"}
    balancer = Balancer(fake, "m", clock=lambda: 1000)
    assert balancer.held() == {}
    assert balancer.hold(["ui"], 5) is True
    assert fake.told == ["set map m ui 1005"]
