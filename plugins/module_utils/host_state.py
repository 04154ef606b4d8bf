# Copyright: The kallithea.cluster maintainers
# GPL-3.0-or-later (see LICENSE)
"""What a host says of itself in /proc and /sys: parsed by pure functions."""

from __future__ import annotations

import json
from collections.abc import Iterable

LISTEN = "0A"


def parse_listening(lines: Iterable[str]) -> list[tuple[int, str]]:
    """Return (port, socket inode) of each listening socket in the lines of /proc/net/tcp or tcp6."""
    result = []
    for line in lines:
        fields = line.split()
        if len(fields) > 9 and fields[3] == LISTEN:
            result.append((int(fields[1].rsplit(":", 1)[1], 16), fields[9]))
    return result


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


def parse_cluster_id(text: str) -> str:
    """Return the cluster that an identity file or a storage's marker names, or nothing where it is damaged."""
    try:
        named = json.loads(text)["cluster_id"]
    except (ValueError, TypeError, KeyError):
        return ""
    return named if isinstance(named, str) else ""
