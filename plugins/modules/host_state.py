#!/usr/bin/python
# Copyright: The kallithea.cluster maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Module host_state."""

from __future__ import annotations

DOCUMENTATION = r"""
module: host_state
short_description: What preflight wants to know of a host
version_added: 0.1.0
author: The kallithea.cluster maintainers (@kallithea-cluster)
description:
  - Reads memory, cores, listening ports with their programs, clock and time zone in one call, from C(/proc), C(/sys) and C(/etc); changes nothing.
options:
  uid:
    description: Numeric user id whose owner is looked up.
    type: int
    required: true
  gid:
    description: Numeric group id whose owner is looked up.
    type: int
    required: true
attributes:
  check_mode:
    description: Runs in check mode, since it changes nothing.
    support: full
  diff_mode:
    description: Has nothing to show.
    support: none
"""

EXAMPLES = r"""
- name: Ask the host for its state
  kallithea.cluster.host_state:
    uid: 2200
    gid: 2200
"""

RETURN = r"""
state:
  description: The host's state.
  returned: always
  type: dict
  contains:
    memory_mb:
      description: Memory, MiB, the cgroup's limit respected.
      type: int
    cores:
      description: Cores, the cgroup's quota respected.
      type: float
    listening:
      description: Listening TCP ports, each with the names of its programs (empty where they cannot be seen).
      type: list
    clock:
      description: Seconds since the epoch, UTC.
      type: float
    timezone:
      description: The system's time zone.
      type: str
    uid_owner:
      description: Name of the user that has the numeric id, empty if nobody.
      type: str
    gid_owner:
      description: Name of the group that has the numeric id, empty if none.
      type: str
"""

import glob
import os
import time

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.kallithea.cluster.plugins.module_utils.host_state import (
    parse_cgroup_limit_mb,
    parse_cpu_quota,
    parse_listening,
    parse_meminfo_mb,
    parse_owner,
)


def read(path: str) -> str:
    """Return a file's text, or nothing where it cannot be read."""
    try:
        with open(path, encoding="utf-8", errors="replace") as stream:
            return stream.read()
    except OSError:
        return ""


def programs_by_inode() -> dict[str, str]:
    """Return the program's name for each open socket's inode."""
    result: dict[str, str] = {}
    for link in glob.glob("/proc/[0-9]*/fd/*"):
        try:
            target = os.readlink(link)
        except OSError:
            continue
        if target.startswith("socket:["):
            result[target[8:-1]] = read(f"/proc/{link.split('/')[2]}/comm").strip()
    return result


def listening_ports() -> list[dict[str, object]]:
    """Return the listening TCP ports and their programs."""
    programs = programs_by_inode()
    found: dict[int, set[str]] = {}
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for port, inode in parse_listening(read(table).splitlines()):
            found.setdefault(port, set()).update({programs[inode]} if inode in programs else set())
    return [{"port": port, "programs": sorted(names)} for port, names in sorted(found.items())]


def timezone() -> str:
    """Return the system's time zone."""
    named = read("/etc/timezone").strip()
    target = os.path.realpath("/etc/localtime")
    if "/zoneinfo/" in target:
        return target.split("/zoneinfo/", 1)[1]
    return named or "Etc/UTC"


def main() -> None:
    """Answer with the host's state."""
    module = AnsibleModule(
        argument_spec={"uid": {"type": "int", "required": True}, "gid": {"type": "int", "required": True}},
        supports_check_mode=True,
    )
    total = parse_meminfo_mb(read("/proc/meminfo"))
    limit = read("/sys/fs/cgroup/memory.max") or read("/sys/fs/cgroup/memory/memory.limit_in_bytes")
    module.exit_json(
        changed=False,
        state={
            "memory_mb": parse_cgroup_limit_mb(limit, total),
            "cores": parse_cpu_quota(read("/sys/fs/cgroup/cpu.max"), os.cpu_count() or 1),
            "listening": listening_ports(),
            "clock": time.time(),
            "timezone": timezone(),
            "uid_owner": parse_owner(read("/etc/passwd"), module.params["uid"]),
            "gid_owner": parse_owner(read("/etc/group"), module.params["gid"]),
        },
    )


if __name__ == "__main__":
    main()
