# Copyright: The kallithea.cluster maintainers
# GPL-3.0-or-later (see LICENSE)
"""The storage kind nfs as it is chosen: names of units, mount options, what is wrong with the choices."""

from __future__ import annotations

import difflib
import ipaddress
import re
from collections.abc import Mapping, Sequence
from typing import Any

VERSIONS = ("3", "4.0", "4.1", "4.2")
# What scm-peers warn of, by the word of kallithea_storage_accept_unsafe_mount that allows it.
UNSAFE = {
    "async": ("async", "a push that was acknowledged is lost when the server loses power"),
    "soft": ("soft", "a slow server then means half-written files"),
    "softerr": ("soft", "a slow server then means half-written files"),
    "nocto": ("nocto", "a host then does not see what another one has pushed"),
    "nolock": ("local_lock", "locks then hold on one host alone"),
    "local_lock": ("local_lock", "locks then hold on one host alone"),
    "suid": ("set_uid", "a file in a repository could then become root"),
    "no_root_squash": ("root", "root of an application host is then root on the storage"),
    "anonuid=0": ("root", "root of an application host is then root on the storage"),
    "insecure": ("root", "any program of an application host can then name itself as any user of the storage"),
}
UNSAFE_VERSIONS = {
    "3": "its locks are a protocol of their own, which a restart of the server loses",
    "4.0": "its clients were seen to go on with references that had been replaced",
}
# Options of a mount or an export that nobody can have a reason for.
WRONG_MOUNT = {
    "noexec": "git runs its hooks from the repositories",
    "ro": "every host writes into the storage",
    "bg": "systemd waits for the mount itself and tries it again",
    "udp": "the server answers by TCP alone",
    "proto=udp": "the server answers by TCP alone",
}
WRONG_EXPORT = {
    "subtree_check": "a file that is renamed while it is open would be lost to its reader",
    "all_squash": "the service user would be taken for nobody as well, and could not read its own files",
    "fsid=0": "the hosts would then find the storage at / of the server",
    "fsid=root": "the hosts would then find the storage at / of the server",
}
OWN_VARIABLE = ("vers", "nfsvers", "minorversion", "rsize", "wsize", "nconnect", "timeo", "retrans", "lookupcache")
# File systems that are a server's already.
REMOTE = ("nfs", "cifs", "smb3")
# Options that contradict each other without a no before one of them.
OPPOSITES = {"softerr": "soft", "hard": "soft", "ro": "rw", "async": "sync"}


def _options(plain: str, numbers: str, words: str) -> dict[str, str]:
    """Return for each option whether a value follows: none, a whole number or a word."""
    return {**dict.fromkeys(plain.split(), ""), **dict.fromkeys(numbers.split(), "number"), **dict.fromkeys(words.split(), "word")}


# All that nfs(5) and mount(8) name.
MOUNT_OPTIONS = _options(
    "ac noac acl noacl bg fg cto nocto fsc nofsc hard soft softerr softreval nosoftreval intr nointr lock nolock migration nomigration rdirplus nordirplus"
    " resvport noresvport sharecache nosharecache sloppy trunkdiscovery notrunkdiscovery tcp udp async sync dirsync atime noatime diratime nodiratime"
    " relatime norelatime strictatime nostrictatime lazytime nolazytime dev nodev exec noexec suid nosuid rw ro _netdev nofail defaults",
    "acregmin acregmax acdirmin acdirmax actimeo retry port max_connect namlen mountport",
    "sec xprtsec proto mountproto mountvers clientaddr local_lock write context fscontext defcontext rootcontext",
)
# All that exports(5) names.
EXPORT_OPTIONS = _options(
    "ro rw async sync wdelay no_wdelay hide nohide crossmnt subtree_check no_subtree_check insecure_locks secure_locks auth_nlm no_auth_nlm secure insecure"
    " acl no_acl mountpoint mp pnfs no_pnfs security_label root_squash no_root_squash all_squash no_all_squash",
    "anonuid anongid",
    "fsid sec xprtsec refer replicas reexport",
)
PLAIN = re.compile(r"[A-Za-z0-9_.:=/+-]+")


def mount_unit(path: str) -> str:
    """Return the name of systemd's unit for a mount point, as systemd-escape makes it."""

    def escape(character: str) -> str:
        return character if re.fullmatch(r"[A-Za-z0-9:_.]", character) else f"\\x{ord(character):02x}"

    parts = [part for part in path.split("/") if part]
    text = "-".join("".join(escape(character) for character in part) for part in parts)
    return (f"\\x2e{text[1:]}" if text.startswith(".") else text) + ".mount"


def nfs_source(address: str, path: str) -> str:
    """Return what a client mounts."""
    return f"[{address}]:{path}" if ":" in address else f"{address}:{path}"


def _name(option: str) -> str:
    return option.split("=", 1)[0]


def _has_own_variable(option: str) -> bool:
    """Tell whether an option of the mount is chosen by a variable of its own; mount takes v3 and v4.2 for versions too."""
    return _name(option) in OWN_VARIABLE or re.fullmatch(r"v[0-9.]+", option) is not None


def nfs_mount_options(settings: Mapping[str, Any]) -> list[str]:
    """Return the options of the mount; a site's own ones take the place of those that they contradict."""
    chosen = [
        f"vers={settings['mount_version']}",
        "hard",
        f"lookupcache={settings['mount_lookupcache']}",
        f"rsize={settings['mount_rsize']}",
        f"wsize={settings['mount_wsize']}",
        f"nconnect={settings['mount_nconnect']}",
        f"timeo={settings['mount_timeo']}",
        f"retrans={settings['mount_retrans']}",
        "noatime",
        "nodev",
        "nosuid",
        "_netdev",
        "nofail",
    ]
    extra = [str(option) for option in settings["mount_extra_options"]]
    given = {_name(option) for option in extra}
    opposites = {f"no{name}" for name in given} | ({"hard"} if given & {"soft", "softerr"} else set())
    return [option for option in chosen if _name(option) not in given | opposites] + extra


def _unsafe(options: Sequence[str], variable: str, accepted: Sequence[str]) -> list[str]:
    problems = []
    for option in options:
        word, why = UNSAFE.get(str(option), UNSAFE.get(_name(str(option)), ("", "")))
        if word and word not in accepted and str(option) != "local_lock=none":
            problems.append(f"{variable} has {option}, but {why}; take it out, or add {word} to kallithea_storage_accept_unsafe_mount at your own risk.")
    return problems


def _subject(option: str) -> str:
    """Return what an option is about: the same for soft and hard, or for sync and async."""
    name = _name(option)
    return re.sub(r"^no_?", "", OPPOSITES.get(name, name))


def _unknown(option: str, variable: str, known: Mapping[str, str], manual: str) -> list[str]:
    """Return what a mount or the table of exports would stumble over, before it does on a host that serves."""
    name, given, value = option.partition("=")
    if name not in known:
        like = difflib.get_close_matches(name, known, 1)
        return [f"{variable} has {option}, which {manual} does not know; {f'did you mean {like[0]}?' if like else 'take it out.'}"]
    if known[name] == "" and given and name not in ("mountpoint", "mp", "fsc"):
        return [f"{variable} has {option}, but {name} takes no value; give {name} alone."]
    if known[name] and not value:
        return [f"{variable} has {option} without a value; give {name}=…, see {manual}."]
    if known[name] == "number" and not value.isdigit():
        return [f"{variable} has {option}, whose value has to be a whole number."]
    return []


def _option_problems(
    options: Sequence[str], variable: str, wrong: Mapping[str, str], known: Mapping[str, str], manual: str, accepted: Sequence[str]
) -> list[str]:
    """Return what is wrong with a list of options by itself."""
    problems = [
        f"{variable} has '{option}'; give one option an entry, without blanks, commas or brackets." for option in options if not PLAIN.fullmatch(option)
    ]
    problems += [f"{variable} has {option}, but {wrong[option]}; take it out." for option in dict.fromkeys(options) if option in wrong]
    problems += [
        problem
        for option in dict.fromkeys(options)
        # What has a sentence already, or a variable of its own, is known.
        if PLAIN.fullmatch(option) and option not in wrong and not option.startswith("x-systemd.") and not _has_own_variable(option)
        for problem in _unknown(option, variable, known, manual)
    ]
    subjects: dict[str, list[str]] = {}
    for option in options:
        subjects.setdefault(_subject(option), []).append(option)
    problems += [f"{variable} has {' and '.join(same)}, of which one alone can hold; leave one of them in it." for same in subjects.values() if len(same) > 1]
    return problems + _unsafe(options, variable, accepted)


def _number(settings: Mapping[str, Any], name: str, least: int, most: int) -> list[str]:
    value = settings[name]
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        # The command line makes a text of it: -e name=200.
        hint = f""" without quotes (with -e as JSON: -e '{{"kallithea_storage_{name}": {value}}}')""" if isinstance(value, str) and value.isdigit() else ""
        return [f"kallithea_storage_{name} is {value!r}; give a whole number from {least} to {most}{hint}."]
    return []


def _unsafe_versions(versions: Sequence[str], variable: str, accepted: Sequence[str]) -> list[str]:
    return [
        f"{variable} has NFS {version}, but {UNSAFE_VERSIONS[version]}; give 4.2, or add version to kallithea_storage_accept_unsafe_mount at your own risk."
        for version in versions
        if version in UNSAFE_VERSIONS and "version" not in accepted
    ]


def nfs_server_problems(settings: Mapping[str, Any], clients: Sequence[str], accepted: Sequence[str]) -> list[str]:
    """Return what is wrong with the choices of the server."""
    problems = []
    if not clients:
        problems.append("kallithea_storage_clients is empty, so the storage would be exported to nobody; give the addresses of the hosts that mount it.")
    for client in clients:
        try:
            ipaddress.ip_address(client)
        except ValueError:
            problems.append(f"kallithea_storage_clients has '{client}', which is no IP address; name each host that mounts the storage by its address alone.")
    versions = [str(version) for version in settings["nfs_versions"]]
    problems += [
        f"kallithea_storage_nfs_versions has '{version}', which is no version of NFS; give some of {', '.join(VERSIONS)}."
        for version in versions
        if version not in VERSIONS
    ]
    if not set(versions) & {"4.1", "4.2"}:
        problems.append("kallithea_storage_nfs_versions has neither 4.1 nor 4.2, which the application's hosts mount with; give 4.2.")
    problems += _unsafe_versions(versions, "kallithea_storage_nfs_versions", accepted)
    numbers = [
        *_number(settings, "nfs_threads", 1, 4096),
        *_number(settings, "nfs_lease_seconds", 10, 3600),
        *_number(settings, "nfs_grace_seconds", 10, 3600),
    ]
    problems += numbers
    if not numbers and settings["nfs_grace_seconds"] < settings["nfs_lease_seconds"]:
        problems.append(
            f"kallithea_storage_nfs_grace_seconds is {settings['nfs_grace_seconds']}, less than kallithea_storage_nfs_lease_seconds "
            f"({settings['nfs_lease_seconds']}): a client that comes back in time would lose its locks; give at least as many."
        )
    options = [str(option) for option in settings["nfs_export_options"]]
    if "rw" not in options:
        problems.append("kallithea_storage_nfs_export_options has no rw, so that the hosts could only read; add it.")
    return problems + _option_problems(options, "kallithea_storage_nfs_export_options", WRONG_EXPORT, EXPORT_OPTIONS, "exports(5)", accepted)


def nfs_client_problems(settings: Mapping[str, Any], accepted: Sequence[str]) -> list[str]:
    """Return what is wrong with the choices of the mount."""
    problems = []
    version = str(settings["mount_version"])
    if version not in VERSIONS:
        problems.append(f"kallithea_storage_mount_version is '{version}'; give one of {', '.join(VERSIONS)}.")
    elif version not in [str(served) for served in settings["nfs_versions"]]:
        problems.append(f"kallithea_storage_mount_version is {version}, which is not in kallithea_storage_nfs_versions; give one that is served.")
    problems += _unsafe_versions([version], "kallithea_storage_mount_version", accepted)
    if settings["mount_lookupcache"] not in ("positive", "none", "all"):
        problems.append(f"kallithea_storage_mount_lookupcache is '{settings['mount_lookupcache']}'; give positive, or none or all.")
    if settings["mount_lookupcache"] == "all" and "nocto" not in accepted:
        problems.append(
            "kallithea_storage_mount_lookupcache is all, but a host then goes on saying that a file is missing which another one has made; "
            "give positive, or add nocto to kallithea_storage_accept_unsafe_mount at your own risk."
        )
    for name, least, most in (
        ("mount_rsize", 4096, 1048576),
        ("mount_wsize", 4096, 1048576),
        ("mount_nconnect", 1, 16),
        ("mount_timeo", 10, 6000),
        ("mount_retrans", 1, 100),
        ("nfs_read_ahead_kb", 0, 65536),
    ):
        problems += _number(settings, name, least, most)
    extra = [str(option) for option in settings["mount_extra_options"]]
    problems += [
        f"kallithea_storage_mount_extra_options has {option}, which has a variable of its own (kallithea_storage_mount_...); set that one."
        for option in extra
        if _has_own_variable(option)
    ]
    return problems + _option_problems(extra, "kallithea_storage_mount_extra_options", WRONG_MOUNT, MOUNT_OPTIONS, "nfs(5)", accepted)


def mount_point_problems(name: str, state: Mapping[str, Any]) -> list[str]:
    """Return what is wrong with the place where a host mounts the storage, where it is not mounted yet."""
    storage = state["storage"]
    beneath = [*storage["folders"], *storage["entries"], *([".kallithea-cluster"] if state["marker"]["exists"] else [])]
    where = f"The mount point {storage['path']} of host {name}"
    if storage["is_link"]:
        return [f"{where} is a link; give kallithea_storage_path the path that it leads to, the same on every host."]
    if beneath:
        return [f"{where} is not empty ({', '.join(beneath)}), which the mount would hide; move it to the storage host, or away."]
    return []


def served_storage_problems(name: str, state: Mapping[str, Any], path: str, own: str) -> list[str]:
    """Return what is wrong with the tree that the storage host serves: another server's, or exported by more than the role's own file."""
    storage = state["storage"]
    problems = []
    if storage["fstype"].startswith(REMOTE):
        problems.append(
            f"The storage {path} of host {name} is mounted from another server ({storage['fstype']} {storage['source']}), and whoever passes that on keeps no "
            "locks over a restart; mount it on each application host and give the kind existing, or put the storage on a disk of this host."
        )
    return problems + [
        f"Host {name} exports {exported} by {file}, and with it the storage {path} to others than the application hosts; "
        "take it out there, or give kallithea_storage_path a path outside of it."
        for file, paths in state["exports"].items()
        if file != own
        for exported in paths
        if f"{path}/".startswith(f"{exported.rstrip('/')}/") or exported.startswith(f"{path}/")
    ]


class FilterModule:
    """Filters of the collection."""

    def filters(self) -> dict[str, Any]:
        """Return the filters by name."""
        return {
            "mount_unit": mount_unit,
            "nfs_source": nfs_source,
            "nfs_mount_options": nfs_mount_options,
            "nfs_server_problems": nfs_server_problems,
            "nfs_client_problems": nfs_client_problems,
            "served_storage_problems": served_storage_problems,
        }
