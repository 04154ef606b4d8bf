"""Who may reach which port: the filters, the rendered table, and the table in a real kernel."""

from __future__ import annotations

import os
import pathlib
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from ansible_collections.kallithea.cluster.plugins.filter.firewall import firewall_problems, firewall_rules, firewall_sources
from render import render

NFT = shutil.which("nft") or "/usr/sbin/nft"
POOLS = {"ui": {"processes": 3, "port": 8081}, "ci": {"processes": 2, "port": "8084"}}
TOPOLOGY: dict[str, list[dict[str, Any]]] = {
    "storage": [{"name": "keeper", "address": "192.0.2.40"}],
    "database": [{"name": "db1", "address": "192.0.2.31"}],
    "broker": [{"name": "mq1", "address": "192.0.2.32"}],
    "app": [{"name": "app1", "address": "192.0.2.11", "pools": POOLS}, {"name": "app2", "address": "2001:db8::12", "pools": POOLS}],
    "ci": [{"name": "ci1", "address": "192.0.2.21", "pools": {"ci": {"processes": 2, "port": 8084}}}],
    "loadbalancer": [{"name": "lb1", "address": "192.0.2.1"}, {"name": "lb2", "address": "192.0.2.2"}],
}
APPLICATIONS = ["192.0.2.11", "2001:db8::12", "192.0.2.21"]
BALANCERS = ["192.0.2.1", "192.0.2.2"]


def ports(name: str, **variables: Any) -> dict[int, list[str]]:
    """Return the sources of a host's ports."""
    return {rule["port"]: rule["sources"] for rule in firewall_rules(TOPOLOGY, name, variables)}


def table(rules: list[dict[str, Any]], digest: str = "d1") -> str:
    """Return the file that the role writes."""
    return render("firewall", "firewall.nft.j2", {"kallithea_firewall_rules": rules, "__kallithea_firewall_comment": digest})


def test_the_database_is_for_the_application_alone() -> None:
    assert ports("db1") == {5432: APPLICATIONS}
    assert ports("db1", kallithea_database_port="5433") == {5433: APPLICATIONS}


def test_the_broker_is_for_the_application_and_erlang_for_nobody() -> None:
    assert ports("mq1") == {5672: APPLICATIONS, 4369: [], 25672: []}
    assert ports("mq1", kallithea_broker_port=5673)[5673] == APPLICATIONS


def test_pools_static_files_and_health_are_for_balancers_and_direct_clients() -> None:
    fronts = [*BALANCERS, "198.51.100.0/24"]
    assert ports("app1", kallithea_app_direct_clients=["198.51.100.0/24"]) == dict.fromkeys((8080, 8081, 8084, 8089), fronts)
    assert ports("ci1") == dict.fromkeys((8080, 8084, 8089), BALANCERS)
    assert ports("ci1", kallithea_app_static_port="90", kallithea_app_health_port="91") == dict.fromkeys((90, 8084, 91), BALANCERS)


@pytest.mark.parametrize("bind", ["127.0.0.1:8405", "[::1]:8405", "::1:8405", "localhost:8405"])
def test_metrics_on_loopback_need_no_rule(bind: str) -> None:
    assert ports("lb1", kallithea_loadbalancer_metrics_bind=bind) == {}
    assert ports("lb1") == {}


@pytest.mark.parametrize("bind", ["192.0.2.1:8405", "*:8405", ":8405", "[::]:8405"])
def test_metrics_elsewhere_are_for_their_networks(bind: str) -> None:
    assert ports("lb1", kallithea_loadbalancer_metrics_bind=bind, kallithea_loadbalancer_metrics_networks=["10.0.0.0/8"]) == {8405: ["10.0.0.0/8"]}
    assert ports("lb1", kallithea_loadbalancer_metrics_bind=bind) == {8405: []}


def test_metrics_of_an_application_host_are_for_their_networks() -> None:
    metrics = {"kallithea_app_metrics_bind": "192.0.2.31:8406", "kallithea_app_metrics_networks": ["10.0.0.0/8"]}
    assert ports("ci1", **metrics)[8406] == ["10.0.0.0/8"]
    assert 8406 not in ports("ci1") and 8406 not in ports("lb1", **metrics)


def test_a_host_of_no_guarded_tier_has_no_rule() -> None:
    assert ports("keeper") == {}
    assert ports("keeper", kallithea_storage_kind="existing") == {}


def test_the_nfs_server_is_for_the_application_alone() -> None:
    assert ports("keeper", kallithea_storage_kind="nfs") == {2049: APPLICATIONS}
    assert 2049 not in ports("app1", kallithea_storage_kind="nfs")


def test_one_port_has_one_rule_with_all_sources() -> None:
    everything = {tier: [{"name": "all", "address": "192.0.2.1", "pools": POOLS}] for tier in TOPOLOGY if tier != "ci"} | {"ci": []}
    rules = firewall_rules(everything, "all", {"kallithea_broker_port": 5432, "kallithea_app_direct_clients": ["198.51.100.1"]})
    assert rules[0] == {"name": "database, broker", "port": 5432, "sources": ["192.0.2.1"]}
    assert len({rule["port"] for rule in rules}) == len(rules)


def test_what_other_roles_refuse_is_left_out() -> None:
    wrong = {"kallithea_app_direct_clients": ["nobody", "fe80::1%eth0", None], "kallithea_app_static_port": "abc", "kallithea_app_health_port": 70000}
    assert ports("ci1", **wrong) == {8084: BALANCERS}
    assert ports("ci1", kallithea_app_direct_clients=None)[8084] == BALANCERS
    assert ports("lb1", kallithea_loadbalancer_metrics_bind="nonsense") == {}


def test_sources_are_sorted_by_family_and_overlap_nowhere() -> None:
    assert firewall_sources(["10.0.0.7", "10.0.0.5/24", "2001:db8::1", "x"]) == {"ip": ["10.0.0.0/24"], "ip6": ["2001:db8::1/128"]}
    assert firewall_sources([]) == {}


def test_problems_are_one_sentence() -> None:
    assert firewall_problems("managed", "a", "") == []
    assert firewall_problems("external", "a", "") == []
    assert "kallithea_firewall is 'off'; give managed" in firewall_problems("off", "a", "")[0]
    [problem] = firewall_problems("managed", "a", "Error: Could not process rule: Address family not supported by protocol\ntable inet x\n^^^\n")
    assert "(Error: Could not process rule: Address family not supported by protocol)" in problem
    assert "kallithea_firewall: external" in problem


def test_the_table_says_what_the_rules_say() -> None:
    rules = firewall_rules(TOPOLOGY, "mq1", {})
    text = table(rules)
    found: dict[int, list[str]] = {}
    for port, sources in re.findall(r"^\t\ttcp dport (\d+) (?:ip6? saddr \{ (.*) \} accept|drop)$", text, re.MULTILINE):
        found.setdefault(int(port), []).extend(sources.split(", ") if sources else ["drop"])
    everybody = ["192.0.2.11/32", "192.0.2.21/32", "2001:db8::12/128", "drop"]
    assert found == {5672: everybody, 4369: ["drop"], 25672: ["drop"]}
    assert 'iifname "lo" accept comment "d1"' in text
    assert "policy accept" in text


def test_the_file_replaces_our_table_and_names_no_other() -> None:
    text = table([])
    assert [line for line in text.splitlines() if line and line[0] not in "#\t}"] == [
        "add table inet kallithea",
        "delete table inet kallithea",
        "table inet kallithea {",
    ]
    assert "flush" not in text


def test_debians_unit_loads_our_table_after_each_start_and_reload() -> None:
    text = render("firewall", "nftables-drop-in.conf.j2", {})
    assert re.findall(r"^(Exec\w+)=-/usr/sbin/nft -f (\S+)$", text, re.MULTILINE) == [
        ("ExecStartPost", "/etc/kallithea/firewall.nft"),
        ("ExecReload", "/etc/kallithea/firewall.nft"),
    ]


def run(*command: str, stdin: str = "") -> str:
    """Return what a command said."""
    return subprocess.run(command, input=stdin, capture_output=True, text=True, check=True, timeout=20).stdout


SERVER = """
import socket, sys
listeners = []
for port in map(int, sys.argv[1:]):
    listener = socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True)
    listeners.append(listener)
print("ready", flush=True)
sys.stdin.read()
"""
CLIENT = """
import socket, sys
try:
    socket.create_connection((sys.argv[2], int(sys.argv[3])), timeout=0.4, source_address=(sys.argv[1], 0)).close()
except TimeoutError:
    sys.exit("dropped")
"""


class Network:
    """Two network namespaces with a cable between them: clients with several addresses, and the guarded host."""

    def __init__(self) -> None:
        self.clients, self.host = f"kfw{os.getpid()}a", f"kfw{os.getpid()}b"

    def build(self) -> None:
        """Make namespaces, cable and addresses."""
        for name in (self.clients, self.host):
            run("ip", "netns", "add", name)
            run("ip", "-n", name, "link", "set", "lo", "up")
        run("ip", "-n", self.clients, "link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns", self.host)
        for name, addresses in (
            (self.clients, ("10.9.0.1/24", "10.9.0.2/24", "10.9.0.9/24", "fd09::1/64", "fd09::9/64")),
            (self.host, ("10.9.0.100/24", "fd09::100/64")),
        ):
            for address in addresses:
                run("ip", "-n", name, "address", "add", address, "dev", "eth0", *(["nodad"] if ":" in address else []))
            run("ip", "-n", name, "link", "set", "eth0", "up")

    def remove(self) -> None:
        """Remove what was made."""
        for name in (self.clients, self.host):
            subprocess.run(["ip", "netns", "delete", name], capture_output=True, check=False, timeout=20)

    def nft(self, *arguments: str, stdin: str = "") -> str:
        """Run nft on the guarded host."""
        return run("ip", "netns", "exec", self.host, NFT, *arguments, stdin=stdin)

    def passes(self, source: str, port: int, own: bool = False) -> bool:
        """Tell whether a connection from an address to the host's port stands; the host itself connects to its own address."""
        target = "fd09::100" if ":" in source else "10.9.0.100"
        command = ["ip", "netns", "exec", self.host if own else self.clients, sys.executable, "-c", CLIENT, source, target, str(port)]
        ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=20)
        assert ended.returncode == 0 or ended.stderr.strip() == "dropped", ended.stderr
        return ended.returncode == 0


@pytest.fixture(scope="module")
def network() -> Iterator[Network]:
    """Give the two namespaces, with a server on the ports that the tests guard."""
    if os.geteuid() != 0 or not shutil.which("ip") or not pathlib.Path(NFT).exists():
        pytest.skip("needs root, iproute2 and nftables")
    made = Network()
    try:
        try:
            made.build()
            made.nft("--check", "table inet kallithea { chain try { type filter hook input priority filter; }; }")
        except subprocess.CalledProcessError as error:
            pytest.skip(f"no network namespace with nftables here: {error.stderr}")
        command = ["ip", "netns", "exec", made.host, sys.executable, "-c", SERVER, "5432", "4369", "80"]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
            assert server.stdout is not None
            assert server.stdout.readline() == "ready\n"
            # A new cable takes IPv6 a moment later.
            assert any(made.passes("10.9.0.1", 80) and made.passes("fd09::1", 80) for _ in range(20))
            yield made
            server.communicate()
    finally:
        made.remove()


RULES = [{"name": "database", "port": 5432, "sources": ["10.9.0.1", "10.9.0.2/31", "fd09::1"]}, {"name": "Erlang", "port": 4369, "sources": []}]


def test_only_the_sources_pass_and_other_ports_are_left_alone(network: Network) -> None:
    network.nft("-f", "-", stdin=table(RULES))
    assert {source: network.passes(source, 5432) for source in ("10.9.0.1", "10.9.0.2", "10.9.0.9", "fd09::1", "fd09::9")} == {
        "10.9.0.1": True,
        "10.9.0.2": True,
        "10.9.0.9": False,
        "fd09::1": True,
        "fd09::9": False,
    }
    assert not network.passes("10.9.0.1", 4369)
    assert not network.passes("fd09::1", 4369)
    assert network.passes("10.9.0.9", 80)
    assert network.passes("fd09::9", 80)


def test_the_host_itself_always_passes(network: Network) -> None:
    network.nft("-f", "-", stdin=table(RULES))
    for source in ("10.9.0.100", "fd09::100"):
        assert network.passes(source, 4369, own=True)
        assert network.passes(source, 5432, own=True)


def test_a_second_load_replaces_the_rules_and_no_table_of_others_is_touched(network: Network) -> None:
    network.nft("-f", "-", stdin="table inet foreign {\n\tset kept {\n\t\ttype ipv4_addr\n\t\telements = { 10.1.1.1 }\n\t}\n}\ntable ip other {\n}\n")
    before = [network.nft("list", "table", *name) for name in (("inet", "foreign"), ("ip", "other"))]
    network.nft("-f", "-", stdin=table(RULES, "first"))
    network.nft("-f", "-", stdin=table([{"name": "database", "port": 5432, "sources": ["10.9.0.9", "::/0"]}], "second"))
    listed = network.nft("list", "table", "inet", "kallithea")
    assert "second" in listed
    assert "first" not in listed
    assert "4369" not in listed
    assert network.passes("10.9.0.9", 5432)
    assert not network.passes("10.9.0.1", 5432)
    assert network.passes("fd09::9", 5432)
    assert before == [network.nft("list", "table", *name) for name in (("inet", "foreign"), ("ip", "other"))]


def test_a_file_that_does_not_check_leaves_the_old_rules(network: Network) -> None:
    network.nft("-f", "-", stdin=table(RULES, "good"))
    with pytest.raises(subprocess.CalledProcessError):
        network.nft("-f", "-", stdin=table([{"name": "database", "port": 99999, "sources": []}], "bad"))
    assert "good" in network.nft("list", "table", "inet", "kallithea")
    assert not network.passes("10.9.0.9", 5432)


def test_what_stops_our_unit_deletes_our_table_whether_it_is_there_or_not(network: Network) -> None:
    unit = render("firewall", "kallithea-firewall.service.j2", {})
    [command] = re.findall(r'^ExecStop=/usr/sbin/nft "(.*)"$', unit, re.MULTILINE)
    network.nft("-f", "-", stdin=table(RULES))
    for _ in range(2):
        network.nft(command)
        assert "inet kallithea" not in network.nft("list", "tables")
    assert network.passes("10.9.0.9", 5432)
