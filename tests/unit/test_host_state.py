"""Parsing what a host says of itself."""

from __future__ import annotations

import contextlib
import json
import pathlib
import time
import types
from collections.abc import Iterator

import pytest
from ansible_collections.kallithea.cluster.plugins.module_utils import host_state
from ansible_collections.kallithea.cluster.plugins.modules import host_state as module


def test_listening_sockets_only() -> None:
    lines = [
        "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode",
        "   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1 0 100 0 0 10 0",
        "   1: 0100007F:1F91 0100007F:9999 01 00000000:00000000 00:00000000 00000000     0        0 4712 1 0 100 0 0 10 0",
    ]
    assert host_state.parse_listening(lines) == [(8080, "4711")]


FIB_TRIE = """Main:
  +-- 0.0.0.0/0 3 0 4
     |-- 0.0.0.0
        /0 universe UNICAST
     +-- 127.0.0.0/8 2 0 2
        +-- 127.0.0.0/31 1 0 0
           |-- 127.0.0.0
              /8 host LOCAL
           |-- 127.0.0.1
              /32 host LOCAL
     +-- 192.0.2.0/24 2 0 2
        +-- 192.0.2.8/30 2 0 2
           |-- 192.0.2.0
              /24 link UNICAST
           |-- 192.0.2.11
              /32 host LOCAL
           |-- 192.0.2.9
              /32 host LOCAL
        |-- 192.0.2.255
           /32 link BROADCAST
Local:
           |-- 192.0.2.11
              /32 host LOCAL
"""
IF_INET6 = """20010db8000000000000000000000011 04 40 00 82     eth0
00000000000000000000000000000001 01 80 10 80       lo
fe8000000000000000fc00fffe000001 04 40 20 80     eth0
"""


def test_own_addresses_each_once_without_networks_and_broadcasts() -> None:
    assert host_state.parse_addresses(FIB_TRIE, IF_INET6) == ["127.0.0.1", "192.0.2.9", "192.0.2.11", "::1", "2001:db8::11"]
    assert host_state.parse_addresses("", "") == []


def test_installed_packages_only() -> None:
    text = (
        "Package: git\nStatus: install ok installed\nVersion: 1\n\nPackage: haproxy\nStatus: deinstall ok config-files\n\n"
        "Package: curl\nEssential: yes\nStatus: hold ok installed\nDescription: a\n b\n\n"
    )
    assert host_state.parse_packages(text) == ["curl", "git"]


def test_memory_and_cgroup() -> None:
    assert host_state.parse_meminfo_mb("MemTotal:        2048000 kB\nMemFree: 1 kB\n") == 2000
    assert host_state.parse_cgroup_limit_mb("max", 2000) == 2000
    assert host_state.parse_cgroup_limit_mb("1048576000", 2000) == 1000
    assert host_state.parse_cgroup_limit_mb("9223372036854771712", 2000) == 2000


@pytest.mark.parametrize(("text", "cores"), [("max 100000", 2.0), ("50000 100000", 0.5), ("", 2.0), ("900000 100000", 2.0)])
def test_cpu_quota(text: str, cores: float) -> None:
    assert host_state.parse_cpu_quota(text, 2) == cores


@pytest.mark.parametrize(
    ("text", "cluster"),
    [('{"cluster_id": "abc"}\n', "abc"), ("", ""), ("{", ""), ("[]", ""), ("7", ""), ('{"cluster_id": 7}', ""), ('{"other": "abc"}', "")],
)
def test_a_damaged_identity_names_no_cluster(text: str, cluster: str) -> None:
    assert host_state.parse_cluster_id(text) == cluster


MOUNTS = r"""
21 28 0:20 / /proc rw,nosuid,noexec - proc proc rw
30 1 254:1 / / rw,relatime shared:1 - ext4 /dev/vda1 rw
41 30 254:1 /var/lib/docker/volumes/share/_data /srv/kallithea rw,relatime master:1 shared:7 - ext4 /dev/vda1 rw,discard
42 30 0:51 / /srv/nfs rw,noexec,relatime - nfs4 files.example.org:/kallithea\040data rw,vers=4.2
43 30 0:52 / /srv/frozen rw - nfs4 files:/k ro
44 30 0:53 / /srv/with\040blank ro - tmpfs tmpfs rw
45 41 0:54 / /srv/nfs rw - tmpfs upper rw
damaged
46 41 0:54 / /srv/short rw -
"""


@pytest.mark.parametrize(
    ("path", "mount"),
    [
        ("/srv", None),
        ("/srv/kallithea/repositories", None),
        ("/srv/short", None),
        ("/srv/kallithea", ("ext4", "/dev/vda1", ["relatime", "rw"])),
        ("/srv/nfs", ("tmpfs", "upper", ["rw"])),
        ("/srv/frozen", ("nfs4", "files:/k", ["ro", "rw"])),
        ("/srv/with blank", ("tmpfs", "tmpfs", ["ro"])),
    ],
)
def test_what_is_mounted_at_a_path(path: str, mount: tuple[str, str, list[str]] | None) -> None:
    found = host_state.parse_mount(MOUNTS, path)
    assert found["is_mount"] == (mount is not None)
    assert (found["fstype"], found["source"], found["options"]) == (mount or ("", "", []))


def test_all_mounts() -> None:
    text = (
        "22 1 254:0 / / rw - ext4 /dev/vda rw\n97 22 0:50 / /srv/with\\040blank rw - nfs4 files:/k rw\n98 22 0:51 / /srv/k rw - autofs a rw\n"
        "99 98 0:52 / /srv/k rw shared:1 - nfs4 files:/k rw\n"
    )
    assert host_state.parse_mounts(text) == [
        {"path": "/", "fstype": "ext4"},
        {"path": "/srv/with blank", "fstype": "nfs4"},
        {"path": "/srv/k", "fstype": "nfs4"},
    ]


def test_only_the_hosts_own_disks_are_asked_for_their_size(monkeypatch: pytest.MonkeyPatch) -> None:
    mounts = "22 1 254:0 / / rw - ext4 /dev/vda rw\n97 22 0:50 / /srv/k rw - nfs4 files:/k rw\n98 22 0:51 / /gone rw - xfs /dev/vdb rw\n"
    monkeypatch.setattr(module, "read", lambda _path: mounts)
    asked: list[str] = []

    def size(path: str) -> types.SimpleNamespace:
        asked.append(path)
        if path == "/gone":
            raise FileNotFoundError
        return types.SimpleNamespace(f_frsize=4096, f_blocks=10)

    monkeypatch.setattr(module.os, "statvfs", size)
    assert [(disk["path"], disk["bytes"]) for disk in module.disks()] == [("/", 40960), ("/srv/k", 0), ("/gone", 0)]
    assert asked == ["/", "/gone"]


def test_a_storage_that_hangs_is_given_up(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "STORAGE_SECONDS", 0.2)
    monkeypatch.setattr(module, "look_at", lambda *_: time.sleep(30))
    found, marker = module.storage(str(tmp_path), 2200, 2200)
    assert (found["answers"], found["readable"], found["is_mount"], found["folders"], marker["exists"]) == (False, False, False, [], False)


def test_a_mount_has_options_of_its_file_system() -> None:
    line = "97 22 0:50 / /srv/k rw,nosuid shared:50 - nfs4 files:/k rw,vers=4.2,hard,addr=192.0.2.40"
    assert host_state.parse_mount(line, "/srv/k")["super_options"] == ["addr=192.0.2.40", "hard", "rw", "vers=4.2"]
    assert host_state.parse_mount(line, "/srv/other")["super_options"] == []


def test_paths_of_a_file_of_exports() -> None:
    text = (
        "# /srv/commented *(ro)\n\n/srv/films *(ro) 192.0.2.0/24(rw) # /srv/no\n-ro,sync *\n"
        '"/srv/with blank" *(rw)\n  /srv/in\\040octal\\\n  host(rw)\n/srv/alone\n/srv/films other(ro)\n'
    )
    assert host_state.parse_exports(text) == ["/srv/alone", "/srv/films", "/srv/in octal", "/srv/with blank"]
    assert host_state.parse_exports("") == []


def test_files_of_exports(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "exports").write_text("/srv/films *(ro)\n")
    (tmp_path / "more.exports").write_text("/srv/music *(ro)\n")
    monkeypatch.setattr(module, "EXPORTS", (str(tmp_path / "exports"), str(tmp_path / "*.exports"), str(tmp_path / "missing")))
    assert module.exports() == {str(tmp_path / "exports"): ["/srv/films"], str(tmp_path / "more.exports"): ["/srv/music"]}


def test_options_and_blanks_of_a_mount() -> None:
    found = host_state.parse_mount("\n".join(line for line in MOUNTS.splitlines() if "upper" not in line), "/srv/nfs")
    assert found["options"] == ["noexec", "relatime", "rw"]
    assert found["source"] == "files.example.org:/kallithea data"


def test_what_lies_on_a_storage() -> None:
    names = ["lost+found", ".snapshot", ".kallithea-cluster", "locks", "repositories", *[f"other{number:02}" for number in range(20)]]
    found = host_state.summarize_entries(names)
    assert found == {"folders": ["repositories", "locks"], "entries": [f"other{number:02}" for number in range(10)]}


def test_a_storage_is_looked_at(tmp_path: pathlib.Path) -> None:
    tmp_path.chmod(0o750)
    (tmp_path / "data").mkdir()
    (tmp_path / ".kallithea-cluster").write_text(json.dumps({"cluster_id": "abc"}))
    found, marker = module.storage(str(tmp_path), 2200, 2200)
    assert marker == {"exists": True, "cluster_id": "abc"}
    assert (found["uid"], found["mode"], found["readable"], found["root_may_write"]) == (tmp_path.stat().st_uid, "0750", True, True)
    assert (found["is_mount"], found["is_link"], found["folders"], found["entries"]) == (False, False, ["data"], [])


def test_a_storage_that_is_not_there(tmp_path: pathlib.Path) -> None:
    link = tmp_path / "link"
    link.symlink_to("nowhere")
    found, marker = module.storage(str(link), 2200, 2200)
    assert marker == {"exists": False, "cluster_id": ""}
    assert (found["uid"], found["mode"], found["readable"], found["is_link"]) == (-1, "", False, True)


def test_what_root_may_not_see_the_service_user_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    acting: list[int] = []

    @contextlib.contextmanager
    def service_user(uid: int, gid: int) -> Iterator[None]:
        acting.append(uid)
        yield
        acting.pop()

    def squashed() -> str:
        if not acting:
            raise PermissionError
        return "seen"

    def closed() -> str:
        raise PermissionError

    monkeypatch.setattr(module, "service_user", service_user)
    assert module.as_who_may(squashed, 2200, 2200) == "seen"
    assert module.as_who_may(lambda: "root", 2200, 2200) == "root"
    assert module.as_who_may(closed, 2200, 2200) is None
