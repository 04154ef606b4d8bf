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
  - Reads memory, cores, listening ports with their programs, addresses, clock, time zone, accounts, the cluster that the host belongs to and its storage
    in one call, from C(/proc), C(/sys), C(/etc) and the name service; changes nothing.
options:
  user:
    description: Name of the service user, whose numeric id is looked up.
    type: str
    required: true
  uid:
    description: Numeric user id whose owner is looked up.
    type: int
    required: true
  gid:
    description: Numeric group id whose owner is looked up.
    type: int
    required: true
  identity_file:
    description: File that says to which cluster the host belongs.
    type: path
    required: true
  storage_file:
    description: File that says of which cluster the host has used the storage.
    type: path
    required: true
  accepted_file:
    description: File in which the storage's acceptance test left what it accepted.
    type: path
    required: true
  storage_path:
    description: The storage's path; its marker says to which cluster it belongs.
    type: path
    required: true
  controller_clock:
    description: The controller's clock when it asks, seconds since the epoch.
    type: float
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
    user: kallithea
    uid: 2200
    gid: 2200
    identity_file: /etc/kallithea/cluster.json
    storage_file: /etc/kallithea/storage.json
    accepted_file: /etc/kallithea/storage-accepted.json
    storage_path: /srv/kallithea
    controller_clock: "{{ now(utc=true).timestamp() }}"
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
    addresses:
      description: The host's own IP addresses, loopback included, those of one link only left out.
      type: list
      elements: str
    disks:
      description: The mounts, each with its path, fstype and bytes (its size; 0 where that was not asked, as of a network file system).
      type: list
      elements: dict
    clock_ahead:
      description: Seconds by which the host's clock is ahead of the controller's, the time that asking took included.
      type: float
    timezone:
      description: The system's time zone.
      type: str
    hostname:
      description: The name that the host gives itself.
      type: str
    packages:
      description: Names of the installed Debian packages.
      type: list
      elements: str
    uid_owner:
      description: Name of the user that has the numeric id, empty if nobody.
      type: str
    gid_owner:
      description: Name of the group that has the numeric id, empty if none.
      type: str
    user_uid:
      description: Numeric id of the service user, -1 if there is no such user.
      type: int
    user_gid:
      description: Numeric id of its group, -1 if there is no such user.
      type: int
    user_home:
      description: Its home.
      type: str
    user_shell:
      description: Its shell.
      type: str
    group_gid:
      description: Numeric id of the group of the same name, -1 if there is none.
      type: int
    identity:
      description: What the host's identity file says.
      type: dict
      contains:
        exists:
          description: Whether the file is there.
          type: bool
        cluster_id:
          description: The cluster's identity; empty where the file is missing or damaged.
          type: str
    marker:
      description: The same of the storage's marker; what root may not read is read as the service user.
      type: dict
    storage_identity:
      description: The same of the file that says of which cluster the host has used the storage.
      type: dict
    exports:
      description: For each file from which an NFS server takes what it exports the paths that it names.
      type: dict
    storage_accepted:
      description: What the storage's acceptance test accepted here, and its figures; empty where there is none.
      type: dict
    storage:
      description: What lies at the storage's path.
      type: dict
      contains:
        path:
          description: The path.
          type: str
        is_link:
          description: Whether it is a link.
          type: bool
        is_mount:
          description: Whether a file system is mounted at the path itself.
          type: bool
        fstype:
          description: The file system's type; empty where none is mounted.
          type: str
        source:
          description: What is mounted.
          type: str
        options:
          description: The mount's options, C(ro) also where the file system as a whole is read-only.
          type: list
        super_options:
          description: The options of the file system itself, those of an NFS client among them.
          type: list
        uid:
          description: Numeric id of the owner, -1 where nothing is there.
          type: int
        gid:
          description: Numeric id of the group, -1 where nothing is there.
          type: int
        mode:
          description: Permissions, octal.
          type: str
        answers:
          description: Whether it answers within 20 seconds; where it does not, only the mount's own words are known.
          type: bool
        readable:
          description: Whether root or the service user may read it.
          type: bool
        root_may_write:
          description: Whether root may write there.
          type: bool
        folders:
          description: Which of the cluster's folders lie on it.
          type: list
        entries:
          description: At most ten names of what else lies on it, hidden ones and lost+found left out.
          type: list
"""

import contextlib
import glob
import grp
import os
import pwd
import socket
import stat
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.kallithea.cluster.plugins.module_utils.bounded import bounded
from ansible_collections.kallithea.cluster.plugins.module_utils.host_state import (
    parse_accepted,
    parse_addresses,
    parse_cgroup_limit_mb,
    parse_cluster_id,
    parse_cpu_quota,
    parse_exports,
    parse_listening,
    parse_meminfo_mb,
    parse_mount,
    parse_mounts,
    parse_packages,
    summarize_entries,
)
from ansible_collections.kallithea.cluster.plugins.module_utils.text_files import read, text_of

MARKER = ".kallithea-cluster"
EXPORTS = ("/etc/exports", "/etc/exports.d/*.exports")
LOCAL = ("ext2", "ext3", "ext4", "xfs", "btrfs", "zfs", "f2fs", "overlay", "tmpfs")
# A mount whose server is gone lets whoever looks wait for ever.
STORAGE_SECONDS = 20.0
Answer = TypeVar("Answer")


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


def exports() -> dict[str, list[str]]:
    """Return for each file of exports the paths that it names."""
    return {path: parse_exports(read(path)) for pattern in EXPORTS for path in sorted(glob.glob(pattern))}


def timezone() -> str:
    """Return the system's time zone."""
    named = read("/etc/timezone").strip()
    target = os.path.realpath("/etc/localtime")
    if "/zoneinfo/" in target:
        return target.split("/zoneinfo/", 1)[1]
    return named or "Etc/UTC"


def accounts(user: str, uid: int, gid: int) -> dict[str, object]:
    """Return who has the numeric ids, and which ones the service user and group have."""
    result: dict[str, object] = {"uid_owner": "", "gid_owner": "", "user_uid": -1, "user_gid": -1, "user_home": "", "user_shell": "", "group_gid": -1}
    with contextlib.suppress(KeyError):
        result["uid_owner"] = pwd.getpwuid(uid).pw_name
    with contextlib.suppress(KeyError):
        result["gid_owner"] = grp.getgrgid(gid).gr_name
    with contextlib.suppress(KeyError):
        entry = pwd.getpwnam(user)
        result.update(user_uid=entry.pw_uid, user_gid=entry.pw_gid, user_home=entry.pw_dir, user_shell=entry.pw_shell)
    with contextlib.suppress(KeyError):
        result["group_gid"] = grp.getgrnam(user).gr_gid
    return result


def cluster(path: str) -> dict[str, object]:
    """Return whether the file is there and which cluster it names."""
    return {"exists": os.path.lexists(path), "cluster_id": parse_cluster_id(read(path))}


@contextlib.contextmanager
def service_user(uid: int, gid: int) -> Iterator[None]:
    """Act as the service user for a while."""
    groups, group, user = os.getgroups(), os.getegid(), os.geteuid()
    os.setgroups([])
    os.setegid(gid)
    os.seteuid(uid)
    try:
        yield
    finally:
        os.seteuid(user)
        os.setegid(group)
        os.setgroups(groups)


def as_who_may(look: Callable[[], Answer], uid: int, gid: int) -> Answer | None:
    """Return what root sees, or the service user where root may not look; nothing where neither can."""
    with contextlib.suppress(OSError):
        return look()
    with contextlib.suppress(OSError), service_user(uid, gid):
        return look()
    return None


def storage(path: str, uid: int, gid: int) -> tuple[dict[str, object], dict[str, object]]:
    """Return what lies at the storage's path, and its marker; where it does not answer, what the mount table says."""
    mount = parse_mount(read("/proc/self/mountinfo"), path)
    try:
        found, marker = bounded(lambda: look_at(path, uid, gid), STORAGE_SECONDS)
    except OSError:
        silent = {"path": path, "is_link": False, "uid": -1, "gid": -1, "mode": "", "readable": False, "root_may_write": False, "answers": False}
        return {**silent, **mount, **summarize_entries([])}, {"exists": False, "cluster_id": ""}
    return {**found, **mount, "answers": True}, marker


def look_at(path: str, uid: int, gid: int) -> tuple[dict[str, object], dict[str, object]]:
    """Return what lies at the storage's path, and its marker."""
    found: dict[str, object] = {"path": path, "is_link": os.path.islink(path), "uid": -1, "gid": -1, "mode": ""}
    with contextlib.suppress(OSError):
        status = os.stat(path)
        found.update(uid=status.st_uid, gid=status.st_gid, mode=f"{stat.S_IMODE(status.st_mode):04o}")
    names = as_who_may(lambda: os.listdir(path), uid, gid)
    found.update(readable=names is not None, root_may_write=os.access(path, os.W_OK | os.X_OK), **summarize_entries(names or []))
    marked = MARKER in (names or [])
    text = as_who_may(lambda: text_of(os.path.join(path, MARKER)), uid, gid) if marked else ""
    return found, {"exists": marked, "cluster_id": parse_cluster_id(text or "")}


def disks() -> list[dict[str, object]]:
    """Return the mounts; only those on a disk of the host's own are asked for their size, since others may let us wait for ever."""
    result: list[dict[str, object]] = []
    for mount in parse_mounts(read("/proc/self/mountinfo")):
        size = 0
        if mount["fstype"] in LOCAL:
            with contextlib.suppress(OSError):
                status = os.statvfs(mount["path"])
                size = status.f_frsize * status.f_blocks
        result.append({**mount, "bytes": size})
    return result


def main() -> None:
    """Answer with the host's state."""
    moment = time.time()
    module = AnsibleModule(
        argument_spec={
            "user": {"type": "str", "required": True},
            "uid": {"type": "int", "required": True},
            "gid": {"type": "int", "required": True},
            "identity_file": {"type": "path", "required": True},
            "storage_file": {"type": "path", "required": True},
            "accepted_file": {"type": "path", "required": True},
            "storage_path": {"type": "path", "required": True},
            "controller_clock": {"type": "float", "required": True},
        },
        supports_check_mode=True,
    )
    found, marker = storage(module.params["storage_path"], module.params["uid"], module.params["gid"])
    total = parse_meminfo_mb(read("/proc/meminfo"))
    limit = read("/sys/fs/cgroup/memory.max") or read("/sys/fs/cgroup/memory/memory.limit_in_bytes")
    module.exit_json(
        changed=False,
        state={
            "memory_mb": parse_cgroup_limit_mb(limit, total),
            "cores": parse_cpu_quota(read("/sys/fs/cgroup/cpu.max"), os.cpu_count() or 1),
            "listening": listening_ports(),
            "addresses": parse_addresses(read("/proc/net/fib_trie"), read("/proc/net/if_inet6")),
            "clock_ahead": moment - module.params["controller_clock"],
            "timezone": timezone(),
            "hostname": socket.gethostname(),
            "packages": parse_packages(read("/var/lib/dpkg/status")),
            "identity": cluster(module.params["identity_file"]),
            "marker": marker,
            "storage": found,
            "storage_identity": cluster(module.params["storage_file"]),
            "exports": exports(),
            "disks": disks(),
            "storage_accepted": parse_accepted(read(module.params["accepted_file"])),
            **accounts(module.params["user"], module.params["uid"], module.params["gid"]),
        },
    )


if __name__ == "__main__":
    main()
