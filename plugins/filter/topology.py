# Copyright: The kallithea.cluster maintainers
# GPL-3.0-or-later (see LICENSE)
"""Who is in the cluster: from inventory groups and variables to lists of nodes."""

from __future__ import annotations

import socket
from collections.abc import Mapping, Sequence
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.kallithea.cluster.plugins.module_utils.addresses import is_address

TIERS = ("storage", "database", "broker", "app", "ci", "loadbalancer")


def host_pattern(groups: Mapping[str, Sequence[str]]) -> str:
    """Return the pattern of every host of the cluster; without a group of ours, one that no host fits."""
    return ":".join(f"kallithea_{tier}" for tier in TIERS if f"kallithea_{tier}" in groups) or "all:!all"


def node_address(name: str, variables: Mapping[str, Any]) -> str:
    """Return a host's address: kallithea_address, an ansible_host that is one, or what its name resolves to here."""
    given = str(variables.get("kallithea_address") or "")
    if given:
        if not is_address(given):
            raise AnsibleFilterError(
                f"kallithea_address of host {name} is '{given}', which is no IP address; give the address that the other hosts reach it by."
            )
        return given
    candidate = str(variables.get("ansible_host") or name)
    if is_address(candidate):
        return candidate
    try:
        return str(socket.getaddrinfo(candidate, None)[0][4][0])
    except OSError as error:
        raise AnsibleFilterError(
            f"host {name} has no kallithea_address and '{candidate}' does not resolve on the controller ({error}); set kallithea_address for it."
        ) from error


def host_pools(name: str, variables: Mapping[str, Any], defaults: Mapping[str, Any], ci: bool) -> dict[str, dict[str, int]]:
    """Return a host's pools: its own kallithea_app_pools over the defaults; a CI node has the pool ci alone."""
    pools = variables.get("kallithea_app_pools", defaults)
    if not isinstance(pools, Mapping):
        raise AnsibleFilterError(f"kallithea_app_pools of host {name} is no dictionary; give pools like {{ui: {{processes: 3, port: 8081}}}}.")
    result = {}
    for pool, settings in pools.items():
        if ci and pool != "ci":
            continue
        if not isinstance(settings, Mapping):
            raise AnsibleFilterError(f"kallithea_app_pools of host {name}: pool {pool} is not a dictionary like {{processes: 2, port: 8081}}.")
        result[str(pool)] = {**defaults.get(pool, {}), **settings}
    return result


def tier_node(tier: str, name: str, variables: Mapping[str, Any], default_pools: Mapping[str, Any], default_celery: int) -> dict[str, Any]:
    """Return a host as a node of a tier; an application's node has pools and Celery processes."""
    node: dict[str, Any] = {"name": name, "address": node_address(name, variables)}
    if tier in ("app", "ci"):
        node["ci"] = tier == "ci"
        node["pools"] = host_pools(name, variables, default_pools, tier == "ci")
        celery = str(variables.get("kallithea_app_celery_processes", default_celery))
        if not celery.isdigit():
            raise AnsibleFilterError(f"kallithea_app_celery_processes of host {name} is '{celery}'; give a whole number, 0 for no worker.")
        node["celery"] = int(celery)
    return node


def possible_nodes(
    groups: Mapping[str, Sequence[str]], hostvars: Mapping[str, Mapping[str, Any]], default_pools: Mapping[str, Any], default_celery: int
) -> tuple[dict[str, list[dict[str, Any]]], list[str]]:
    """Return the topology without the hosts of which no node can be made, and a sentence for each of these."""
    nodes: dict[str, list[dict[str, Any]]] = {tier: [] for tier in TIERS}
    problems = []
    for tier in TIERS:
        for name in groups.get(f"kallithea_{tier}", []):
            try:
                nodes[tier].append(tier_node(tier, name, hostvars[name], default_pools, default_celery))
            except AnsibleFilterError as error:
                problems.append(str(error))
    return nodes, list(dict.fromkeys(problems))


def topology(
    groups: Mapping[str, Sequence[str]],
    hostvars: Mapping[str, Mapping[str, Any]],
    default_pools: Mapping[str, Any],
    default_celery: int,
) -> dict[str, list[dict[str, Any]]]:
    """Return for every tier the list of its nodes, from the inventory alone."""
    return {tier: [tier_node(tier, name, hostvars[name], default_pools, default_celery) for name in groups.get(f"kallithea_{tier}", [])] for tier in TIERS}


def storage_lines(variables: Mapping[str, Any]) -> list[str]:
    """Return how fast the shared storage was when the hosts tried it: in this run, or as the host remembers it."""
    state = variables.get("__kallithea_common_host", {}).get("state", {})
    return list(variables.get("__kallithea_storage_acceptance", state.get("storage_accepted", {})).get("lines", []))


def site_report(nodes: Mapping[str, Sequence[Mapping[str, Any]]], variables: Mapping[str, Any]) -> list[str]:
    """Return the lines that site prints at its end: where it is, how to log in, what runs where, what to do next."""
    scheme = "http" if variables.get("kallithea_loadbalancer_tls") == "off" else "https"
    lines = [f"Address: {scheme}://{variables['kallithea_hostname']}/"]
    if variables.get("kallithea_ci_hostname"):
        lines.append(f"Address for build servers and other bots: {scheme}://{variables['kallithea_ci_hostname']}/")
    secrets_file = variables.get("kallithea_secrets_file") or f"{variables.get('inventory_dir', '.')}/.kallithea/secrets.yml"
    lines.append(f"Administrator: {variables.get('kallithea_app_admin_user', 'admin')}, password: admin_password in {secrets_file} on the controller")
    for node in [*nodes["app"], *nodes["ci"]]:
        pools = ", ".join(f"{pool} {settings['processes']}" for pool, settings in node["pools"].items())
        lines.append(f"Host {node['name']} ({node['address']}): processes {pools}, Celery {node['celery']}")
    tiers = [("loadbalancer", "load balancer"), ("database", "PostgreSQL"), ("broker", "RabbitMQ")]
    if variables.get("kallithea_storage_kind") == "nfs":
        tiers.append(("storage", "NFS server"))
    lines += [f"Host {node['name']} ({node['address']}): {what}" for tier, what in tiers for node in nodes[tier]]
    lines += storage_lines(variables)
    lines.append(
        "Next: log in, change the administrator's e-mail address, create users and repository groups; keep the secrets file safe (ansible-vault encrypt)."
    )
    return lines


class FilterModule:
    """Filters of the collection."""

    def filters(self) -> dict[str, Any]:
        """Return the filters by name."""
        return {"host_pattern": host_pattern, "topology": topology, "site_report": site_report, "storage_lines": storage_lines}
