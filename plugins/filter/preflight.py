# Copyright: The kallithea.cluster maintainers
# GPL-3.0-or-later (see LICENSE)
"""What is wrong with an inventory or a host: each problem one sentence that says what, where and how to mend it."""

from __future__ import annotations

import difflib
import functools
import ipaddress
import pathlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import jinja2
import yaml
from ansible.errors import AnsibleError
from ansible.module_utils.common.validation import check_type_float, check_type_int
from ansible_collections.kallithea.cluster.plugins.module_utils.addresses import split_bind

ROLES = pathlib.Path(__file__).parents[2] / "roles"
POOLS = ("ui", "scm", "write", "ci")
# A process of Kallithea holds 102 to 121 MB after use, measured with four of them.
PROCESS_MB = 130
# What the operating system and the database, broker and balancer beside it need at least.
RESERVED_MB = 700
CLOCK_SECONDS = 2.0
SYSTEMS = {"12": "3.11", "13": "3.13"}
# How the types of the argument_specs are called.
WANTED = {
    "str": "a text",
    "path": "a path",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false without quotes",
    "list": "a list, such as [a, b]",
    "dict": "a dictionary, such as {a: b}",
}
VALUE_SHOWN = 60
HOSTNAME = re.compile(r"(?=.{1,253}$)[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*")


@functools.cache
def role_options(roles: pathlib.Path = ROLES) -> dict[str, dict[str, Any]]:
    """Return all public variables with what the roles' argument_specs say of them."""
    options: dict[str, dict[str, Any]] = {}
    for path in sorted(roles.glob("*/meta/argument_specs.yml")):
        # Several times as fast as the loader in Python; the playbook reads the files more than once.
        specs = yaml.load(path.read_text(encoding="utf-8"), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))["argument_specs"]
        for entry in specs.values():
            options.update(entry.get("options", {}))
    return options


def documented_variables(roles: pathlib.Path = ROLES) -> set[str]:
    """Return the names of all public variables."""
    return {"kallithea_secrets", "kallithea_verify_host", *role_options(roles)}


def fits(value: Any, kind: str) -> bool:
    """Tell whether a value is of a type of the argument_specs, as the roles use it.

    Ansible takes a text for a list, a dictionary or a truth value too and hands it to the role unchanged, which then sees letters, or holds 'false' for true.
    """
    if kind == "list":
        return isinstance(value, Sequence) and not isinstance(value, str)
    if kind == "dict":
        return isinstance(value, Mapping)
    if kind == "bool" or isinstance(value, bool):
        return kind == "bool" and isinstance(value, bool)
    if kind in ("int", "float"):
        try:
            (check_type_int if kind == "int" else check_type_float)(value)
        except (TypeError, ValueError):
            return False
        return True
    return isinstance(value, (str, int, float))


def shown(value: Any, secret: bool) -> str:
    """Return what a value is, in a few words."""
    if value is None:
        return "has no value"
    if isinstance(value, (Mapping, Sequence)) and not isinstance(value, str):
        return "is a dictionary" if isinstance(value, Mapping) else "is a list"
    if isinstance(value, str):
        return "is a text" if secret else f"is the text '{value[:VALUE_SHOWN]}'"
    return "is a number or truth value" if secret else f"is {str(value).lower()}"


def wrong_parts(name: str, value: Any, option: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Yield for each part of a variable that its specification does not allow the part, what it is, and how to mend it."""
    kind, choices, parts = option.get("type", "str"), option.get("choices"), option.get("options", {})
    # YAML's off and yes are truth values.
    quotes = " in quotes" if isinstance(value, bool) else ""
    said = shown(value, option.get("no_log", False))
    # A list's choices are those of its elements.
    if choices and kind != "list" and value not in choices:
        yield name, said, f"give one of {', '.join(map(str, choices))}{quotes}"
    elif not fits(value, kind):
        yield name, said, f"give {WANTED[kind]}{quotes if kind in ('str', 'path') else ''}"
    elif kind == "list" and "elements" in option:
        for number, element in enumerate(value):
            yield from wrong_parts(f"{name}[{number}]", element, {**option, "type": option["elements"]})
    elif parts:
        for key, part in value.items():
            if key in parts:
                yield from wrong_parts(f"{name}.{key}", part, parts[key])
            else:
                yield f"{name}.{key}", "has no meaning", f"{name} takes {', '.join(parts)}"
        if missing := [key for key in parts if key not in value]:
            yield name, f"lacks {', '.join(missing)}", "give all of it, since what is given replaces the default as a whole"


def spec_problems(hosts: Iterable[str], hostvars: Mapping[str, Mapping[str, Any]], options: Mapping[str, Mapping[str, Any]] | None = None) -> list[str]:
    """Return a sentence for each value of a public variable that the roles' argument_specs do not allow, said once for all hosts that have it."""
    known = role_options() if options is None else options
    names = sorted(set(hosts))
    found: dict[tuple[str, str, str], list[str]] = {}
    for host in names:
        variables = hostvars[host]
        for variable in sorted(known.keys() & set(variables)):
            try:
                for part in wrong_parts(variable, variables[variable], known[variable]):
                    found.setdefault(part, []).append(host)
            # A template of facts, which nobody has asked for yet: the role's own check sees its value.
            except (AnsibleError, jinja2.UndefinedError):
                continue
    return [
        f"{part} {said} on {'every host' if len(members) == len(names) > 1 else ', '.join(members)}; {mend}."
        for (part, said, mend), members in sorted(found.items())
    ]


def unknown_variables(names: Iterable[str], ignore: Iterable[str] = (), known: Iterable[str] | None = None) -> list[str]:
    """Return a sentence for each kallithea_ variable that nothing reads."""
    documented = set(known) if known is not None else documented_variables()
    problems = []
    for name in sorted(set(names) - documented - set(ignore)):
        near = difflib.get_close_matches(name, sorted(documented), n=1)
        hint = f"did you mean {near[0]}?" if near else "correct it, or add it to kallithea_ignore_variables if it is your own."
        problems.append(f"The variable {name} is set but nothing reads it; {hint}")
    return problems


def hostname_problems(hostname: str, ci_hostname: str) -> list[str]:
    """Return what is wrong with the two public names."""
    problems = []
    if not hostname:
        problems.append("kallithea_hostname is not set; give the public host name in group_vars/all.yml, such as scm.example.org.")
    for variable, name in (("kallithea_hostname", hostname), ("kallithea_ci_hostname", ci_hostname)):
        if name and not HOSTNAME.fullmatch(name):
            problems.append(f"{variable} is '{name}', which is no host name in small letters; give a name without scheme, port, path or a dot at its end.")
        elif name and re.fullmatch(r"[0-9.]+", name):
            problems.append(f"{variable} is '{name}', an address; give a name, since Mercurial takes no certificate for an address.")
    if hostname and hostname == ci_hostname:
        problems.append("kallithea_ci_hostname is the same as kallithea_hostname; give bots a name of their own, or leave it empty.")
    return problems


def pool_problems(node: Mapping[str, Any]) -> list[str]:
    """Return what is wrong with a node's pools."""
    name = node["name"]
    pools: Mapping[str, Mapping[str, Any]] = node["pools"]
    problems = []
    ports: dict[int, str] = {}
    for pool, settings in pools.items():
        where = f"kallithea_app_pools.{pool} of host {name}"
        if pool not in POOLS:
            problems.append(f"{where} is no pool; the pools are {', '.join(POOLS)}.")
        if "threads" in settings:
            problems.append(f"{where} sets threads; Kallithea is not thread-safe, so raise processes instead and remove threads.")
        for extra in sorted(set(settings) - {"processes", "port", "threads"}):
            problems.append(f"{where} has the unknown key {extra}; it takes processes and port.")
        processes = settings.get("processes")
        if isinstance(processes, bool) or not isinstance(processes, int) or processes < 1:
            problems.append(f"{where} has processes {processes!r}; give a whole number of at least 1.")
        port = settings.get("port")
        if isinstance(port, bool) or not isinstance(port, int) or not 1 <= port <= 65535:
            problems.append(f"{where} has port {port!r}; give a number from 1 to 65535.")
        elif port in ports:
            problems.append(f"{where} has the port {port} of pool {ports[port]}; give each pool a port of its own.")
        else:
            ports[port] = pool
    wanted = ("ci",) if node.get("ci") else POOLS
    problems += [f"kallithea_app_pools of host {name} lacks the pool {pool}; add it with processes and port." for pool in wanted if pool not in pools]
    return problems


def process_count(node: Mapping[str, Any]) -> int:
    """Return how many application processes a node runs, with Celery's parent and children and the one that git hooks are run by."""
    pools = sum(int(settings["processes"]) for settings in node["pools"].values())
    return pools + int(node["celery"]) + 1 + (not node.get("ci"))


def proposed_pools(memory_mb: int, cores: float) -> dict[str, int]:
    """Propose process counts: two for each core, at least one for each pool, no more than the memory carries."""
    carried = max(len(POOLS), (memory_mb - RESERVED_MB) // PROCESS_MB - 4)
    total = min(carried, max(10, int(cores * 4)))
    share = {"ui": 3, "scm": 3, "write": 2, "ci": 2}
    return {pool: max(1, total * share[pool] // 10) for pool in POOLS}


def memory_problems(node: Mapping[str, Any], state: Mapping[str, Any]) -> list[str]:
    """Return a sentence where a host's pools do not fit its memory."""
    count = process_count(node)
    need = count * PROCESS_MB + RESERVED_MB
    if need <= state["memory_mb"]:
        return []
    proposal = ", ".join(f"{pool} {number}" for pool, number in proposed_pools(state["memory_mb"], state["cores"]).items())
    return [
        f"Host {node['name']} has {state['memory_mb']} MiB, but its {count} processes need some {need} MiB; "
        f"lower kallithea_app_pools (its memory carries {proposal}) or give it more memory."
    ]


def clock_problems(name: str, state: Mapping[str, Any], seconds_taken: float = 0.0) -> list[str]:
    """Return a sentence where a host's clock is off; the time that asking took makes it seem ahead."""
    ahead = float(state["clock_ahead"])
    if -CLOCK_SECONDS <= ahead <= CLOCK_SECONDS + seconds_taken:
        return []
    return [f"The clock of host {name} is {abs(ahead):.0f} s off the controller's; let an NTP client (chrony, systemd-timesyncd) set both."]


def timezone_problems(timezone: str, zones: pathlib.Path = pathlib.Path("/usr/share/zoneinfo")) -> list[str]:
    """Return a sentence where kallithea_timezone is not in the controller's tz database."""
    if not zones.is_dir() or (re.fullmatch(r"[A-Za-z0-9_+/-]+", timezone) and (zones / timezone).is_file()):
        return []
    return [f"kallithea_timezone is '{timezone}', which the tz database does not have; give a name such as Europe/Berlin."]


def address_problems(topology: Mapping[str, Sequence[Mapping[str, Any]]], name: str, state: Mapping[str, Any]) -> list[str]:
    """Return a sentence where the address by which the other hosts know a host is none of its own: services listen on it, and its peers let it in by it."""
    nodes = [node for tier in topology.values() for node in tier]
    given = next((ipaddress.ip_address(node["address"]) for node in nodes if node["name"] == name), None)
    own = [ipaddress.ip_address(address) for address in state["addresses"]]
    alone = all(node["name"] == name for node in nodes)
    if given is None or not own or (alone if given.is_loopback else given in own):
        return []
    others = ", ".join(str(address) for address in own if not address.is_loopback) or "none but its loopback's"
    return [
        f"The other hosts know host {name} by {given}, but its own addresses are {others}; "
        "set kallithea_address to the one by which they reach it (an address that a router translates cannot be used)."
    ]


def bound_port(variables: Mapping[str, Any], role: str, default: int) -> str:
    """Return the port that a role's metrics are bound to."""
    port: str = split_bind(variables.get(f"{role}_metrics_bind", f":{default}"))[1]
    return port


def expected_ports(topology: Mapping[str, Sequence[Mapping[str, Any]]], name: str, variables: Mapping[str, Any]) -> dict[int, list[str]]:
    """Return for each port that the cluster takes on a host the names of our programs that may already listen on it."""
    ports: dict[int, list[str]] = {}

    def stands_in(tier: str) -> bool:
        return any(node["name"] == name for node in topology.get(tier, []))

    for node in [*topology.get("app", []), *topology.get("ci", [])]:
        if node["name"] == name:
            ports.update({int(settings["port"]): ["apache2"] for settings in node["pools"].values() if str(settings.get("port")).isdigit()})
            ports[int(variables.get("kallithea_app_static_port", 8080))] = ["apache2"]
            ports[int(variables.get("kallithea_app_health_port", 8089))] = ["python3", "kallithea-healt"]
            metrics = bound_port(variables, "kallithea_app", 8406)
            ports |= {int(metrics): ["apache2"]} if metrics.isdigit() else {}
    # The kernel listens itself, so that whoever shows up there is another server.
    if stands_in("storage") and variables.get("kallithea_storage_kind") == "nfs":
        ports[2049] = []
    if stands_in("database"):
        ports[5432] = ["postgres"]
    if stands_in("broker"):
        ports[5672] = ["beam.smp"]
    if stands_in("loadbalancer"):
        ports[int(variables.get("kallithea_loadbalancer_http_port", 80))] = ["haproxy"]
        ports[int(variables.get("kallithea_loadbalancer_https_port", 443))] = ["haproxy"]
        metrics = bound_port(variables, "kallithea_loadbalancer", 8405)
        ports |= {int(metrics): ["haproxy"]} if metrics.isdigit() else {}
    return ports


def port_clashes(topology: Mapping[str, Sequence[Mapping[str, Any]]], name: str, variables: Mapping[str, Any]) -> list[str]:
    """Return a sentence for each port that two parts of the cluster want on one host."""
    wanted: list[tuple[str, Any]] = []
    for node in [*topology.get("app", []), *topology.get("ci", [])]:
        if node["name"] == name:
            wanted += [(f"kallithea_app_pools.{pool}", settings.get("port")) for pool, settings in node["pools"].items()]
            wanted.append(("kallithea_app_static_port", variables.get("kallithea_app_static_port", 8080)))
            wanted.append(("kallithea_app_health_port", variables.get("kallithea_app_health_port", 8089)))
            wanted.append(("kallithea_app_metrics_bind", bound_port(variables, "kallithea_app", 8406)))
    tiers = {tier for tier in topology for node in topology[tier] if node["name"] == name}
    if "storage" in tiers and variables.get("kallithea_storage_kind") == "nfs":
        wanted.append(("NFS", 2049))
    if "database" in tiers:
        wanted.append(("PostgreSQL", 5432))
    if "broker" in tiers:
        wanted.append(("RabbitMQ", variables.get("kallithea_broker_port", 5672)))
    if "loadbalancer" in tiers:
        wanted.append(("kallithea_loadbalancer_http_port", variables.get("kallithea_loadbalancer_http_port", 80)))
        wanted.append(("kallithea_loadbalancer_https_port", variables.get("kallithea_loadbalancer_https_port", 443)))
        wanted.append(("kallithea_loadbalancer_metrics_bind", bound_port(variables, "kallithea_loadbalancer", 8405)))
    wanted.append(("SSH", 22))
    users: dict[str, list[str]] = {}
    for what, port in wanted:
        users.setdefault(str(port), []).append(what)
    return [
        f"Port {port} of host {name} is wanted by {' and '.join(what)}; give each a port of its own."
        for port, what in users.items()
        # Two pools of one port are the filter pool_problems' matter.
        if len(what) > 1 and port.isdigit() and not all(user.startswith("kallithea_app_pools.") for user in what)
    ]


def port_problems(name: str, state: Mapping[str, Any], wanted: Mapping[int, Sequence[str]]) -> list[str]:
    """Return a sentence for each wanted port that another program than the expected ones listens on."""
    problems = []
    for entry in state["listening"]:
        port, programs = int(entry["port"]), set(entry["programs"])
        expected = wanted.get(port, wanted.get(str(port)))  # type: ignore[call-overload]
        if expected is not None and programs and not programs & set(expected):
            problems.append(f"Port {port} of host {name} is in use by {', '.join(sorted(programs))}; stop it there, or choose another port.")
    return problems


def account_problems(name: str, state: Mapping[str, Any], user: str, uid: int, gid: int) -> list[str]:
    """Return a sentence where the numeric ids belong to somebody else, or the service user has other ones."""
    problems = []
    for variable, number, owner in (("kallithea_uid", uid, state["uid_owner"]), ("kallithea_gid", gid, state["gid_owner"])):
        if owner not in ("", user):
            problems.append(f"{variable} {number} belongs to {owner} on host {name}; choose a number that is free on every host.")
    for variable, kind, number, there in (("kallithea_uid", "user", uid, state["user_uid"]), ("kallithea_gid", "group", gid, state["group_gid"])):
        if there not in (-1, number) and not problems:
            problems.append(
                f"The {kind} {user} of host {name} has the number {there}, but {variable} is {number}; "
                f"give {variable} that number, or kallithea_user another name."
            )
    return problems


def identity_problems(name: str, state: Mapping[str, Any], cluster_id: str, identity_file: str, storage_path: str) -> list[str]:
    """Return a sentence where the host or the storage belongs to another cluster; a damaged file counts as another's."""
    problems = []
    if state["identity"]["exists"] and state["identity"]["cluster_id"] != cluster_id:
        problems.append(
            f"{name} belongs to another cluster, or its {identity_file} is damaged: use that cluster's secrets file, "
            "or remove the file if the host was given up by the other cluster."
        )
    if state["marker"]["exists"] and state["marker"]["cluster_id"] != cluster_id:
        problems.append(
            f"The storage {storage_path} of {name} belongs to another cluster, or its marker {storage_path}/.kallithea-cluster is damaged: "
            "use that cluster's secrets file, or give kallithea_storage_path another path."
        )
    return problems


def system_problems(facts: Mapping[str, Any]) -> list[str]:
    """Return a sentence where the system or its Python is not one that is tested."""
    system, version = facts.get("distribution", "?"), str(facts.get("distribution_major_version", "?"))
    if system != "Debian" or version not in SYSTEMS:
        return [f"{system} {version} is not supported; use Debian 12 or 13."]
    python = ".".join(str(facts.get("python_version", "")).split(".")[:2])
    if python and python != SYSTEMS[version]:
        return [f"Python {python} is not the one of Debian {version}; let ansible_python_interpreter be /usr/bin/python3 ({SYSTEMS[version]})."]
    return []


class FilterModule:
    """Filters of the collection."""

    def filters(self) -> dict[str, Any]:
        """Return the filters by name."""
        return {
            "unknown_variables": unknown_variables,
            "hostname_problems": hostname_problems,
            "pool_problems": pool_problems,
            "memory_problems": memory_problems,
            "proposed_pools": proposed_pools,
            "clock_problems": clock_problems,
            "timezone_problems": timezone_problems,
            "address_problems": address_problems,
            "expected_ports": expected_ports,
            "port_problems": port_problems,
            "port_clashes": port_clashes,
            "account_problems": account_problems,
            "identity_problems": identity_problems,
            "system_problems": system_problems,
        }
