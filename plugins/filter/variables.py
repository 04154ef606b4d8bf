# Copyright: The kallithea.cluster maintainers
# GPL-3.0-or-later (see LICENSE)
"""What is wrong with variables by themselves, for a run that ends before any host is asked: the sentences of the roles' own filters, put together."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jinja2
from ansible.errors import AnsibleError, AnsibleFilterError
from ansible_collections.kallithea.cluster.plugins.filter.application import application_problems
from ansible_collections.kallithea.cluster.plugins.filter.haproxy import balancer_problems
from ansible_collections.kallithea.cluster.plugins.filter.ini import ini_problems
from ansible_collections.kallithea.cluster.plugins.filter.nfs import nfs_client_problems, nfs_server_problems
from ansible_collections.kallithea.cluster.plugins.filter.preflight import (
    hostname_problems,
    pool_problems,
    port_clashes,
    role_options,
    spec_problems,
    timezone_problems,
)
from ansible_collections.kallithea.cluster.plugins.filter.release import release_problems
from ansible_collections.kallithea.cluster.plugins.filter.storage import storage_problems
from ansible_collections.kallithea.cluster.plugins.filter.topology import possible_nodes

Variables = Mapping[str, Any]
Nodes = Mapping[str, Sequence[Mapping[str, Any]]]


def runners(nodes: Nodes) -> list[Mapping[str, Any]]:
    """Return the nodes that run the application."""
    return [*nodes["app"], *nodes["ci"]]


def called(name: str, nodes: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return a host's own nodes among some."""
    return [node for node in nodes if node["name"] == name]


def settings_of(variables: Variables, prefix: str, *names: str) -> dict[str, Any]:
    """Return a host's variables of a prefix, or some of them, without it; the argument_specs' defaults where the host has none.

    Raises AnsibleFilterError where one has a type that no question could take; it has its own sentence.
    """
    wanted = [prefix + name for name in names] if names else [name for name in role_options() if name.startswith(prefix)]
    options = {name: role_options()[name] for name in wanted}
    if wrong := spec_problems(["host"], {"host": variables}, options):
        raise AnsibleFilterError(" ".join(wrong))
    return {name.removeprefix(prefix): variables.get(name, option.get("default")) for name, option in options.items()}


def name_problems(name: str, variables: Variables, nodes: Nodes) -> list[str]:
    """Return what is wrong with the cluster's public names."""
    problems: list[str] = hostname_problems(**settings_of(variables, "kallithea_", "hostname", "ci_hostname"))
    return problems


def zone_problems(name: str, variables: Variables, nodes: Nodes) -> list[str]:
    """Return what is wrong with the time zone."""
    problems: list[str] = timezone_problems(**settings_of(variables, "kallithea_", "timezone"))
    return problems


def place_problems(name: str, variables: Variables, nodes: Nodes) -> list[str]:
    """Return what is wrong with the storage's place."""
    problems: list[str] = storage_problems(**settings_of(variables, "kallithea_storage_", "kind", "path"))
    return problems


def nfs_problems(name: str, variables: Variables, nodes: Nodes) -> list[str]:
    """Return what is wrong with a storage that is served by NFS, on the host that serves or mounts it."""
    settings = settings_of(variables, "kallithea_storage_")
    if settings["kind"] != "nfs":
        return []
    mounts, accepted = runners(nodes), settings["accept_unsafe_mount"]
    problems: list[str] = []
    # Without hosts that mount it, their groups have the sentence.
    if mounts and called(name, nodes["storage"]):
        problems += nfs_server_problems(settings, [node["address"] for node in mounts], accepted)
    if called(name, mounts):
        problems += nfs_client_problems(settings, accepted)
    return problems


def app_problems(name: str, variables: Variables, nodes: Nodes) -> list[str]:
    """Return what is wrong with the choices of a host that runs the application."""
    problems: list[str] = []
    for node in called(name, runners(nodes)):
        settings = settings_of(variables, "kallithea_app_")
        problems += ini_problems(settings["ini"]) + application_problems({**settings, "name": name, "pools": node["pools"]})
        problems += release_problems({**settings, "archive": settings["release_archive"], "environment": settings["build_environment"]})
    return problems


def node_problems(name: str, variables: Variables, nodes: Nodes) -> list[str]:
    """Return what is wrong with a host's pools and ports; one that stands in both groups has a sentence for that."""
    if called(name, nodes["app"]) and called(name, nodes["ci"]):
        return []
    problems: list[str] = port_clashes(nodes, name, variables)
    for node in called(name, runners(nodes)):
        problems += pool_problems(node)
    return problems


def loadbalancer_problems(name: str, variables: Variables, nodes: Nodes) -> list[str]:
    """Return what is wrong with the choices of a load balancer."""
    # Without application hosts, their group or their addresses have the sentence.
    if not nodes["app"] or not called(name, nodes["loadbalancer"]):
        return []
    cluster, own = settings_of(variables, "kallithea_", "hostname"), settings_of(variables, "kallithea_loadbalancer_")
    problems: list[str] = balancer_problems({**own, **cluster, "nodes": nodes["loadbalancer"], "app_nodes": runners(nodes)})
    return problems


QUESTIONS: tuple[Callable[[str, Variables, Nodes], list[str]], ...] = (
    name_problems,
    zone_problems,
    place_problems,
    nfs_problems,
    node_problems,
    app_problems,
    loadbalancer_problems,
)


def variable_problems(groups: Mapping[str, Sequence[str]], hostvars: Mapping[str, Variables], default_pools: Variables, default_celery: int) -> list[str]:
    """Return a sentence for each variable that cannot work, whatever the hosts say; what hangs on a mistake of the inventory itself is left out."""
    nodes, _ = possible_nodes(groups, hostvars, default_pools, default_celery)
    problems: list[str] = []
    for name in sorted({node["name"] for tier in nodes.values() for node in tier}):
        variables = hostvars[name]
        for question in QUESTIONS:
            try:
                problems += question(name, variables, nodes)
            # A value of a wrong type, which has its sentence, or a template of facts.
            except (AnsibleError, jinja2.UndefinedError):
                continue
    return list(dict.fromkeys(problems))


class FilterModule:
    """Filters of the collection."""

    def filters(self) -> dict[str, Any]:
        """Return the filters by name."""
        return {"variable_problems": variable_problems}
