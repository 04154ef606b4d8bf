# Copyright: The kallithea.cluster maintainers
# GPL-3.0-or-later (see LICENSE)
"""Who may reach which port of a host."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ansible_collections.kallithea.cluster.plugins.module_utils.addresses import network, split_bind

ERLANG_PORTS = (4369, 25672)
NFS_PORT = 2049


def source_network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    """Return the network that a text names, or nothing where it names none or one of a single link, which nftables cannot tell."""
    return None if "%" in text else network(text)


def port_number(value: Any) -> int:
    """Return a port, which may be given as text, or 0 where it is none."""
    text = str(value)
    return int(text) if text.isascii() and text.isdigit() and int(text) < 65536 else 0


def firewall_sources(sources: Iterable[Any]) -> dict[str, list[str]]:
    """Return the sources by nftables' name of their family, none of which lies in another."""
    networks = [source_network(str(source)) for source in sources]
    families = {
        "ip": ipaddress.collapse_addresses(entry for entry in networks if isinstance(entry, ipaddress.IPv4Network)),
        "ip6": ipaddress.collapse_addresses(entry for entry in networks if isinstance(entry, ipaddress.IPv6Network)),
    }
    texts = {family: [str(entry) for entry in entries] for family, entries in families.items()}
    return {family: entries for family, entries in texts.items() if entries}


def _metrics(variables: Mapping[str, Any], prefix: str, default: str) -> list[tuple[str, Any, Sequence[Any]]]:
    """Return the rule of a role's metrics; none where they are bound to loopback."""
    host, port = split_bind(variables.get(f"{prefix}_metrics_bind", default))
    bound = source_network(host.strip("[]"))
    if host == "localhost" or (bound is not None and bound.is_loopback):
        return []
    return [("metrics", port, variables.get(f"{prefix}_metrics_networks") or [])]


def firewall_rules(topology: Mapping[str, Sequence[Mapping[str, Any]]], name: str, variables: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return a host's guarded ports, each once, with those who may connect; what other roles refuse is left out."""
    nodes = [*topology["app"], *topology["ci"]]
    applications = [node["address"] for node in nodes]
    fronts = [*(node["address"] for node in topology["loadbalancer"]), *(variables.get("kallithea_app_direct_clients") or [])]
    tiers = {tier for tier in topology for node in topology[tier] if node["name"] == name}
    wanted: list[tuple[str, Any, Sequence[Any]]] = []
    if "storage" in tiers and variables.get("kallithea_storage_kind") == "nfs":
        wanted.append(("NFS", NFS_PORT, applications))
    if "database" in tiers:
        wanted.append(("database", variables.get("kallithea_database_port", 5432), applications))
    if "broker" in tiers:
        wanted.append(("broker", variables.get("kallithea_broker_port", 5672), applications))
        wanted += [("Erlang", port, []) for port in ERLANG_PORTS]
    for node in nodes:
        if node["name"] == name:
            wanted.append(("static files", variables.get("kallithea_app_static_port", 8080), fronts))
            wanted += [(f"pool {pool}", settings.get("port"), fronts) for pool, settings in node["pools"].items()]
            wanted.append(("health", variables.get("kallithea_app_health_port", 8089), fronts))
            wanted += _metrics(variables, "kallithea_app", "127.0.0.1:8406")
    if "loadbalancer" in tiers:
        wanted += _metrics(variables, "kallithea_loadbalancer", "127.0.0.1:8405")
    rules: dict[int, dict[str, Any]] = {}
    for what, port, sources in wanted:
        number = port_number(port)
        if number:
            rule = rules.setdefault(number, {"name": what, "port": number, "sources": []})
            rule["name"] = rule["name"] if what in rule["name"].split(", ") else f"{rule['name']}, {what}"
            rule["sources"] += [str(source) for source in sources if source_network(str(source)) and str(source) not in rule["sources"]]
    return list(rules.values())


def firewall_problems(choice: str, name: str, answer: str) -> list[str]:
    """Return a sentence where the choice is none, or the kernel took no table of ours; the answer is nftables' own."""
    if choice not in ("managed", "external"):
        return [f"kallithea_firewall is '{choice}'; give managed, or external where something else guards the ports."]
    if answer.strip():
        said = answer.strip().splitlines()[0]
        return [
            f"The kernel of host {name} takes no nftables table of the family inet ({said}); "
            "guard the cluster's ports otherwise and set kallithea_firewall: external for it."
        ]
    return []


class FilterModule:
    """Filters of the collection."""

    def filters(self) -> dict[str, Any]:
        """Return the filters by name."""
        return {"firewall_sources": firewall_sources, "firewall_rules": firewall_rules, "firewall_problems": firewall_problems}
