# Copyright: The kallithea.cluster maintainers
# GPL-3.0-or-later (see LICENSE)
"""What a host says of itself in /proc and /sys, and what lies on its storage: parsed by pure functions."""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Iterable
from typing import Any

LISTEN = "0A"
# The folders that the storage role makes.
FOLDERS = ("repositories", "data", "locks")
NAMES_SHOWN = 10
OCTAL = re.compile(r"\\([0-7]{3})")
# The path at the begin of a line of exports, in quotes or not.
EXPORT = re.compile(r'\s*(?:"(/[^"]*)"|(/[^\s"]*))')


def parse_listening(lines: Iterable[str]) -> list[tuple[int, str]]:
    """Return (port, socket inode) of each listening socket in the lines of /proc/net/tcp or tcp6."""
    result = []
    for line in lines:
        fields = line.split()
        if len(fields) > 9 and fields[3] == LISTEN:
            result.append((int(fields[1].rsplit(":", 1)[1], 16), fields[9]))
    return result


def parse_addresses(fib_trie: str, if_inet6: str) -> list[str]:
    """Return the host's own addresses from /proc/net/fib_trie and /proc/net/if_inet6, without those that are good on one link only."""
    found: set[ipaddress.IPv4Address | ipaddress.IPv6Address] = set()
    leaf = ""
    for line in fib_trie.splitlines():
        if "|-- " in line:
            leaf = line.split("|-- ", 1)[1].strip()
        elif line.split() == ["/32", "host", "LOCAL"]:
            found.add(ipaddress.IPv4Address(leaf))
    found.update(ipaddress.IPv6Address(int(line.split()[0], 16)) for line in if_inet6.splitlines())
    return [str(address) for address in sorted(found, key=lambda address: (address.version, int(address))) if not address.is_link_local]


def parse_meminfo_mb(text: str) -> int:
    """Return the host's memory in MiB from /proc/meminfo."""
    for line in text.splitlines():
        if line.startswith("MemTotal:"):
            return int(line.split()[1]) // 1024
    return 0


def parse_cgroup_limit_mb(text: str, total_mb: int) -> int:
    """Return the smaller of a cgroup's memory limit (bytes or 'max') and the host's memory, MiB."""
    text = text.strip()
    if not text.isdigit():
        return total_mb
    return min(total_mb, int(text) // (1024 * 1024))


def parse_cpu_quota(text: str, cores: int) -> float:
    """Return how many cores cgroup v2's cpu.max ('quota period') leaves of the host's."""
    fields = text.split()
    if len(fields) != 2 or not fields[0].isdigit() or not fields[1].isdigit() or int(fields[1]) == 0:
        return float(cores)
    return min(float(cores), int(fields[0]) / int(fields[1]))


def parse_packages(text: str) -> list[str]:
    """Return the names of the installed packages in dpkg's status file."""
    names = []
    for block in text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if line.startswith(("Package: ", "Status: ")))
        if fields.get("Status", "").endswith(" ok installed"):
            names.append(fields["Package"])
    return sorted(set(names))


def parse_cluster_id(text: str) -> str:
    """Return the cluster that an identity file or a storage's marker names, or nothing where it is damaged."""
    try:
        named = json.loads(text)["cluster_id"]
    except (ValueError, TypeError, KeyError):
        return ""
    return named if isinstance(named, str) else ""


def parse_accepted(text: str) -> dict[str, Any]:
    """Return what the storage's acceptance test left on the host, or nothing where it is missing or damaged."""
    try:
        found = json.loads(text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def parse_mount(text: str, path: str) -> dict[str, Any]:
    """Return what is mounted at the path itself, from /proc/self/mountinfo; of several mounts one over the other the last is seen."""
    result: dict[str, Any] = {"is_mount": False, "fstype": "", "source": "", "options": [], "super_options": []}
    for line in text.splitlines():
        fields = line.split(" ")
        if "-" not in fields[6:]:
            continue
        # Any number of optional fields stands before the dash.
        rest = fields[fields.index("-", 6) + 1 :]
        if len(rest) < 3 or unescape(fields[4]) != path:
            continue
        options = sorted({*fields[5].split(","), *(["ro"] if "ro" in rest[2].split(",") else [])})
        result = {"is_mount": True, "fstype": rest[0], "source": unescape(rest[1]), "options": options, "super_options": sorted(rest[2].split(","))}
    return result


def parse_mounts(text: str) -> list[dict[str, str]]:
    """Return the mounts of /proc/self/mountinfo, each path once: of several mounts one over the other the last is seen."""
    paths = dict.fromkeys(unescape(fields[4]) for fields in (line.split(" ") for line in text.splitlines()) if len(fields) > 6)
    return [{"path": path, "fstype": parse_mount(text, path)["fstype"]} for path in paths]


def parse_exports(text: str) -> list[str]:
    """Return the paths that a file in the form of /etc/exports names."""
    found = (EXPORT.match(line) for line in text.replace("\\\n", " ").splitlines())
    return sorted({unescape(match[1] or match[2]) for match in found if match})


def unescape(text: str) -> str:
    """Return a path as it is: mountinfo writes blanks and the like as octal numbers."""
    return OCTAL.sub(lambda match: chr(int(match.group(1), 8)), text)


def summarize_entries(names: Iterable[str]) -> dict[str, list[str]]:
    """Return which of our folders lie on a storage, and the first names of what else; hidden names and lost+found are a file system's own."""
    visible = sorted(name for name in names if not name.startswith(".") and name != "lost+found")
    return {"folders": [name for name in FOLDERS if name in visible], "entries": [name for name in visible if name not in FOLDERS][:NAMES_SHOWN]}
