"""The storage kind nfs: choices, units, exports, and what a server or a mount runs with, from the kernel's own words."""

from __future__ import annotations

import configparser
import pathlib
import re
import shutil
import subprocess
from typing import Any

import pytest
import yaml
from ansible_collections.kallithea.cluster.plugins.filter import nfs, nfs_state
from render import render

DEFAULTS = yaml.safe_load((pathlib.Path(__file__).parents[2] / "roles" / "storage" / "defaults" / "main.yml").read_text(encoding="utf-8"))
CHOICES = {name.removeprefix("kallithea_storage_"): value for name, value in DEFAULTS.items() if "_nfs_" in name or "_storage_mount_" in name}
CLIENTS = ["192.0.2.21", "2001:db8::22"]
SOURCE = "192.0.2.40:/srv/kallithea"
# As Linux 6.1 shows a mount with the defaults of a server that has 2 GiB.
MOUNTINFO = (
    "22 1 0:20 / / rw,relatime shared:1 - ext4 /dev/vda1 rw\n"
    "97 22 0:50 / /srv/kallithea rw,nosuid,nodev,noatime shared:50 - nfs4 192.0.2.40:/srv/kallithea "
    "rw,vers=4.2,rsize=524288,wsize=524288,namlen=255,hard,proto=tcp,nconnect=4,timeo=150,retrans=2,sec=sys,clientaddr=192.0.2.21,"
    "lookupcache=pos,local_lock=none,addr=192.0.2.40"
)
FSID = "fsid=f1b5c0c9-0000-5000-8000-000000000001"
WANTED = {
    "threads": 32,
    "lease": 15,
    "grace": 15,
    "versions": ["4.2"],
    "delegations": False,
    "options": ["rw", "sync", "no_subtree_check", "root_squash", "sec=sys", FSID],
}
EXPORTED = (
    f"(rw,sync,wdelay,hide,nocrossmnt,secure,root_squash,no_all_squash,no_subtree_check,secure_locks,acl,no_pnfs,{FSID},"
    "anonuid=65534,anongid=65534,sec=sys,rw,secure,root_squash,no_all_squash)"
)
ETAB = "".join(f"/srv/kallithea\t{client}{EXPORTED}\n" for client in CLIENTS)


def server(
    threads: str = "32", lease: str = "15", grace: str = "15", versions: str = "-3 +4 -4.0 -4.1 +4.2", delegations: str = "0", exports: str = ETAB
) -> str:
    """Return what a host answers of its server."""
    parts = {"threads": threads, "lease": lease, "grace": grace, "versions": versions, "delegations": delegations, "exports": exports}
    return "Id=nfs-server.service\nActiveState=active\n\n" + "".join(f"== {name}\n{text}\n" for name, text in parts.items())


def different(answer: str, **wanted: Any) -> dict[str, list[str]]:
    """Return in what the server is not what is wanted."""
    found: dict[str, list[str]] = nfs_state.nfs_server_differences(nfs_state.nfs_server_state(answer), {**WANTED, **wanted}, "/srv/kallithea", CLIENTS)
    return found


def server_problems(clients: list[str] | None = None, accepted: tuple[str, ...] = (), **choices: Any) -> list[str]:
    """Return what is wrong with other choices of the server."""
    found: list[str] = nfs.nfs_server_problems({**CHOICES, **choices}, CLIENTS if clients is None else clients, accepted)
    return found


def client_problems(accepted: tuple[str, ...] = (), **choices: Any) -> list[str]:
    """Return what is wrong with other choices of the mount."""
    found: list[str] = nfs.nfs_client_problems({**CHOICES, **choices}, accepted)
    return found


@pytest.mark.parametrize(
    ("path", "unit"),
    [("/srv/kallithea", "srv-kallithea.mount"), ("/data/my-k", "data-my\\x2dk.mount"), ("/.k/a.b_c", "\\x2ek-a.b_c.mount")],
)
def test_the_units_name(path: str, unit: str) -> None:
    assert nfs.mount_unit(path) == unit
    if shutil.which("systemd-escape"):
        assert subprocess.run(["systemd-escape", "--path", "--suffix=mount", path], capture_output=True, text=True, check=True).stdout.strip() == unit


def test_an_address_with_colons_stands_in_brackets() -> None:
    assert nfs.nfs_source("192.0.2.40", "/srv/k") == "192.0.2.40:/srv/k"
    assert nfs.nfs_source("2001:db8::1", "/srv/k") == "[2001:db8::1]:/srv/k"


def test_the_defaults_are_safe() -> None:
    assert server_problems() == []
    assert client_problems() == []
    options = nfs.nfs_mount_options(CHOICES)
    assert options[:3] == ["vers=4.2", "hard", "lookupcache=positive"]
    assert {"nosuid", "nodev", "noatime", "_netdev", "nofail"} <= set(options)
    assert "noexec" not in options


@pytest.mark.parametrize(
    ("extra", "there", "gone"),
    [
        (["actimeo=1"], "actimeo=1", ""),
        (["soft"], "soft", "hard"),
        (["suid"], "suid", "nosuid"),
        (["atime"], "atime", "noatime"),
        (["noatime"], "noatime", ""),
    ],
)
def test_a_sites_own_options_win(extra: list[str], there: str, gone: str) -> None:
    options = nfs.nfs_mount_options({**CHOICES, "mount_extra_options": extra})
    assert options.count(there) == 1
    assert gone not in options


@pytest.mark.parametrize(
    ("clients", "choices", "says"),
    [
        ([], {}, "kallithea_storage_clients is empty, so the storage would be exported to nobody"),
        (["*"], {}, "kallithea_storage_clients has '*', which is no IP address"),
        (["192.0.2.0/24"], {}, "kallithea_storage_clients has '192.0.2.0/24', which is no IP address"),
        (["app1.example.org"], {}, "which is no IP address"),
        (None, {"nfs_versions": ["4.2", "5"]}, "kallithea_storage_nfs_versions has '5', which is no version of NFS; give some of 3, 4.0, 4.1, 4.2."),
        (None, {"nfs_versions": []}, "kallithea_storage_nfs_versions has neither 4.1 nor 4.2"),
        (None, {"nfs_threads": 0}, "kallithea_storage_nfs_threads is 0; give a whole number from 1 to 4096."),
        (None, {"nfs_threads": "many"}, "kallithea_storage_nfs_threads is 'many'"),
        (None, {"nfs_lease_seconds": 5}, "kallithea_storage_nfs_lease_seconds is 5; give a whole number from 10 to 3600."),
        (None, {"nfs_grace_seconds": 10}, "kallithea_storage_nfs_grace_seconds is 10, less than kallithea_storage_nfs_lease_seconds (15)"),
        (None, {"nfs_export_options": ["rw", "sync,async"]}, "kallithea_storage_nfs_export_options has 'sync,async'; give one option an entry"),
        (None, {"nfs_export_options": ["rw", "x) 10.0.0.0/8(rw"]}, "give one option an entry, without blanks, commas or brackets"),
        (None, {"nfs_export_options": ["sync"]}, "kallithea_storage_nfs_export_options has no rw, so that the hosts could only read; add it."),
        (None, {"nfs_export_options": ["ro", "sync"]}, "kallithea_storage_nfs_export_options has no rw, so that the hosts could only read; add it."),
        (None, {"nfs_export_options": ["rw", "ro"]}, "kallithea_storage_nfs_export_options has rw and ro, of which one alone can hold"),
        (None, {"nfs_export_options": ["rw", "sync", "sync"]}, "has sync and sync, of which one alone can hold; leave one of them in it."),
        (None, {"nfs_export_options": ["rw", "acl", "no_acl"]}, "has acl and no_acl, of which one alone can hold"),
        (None, {"nfs_export_options": ["rw", "blafasel"]}, "has blafasel, which exports(5) does not know; take it out."),
        (None, {"nfs_export_options": ["rw", "anonuid=me"]}, "has anonuid=me, whose value has to be a whole number."),
        (None, {"nfs_export_options": ["rw", "subtree_check"]}, "has subtree_check, but a file that is renamed while it is open would be lost"),
        (None, {"nfs_export_options": ["rw", "all_squash"]}, "has all_squash, but the service user would be taken for nobody as well"),
        (None, {"nfs_export_options": ["rw", "fsid=0"]}, "has fsid=0, but the hosts would then find the storage at / of the server; take it out."),
    ],
)
def test_bad_choices_of_the_server(clients: list[str] | None, choices: dict[str, Any], says: str) -> None:
    (problem,) = server_problems(clients, **choices)
    assert says in problem


@pytest.mark.parametrize(
    ("choices", "says"),
    [
        ({"mount_version": "4.1"}, "kallithea_storage_mount_version is 4.1, which is not in kallithea_storage_nfs_versions"),
        ({"mount_version": "5"}, "kallithea_storage_mount_version is '5'; give one of 3, 4.0, 4.1, 4.2."),
        ({"mount_lookupcache": "some"}, "kallithea_storage_mount_lookupcache is 'some'; give positive"),
        ({"mount_rsize": 1}, "kallithea_storage_mount_rsize is 1; give a whole number from 4096 to 1048576."),
        (
            {"mount_nconnect": "8"},
            "kallithea_storage_mount_nconnect is '8'; give a whole number from 1 to 16 without quotes "
            """(with -e as JSON: -e '{"kallithea_storage_mount_nconnect": 8}').""",
        ),
        ({"mount_nconnect": 17}, "kallithea_storage_mount_nconnect is 17; give a whole number from 1 to 16."),
        ({"mount_timeo": True}, "kallithea_storage_mount_timeo is True"),
        ({"mount_extra_options": ["noexec"]}, "has noexec, but git runs its hooks from the repositories; take it out."),
        ({"mount_extra_options": ["vers=3"]}, "has vers=3, which has a variable of its own"),
        ({"mount_extra_options": ["v3"]}, "has v3, which has a variable of its own"),
        ({"mount_extra_options": ["minorversion=0"]}, "has minorversion=0, which has a variable of its own"),
        ({"mount_extra_options": ["lookupcache=all"]}, "has lookupcache=all, which has a variable of its own"),
        ({"mount_extra_options": ["frobnicate"]}, "has frobnicate, which nfs(5) does not know; take it out."),
        ({"mount_extra_options": ["actime=3"]}, "has actime=3, which nfs(5) does not know; did you mean actimeo?"),
        ({"mount_extra_options": ["actimeo=abc"]}, "has actimeo=abc, whose value has to be a whole number."),
        ({"mount_extra_options": ["sec"]}, "has sec without a value; give sec=…, see nfs(5)."),
        ({"mount_extra_options": ["noatime=1"]}, "has noatime=1, but noatime takes no value; give noatime alone."),
        ({"mount_extra_options": ["ro"]}, "has ro, but every host writes into the storage; take it out."),
        ({"mount_extra_options": ["bg"]}, "has bg, but systemd waits for the mount itself"),
        ({"mount_extra_options": ["proto=udp"]}, "has proto=udp, but the server answers by TCP alone"),
        ({"mount_extra_options": ["actimeo=1", "actimeo=3"]}, "has actimeo=1 and actimeo=3, of which one alone can hold"),
        ({"mount_extra_options": ["atime", "noatime"]}, "has atime and noatime, of which one alone can hold; leave one of them in it."),
        ({"mount_extra_options": ["a,b"]}, "has 'a,b'; give one option an entry, without blanks, commas or brackets."),
    ],
)
def test_bad_choices_of_the_mount(choices: dict[str, Any], says: str) -> None:
    (problem,) = client_problems(**choices)
    assert says in problem


@pytest.mark.parametrize(
    ("option", "word"),
    [("soft", "soft"), ("softerr", "soft"), ("nocto", "nocto"), ("nolock", "local_lock"), ("local_lock=all", "local_lock"), ("suid", "set_uid")],
)
def test_an_unsafe_option_is_refused_or_allowed_by_its_ugly_name(option: str, word: str) -> None:
    (problem,) = client_problems(mount_extra_options=[option])
    assert f"kallithea_storage_mount_extra_options has {option}, but " in problem
    assert f"add {word} to kallithea_storage_accept_unsafe_mount at your own risk." in problem
    assert client_problems((word,), mount_extra_options=[option]) == []


def test_what_else_is_unsafe() -> None:
    assert client_problems(mount_extra_options=["local_lock=none", "noatime", "hard", "nosuid"]) == []
    (contradiction,) = client_problems(("soft",), mount_extra_options=["hard", "soft"])
    assert "has hard and soft, of which one alone can hold" in contradiction
    (problem,) = server_problems(nfs_export_options=["rw", "async"])
    assert "kallithea_storage_nfs_export_options has async, but a push that was acknowledged is lost" in problem
    assert server_problems(accepted=("async",), nfs_export_options=["rw", "async"]) == []
    for option in ("no_root_squash", "anonuid=0", "insecure"):
        (problem,) = server_problems(nfs_export_options=["rw", option])
        assert f"has {option}, but " in problem
        assert "add root to kallithea_storage_accept_unsafe_mount" in problem
        assert server_problems(accepted=("root",), nfs_export_options=["rw", option]) == []
    assert server_problems(nfs_export_options=["rw", "anonuid=2200"]) == []
    for version in ("3", "4.0"):
        (problem,) = server_problems(nfs_versions=[version, "4.2"])
        assert f"kallithea_storage_nfs_versions has NFS {version}, but " in problem
        assert server_problems(accepted=("version",), nfs_versions=[version, "4.2"]) == []
        (problem,) = client_problems(mount_version=version, nfs_versions=[version, "4.2"])
        assert f"kallithea_storage_mount_version has NFS {version}, but " in problem
        assert client_problems(("version",), mount_version=version, nfs_versions=[version, "4.2"]) == []
    (problem,) = client_problems(mount_lookupcache="all")
    assert "add nocto to kallithea_storage_accept_unsafe_mount" in problem
    assert client_problems(("nocto",), mount_lookupcache="all") == []


@pytest.mark.parametrize(
    ("words", "versions"),
    [
        ("-3 +4 -4.0 -4.1 +4.2", ["4.2"]),
        ("-2 +3 +4 +4.1 +4.2", ["3", "4.0", "4.1", "4.2"]),
        ("+3 +4 -4.0 +4.1 +4.2", ["3", "4.1", "4.2"]),
        ("+3 -4 -4.0 -4.1 -4.2", ["3"]),
        ("", []),
    ],
)
def test_the_kernels_list_of_versions(words: str, versions: list[str]) -> None:
    assert nfs_state.nfs_server_state(server(versions=words))["versions"] == versions


def test_a_server_that_runs_as_wanted() -> None:
    assert different(server()) == {"restart": [], "threads": [], "delegations": [], "exports": []}


def test_a_bare_host_lacks_everything() -> None:
    state = nfs_state.nfs_server_state(
        "Id=nfs-server.service\nLoadState=not-found\n\n== threads\n== lease\n== grace\n== versions\n== delegations\n1\n== exports\n"
    )
    assert state == {"threads": 0, "lease": -1, "grace": -1, "versions": [], "delegations": 1, "exports": {}}
    found = nfs_state.nfs_server_differences(state, WANTED, "/srv/kallithea", CLIENTS)
    assert "it serves NFS nothing, not 4.2" in found["restart"]
    assert found["exports"] == [f"/srv/kallithea is not exported to {client}" for client in CLIENTS]


@pytest.mark.parametrize(
    ("answer", "part", "says"),
    [
        (server(lease="90"), "restart", "the lease is 90 s, not 15 s"),
        (server(grace="90"), "restart", "the grace time is 90 s, not 15 s"),
        (server(versions="-2 +3 +4 +4.1 +4.2"), "restart", "it serves NFS 3, 4.0, 4.1, 4.2, not 4.2"),
        (server(threads="8"), "threads", "it has 8 threads, not 32"),
        (server(delegations="1"), "delegations", "delegations are on"),
        (server(exports=ETAB.splitlines()[0]), "exports", "/srv/kallithea is not exported to 2001:db8::22"),
        (server(exports=ETAB + f"/srv/kallithea\t*{EXPORTED}\n"), "exports", "/srv/kallithea is exported to * as well, by a file that is not ours"),
        (server(exports=ETAB.replace("sync", "async", 1)), "exports", "/srv/kallithea is exported to 192.0.2.21 without sync"),
        (server(exports=ETAB.replace("secure", "insecure", 1)), "exports", "/srv/kallithea is still exported to 192.0.2.21 with insecure"),
        (server(exports=ETAB.replace(FSID, "fsid=1", 1)), "exports", f"/srv/kallithea is exported to 192.0.2.21 without {FSID}"),
    ],
)
def test_a_server_that_runs_with_something_else(answer: str, part: str, says: str) -> None:
    assert different(answer) == {"restart": [], "threads": [], "delegations": [], "exports": [], part: [says]}


def test_another_path_is_somebody_elses_matter() -> None:
    assert different(server(exports=ETAB + "/srv/films\t*(ro,async)\n"))["exports"] == []


@pytest.mark.parametrize(
    ("exported", "refused"),
    [
        ("/srv/kallithea", True),
        ("/srv", True),
        ("/", True),
        ("/srv/kallithea/repositories", True),
        ("/srv/kallithea-old", False),
        ("/srv/films", False),
    ],
)
def test_what_else_lets_at_the_storage(exported: str, refused: bool) -> None:
    own = "/etc/exports.d/kallithea.exports"
    state = {"exports": {"/etc/exports": [exported], own: ["/srv/kallithea"]}, "storage": {"fstype": "", "source": ""}}
    found = nfs.served_storage_problems("store1", state, "/srv/kallithea", own)
    assert [sentence.split(";")[0] for sentence in found] == (
        [f"Host store1 exports {exported} by /etc/exports, and with it the storage /srv/kallithea to others than the application hosts"] if refused else []
    )


@pytest.mark.parametrize(("fstype", "refused"), [("", False), ("ext4", False), ("nfs4", True), ("cifs", True)])
def test_another_servers_tree_is_not_passed_on(fstype: str, refused: bool) -> None:
    state = {"exports": {}, "storage": {"fstype": fstype, "source": "nas:/k"}}
    found = nfs.served_storage_problems("store1", state, "/srv/kallithea", "/etc/exports.d/kallithea.exports")
    assert len(found) == refused
    assert not refused or f"The storage /srv/kallithea of host store1 is mounted from another server ({fstype} nas:/k), and whoever" in found[0]


def mounted(mounts: str = MOUNTINFO, read_ahead: str = "1024", borrows: str = "", **choices: Any) -> dict[str, Any]:
    """Return in what a mount is not what is wanted."""
    answers = f"Id=x\n\n== directory-delegations\n{borrows}\n== mounts\n{mounts}\n== read-ahead\n{read_ahead}\n"
    state = nfs_state.nfs_mount_state(answers, "/srv/kallithea")
    found: dict[str, Any] = nfs_state.mount_differences(state, SOURCE, nfs.nfs_mount_options({**CHOICES, **choices}), 1024)
    return found


def test_a_mount_that_is_as_wanted() -> None:
    alike = {"mounted": True, "remount": [], "read_ahead": False, "directory_delegations": False}
    assert mounted() == alike
    assert mounted(read_ahead="") == alike
    # An older kernel does not know them; a newer one says whether it asks for them.
    assert mounted(borrows="N") == alike
    assert mounted(borrows="Y") == {**alike, "directory_delegations": True}
    assert mounted(read_ahead="128")["read_ahead"] is True
    absent = mounted("22 1 0:20 / / rw shared:1 - ext4 /dev/vda1 rw")
    assert absent == {**alike, "mounted": False}
    # The kernel says nothing of the first three, and other words for the last.
    assert mounted(mount_extra_options=["retry=2", "fg", "actimeo=1", "ac"])["remount"] == []
    assert mounted(MOUNTINFO.replace(",nconnect=4", ""), mount_nconnect=1)["remount"] == []


@pytest.mark.parametrize(
    ("there", "instead", "says"),
    [
        ("nfs4 192.0.2.40:", "nfs4 192.0.2.41:", f"it is 192.0.2.41:/srv/kallithea, not {SOURCE}"),
        ("vers=4.2", "vers=4.1", "vers is 4.1, not 4.2"),
        (",hard", ",soft", "hard is missing"),
        (",lookupcache=pos", "", "lookupcache is not set, not pos"),
        (",nconnect=4", "", "nconnect is not set, not 4"),
        ("timeo=150", "timeo=600", "timeo is 600, not 150"),
        ("nosuid,", "", "nosuid is missing"),
    ],
)
def test_a_mount_that_is_something_else(there: str, instead: str, says: str) -> None:
    assert there in MOUNTINFO
    assert mounted(MOUNTINFO.replace(there, instead))["remount"] == [says]


def test_sizes_are_agreed_on_and_may_be_smaller_only() -> None:
    assert mounted(mount_rsize=524288)["remount"] == []
    assert mounted(mount_rsize=65536)["remount"] == ["rsize is 524288, not 65536"]


def storage(template: str, **values: Any) -> str:
    """Return a rendered file of the role."""
    known = {
        "inventory_hostname": "app1",
        "kallithea_storage_nodes": [{"name": "store1", "address": "192.0.2.40"}],
        "kallithea_storage_clients": CLIENTS,
        "__kallithea_storage_export_options": WANTED["options"],
    }
    return render("storage", template, {**known, **values})


def test_the_export_names_each_client_alone() -> None:
    lines = [line for line in storage("kallithea.exports.j2").splitlines() if not line.startswith("#")]
    assert lines == [f"/srv/kallithea {client}(rw,sync,no_subtree_check,root_squash,sec=sys,{FSID})" for client in CLIENTS]
    assert [line for line in storage("kallithea.exports.j2", kallithea_storage_clients=[]).splitlines() if not line.startswith("#")] == []


def test_the_servers_configuration() -> None:
    parsed = configparser.ConfigParser()
    parsed.read_string(storage("nfs-server.conf.j2"))
    assert dict(parsed["nfsd"]) == {
        "threads": "32",
        "lease-time": "15",
        "grace-time": "15",
        "udp": "n",
        "vers3": "n",
        "vers4": "y",
        "vers4.0": "n",
        "vers4.1": "n",
        "vers4.2": "y",
    }
    parsed.read_string(storage("nfs-server.conf.j2", kallithea_storage_nfs_versions=["3", "4.2"]))
    assert parsed["nfsd"]["vers3"] == "y"


def test_the_clients_configuration() -> None:
    parsed = configparser.ConfigParser()
    parsed.read_string(storage("nfs-client.conf.j2"))
    assert dict(parsed["nfsrahead"]) == {"nfs": "1024", "nfs4": "1024"}


def unit(text: str) -> list[tuple[str, str]]:
    """Return a unit's settings."""
    return re.findall(r"^(\w+)=(.*)$", text, re.MULTILINE)


def test_the_mount_and_what_tries_it_again() -> None:
    mount = dict(unit(storage("storage.mount.j2")))
    assert (mount["What"], mount["Where"], mount["Type"], mount["StartLimitIntervalSec"]) == (SOURCE, "/srv/kallithea", "nfs", "0")
    assert mount["Options"].split(",") == nfs.nfs_mount_options(CHOICES)
    timer = dict(unit(storage("kallithea-storage.timer.j2", kallithea_storage_path="/data/my-k")))
    assert timer["Unit"] == "data-my\\x2dk.mount"
    assert (timer["OnActiveSec"], timer["OnUnitInactiveSec"], timer["WantedBy"]) == ("1s", "5s", "timers.target")


UNITS = {
    "kallithea-web.service.j2": {},
    "kallithea-celery.service.j2": {},
    "kallithea-hooks.service.j2": {},
    "job.service.j2": {"__kallithea_app_timer": "index"},
}
NEEDS = {
    "local": [("RequiresMountsFor", "/srv/kallithea")],
    "existing": [("Wants", "srv-kallithea.mount"), ("After", "srv-kallithea.mount")],
    "nfs": [("BindsTo", "srv-kallithea.mount"), ("After", "srv-kallithea.mount")],
}


@pytest.mark.parametrize("kind", NEEDS)
@pytest.mark.parametrize("template", UNITS)
def test_what_stands_on_the_storage_starts_on_this_clusters_only(template: str, kind: str) -> None:
    timer = {"index": {"seconds": 1800, "about": "Index", "jobs": ["index"]}}
    values = {
        **UNITS[template],
        "kallithea_storage_kind": kind,
        "inventory_hostname": "app1",
        "__kallithea_common_as_user": ["setpriv", "--reuid=kallithea"],
        "__kallithea_app_timers": timer,
        "__kallithea_app_job_commands": {"index": "x"},
    }
    settings = unit(render("app", template, values))
    assert [entry for entry in settings if ("kallithea.mount" in entry[1] and entry[0] != "WantedBy") or entry[0] == "RequiresMountsFor"] == NEEDS[kind]
    if template in ("kallithea-web.service.j2", "kallithea-celery.service.j2"):
        # The mount that comes back starts them, unless somebody has disabled them.
        assert ("WantedBy", "multi-user.target srv-kallithea.mount" if kind == "nfs" else "multi-user.target") in settings
    guards = [value for name, value in settings if name.startswith("ExecStart")]
    assert guards[0].endswith("/usr/bin/cmp /etc/kallithea/cluster.json /srv/kallithea/.kallithea-cluster")
    # Root may read nothing there.
    assert ("User", "kallithea") in settings or guards[0].startswith("/usr/bin/setpriv --reuid=kallithea ")
    # systemd itself must not look at a storage that may hang.
    assert not [name for name, _ in settings if name.startswith(("Condition", "Assert"))]
    assert ("ProtectSystem", "strict") in settings
    assert next(value for name, value in settings if name == "ReadWritePaths").startswith("/srv/kallithea ")


def test_the_health_service_starts_while_the_storage_hangs() -> None:
    text = render("app", "kallithea-health.service.j2", {})
    assert "/srv/kallithea" not in text
    assert ".mount" not in text
    # The strict one makes every mount read-only, and asks each for that.
    assert ("ProtectSystem", "full") in unit(text)
