# Copyright: The kallithea.cluster maintainers
# GPL-3.0-or-later (see LICENSE)
"""Whether several hosts may trust a shared storage: what they found when they tried it, judged and told."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.kallithea.cluster.plugins.filter.storage import storage_differences

Found = Mapping[str, Any]
# As much as the health service wants to be free by default.
SPACE_MARGIN = 0.05
# What git and Mercurial rely on, and what a folder's list may be needed for: an NFS client trusts a name that it knows until it looks into the folder.
OPENED = ("new", "renamed", "rewritten")
SIGHTS = {
    "new": "a new file that {leader} made",
    "renamed": "the new name of a file that {leader} renamed",
    "rewritten": "what {leader} wrote into a file that was there",
    "replaced": "the new file that {leader} renamed over one that is open",
    "removed": "that {leader} removed a file",
    "renamed away": "that a file's old name is gone since {leader} renamed it",
}
RACES = {"exclusive": "exclusive creation (O_EXCL), as git locks a branch", "symlink": "the symbolic link that is Mercurial's lock"}
ERRORS = {
    "EACCES": "the file server takes the service user for somebody else: give it the same numeric ids on every host, and do not squash them",
    "EPERM": "the file server takes the service user for somebody else: give it the same numeric ids on every host, and do not squash them",
    "EROFS": "it is read-only: mount and export it read-write",
    "ENOSPC": "it is full: free some space",
    "EDQUOT": "the service user's quota there is used up: raise it",
    "ESTALE": "the file server forgets files that are in use: mount NFS with vers=4.2, and export it with no_subtree_check",
    "ENOLCK": "nobody keeps locks: mount NFS with vers=4.2, where they need no service of their own",
    "ETIMEDOUT": "the file server does not answer: look whether it runs and is reached",
}


def options_of(mount: Found) -> dict[str, str]:
    """Return a mount's options by name, those of the file system among them."""
    pairs = [option.partition("=") for option in [*mount.get("options", []), *mount.get("super_options", [])]]
    return {name: value for name, _, value in pairs}


def kind_of(mount: Found) -> str:
    """Return what is mounted, as a person would say it."""
    return f"{mount.get('fstype') or 'nothing mounted'} {mount.get('source', '')}".strip()


def is_nfs(mount: Found) -> bool:
    """Tell whether it is NFS."""
    return str(mount.get("fstype", "")) in ("nfs", "nfs4")


def mount_points(mount: Found) -> dict[str, str]:
    """Return, by the names of kallithea_storage_accept_unsafe_mount, what the mount table says that no trial would show in time."""
    options = options_of(mount)
    found = {}
    if is_nfs(mount):
        if {"soft", "softerr"} & set(options):
            found["soft"] = "is mounted with soft, so that a server which is slow for a while becomes an error in the middle of a write; mount it with hard"
        if "nocto" in options:
            found["nocto"] = "is mounted with nocto, so that what another host has written may not be seen; mount it without"
        if "nolock" in options or options.get("local_lock", "none") != "none":
            found["local_lock"] = "is mounted with nolock or local_lock, so that each host has locks of its own; mount it without, with vers=4.2"
        version = options.get("vers", "")
        if version in ("2", "3", "4", "4.0"):
            found["version"] = f"is mounted as NFS {version}, which forgets files that are open on another host or serves replaced ones; mount it with vers=4.2"
    if str(mount.get("fstype", "")) in ("cifs", "smb3"):
        found["cifs"] = "is a Windows share (CIFS), which knows neither owners nor the links that Mercurial's locks are as a Unix file system does; use NFS"
    if "nosuid" not in options:
        found["set_uid"] = "lets programs on it run as another user (set-uid); mount it with nosuid"
    return found


def cause(mount: Found, *names: str) -> str:
    """Return the likely cause of what failed, the first of those named that the mount table supports, with what to do."""
    options, fstype = options_of(mount), str(mount.get("fstype", ""))
    points = mount_points(mount)
    waits = max([int(options[name]) for name in ("acregmax", "acdirmax", "acregmin", "acdirmin", "actimeo") if options.get(name, "").isdigit()] or [0])
    known = {
        "lookup": "its client remembers what was missing; mount it with lookupcache=positive" if is_nfs(mount) and "lookupcache" not in options else "",
        "attributes": f"its client trusts what it knows for up to {waits} s (actimeo); mount it with a lower one, or without" if waits else "",
        **{name: f"it {said}" for name, said in points.items() if name != "set_uid"},
        "fuse": f"{fstype} is a FUSE file system, which may know no locks between hosts; use one that does" if fstype.startswith("fuse") else "",
    }
    for name in [*names, "cifs", "fuse"]:
        if known.get(name):
            return known[name]
    return f"{kind_of(mount)} does not do what a shared POSIX file system does; use NFS 4.2 or another one that does"


def host_points(where: str, leader: str, found: Found, uid: int, gid: int) -> list[str]:
    """Return what one host could not do or see; the first host made the changes."""
    mount = found.get("mount", {})
    problems = []
    for name, sight in found.get("sights", {}).items():
        if sight["how"] == "opened" or (sight["how"] == "listed" and name not in OPENED):
            continue
        late = f" ({sight['error']})" if sight["error"] else ""
        names = ("version",) if "ESTALE" in sight["error"] else ("nocto", "attributes") if name not in ("new", "renamed") else ("lookup", "attributes", "nocto")
        problems.append(f"{where} does not show within 1 s {SIGHTS[name].format(leader=leader)}{late}: {cause(mount, *names)}.")
    if found.get("held", "old") != "old":
        what = found["held"] or "nothing at all"
        problems.append(
            f"{where} lets a program that reads a file while another host replaces it read {what} instead of the old file: {cause(mount, 'version')}."
        )
    lock = found.get("lock", "refused")
    if lock == "granted":
        problems.append(f"{where} granted a lock (flock) that {leader} held at that moment: {cause(mount, 'local_lock')}.")
    elif lock != "refused":
        problems.append(f"{where} can not lock a file ({lock}): {ERRORS.get(lock.split(':')[0], cause(mount, 'local_lock', 'version'))}.")
    elif found.get("released", "granted") != "granted":
        problems.append(f"{where} does not give a lock (flock) that {leader} has released ({found['released']}): {cause(mount, 'version')}.")
    wrong = sorted({f"{owner}:{group}, mode {mode}" for owner, group, mode in found.get("owners", {}).values() if (owner, group, mode) != (uid, gid, "0640")})
    if wrong:
        problems.append(
            f"{where} gives files that the user {uid}:{gid} made with mode 0640 the owner {' and '.join(wrong)}: "
            "the file server squashes or maps ids, or an access list is inherited; let it keep them (no all_squash, no id mapping)."
        )
    return problems


def space_points(where: str, space: Found) -> list[str]:
    """Return where space or inodes are short; a file system without a number of inodes has enough."""
    problems = []
    for what, free, total in (("space", space["free"], space["all"]), ("inodes", space["free_inodes"], space["inodes"])):
        if total and free < SPACE_MARGIN * total:
            problems.append(f"{where} has only {free / total:.1%} of its {what} free, less than {SPACE_MARGIN:.0%}: remove something or make it larger.")
    return problems


def race_points(path: str, found: Mapping[str, Found]) -> list[str]:
    """Return where a race for names had not exactly one winner, or was none."""
    racers = {name: host for name, host in found.items() if "races" in host}
    problems = []
    for kind, what in RACES.items():
        races = {name: host["races"][kind] for name, host in racers.items()}
        failed = {name: race["error"] for name, race in races.items() if race["error"]}
        for name, error in failed.items():
            why = ERRORS.get(error.split(":")[0], cause(racers[name].get("mount", {}), "version"))
            problems.append(f"The storage {path} of host {name} fails in {what} ({error}): {why}.")
        if not failed and len(races) > 1:
            problems += winner_points(f"The storage {path}", what, races, next(iter(racers.values())).get("mount", {}))
    return problems


def winner_points(where: str, what: str, races: Mapping[str, Found], mount: Found) -> list[str]:
    """Return where a race of several hosts had several winners in a round, or none, or a single one in all of them."""
    rounds = min(race["tried"] for race in races.values())
    winners = [[name for name, race in races.items() if number in race["won"]] for number in range(rounds)]
    several = [names for names in winners if len(names) > 1]
    if several:
        both = " and ".join(several[0])
        return [f"{where} let {both} win {what} at the same time, {len(several)} of {rounds} times: {cause(mount, 'local_lock', 'version')}."]
    if not all(winners):
        return [f"{where} let nobody win {what}, {winners.count([])} of {rounds} times: {cause(mount, 'soft', 'local_lock', 'version')}."]
    if len({name for names in winners for name in names}) < 2:
        return [
            f"{where} is not known to be safe for {what}, since {', '.join(races)} did not meet when they raced for it: "
            f"run again with forks of at least {len(races)} (ansible.cfg), when the hosts have little else to do."
        ]
    return []


def acceptance_problems(
    found: Mapping[str, Found],
    path: str,
    ids: Sequence[int],
    accepted: Sequence[str] = (),
    exports: Sequence[Sequence[str]] | None = None,
    left: str = "",
) -> list[str]:
    """Return a sentence for each point in which the storage failed.

    found: for each host what the module storage_acceptance found, the first host first. exports: the options of our own server's exports.
    left: why something was left behind.
    """
    problems = []
    leader = next(iter(found), "")
    for name, host in found.items():
        where = f"The storage {path} of host {name}"
        mount = host.get("mount", {})
        if host.get("shared") is False:
            problems.append(not_shared(where, leader, mount, found[leader].get("mount", {})))
            continue
        if mount:
            problems += [f"{where} {said}." for point, said in mount_points(mount).items() if point not in accepted]
        if host.get("error"):
            why = ERRORS.get(host["error"].split(":")[0], cause(mount, "version"))
            problems.append(f"{where} could not be tried by the service user {ids[0]} ({host['error']}): {why}.")
        elif host:
            problems += space_points(where, host["space"]) + host_points(where, leader, host, ids[0], ids[1])
    problems += race_points(path, {name: host for name, host in found.items() if not host.get("error")})
    if exports is not None and not exports:
        problems.append(f"The storage server exports no {path} to anybody: run the playbook storage for it.")
    if any("async" in options for options in exports or []) and "async" not in accepted:
        problems.append(f"The storage server exports {path} with async, so that it loses acknowledged pushes when it stops; export it with sync.")
    if left and not found[leader].get("error"):
        problems.append(f"The storage {path} keeps the folder .kallithea-acceptance, which {leader} could not remove ({left}): remove it by hand.")
    return problems


def not_shared(where: str, leader: str, mount: Found, first: Found) -> str:
    """Return why a host sees nothing of what the first host made."""
    if is_nfs(mount) and (mount.get("source"), mount.get("fstype")) == (first.get("source"), first.get("fstype")):
        return f"{where} does not show within 1 s the folder that {leader} made: {cause(mount, 'lookup', 'attributes', 'nocto')}."
    seen = f"{kind_of(mount)}, but {kind_of(first)} on {leader}"
    return f"{where} does not show what {leader} made, so it is not shared between them ({seen}): mount the same file system on every host."


def acceptance_lines(found: Mapping[str, Found], path: str) -> list[str]:
    """Return what a person wants to know of a storage that was accepted."""
    lines = []
    for name, host in found.items():
        parts = [f"{what} {statistics.median(taken):.1f} ms (worst {max(taken):.1f})" for what, taken in host["times"].items()]
        lines.append(f"Storage {path} on {name} ({kind_of(host['mount'])}): {', '.join(parts)}")
    names = list(found)
    if len(names) < 2:
        return [*lines, f"Storage {path}: tried by {names[0]} alone, so nothing is known of visibility, races and locks between hosts"]
    won = {kind: ", ".join(f"{name} {len(host['races'][kind]['won'])}" for name, host in found.items()) for kind in RACES}
    rounds = min(host["races"][kind]["tried"] for host in found.values() for kind in RACES)
    sights = [host["sights"] for name, host in found.items() if name != names[0]]
    latest = ", ".join(f"{what} {slowest(sights, what)}" for what in SIGHTS)
    return [
        *lines,
        f"Storage {path}: {rounds} rounds of races, exclusive creation won by {won['exclusive']}; symbolic link by {won['symlink']}; "
        f"flock excludes between {', '.join(names)}",
        f"Storage {path}: changes of {names[0]} seen after at most: {latest}",
    ]


def slowest(sights: Sequence[Found], what: str) -> str:
    """Return when the last host saw a change, and whether a host needed a look into the folder."""
    listed = " (by a look into its folder)" if any(sight[what]["how"] == "listed" for sight in sights) else ""
    return f"{max(sight[what]['ms'] for sight in sights):.0f} ms{listed}"


def acceptance_found(hosts: Sequence[str], variables: Mapping[str, Found]) -> dict[str, Found]:
    """Return for each host what it found in the last step that it did."""
    steps = [f"__kallithea_storage_{step}" for step in ("seen_by", "changed", "looked", "begun")]
    return {name: next((variables[name][step]["result"] for step in steps if "result" in variables[name].get(step, {})), {}) for name in hosts}


def acceptance_stamp(mount: Found, covers: Found) -> dict[str, Any]:
    """Return what an acceptance covers on a host: another mount, host, id or choice makes it void."""
    return {**covers, "mount": {name: mount.get(name) for name in ("fstype", "source", "options", "super_options")}}


def is_accepted(stamp: Found, now: Found) -> bool:
    """Tell whether a host's earlier acceptance covers what there is now; hosts that are gone since do not matter."""
    alike = all(stamp.get(name) == now[name] for name in ("mount", "ids", "unsafe"))
    return alike and set(now["hosts"]) <= set(stamp.get("hosts", []))


def acceptance_due(hosts: Sequence[str], variables: Mapping[str, Found], mode: str, covers: Found, untouched: bool = False) -> bool:
    """Tell whether the hosts of this run have to try the storage.

    covers: the hosts, ids and choices that an acceptance has to cover. untouched: before anything is changed only a storage that looks well is tried,
    since what is wrong with another one is said already.
    """
    known = {name: variables[name] for name in hosts}
    states = {name: host["__kallithea_common_host"]["state"] for name, host in known.items()}
    if mode == "never" or not hosts:
        return False
    if untouched:
        mounted = all(state["storage"]["is_mount"] and state["marker"]["exists"] for state in states.values())
        if not mounted or any(host.get("__kallithea_storage_problems") for host in known.values()) or storage_differences(states):
            return False
    if any("__kallithea_storage_mounted_anew" in host for host in known.values()):
        return True
    if all("__kallithea_storage_acceptance" in host for host in known.values()):
        return False
    return mode == "always" or not all(is_accepted(state["storage_accepted"], acceptance_stamp(state["storage"], covers)) for state in states.values())


class FilterModule:
    """Filters of the collection."""

    def filters(self) -> dict[str, Any]:
        """Return the filters by name."""
        return {
            "acceptance_problems": acceptance_problems,
            "acceptance_found": acceptance_found,
            "acceptance_lines": acceptance_lines,
            "acceptance_stamp": acceptance_stamp,
            "is_accepted": is_accepted,
            "acceptance_due": acceptance_due,
        }
