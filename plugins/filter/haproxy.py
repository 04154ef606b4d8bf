# Copyright: The kallithea.cluster maintainers
# GPL-3.0-or-later (see LICENSE)
"""The load balancer's backends, what is wrong with its settings and certificate, and words of its configuration."""

from __future__ import annotations

import datetime
import hashlib
import hmac
import ipaddress
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.kallithea.cluster.plugins.module_utils.addresses import bind_problem

try:
    from cryptography import x509
    from cryptography.hazmat.primitives import serialization

    HAVE_CRYPTOGRAPHY = True
except ImportError:
    HAVE_CRYPTOGRAPHY = False

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
NO_CRYPTOGRAPHY = "the controller's Python has no 'cryptography', which checks the certificate: install it (pip install cryptography)."


# How the common name of a private authority begins, see private_ca_make.yml.
AUTHORITY_NAME = "Kallithea cluster "


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
            re.compile(str(pattern))
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


def name_matches(pattern: str, name: str) -> bool:
    """Tell whether a certificate's name covers a host name; a star stands for one label."""
    pattern, name = pattern.lower(), name.lower()
    if pattern.startswith("*."):
        return "." in name and name.split(".", 1)[1] == pattern[2:]
    return pattern == name


def _validity(certificate: Any, name: str) -> datetime.datetime:
    """Return a moment of the certificate; cryptography before 42 knows it without a time zone only."""
    moment: datetime.datetime = getattr(certificate, f"{name}_utc", None) or getattr(certificate, name).replace(tzinfo=datetime.UTC)
    return moment


def _public(key: Any) -> bytes:
    """Return a public key in a form that can be compared."""
    encoded: bytes = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return encoded


def _names(certificate: Any) -> list[str]:
    """Return the host names that a certificate is for."""
    try:
        names: list[str] = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value.get_values_for_type(x509.DNSName)
    except x509.ExtensionNotFound:
        return []
    return names


def certificate_problems(certificate: str, key: str, hostnames: Iterable[str], now: datetime.datetime | None = None) -> list[str]:
    """Return one sentence for each thing that is wrong with a certificate and its key, without showing either."""
    if not HAVE_CRYPTOGRAPHY:
        return [NO_CRYPTOGRAPHY]
    try:
        leaf = x509.load_pem_x509_certificate(certificate.encode())
    except ValueError:
        return ["kallithea_loadbalancer_certificate holds no PEM certificate: give the certificate, followed by its intermediates."]
    try:
        private = serialization.load_pem_private_key(key.encode(), password=None)
    except TypeError:
        return [
            "kallithea_loadbalancer_certificate_key is protected by a passphrase, which HAProxy cannot ask for: "
            "give the key without one (ansible-vault may encrypt the file)."
        ]
    except ValueError:
        return ["kallithea_loadbalancer_certificate_key holds no PEM private key."]
    problems = []
    if _public(leaf.public_key()) != _public(private.public_key()):
        problems.append(
            "kallithea_loadbalancer_certificate_key does not fit kallithea_loadbalancer_certificate: "
            "give the key that the certificate was made for, and its own certificate first in the file."
        )
    names = _names(leaf)
    for hostname in hostnames:
        if hostname and not any(name_matches(name, hostname) for name in names):
            problems.append(f"kallithea_loadbalancer_certificate is for {', '.join(names) or 'no name at all'}, not for {hostname}: give one that covers it.")
    moment = now or datetime.datetime.now(datetime.UTC)
    begin, end = (_validity(leaf, name) for name in ("not_valid_before", "not_valid_after"))
    if end <= moment:
        problems.append(f"kallithea_loadbalancer_certificate is valid until {end:%Y-%m-%d} only: give a new one.")
    if begin > moment:
        problems.append(f"kallithea_loadbalancer_certificate is valid from {begin:%Y-%m-%d} on: check the controller's clock.")
    return problems


def _private_key(text: str) -> Any:
    """Return the private key in a text, or nothing where there is none that needs no passphrase."""
    try:
        return serialization.load_pem_private_key(text.encode(), password=None)
    except (TypeError, ValueError):
        return None


def _certificate(text: str) -> Any:
    """Return the certificate in a text, or nothing where there is none."""
    try:
        return x509.load_pem_x509_certificate(text.encode())
    except ValueError:
        return None


def _is_issued_by(leaf: Any, authority: Any) -> bool:
    """Tell whether the certificate names the authority's key as its issuer's."""
    try:
        issuer = leaf.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value.key_identifier
    except x509.ExtensionNotFound:
        return False
    try:
        own = authority.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest
    except x509.ExtensionNotFound:
        own = x509.SubjectKeyIdentifier.from_public_key(authority.public_key()).digest
    return bool(leaf.issuer == authority.subject and issuer == own)


def private_ca_state(
    files: Sequence[Mapping[str, Any]], contents: Sequence[str], hostnames: Iterable[str], renewal_days: int, now: datetime.datetime | None = None
) -> dict[str, Any]:
    """Return what is wrong in the private authority's folder, and whether keys or the server's certificate have to be made.

    files are path and mode of what stands there, contents what is in them, in the same order.
    """
    modes = {str(entry["path"]).rpartition("/")[2]: entry["mode"] for entry in files}
    texts = dict(zip(modes, contents, strict=True))
    if not HAVE_CRYPTOGRAPHY:
        return {"problems": [NO_CRYPTOGRAPHY], "make_keys": False, "make_certificate": False}
    authority_key, server_key = (_private_key(texts.get(name, "")) for name in ("ca.key", "server.key"))
    authority, leaf = (_certificate(texts.get(name, "")) for name in ("ca.crt", "server.crt"))
    problems = []
    if "ca.crt" in texts and "ca.key" not in texts:
        problems.append("there is ca.crt but not ca.key: put the key back, or remove ca.crt to make a new authority, which every client then has to be given.")
    elif "ca.key" in texts and authority_key is None:
        problems.append("ca.key holds no PEM private key without a passphrase: put the right file back.")
    elif "ca.crt" in texts and authority is None:
        problems.append("ca.crt holds no PEM certificate: put the right file back.")
    elif authority and _public(authority.public_key()) != _public(authority_key.public_key()):
        problems.append("ca.key is not the key of ca.crt: put back the two files that belong together.")
    moment = now or datetime.datetime.now(datetime.UTC)
    fits = (
        bool(authority and leaf and server_key)
        and _public(leaf.public_key()) == _public(server_key.public_key())
        and set(_names(leaf)) == set(hostnames)
        and _is_issued_by(leaf, authority)
        and _validity(leaf, "not_valid_after") > moment + datetime.timedelta(days=renewal_days)
    )
    return {"problems": problems, "make_keys": not {modes.get("ca.key"), modes.get("server.key")} <= {"0600"}, "make_certificate": not fits}


def lost_authority_problems(served: str, folder: str, host: str) -> list[str]:
    """Return a sentence where a balancer serves a certificate of a private authority whose folder is missing on the controller."""
    leaf = _certificate(served) if HAVE_CRYPTOGRAPHY else None
    if leaf is None or "CN=" + AUTHORITY_NAME not in leaf.issuer.rfc4514_string():
        return []
    return [
        f"The private authority's folder {folder} is missing on the controller, but {host} serves a certificate of it, which every client trusts: "
        "put the folder back, or name it with kallithea_loadbalancer_ca_dir; a new authority is never made over a living cluster."
    ]


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
            "certificate_problems": certificate_problems,
            "haproxy_quote": haproxy_quote,
            "private_ca_state": private_ca_state,
            "lost_authority_problems": lost_authority_problems,
        }
