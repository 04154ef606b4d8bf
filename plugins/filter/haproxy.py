# Copyright: The kallithea.cluster maintainers
# GPL-3.0-or-later (see LICENSE)
"""The load balancer's backends, what is wrong with its settings, and words of its configuration."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.kallithea.cluster.plugins.module_utils.addresses import bind_problem

POOLS = ("ui", "scm", "write", "ci")
# The lists that say who is a bot, by their variables' names; kallithea-bots knows the same.
LISTS = ("bot_networks", "bot_accounts", "bot_api_keys", "bot_user_agents", "person_accounts")
# What Kallithea's own API keys look like.
API_KEY = re.compile(r"[0-9A-Za-z]{40}")
# HAProxy's own limit on a 64-bit machine.
MOST_THREADS = 64
# What is returned has to fit into one of HAProxy's buffers.
ROBOTS_BYTES = 8192
TLS_KINDS = ("given", "private_ca", "off")
BALANCES = ("leastconn", "roundrobin", "source")
# Above this many seconds HAProxy's queue by priority is no longer exact.
LONGEST_QUEUE = 524
# HAProxy reads lines of at most 2048 characters.
LONGEST_ENTRY = 1900
# What fits this one fits people; kallithea-bots has the same.
BROWSER = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"


def endpoint(address: str, port: int) -> str:
    """Return address and port as HAProxy writes them."""
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def balancer_backends(
    app_nodes: Sequence[Mapping[str, Any]], balancers: Iterable[str], own_name: str, static_port: int = 8080
) -> dict[str, list[dict[str, Any]]]:
    """Return each pool's servers with this balancer's share of their processes.

    The shares of all balancers sum to the number of processes; what cannot be divided goes to another balancer at each node.
    In the pool ci the CI nodes stand first, since HAProxy fills that pool's servers in their order.
    """
    names = list(balancers)
    if own_name not in names:
        raise AnsibleFilterError(f"{own_name} is not in kallithea_loadbalancer_nodes: add it there, or to the group kallithea_loadbalancer.")
    position = names.index(own_name)
    result: dict[str, list[dict[str, Any]]] = {"static": []}
    for pool in POOLS:
        result[pool] = []
    for number, node in enumerate(app_nodes):
        if not node.get("ci"):
            result["static"].append({"name": node["name"], "endpoint": endpoint(node["address"], static_port), "maxconn": 0})
        for pool, settings in node["pools"].items():
            if pool not in result or pool == "static":
                continue
            processes = int(settings["processes"])
            share, rest = divmod(processes, len(names))
            if (position + number) % len(names) < rest:
                share += 1
            result[pool].append({"name": node["name"], "endpoint": endpoint(node["address"], int(settings["port"])), "maxconn": share})
    ci_nodes = {node["name"] for node in app_nodes if node.get("ci")}
    result["ci"].sort(key=lambda server: server["name"] not in ci_nodes)
    return result


def haproxy_quote(value: object) -> str:
    """Return a text as one word of HAProxy's configuration; between single quotes nothing else has a meaning."""
    return "'" + str(value).replace("'", "'\\''") + "'"


def api_key_hmac(api_key: str, key: str) -> str:
    """Return what the balancer compares a request's API key with: HMAC-SHA-256 in capital hexadecimal digits, as HAProxy writes them."""
    return hmac.new(key.encode(), api_key.encode(), hashlib.sha256).hexdigest().upper()


def balancer_lists(settings: Mapping[str, Any], key: str) -> dict[str, str]:
    """Return the content of each list's file by its name; a line begins with a blank, since HAProxy takes one that begins with # for a comment."""
    entries = {name: [str(entry) for entry in settings[name]] for name in LISTS}
    entries["bot_api_keys"] = [api_key_hmac(entry, key) for entry in entries["bot_api_keys"]]
    return {name: "".join(f" {entry}\n" for entry in dict.fromkeys(values)) for name, values in entries.items()}


def balancer_list_reverts(by_command: str, lists: Mapping[str, str]) -> list[str]:
    """Return what kallithea-bots had changed on a balancer and the inventory takes back, in its order.

    by_command has a line "VERB LIST ENTRY" for each change; one that the inventory says too is none any more.
    """
    last: dict[tuple[str, str], str] = {}
    for line in by_command.splitlines():
        verb, name, entry = line.split(" ", 2)
        last[name, entry] = verb
    found = []
    for (name, entry), verb in last.items():
        if (entry in [line[1:] for line in lists[name].splitlines()]) != (verb == "add"):
            found.append(f"{'added to' if verb == 'add' else 'removed from'} kallithea_loadbalancer_{name}: {entry}")
    return found


def agent_problem(said: str) -> str:
    """Return from what HAProxy said of a configuration the sentence about the expression that it does not take; empty where there is none."""
    refused = re.search(r"regex '(.*)' is invalid(?: \((?:error=)?([^)]*)\))?", said)
    if not refused:
        return ""
    reason = f" ({refused[2].strip()})" if refused[2] else ""
    return f"kallithea_loadbalancer_bot_user_agents holds '{refused[1]}', which HAProxy does not take{reason}: write it as PCRE has it."


def _is_network(text: str) -> bool:
    # Python takes more than HAProxy does: masks with dots, interfaces after a %.
    if not re.fullmatch(r"[0-9A-Fa-f.:]+(/[0-9]+)?", text):
        return False
    try:
        ipaddress.ip_network(text, strict=False)
    except ValueError:
        return False
    return True


def balancer_problems(settings: Mapping[str, Any]) -> list[str]:
    """Return one sentence for each thing that is wrong with the balancer's settings."""
    problems = []
    prefix = "kallithea_loadbalancer_"
    if not settings["hostname"]:
        problems.append("kallithea_hostname is not set; give the public host name in group_vars/all.yml, such as scm.example.org.")
    for name, what in (("nodes", "load balancers"), ("app_nodes", "application nodes")):
        if not settings[name]:
            problems.append(f"{prefix}{name} is empty: list the {what}, each with name and address.")
    balancers = len(settings["nodes"])
    for node in settings["app_nodes"]:
        for pool, entry in node["pools"].items():
            # Fewer than one is the application's own problem.
            if str(entry.get("processes")).isdigit() and 1 <= int(entry["processes"]) < balancers:
                problems.append(
                    f"pool {pool} of {node['name']} has {entry['processes']} processes for {balancers} load balancers: "
                    f"give kallithea_app_pools.{pool}.processes at least {balancers} there."
                )
    if settings["tls"] is False or settings["tls"] == "False":
        problems.append(f'{prefix}tls is off without quotes, which YAML takes for false: write "off" in quotes.')
    elif settings["tls"] not in TLS_KINDS:
        problems.append(f"{prefix}tls is '{settings['tls']}': it must be one of {', '.join(TLS_KINDS)}.")
    if settings["tls"] == "off" and not settings["trusted_proxies"]:
        problems.append(f"{prefix}tls is off, but {prefix}trusted_proxies is empty: name the proxies that do TLS in front, or use given or private_ca.")
    if settings["tls"] == "given":
        for name in ("certificate", "certificate_key"):
            if not settings[name]:
                problems.append(f"{prefix}tls is given, but {prefix}{name} is empty: set it to the file's path on the controller.")
    if settings["proxy_protocol"] and not settings["trusted_proxies"]:
        problems.append(f"{prefix}proxy_protocol is on, but {prefix}trusted_proxies is empty: name the proxies that speak it.")
    if settings["balance"] not in BALANCES:
        problems.append(f"{prefix}balance is '{settings['balance']}': it must be one of {', '.join(BALANCES)}.")
    for name in ("trusted_proxies", "bot_networks", "explain_networks", "metrics_networks"):
        for value in settings[name]:
            if not _is_network(str(value)):
                problems.append(f"{prefix}{name} holds '{value}', which is neither an address nor a network like 192.0.2.0/24.")
            elif name == "bot_networks" and str(value).endswith("/0"):
                problems.append(f"{prefix}bot_networks holds '{value}', so everybody would be a bot: name the build servers' networks.")
    for name in ("bot_accounts", "person_accounts"):
        for account in settings[name]:
            if not re.fullmatch(r"[^\s:]+", str(account)) or not str(account).isprintable() or len(haproxy_quote(account)) > LONGEST_ENTRY:
                problems.append(f"{prefix}{name} holds '{account}', which cannot be an account's name.")
    problems += bind_problem(f"{prefix}metrics_bind", settings["metrics_bind"])
    people = {str(entry).lower() for entry in settings["person_accounts"]}
    for account in dict.fromkeys(str(entry) for entry in settings["bot_accounts"] if str(entry).lower() in people):
        problems.append(f"the account '{account}' is in {prefix}bot_accounts and in {prefix}person_accounts: take it out of one of them.")
    # Never the key itself: it opens the account.
    bad_keys = sum(not API_KEY.fullmatch(str(entry)) for entry in settings["bot_api_keys"])
    if bad_keys:
        problems.append(f"{prefix}bot_api_keys holds {bad_keys} of {len(settings['bot_api_keys'])} that are no API keys: give 40 letters and digits each.")
    for pattern in settings["bot_user_agents"]:
        try:
            if pattern and re.search(str(pattern), BROWSER, re.IGNORECASE):
                problems.append(f"{prefix}bot_user_agents holds '{pattern}', which fits a browser's User-Agent too: name the programs of bots.")
        except re.error as error:
            problems.append(f"{prefix}bot_user_agents holds '{pattern}', which is no regular expression ({error}).")
        if not pattern or not str(pattern).isprintable() or len(haproxy_quote(pattern)) > LONGEST_ENTRY:
            problems.append(
                f"{prefix}bot_user_agents holds '{pattern}': a pattern is one line of printable characters, at most {LONGEST_ENTRY}, and not empty."
            )
    for pool in POOLS:
        seconds = settings["queue_seconds"].get(pool)
        if not isinstance(seconds, int) or not 1 <= seconds <= LONGEST_QUEUE:
            problems.append(f"{prefix}queue_seconds.{pool} is '{seconds}': it must be 1 to {LONGEST_QUEUE} seconds.")
    for who in ("person", "bot"):
        ceiling = settings["in_flight"].get(who)
        if not isinstance(ceiling, int) or ceiling < 1:
            problems.append(f"{prefix}in_flight.{who} is '{ceiling}': it must be a number of requests, at least 1.")
        elif ceiling > int(settings["maxconn"]) // 2:
            problems.append(
                f"{prefix}in_flight.{who} is {ceiling}, but a pool holds no more than {prefix}maxconn ({settings['maxconn']}), and one client may not take "
                f"more than half of it: give at most {int(settings['maxconn']) // 2}, or raise {prefix}maxconn."
            )
    if not 1 <= int(settings["threads"]) <= MOST_THREADS:
        problems.append(f"{prefix}threads is {settings['threads']}: give 1 to {MOST_THREADS}.")
    if len(str(settings["robots"]).encode()) > ROBOTS_BYTES:
        problems.append(f"{prefix}robots has {len(str(settings['robots']).encode())} bytes: give at most {ROBOTS_BYTES}.")
    for pool in POOLS:
        if settings["app_nodes"] and not any(pool in node.get("pools", {}) for node in settings["app_nodes"]):
            problems.append(f"no application node has the pool {pool}: add it to kallithea_app_pools of a host.")
    return problems


class FilterModule:
    """The filters of this file."""

    def filters(self) -> dict[str, Any]:
        """Return the filters by name."""
        return {
            "balancer_backends": balancer_backends,
            "agent_problem": agent_problem,
            "balancer_list_reverts": balancer_list_reverts,
            "balancer_lists": balancer_lists,
            "balancer_problems": balancer_problems,
            "haproxy_quote": haproxy_quote,
        }
