# Copyright: The kallithea.cluster maintainers
# GPL-3.0-or-later (see LICENSE)
"""The storage kind nfs as it runs: what a server and a mount really do, from the kernel's words, and in what that is not what was chosen."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.kallithea.cluster.plugins.module_utils.host_state import parse_mount

# The kernel shortens some words.
KERNEL_WORDS = {"positive": "pos"}
# Client and server agree on the smaller of what each takes, which follows from the server's memory.
NEGOTIATED = ("rsize", "wsize")
# What the kernel shows of a mount as it was asked for. A site's own options it may show in other words or not at all: for them the unit alone is compared.
SHOWN = ("vers", "hard", "lookupcache", *NEGOTIATED, "nconnect", "timeo", "retrans", "noatime", "nodev", "nosuid")
# What the table of exports shows only where somebody asked for it.
NO_DEFAULT_EXPORT = (
    *("ro", "async", "insecure", "no_wdelay", "nohide", "crossmnt", "no_root_squash", "all_squash"),
    *("subtree_check", "insecure_locks", "no_acl", "pnfs", "security_label"),
)


def mount_differences(state: Mapping[str, Any], source: str, options: Sequence[str], read_ahead_kb: int) -> dict[str, Any]:
    """Return whether the storage is mounted, what only another mount mends, and what the kernel does otherwise."""
    mount = state["mount"]
    kernel = {"directory_delegations": state["directory_delegations"]}
    if not mount["is_mount"]:
        return {"mounted": False, "remount": [], "read_ahead": False, **kernel}
    differences = [] if mount["source"] == source else [f"it is {mount['source']}, not {source}"]
    shown = {*mount["options"], *mount["super_options"]}
    values = dict(option.split("=", 1) for option in sorted(shown) if "=" in option)
    for option in options:
        name, _, value = option.partition("=")
        value = KERNEL_WORDS.get(value, value)
        if name not in SHOWN or (name, value) in (("nconnect", "1"), ("lookupcache", "all")):
            continue
        if name in NEGOTIATED:
            if int(values.get(name, 0)) > int(value):
                differences.append(f"{name} is {values[name]}, not {value}")
        elif not value and name not in shown:
            differences.append(f"{name} is missing")
        elif value and values.get(name) != value:
            differences.append(f"{name} is {values.get(name, 'not set')}, not {value}")
    return {"mounted": True, "remount": differences, "read_ahead": state["read_ahead_kb"] not in (-1, read_ahead_kb), **kernel}


def _sections(text: str) -> dict[str, str]:
    """Return what follows each line '== name'."""
    found: dict[str, str] = {}
    for block in re.split(r"^== ", text, flags=re.MULTILINE)[1:]:
        name, _, rest = block.partition("\n")
        found[name.strip()] = rest.strip()
    return found


def _served(words: Sequence[str]) -> list[str]:
    """Return the versions in the kernel's list; it says 4.0 only where that is off."""
    served = [word[1:] for word in words if word.startswith("+") and word != "+4"]
    return sorted([*served, *(["4.0"] if "+4" in words and "-4.0" not in words and "+4.0" not in words else [])])


def _export_table(text: str) -> dict[str, dict[str, list[str]]]:
    """Return from the table of exports the options of each client of each path."""
    table: dict[str, dict[str, list[str]]] = {}
    for line in text.splitlines():
        found = re.fullmatch(r"(\S+)\s+(\S+?)\((.*)\)", line.strip())
        if found:
            table.setdefault(found[1], {})[found[2]] = found[3].split(",")
    return table


def nfs_server_state(text: str) -> dict[str, Any]:
    """Return what a server runs with, from the answers of its kernel and its table of exports, each under a line '== name'."""
    found = _sections(text)

    def number(name: str) -> int:
        return int(found[name]) if found.get(name, "").isdigit() else -1

    return {
        "threads": max(number("threads"), 0),
        "lease": number("lease"),
        "grace": number("grace"),
        "versions": _served(found.get("versions", "").split()),
        "delegations": number("delegations"),
        "exports": _export_table(found.get("exports", "")),
    }


def nfs_mount_state(text: str, path: str) -> dict[str, Any]:
    """Return from the same answers what is mounted at the path, the KiB read ahead there (-1: unknown), and whether the kernel borrows folders."""
    found = _sections(text)
    ahead = found.get("read-ahead", "")
    return {
        "mount": parse_mount(found.get("mounts", ""), path),
        "read_ahead_kb": int(ahead) if ahead.isdigit() else -1,
        "directory_delegations": found.get("directory-delegations", "") == "Y",
    }


def nfs_server_differences(state: Mapping[str, Any], wanted: Mapping[str, Any], path: str, clients: Sequence[str]) -> dict[str, list[str]]:
    """Return in what a server is not what is wanted: what needs a restart, what is changed while it runs, and what the table of exports lacks."""
    versions = sorted(str(version) for version in wanted["versions"])
    restart = [
        f"{what} is {state[key]} s, not {wanted[key]} s" for key, what in (("lease", "the lease"), ("grace", "the grace time")) if state[key] != wanted[key]
    ]
    if state["versions"] != versions:
        restart.append(f"it serves NFS {', '.join(state['versions']) or 'nothing'}, not {', '.join(versions)}")
    running = [] if state["threads"] == wanted["threads"] else [f"it has {state['threads']} threads, not {wanted['threads']}"]
    delegations = [] if state["delegations"] == int(wanted["delegations"]) else ["delegations are " + ("off" if wanted["delegations"] else "on")]
    table = state["exports"].get(path, {})
    exports = [f"{path} is exported to {other} as well, by a file that is not ours" for other in sorted(set(table) - set(clients))]
    exports += [f"{path} is not exported to {client}" for client in clients if client not in table]
    for client in clients:
        lacking = [option for option in wanted["options"] if option not in table.get(client, wanted["options"])]
        if lacking:
            exports.append(f"{path} is exported to {client} without {', '.join(lacking)}")
        left = [option for option in table.get(client, []) if option in NO_DEFAULT_EXPORT and option not in wanted["options"]]
        # An option that is lacking shows the same from the other side.
        if left and not lacking:
            exports.append(f"{path} is still exported to {client} with {', '.join(left)}")
    return {"restart": restart, "threads": running, "delegations": delegations, "exports": exports}


class FilterModule:
    """Filters of the collection."""

    def filters(self) -> dict[str, Any]:
        """Return the filters by name."""
        return {
            "mount_differences": mount_differences,
            "nfs_server_state": nfs_server_state,
            "nfs_mount_state": nfs_mount_state,
            "nfs_server_differences": nfs_server_differences,
        }
