# Copyright: The kallithea.cluster maintainers
# GPL-3.0-or-later (see LICENSE)
"""What is wrong with the inventory as a whole, and with hosts that have to be alike: each problem one sentence."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jinja2
from ansible.errors import AnsibleError, AnsibleFilterError
from ansible_collections.kallithea.cluster.plugins.filter.preflight import spec_problems, unknown_variables
from ansible_collections.kallithea.cluster.plugins.filter.storage import lost_storage_problems, other_server_problems, storage_differences
from ansible_collections.kallithea.cluster.plugins.filter.topology import TIERS, node_address, possible_nodes

Variables = Mapping[str, Any]
# What has no meaning unless it is the same on every host, so it belongs into group_vars/all.yml.
ALIKE = (
    "kallithea_hostname",
    "kallithea_ci_hostname",
    "kallithea_user",
    "kallithea_uid",
    "kallithea_gid",
    "kallithea_timezone",
    "kallithea_storage_kind",
    "kallithea_storage_path",
    "kallithea_secrets_file",
    "kallithea_limits",
    "kallithea_database_hosts",
    "kallithea_database_port",
    "kallithea_database_sslmode",
    "kallithea_database_ca",
    "kallithea_database_name",
    "kallithea_database_user",
    "kallithea_broker_hosts",
    "kallithea_broker_port",
    "kallithea_broker_tls",
    "kallithea_broker_ca",
    "kallithea_broker_vhost",
    "kallithea_broker_user",
    "kallithea_app_patches",
    "kallithea_app_static_port",
    "kallithea_app_health_port",
    "kallithea_app_scheme",
    "kallithea_app_sessions",
    "kallithea_app_data_dir",
)
# Memory that PostgreSQL needs for a connection, rounded up from what its processes hold beside the shared buffers.
CONNECTION_MB = 5


def _hosts(names: Iterable[str]) -> str:
    return ", ".join(sorted(set(names)))


def _first(groups: Mapping[str, Sequence[str]], hostvars: Mapping[str, Variables], variable: str, default: Any) -> Any:
    """Return a cluster-wide variable as the first host has it."""
    for tier in TIERS:
        for name in groups.get(f"kallithea_{tier}", []):
            return hostvars[name].get(variable, default)
    return default


def misspelt_problems(groups: Mapping[str, Sequence[str]]) -> list[str]:
    """Return a sentence for each group with hosts that is called nearly as an empty one of ours; any other name is the user's own matter."""
    empty = [f"kallithea_{tier}" for tier in TIERS if not groups.get(f"kallithea_{tier}")]
    problems = []
    for group in sorted(groups):
        near = difflib.get_close_matches(group, empty, n=1, cutoff=0.85)
        if near and group not in empty and groups[group]:
            problems.append(f"The inventory group {group} is none that anything reads; did you mean {near[0]}?")
    return problems


def group_problems(groups: Mapping[str, Sequence[str]], hostvars: Mapping[str, Variables]) -> list[str]:
    """Return a sentence for each group that is empty, or that has hosts although what it is for stands elsewhere."""

    def value(variable: str, default: Any) -> Any:
        return _first(groups, hostvars, variable, default)

    problems = [
        f"The inventory group kallithea_{tier} is empty or missing; put at least one host into it."
        for tier in ("app", "loadbalancer")
        if not groups.get(f"kallithea_{tier}")
    ]
    storage = groups.get("kallithea_storage", [])
    kind = value("kallithea_storage_kind", "local")
    runs = [*groups.get("kallithea_app", []), *groups.get("kallithea_ci", [])]
    if kind == "local" and (len(runs) > 1 or (storage and runs and set(storage) != set(runs))):
        problems.append(
            f"kallithea_storage_kind is local, a directory of the one host that runs the application, but the application runs on {_hosts(runs)}"
            f"{' and the storage is on ' + _hosts(storage) if storage else ''}; mount a shared file system at "
            f"{value('kallithea_storage_path', '/srv/kallithea')} on each application host and set kallithea_storage_kind: existing, "
            "or give the storage a host of its own and set kallithea_storage_kind: nfs."
        )
    elif kind == "local" and not storage:
        problems.append("The inventory group kallithea_storage is empty or missing; put the one host with the repositories into it.")
    if kind == "nfs" and len(storage) != 1:
        problems.append(
            f"The inventory group kallithea_storage {'has ' + _hosts(storage) if storage else 'is empty or missing'}, but with kallithea_storage_kind nfs "
            "one host serves the storage; put exactly one into it."
        )
    if kind == "nfs" and set(storage) & set(runs):
        problems.append(
            f"Host {_hosts(set(storage) & set(runs))} stands in kallithea_storage and runs the application, but the locks of the server's own processes "
            "and those of its NFS clients do not exclude each other; give the storage a host that runs no application."
        )
    if kind == "existing" and storage:
        problems.append(
            f"The inventory group kallithea_storage has {_hosts(storage)}, but kallithea_storage_kind is existing, which no host serves; "
            "take the hosts out of the group."
        )
    for tier, what in (("database", "a PostgreSQL"), ("broker", "a RabbitMQ")):
        members, external = groups.get(f"kallithea_{tier}", []), value(f"kallithea_{tier}_hosts", [])
        if isinstance(external, str):
            problems.append(f"kallithea_{tier}_hosts is the text '{external}'; give a list, such as [{external or 'name.example.org'}].")
        if not members and not external:
            problems.append(
                f"The inventory group kallithea_{tier} is empty or missing; put at least one host into it, "
                f"or name {what} of your own in kallithea_{tier}_hosts."
            )
        if members and external:
            problems.append(
                f"The inventory group kallithea_{tier} has {_hosts(members)}, but kallithea_{tier}_hosts names {what} of your own; "
                "take the hosts out of the group, or remove the variable."
            )
        if len(members) > 1:
            problems.append(f"The inventory group kallithea_{tier} has {_hosts(members)}; this version sets up one, so leave one of them in it.")
    for name in groups.get("kallithea_ci", []):
        if name in groups.get("kallithea_app", []):
            problems.append(
                f"Host {name} stands in kallithea_app and in kallithea_ci, but a CI host serves bots alone; take it out of one of the groups "
                "(an app host has a pool ci of its own)."
            )
    return problems


def alike_problems(groups: Mapping[str, Sequence[str]], hostvars: Mapping[str, Variables]) -> list[str]:
    """Return a sentence for each cluster-wide variable that differs between hosts, and for each address that two hosts have."""
    names = sorted({name for tier in TIERS for name in groups.get(f"kallithea_{tier}", [])})
    problems = []
    for variable in ALIKE:
        values: dict[str, list[str]] = {}
        for name in names:
            try:
                values.setdefault(str(hostvars[name].get(variable, "its default")), []).append(name)
            # A template of what is known later, such as facts or defaults of a role.
            except (AnsibleError, jinja2.UndefinedError):
                continue
        if len(values) > 1:
            said = " and ".join(f"{value} on {_hosts(members)}" for value, members in sorted(values.items()))
            problems.append(f"{variable} is {said}; it must be the same on every host, so set it once in group_vars/all.yml.")
    addresses: dict[str, list[str]] = {}
    for name in names:
        try:
            addresses.setdefault(node_address(name, hostvars[name]), []).append(name)
        except AnsibleFilterError:
            continue
    problems += [
        f"The hosts {_hosts(members)} have one address {address}; give each its own kallithea_address, or one name to the one machine."
        for address, members in sorted(addresses.items())
        if len(members) > 1
    ]
    return problems


def is_ours(name: str) -> bool:
    """Tell whether a variable is called like one of ours, with a slip in the first word too."""
    word, _, rest = name.partition("_")
    return word == "kallithea" or (bool(rest) and word[:1] == "k" and difflib.SequenceMatcher(None, word, "kallithea").ratio() > 0.85)


def unread_variables(variables: Variables) -> list[str]:
    """Return a sentence for each of a host's variables that is called like one of ours and that nothing reads."""
    ignored = variables.get("kallithea_ignore_variables", [])
    names = (name for name in variables if is_ours(name))
    problems: list[str] = unknown_variables(names, ignored if isinstance(ignored, list) else [])
    return problems


def inventory_problems(
    groups: Mapping[str, Sequence[str]], hostvars: Mapping[str, Variables], default_pools: Mapping[str, Any], default_celery: int
) -> dict[str, list[str]]:
    """Return all that is wrong with the inventory: fatal is what leaves open which host does what, or what a role is to do, so that no host is asked."""
    # Without a host's node no other question of it can be asked.
    _, shapeless = possible_nodes(groups, hostvars, default_pools, default_celery)
    fatal = shapeless + misspelt_problems(groups) + group_problems(groups, hostvars)
    names = {name for tier in TIERS for name in groups.get(f"kallithea_{tier}", [])}
    # What has a sentence of its own already says more.
    fatal += [sentence for sentence in spec_problems(names, hostvars) if not any(said.startswith(f"{sentence.split()[0]} ") for said in fatal)]
    # Said here too, so that what ends the run before the hosts are asked does not hide them.
    unread = [sentence for name in sorted(names) for sentence in unread_variables(hostvars[name])]
    return {"fatal": fatal, "all": list(dict.fromkeys([*fatal, *unread, *alike_problems(groups, hostvars)]))}


def host_differences(hosts: Mapping[str, Mapping[str, Any]], app_hosts: Iterable[str]) -> list[str]:
    """Return a sentence for each thing in which the hosts have to be alike and are not.

    hosts: for each host its state, as the module host_state returns it, and its Debian release and architecture.
    """

    def apart(what: Mapping[str, str]) -> str:
        values: dict[str, list[str]] = {}
        for name, value in what.items():
            values.setdefault(value, []).append(name)
        return " and ".join(f"{value} on {_hosts(names)}" for value, names in sorted(values.items())) if len(values) > 1 else ""

    problems = []
    if said := apart({name: f"Debian {hosts[name]['release']}" for name in app_hosts if name in hosts}):
        problems.append(f"The application hosts have {said}; give all of them one Debian release, since they run one and the same build.")
    if said := apart({name: hosts[name]["architecture"] for name in app_hosts if name in hosts}):
        problems.append(f"The application hosts have {said}; give all of them one architecture, since they run one and the same build.")
    if said := apart({name: host["state"]["timezone"] for name, host in hosts.items()}):
        problems.append(f"The hosts' time zones are {said}; set one on all of them with timedatectl set-timezone.")
    names: dict[str, list[str]] = {}
    for name, host in hosts.items():
        names.setdefault(host["state"]["hostname"], []).append(name)
    problems += [
        f"The hosts {_hosts(members)} call themselves {own}, by which locks, logs and workers know them; give each a name of its own with hostnamectl."
        for own, members in sorted(names.items())
        if len(members) > 1
    ]
    problems += [
        f"Host {members[0]} calls itself {own}, as any other machine may that writes to the storage, so that its locks could be taken for theirs; "
        "give it a name of its own with hostnamectl."
        for own, members in sorted(names.items())
        if own.split(".")[0] == "localhost" and len(members) == 1
    ]
    return problems


def connection_problems(budget: int, memory_mb: int, host: str) -> list[str]:
    """Return a sentence where the processes may open more connections than the database's host has memory for."""
    carried = memory_mb // CONNECTION_MB
    if budget <= carried:
        return []
    return [
        f"The application's processes may open {budget} connections, but PostgreSQL on {host} with {memory_mb} MiB carries some {carried}; "
        "lower kallithea_app_pools and kallithea_database_spare_nodes, or give it more memory."
    ]


def all_problems(
    inventory: Sequence[str], hosts: Iterable[str], hostvars: Mapping[str, Variables], app_hosts: Sequence[str], storage_hosts: Sequence[str] = ()
) -> list[str]:
    """Return the sentences about the inventory, about each host that was asked and about what differs between them, each once."""
    asked = {name: hostvars[name] for name in hosts}
    known = {
        name: {
            "state": variables["__kallithea_common_host"]["state"],
            "release": str(variables["ansible_facts"]["distribution_major_version"]),
            "architecture": variables["ansible_facts"].get("architecture", ""),
        }
        for name, variables in asked.items()
    }
    states = {name: host["state"] for name, host in known.items()}
    storages = {name: states[name] for name in app_hosts if name in known}
    said = [sentence for variables in asked.values() for sentence in variables["__kallithea_preflight_problems"]]
    return list(
        dict.fromkeys(
            [
                *inventory,
                *said,
                *host_differences(known, app_hosts),
                *storage_differences(storages),
                *lost_storage_problems(states, storage_hosts),
                *other_server_problems(states, storage_hosts),
            ]
        )
    )


class FilterModule:
    """Filters of the collection."""

    def filters(self) -> dict[str, Any]:
        """Return the filters by name."""
        return {
            "inventory_problems": inventory_problems,
            "connection_problems": connection_problems,
            "all_problems": all_problems,
        }
