# Copyright: The kallithea.cluster maintainers
# GPL-3.0-or-later (see LICENSE)
"""What is wrong with the application's variables: each problem one sentence."""

from __future__ import annotations

import pathlib
import re
from collections.abc import Mapping
from typing import Any

from ansible_collections.kallithea.cluster.plugins.module_utils.addresses import bind_problem, network

AGE = re.compile(r"[1-9][0-9]{0,5}[dh]")
PLAIN_PATH = re.compile(r"(/[A-Za-z0-9_-][A-Za-z0-9._-]*)+")
NETWORK = re.compile(r"nfs|cifs|smb|ceph|gluster|lustre|gfs2|ocfs2|9p$|virtiofs|afs|beegfs|fuse\.(gluster|sshfs|ceph|s3)")
EXAMPLE = "/var/cache/kallithea/packs"
# What PrivateTmp and ProtectHome of the unit kallithea-web replace.
HIDDEN = ("/tmp", "/var/tmp", "/home", "/root", "/run/user")
# What the cache's folder must not be: it becomes the application's.
SYSTEM = ("/bin", "/boot", "/etc", "/lib", "/lib32", "/lib64", "/proc", "/sbin", "/sys", "/usr")
OTHERS = (
    "/dev/shm",
    "/media",
    "/mnt",
    "/opt/kallithea/current",
    "/run/systemd",
    "/var/cache/apt",
    "/var/lib/dpkg",
    "/var/lib/kallithea",
    "/var/log/journal",
    "/var/log/kallithea",
    "/var/spool/cron",
)
# As kallithea-pack-cache has it.
KEPT_FREE = 0.05
LEAST = {
    "index_seconds": 60,
    "cleanup_seconds": 60,
    "session_days": 1,
    "beaker_keep_days": 1,
    "maintenance_seconds": 60,
    "maintenance_run_seconds": 1,
    "maintenance_repository_seconds": 1,
    "freshen_seconds": 60,
    "write_wait_seconds": 0,
    "pull_log_days": 1,
    "verified_password_seconds": 0,
    "pull_bundle_bytes": 0,
    "pack_cache_bytes": 0,
    "pack_cache_seconds": 1,
}
# More is a slip, and more than PostgreSQL, systemd or Python count with: a year, a century, 2^60 bytes.
LIMITS = {"seconds": 31_536_000, "days": 36_500, "bytes": 1 << 60}
MOST = {variable: LIMITS[variable.rpartition("_")[2]] for variable in LEAST} | {"verified_password_seconds": 300}


def application_problems(settings: Mapping[str, Any]) -> list[str]:
    """Return a sentence for each variable of the role app that cannot work; pools and ini have filters of their own."""
    problems = []
    if str(settings["static_port"]) in [str(pool.get("port")) for pool in settings["pools"].values()]:
        problems.append(
            f"kallithea_app_static_port {settings['static_port']} is the port of a pool of host {settings['name']}; give static files a port of their own."
        )
    age = settings["purge_deleted_after"]
    if age != "" and not AGE.fullmatch(str(age)):
        problems.append(f"kallithea_app_purge_deleted_after is '{age}'; give days or hours such as 30d, or leave it empty to keep deleted repositories.")
    if not settings["trusted_proxies"]:
        problems.append("kallithea_app_trusted_proxies is empty, so no balancer could reach the pools; name the balancers' addresses.")
    problems += bind_problem("kallithea_app_metrics_bind", settings["metrics_bind"])
    for variable in ("trusted_proxies", "direct_clients", "metrics_networks"):
        for entry in settings[variable]:
            if not network(str(entry)):
                problems.append(f"kallithea_app_{variable} holds '{entry}', which is neither an address nor a network such as 192.0.2.0/24.")
    for variable, least in LEAST.items():
        if not str(settings[variable]).isdigit() or int(settings[variable]) < least:
            problems.append(f"kallithea_app_{variable} is {settings[variable]}; give at least {least}.")
    for variable, most in MOST.items():
        if str(settings[variable]).isdigit() and int(settings[variable]) > most:
            problems.append(f"kallithea_app_{variable} is {settings[variable]}; give at most {most}.")
    return problems


def pack_cache_problems(path: str, size: int | str, storage_path: str, name: str, state: Mapping[str, Any]) -> list[str]:
    """Return a sentence where the cache of packs cannot lie where it is to, or has no room there."""
    wanted = str(size)
    if not wanted.isdigit() or int(wanted) == 0:
        return []
    named = f"kallithea_app_pack_cache_path {path}"
    if not PLAIN_PATH.fullmatch(path):
        return [f"{named} is not an absolute path of letters, digits and ._-; give one such as {EXAMPLE}."]
    if holds(storage_path, path):
        return [f"{named} lies on the shared storage, where reading it costs more than it saves; give a folder on a disk of the host's own."]
    if hidden := next((folder for folder in HIDDEN if holds(folder, path)), ""):
        return [f"{named} lies in {hidden}, which the application's unit does not see; give a folder elsewhere on a disk of the host's own."]
    if any(holds(folder, path) for folder in SYSTEM) or any(holds(path, folder) for folder in (*OTHERS, storage_path)):
        return [f"{named} is the system's or holds what others keep, and would become the application's; give a folder for nothing else, such as {EXAMPLE}."]
    disk = max((disk for disk in state["disks"] if holds(disk["path"], path)), key=lambda disk: len(disk["path"]), default=None)
    if disk and NETWORK.match(disk["fstype"]):
        return [f"{named} of host {name} lies on {disk['fstype']}, a network file system; give a folder on a disk of the host's own."]
    if disk and disk["bytes"] and int(wanted) > disk["bytes"] * (1 - KEPT_FREE):
        return [
            f"kallithea_app_pack_cache_bytes is {wanted}, but the disk of {path} on host {name} has {disk['bytes']} bytes, "
            f"of which {KEPT_FREE:.0%} stay free; give less, or 0 for no cache."
        ]
    return []


def holds(folder: str, path: str) -> bool:
    """Tell whether a path is the folder or lies in it."""
    return pathlib.PurePosixPath(path).is_relative_to(folder)


class FilterModule:
    """Filters of the collection."""

    def filters(self) -> dict[str, Any]:
        """Return the filters by name."""
        return {"application_problems": application_problems, "pack_cache_problems": pack_cache_problems}
