"""The load balancer's filters and what it computes from HAProxy's answers."""

from __future__ import annotations

import hmac
import importlib.machinery
import pathlib
import subprocess
import types
from typing import Any

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.kallithea.cluster.plugins.filter.haproxy import (
    LISTS,
    agent_problem,
    balancer_backends,
    balancer_list_reverts,
    balancer_lists,
    balancer_problems,
    haproxy_quote,
)
from ansible_collections.kallithea.cluster.plugins.module_utils.balancer import Balancer, Plan, parse_sessions, parse_state, plan
from haproxy_rig import HAPROXY
from render import render

POOLS = {
    "ui": {"processes": 3, "port": 8081},
    "scm": {"processes": 3, "port": 8082},
    "write": {"processes": 2, "port": 8083},
    "ci": {"processes": 2, "port": 8084},
}
NODES: list[dict[str, Any]] = [
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
    "metrics_bind": "127.0.0.1:8405",
    "queue_seconds": {"ui": 60, "scm": 300, "write": 300, "ci": 480},
    "bot_api_keys": [],
    "person_accounts": [],
    "explain_networks": [],
    "robots": "",
    "in_flight": {"person": 500, "bot": 200},
    "maxconn": 4000,
    "threads": 2,
}


def test_one_backend_a_pool() -> None:
    backends = balancer_backends(NODES, ["lb1"], "lb1", 8080)
    assert [server["name"] for server in backends["ui"]] == ["node1", "node2"]
    assert [server["name"] for server in backends["ci"]] == ["ci1", "node1", "node2"]
    assert [server["endpoint"] for server in backends["static"]] == ["192.0.2.11:8080", "[2001:db8::12]:8080"]
    assert backends["ui"][0] == {"name": "node1", "endpoint": "192.0.2.11:8081", "maxconn": 3}


@pytest.mark.parametrize("count", [1, 2])
def test_the_shares_sum_to_the_processes(count: int) -> None:
    balancers = [f"lb{number}" for number in range(count)]
    shares = [balancer_backends(NODES, balancers, name) for name in balancers]
    for pool in POOLS:
        for node in NODES:
            given = [server["maxconn"] for share in shares for server in share[pool] if server["name"] == node["name"]]
            assert sum(given) == node["pools"].get(pool, {"processes": 0})["processes"]
    assert {share["ui"][0]["maxconn"] + share["ui"][1]["maxconn"] for share in shares} == {6 // count}


def test_fewer_processes_than_balancers() -> None:
    three = [{"name": name, "address": "192.0.2.1"} for name in ("a", "b", "c")]
    problems = balancer_problems({**SETTINGS, "nodes": three})
    assert [problem.split(" has")[0] for problem in problems] == [f"pool {pool} of {node}" for node in ("node1", "node2") for pool in ("write", "ci")]
    assert problems[0].endswith("for 3 load balancers: give kallithea_app_pools.write.processes at least 3 there.")


def test_a_host_that_is_no_balancer() -> None:
    with pytest.raises(AnsibleFilterError, match="x is not in kallithea_loadbalancer_nodes"):
        balancer_backends(NODES, ["a"], "x")


def test_good_settings() -> None:
    assert balancer_problems(SETTINGS) == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"hostname": ""}, "kallithea_hostname is not set"),
        ({"nodes": []}, "nodes is empty"),
        ({"tls": "on"}, "it must be one of given, private_ca, off"),
        ({"tls": "off"}, "trusted_proxies is empty: name the proxies"),
        ({"proxy_protocol": True}, "trusted_proxies is empty"),
        ({"tls": False}, 'write "off" in quotes'),
        ({"balance": "random"}, "balance is 'random'"),
        ({"bot_networks": ["192.0.2.0/33"]}, "'192.0.2.0/33', which is neither"),
        ({"trusted_proxies": ["proxy.example.org"]}, "neither an address"),
        ({"bot_networks": ["::/0"]}, "bot_networks holds '::/0', so everybody would be a bot"),
        ({"bot_user_agents": ["curl|"]}, "bot_user_agents holds 'curl|', which fits a browser's User-Agent too: name the programs of bots."),
        ({"bot_user_agents": [".+"]}, "bot_user_agents holds '.+', which fits a browser's"),
        ({"bot_user_agents": ["mozilla"]}, "bot_user_agents holds 'mozilla', which fits a browser's"),
        ({"bot_networks": ["fe80::1%eth0"]}, "neither an address"),
        ({"metrics_networks": ["192.0.2.0/255.255.255.0"]}, "neither an address"),
        ({"bot_networks": ["192.0.2.1 192.0.2.2"]}, "neither an address"),
        ({"bot_accounts": ["a b"]}, "'a b', which cannot be"),
        ({"bot_accounts": ["a\x00"]}, "which cannot be"),
        ({"bot_user_agents": ["a\nb"]}, "one line of printable characters"),
        ({"bot_user_agents": [""]}, "not empty"),
        ({"bot_user_agents": ["'" * 600]}, "at most 1900"),
        ({"bot_user_agents": ["(jenkins"]}, "no regular expression"),
        ({"metrics_bind": "192.0.2.0/24:8405"}, "metrics_bind is '192.0.2.0/24:8405': give an address and a port"),
        ({"metrics_bind": "127.0.0.1:99999"}, "give an address and a port"),
        ({"explain_networks": ["office"]}, "explain_networks holds 'office', which is neither"),
        ({"person_accounts": ["a b"]}, "person_accounts holds 'a b', which cannot be"),
        ({"bot_accounts": ["Builder"], "person_accounts": ["jane", "builder"]}, "the account 'Builder' is in kallithea_loadbalancer_bot_accounts and in"),
        ({"bot_api_keys": ["x" * 40, "secretkey"]}, "bot_api_keys holds 1 of 2 that are no API keys"),
        ({"in_flight": {"person": 500, "bot": 2001}}, "in_flight.bot is 2001, but a pool holds no more than kallithea_loadbalancer_maxconn (4000)"),
        ({"in_flight": {"person": 0, "bot": 200}}, "in_flight.person is '0': it must be a number of requests"),
        ({"in_flight": {"bot": 200}}, "in_flight.person is 'None'"),
        ({"threads": 0}, "threads is 0: give 1 to 64"),
        ({"robots": "x" * 9000}, "robots has 9000 bytes: give at most 8192"),
        ({"queue_seconds": {"ui": 600, "scm": 1, "write": 1, "ci": 1}}, "queue_seconds.ui is '600'"),
        ({"queue_seconds": {"scm": 1, "write": 1, "ci": 1}}, "queue_seconds.ui is 'None'"),
        ({"app_nodes": [{"name": "n", "pools": {"ui": {}, "scm": {}, "ci": {}}}]}, "no application node has the pool write"),
    ],
)
def test_bad_settings_get_one_sentence(change: dict[str, Any], words: str) -> None:
    (problem,) = balancer_problems({**SETTINGS, **change})
    assert words in problem


def test_a_bad_api_key_is_not_shown() -> None:
    assert "secretkey" not in balancer_problems({**SETTINGS, "bot_api_keys": ["secretkey"]})[0]


KEY = "k" * 32
EMPTY_LISTS: dict[str, list[str]] = {name: [] for name in LISTS}


def test_lists_hold_each_entry_once_and_keys_as_hmacs_only() -> None:
    settings = {**EMPTY_LISTS, "bot_accounts": ["#odd", "builder", "builder"], "bot_api_keys": ["a" * 40]}
    lists = balancer_lists(settings, KEY)
    assert lists["bot_accounts"] == " #odd\n builder\n"
    assert lists["bot_api_keys"] == " " + hmac.new(KEY.encode(), b"a" * 40, "sha256").hexdigest().upper() + "\n"
    assert lists["bot_networks"] == ""


def test_what_a_run_takes_back_of_what_a_command_did() -> None:
    lists = balancer_lists({**EMPTY_LISTS, "bot_accounts": ["builder", "nightly"]}, KEY)
    by_command = (
        "add bot_accounts builder\nadd bot_networks 192.0.2.0/24\nremove bot_accounts nightly\nadd bot_user_agents ^a b$\n"
        "add bot_accounts gone\nremove bot_accounts gone\n"
    )
    assert balancer_list_reverts(by_command, lists) == [
        "added to kallithea_loadbalancer_bot_networks: 192.0.2.0/24",
        "removed from kallithea_loadbalancer_bot_accounts: nightly",
        "added to kallithea_loadbalancer_bot_user_agents: ^a b$",
    ]
    assert balancer_list_reverts("", lists) == []


def test_an_expression_that_haproxy_refuses_gets_one_sentence() -> None:
    """Python takes it, and HAProxy itself is asked."""
    agents = ["^good", r"\N{DIGIT ONE}"]
    config = render("loadbalancer", "agents.cfg.j2", {"kallithea_loadbalancer_bot_user_agents": agents})
    said = subprocess.run([HAPROXY, "-c", "-f", "/dev/stdin"], input=config, capture_output=True, text=True, check=False)
    assert said.returncode == 1
    assert agent_problem(said.stderr).startswith(f"kallithea_loadbalancer_bot_user_agents holds '{agents[1]}', which HAProxy does not take (")
    good = render("loadbalancer", "agents.cfg.j2", {"kallithea_loadbalancer_bot_user_agents": agents[:1]})
    assert subprocess.run([HAPROXY, "-c", "-f", "/dev/stdin"], input=good, capture_output=True, text=True, check=False).returncode == 0
    assert agent_problem("something else") == ""


def test_given_needs_two_files() -> None:
    assert len(balancer_problems({**SETTINGS, "tls": "given"})) == 2


def test_quoting() -> None:
    assert haproxy_quote("a b") == "'a b'"
    assert haproxy_quote("it's") == "'it'\\''s'"
    assert haproxy_quote(42) == "'42'"


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
    assert fake.told == [
        "set server be_scm/node1 state drain",
        "add map m write 1030",
        "add map m ui 1030",
        # Nothing runs any more: only the restart is waited for.
        "set map m ui 1020",
        "set map m write 1020",
    ]
    assert balancer.undrain("node1", 10)["changed"] is True
    assert fake.map == {}


def test_a_hold_of_yesterday_counts_for_nothing() -> None:
    fake = FakeHaproxy()
    fake.map = {"ui": "900"}
    balancer = Balancer(fake, "m", clock=lambda: 1000)
    assert balancer.held() == {}
    assert balancer.hold(["ui"], 5) is True
    assert fake.told == ["set map m ui 1005"]


class FakeMaster:
    """HAProxy as the unit's script sees it: a worker that a signal to the master replaces."""

    def __init__(self, script: Any, works: bool = True) -> None:
        self.script = script
        self.works = works
        self.pid = 1

    def ask(self, command: str) -> str:
        if command == "show info":
            return f"Name: HAProxy\nPid: {self.pid}\n"
        if command == "show servers state":
            return STATE
        return "0x1 ui 1000\n"

    def kill(self, pid: int, signal: int) -> None:
        assert (pid, self.script.HOLD_MAP.read_text()) == (7, "ui 1000\n"), "the state is saved before the reload"
        self.pid += self.works


@pytest.fixture
def script(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    path = pathlib.Path(__file__).parents[2] / "roles" / "loadbalancer" / "files" / "kallithea-haproxy"
    loader = importlib.machinery.SourceFileLoader("kallithea_haproxy", str(path))
    monkeypatch.setattr("sys.dont_write_bytecode", True)
    module = types.ModuleType(loader.name)
    loader.exec_module(module)
    module.__dict__.update(
        SOCKET=str(tmp_path / "no.sock"),
        HOLD_MAP=tmp_path / "hold.map",
        SERVER_STATE=tmp_path / "state",
        STAMP=tmp_path / "stamp",
        LOADED=(tmp_path / "haproxy.cfg",),
        LOADED_FOLDER=tmp_path / "kallithea",
        SECONDS=0.3,
    )
    (tmp_path / "haproxy.cfg").write_text("first")
    (tmp_path / "kallithea").mkdir()
    return module


def test_the_script_makes_the_state_where_no_haproxy_runs(script: Any) -> None:
    assert script.main(["save"]) == 0
    assert (script.SERVER_STATE.read_text(), script.HOLD_MAP.read_text()) == ("1\n", "")
    script.HOLD_MAP.write_text("ui 5\n")
    assert script.main(["save"]) == 0
    assert script.HOLD_MAP.read_text() == "ui 5\n"


def test_the_script_knows_what_is_loaded(script: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert script.main(["loaded"]) == 1, "the package started HAProxy before our first configuration"
    script.main(["mark"])
    assert script.main(["loaded"]) == 0
    (script.LOADED_FOLDER / "by_command").write_text("add bot_accounts builder\n")
    assert script.main(["loaded"]) == 0, "HAProxy does not read it"
    (script.LOADED_FOLDER / "site.pem").write_text("certificate")
    assert script.main(["loaded"]) == 1
    fake = FakeMaster(script)
    monkeypatch.setattr(script, "ask", fake.ask)
    monkeypatch.setattr(script.os, "kill", fake.kill)
    assert script.main(["reload", "7"]) == 0
    assert script.main(["loaded"]) == 0
    assert script.SERVER_STATE.read_text() == STATE
    assert script.HOLD_MAP.stat().st_mode & 0o777 == 0o644


def test_a_reload_after_which_the_old_worker_answers_has_failed(script: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    script.main(["mark"])
    script.LOADED[0].write_text("second")
    fake = FakeMaster(script, works=False)
    monkeypatch.setattr(script, "ask", fake.ask)
    monkeypatch.setattr(script.os, "kill", fake.kill)
    assert script.main(["reload", "7"]) == 1
    assert script.main(["loaded"]) == 1


def test_the_script_refuses_what_it_does_not_know(script: Any) -> None:
    assert script.main(["stop"]) == 2
