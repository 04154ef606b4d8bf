# Copyright: The kallithea.cluster maintainers
# GPL-3.0-or-later (see LICENSE)
"""What is wrong with the storage: each problem one sentence that says what, where and how to mend it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.kallithea.cluster.plugins.filter.nfs import mount_point_problems

KINDS = ("local", "existing", "nfs")


def storage_problems(kind: str, path: str, nodes: Sequence[Mapping[str, Any]] = ()) -> list[str]:
    """Return what is wrong with the storage's variables for the nodes that use it."""
    problems = []
    if kind not in KINDS:
        problems.append(f"kallithea_storage_kind is '{kind}'; give one of {', '.join(KINDS)}.")
    if kind == "local" and len(nodes) > 1:
        names = ", ".join(node["name"] for node in nodes)
        problems.append(
            f"kallithea_storage_kind is local, a directory of one host, but {len(nodes)} hosts run the application ({names}): "
            f"mount a shared file system at {path} on each of them and give the kind existing, or give the kind nfs and a storage host of its own."
        )
    if not re.fullmatch(r"(/[A-Za-z0-9._-]+)+", path) or {"..", "."} & set(path.split("/")):
        problems.append(f"kallithea_storage_path is '{path}'; give an absolute path of letters, digits, dots and dashes, such as /srv/kallithea.")
    return problems


def mount_problems(storage: Mapping[str, Any], where: str, uid: int) -> list[str]:
    """Return what is wrong with a shared file system that has to be mounted at the storage's path."""
    path = storage["path"]
    if storage["is_link"]:
        return [f"{where} is a link; give kallithea_storage_path the path that it leads to, the same on every host."]
    if not storage["is_mount"]:
        return [
            f"{where} is no mount point, but kallithea_storage_kind is existing: mount the shared file system at {path}, "
            "or give kallithea_storage_path the path at which it is mounted."
        ]
    problems = []
    if "ro" in storage["options"]:
        problems.append(f"{where} is mounted read-only; mount it read-write.")
    if "noexec" in storage["options"]:
        problems.append(f"{where} is mounted with noexec, so git could run no hooks; mount it without that option.")
    if not storage["readable"]:
        problems.append(f"{where} can be read neither by root nor by the service user; let its top folder belong to the user {uid} on its server.")
    return problems


def nfs_host_problems(name: str, state: Mapping[str, Any], server: str) -> list[str]:
    """Return what lies at the mount point of a host that mounts the storage host's tree, where it is anything else.

    What the run mends is no problem: a storage that is not mounted yet, and where the storage host takes part (server) one that it does not serve.
    """
    storage = state["storage"]
    if not storage["is_mount"]:
        beneath: list[str] = mount_point_problems(name, state)
        return beneath
    where = f"The storage {storage['path']} of host {name}"
    if not storage["fstype"].startswith("nfs"):
        return [f"{where} is a file system of its own ({storage['fstype']} {storage['source']}), where the storage host's has to be mounted: unmount that one."]
    if not storage["readable"]:
        seen = "is refused to it by" if storage["answers"] else "gets no answer from"
        mend = "see that the storage host runs and lets the host reach it, then run the playbook kallithea.cluster.storage for both, without --limit"
        return [] if server else [f"{where} {seen} its server ({storage['source']}): {mend}."]
    if not state["marker"]["exists"]:
        return [f"{where} is mounted from {storage['source']} and has no marker .kallithea-cluster: unmount it, or restore the storage host's from a backup."]
    return []


def storage_host_problems(name: str, state: Mapping[str, Any], kind: str, cluster_id: str, uid: int, server: str = "") -> list[str]:
    """Return what is wrong with the storage of a host, as the host that serves it (local), mounts it (nfs) or finds it mounted (existing) sees it.

    server: the storage host of kind nfs, where it takes part in the run and so mends what it serves.
    Another cluster's marker is the filter identity_problems' matter.
    """
    storage, marker = state["storage"], state["marker"]
    # What is wrong with the path itself is the filter storage_problems' matter.
    if not storage["path"].startswith("/"):
        return []
    where = f"The storage {storage['path']} of host {name}"
    shared = kind in ("existing", "nfs")
    if kind == "nfs" and ((found := nfs_host_problems(name, state, server)) or not storage["is_mount"] or not storage["readable"]):
        return found
    if not storage["answers"]:
        return [f"{where} does not answer (it is mounted from {storage['source']}): see that its server runs and lets the host reach it."]
    problems = mount_problems(storage, where, uid) if shared else []
    if problems:
        return problems
    if not marker["exists"] and state["storage_identity"]["cluster_id"] == cluster_id:
        return [
            f"{where} has no marker .kallithea-cluster, though the host has used this cluster's storage there: "
            "its file system is not mounted or another one is; mount the right one, give kallithea_storage_path its old value, or restore it from a backup."
        ]
    if not shared:
        return []
    if marker["exists"]:
        if "repositories" not in storage["folders"]:
            problems.append(f"{where} has its marker but no folder repositories; restore it from a backup.")
    elif storage["entries"] and not storage["folders"]:
        some = ", ".join(storage["entries"])
        return [f"{where} is not empty ({some}) and has no marker of a cluster: mount an empty file system there, or move away what is in it."]
    new = not (marker["exists"] or storage["entries"] or storage["folders"])
    if storage["uid"] != uid and not (new and storage["root_may_write"]):
        why = "root may not change that" if new else "an owner is changed only where the storage is empty"
        problems.append(f"{where} belongs to the user {storage['uid']}, not to the service user {uid}, and {why}: give it that owner on its server.")
    return problems


def storage_differences(states: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return a sentence where the hosts do not see the same storage; a host on which nothing is mounted has a sentence of its own."""
    groups: dict[str, list[str]] = {}
    for name, state in states.items():
        storage, marker = state["storage"], state["marker"]
        if storage["is_mount"] and storage["readable"]:
            marked = f"the marker of cluster {marker['cluster_id'][:4]}..." if marker["exists"] else "no marker"
            groups.setdefault(f"owner {storage['uid']}:{storage['gid']}, mode {storage['mode']}, {marked}", []).append(
                f"{name} ({storage['fstype']} {storage['source']})"
            )
    if len(groups) < 2:
        return []
    path = next(iter(states.values()))["storage"]["path"]
    seen = "; ".join(f"{what} on {', '.join(names)}" for what, names in groups.items())
    return [f"The storage {path} is not the same everywhere: {seen}; mount the same file system on every host."]


def other_server_problems(states: Mapping[str, Mapping[str, Any]], storage_hosts: Sequence[str]) -> list[str]:
    """Return a sentence where hosts have another server's tree mounted than the storage host's: they change over one after the other."""
    problems = []
    for server in storage_hosts:
        if server not in states:
            continue
        found: dict[str, list[str]] = {}
        for name, state in states.items():
            storage = state["storage"]
            if name == server or not storage["is_mount"] or not storage["answers"] or not storage["fstype"].startswith("nfs"):
                continue
            # The address that the name of the source led to.
            address = next((option.removeprefix("addr=") for option in storage["super_options"] if option.startswith("addr=")), "")
            path = f"/{storage['source'].partition(':/')[2]}".rstrip("/")
            if path != storage["path"] or (address and address not in states[server]["addresses"]):
                found.setdefault(storage["source"], []).append(name)
        problems += [
            f"The storage {states[server]['storage']['path']} of host {', '.join(sorted(names))} is mounted from {source}, which is not that of the "
            f"storage host {server}, so that hosts which change over one after the other would lose each other's pushes: stop the application, "
            "copy the storage, unmount it on every host (and stop kallithea-storage.timer where it runs), then run the playbook again."
            for source, names in sorted(found.items())
        ]
    return problems


def lost_storage_problems(states: Mapping[str, Mapping[str, Any]], storage_hosts: Sequence[str]) -> list[str]:
    """Return a sentence where the storage's own host has no marker of a cluster that others have used already: an empty tree must not take its place."""
    used = sorted(
        name
        for name, state in states.items()
        if state["storage_identity"]["exists"] and state["storage_identity"]["cluster_id"] == state["identity"]["cluster_id"]
    )
    return [
        f"The storage {states[name]['storage']['path']} of host {name} has no marker .kallithea-cluster, "
        f"though {', '.join(used)} used this cluster's storage before: "
        "mount its disk there, move the old storage there with its marker, or restore it from a backup."
        for name in storage_hosts
        if used and name not in used and name in states and not states[name]["marker"]["exists"]
    ]


class FilterModule:
    """Filters of the collection."""

    def filters(self) -> dict[str, Any]:
        """Return the filters by name."""
        return {
            "storage_problems": storage_problems,
            "storage_host_problems": storage_host_problems,
        }
