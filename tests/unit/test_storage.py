"""The storage: sentences, the guards of the application's scripts, and the check that a rescan makes."""

from __future__ import annotations

import contextlib
import importlib.machinery
import importlib.util
import json
import os
import pathlib
import pwd
import re
import subprocess
import sys
import tempfile
import types
from collections.abc import Iterator
from typing import Any

import pytest
from ansible_collections.kallithea.cluster.plugins.filter import storage
from render import render

FILES = pathlib.Path(__file__).parents[2] / "roles" / "app" / "files"
NODES = [{"name": "app1", "address": "192.0.2.1"}, {"name": "ci1", "address": "192.0.2.2"}]
UID = 2200
OURS = {"exists": True, "cluster_id": "ours"}
NONE = {"exists": False, "cluster_id": ""}
SHARE = {
    "path": "/srv/kallithea",
    "is_link": False,
    "is_mount": True,
    "fstype": "nfs4",
    "source": "files:/k",
    "options": ["relatime", "rw"],
    "uid": UID,
    "gid": UID,
    "mode": "0750",
    "answers": True,
    "readable": True,
    "root_may_write": True,
    "folders": ["repositories", "data", "locks"],
    "entries": [],
}
EMPTY = {**SHARE, "uid": 0, "gid": 0, "mode": "0755", "folders": []}


def state(share: dict[str, Any], marker: dict[str, Any] = NONE, before: dict[str, Any] = NONE) -> dict[str, Any]:
    """Return what a host says."""
    return {"storage": share, "marker": marker, "storage_identity": before}


@pytest.mark.parametrize(
    ("kind", "path", "nodes", "says"),
    [
        ("local", "/srv/kallithea", [], ""),
        ("local", "/srv/kallithea", NODES[:1], ""),
        ("existing", "/srv/kallithea", NODES, ""),
        ("nfs", "/srv/kallithea", NODES, ""),
        ("smb", "/srv/kallithea", NODES, "kallithea_storage_kind is 'smb'; give one of local, existing, nfs."),
        ("local", "/srv/kallithea", NODES, "but 2 hosts run the application (app1, ci1): mount a shared file system at /srv/kallithea"),
        ("local", "srv", [], "kallithea_storage_path is 'srv'; give an absolute path"),
        ("existing", "/", NODES, "give an absolute path"),
        ("local", "/srv/../etc", [], "give an absolute path"),
        ("local", "/a b", [], "give an absolute path"),
    ],
)
def test_variables(kind: str, path: str, nodes: list[dict], says: str) -> None:
    problems = storage.storage_problems(kind, path, nodes)
    assert len(problems) == bool(says)
    assert says in " ".join(problems)


@pytest.mark.parametrize(
    "good",
    [
        state(SHARE, OURS, OURS),
        # The first run, with and without a root that may write, and one that was interrupted.
        state(EMPTY),
        state({**SHARE, "folders": [], "root_may_write": False}),
        state({**SHARE, "folders": ["data"]}),
        # Repositories that wait to be taken in.
        state({**SHARE, "folders": ["repositories"], "entries": ["notes"]}),
        # A host that used another cluster's storage once and was given up by it.
        state(EMPTY, NONE, {"exists": True, "cluster_id": "theirs"}),
    ],
)
def test_a_good_share(good: dict[str, Any]) -> None:
    assert storage.storage_host_problems("app1", good, "existing", "ours", UID) == []


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        (
            state({**SHARE, "is_mount": False}, OURS),
            "is no mount point, but kallithea_storage_kind is existing: mount the shared file system at /srv/kallithea",
        ),
        (state({**SHARE, "is_mount": False, "uid": -1, "readable": False}), "is no mount point"),
        (state({**SHARE, "is_link": True}, OURS), "is a link; give kallithea_storage_path the path that it leads to"),
        (state({**SHARE, "options": ["ro"]}, OURS), "is mounted read-only; mount it read-write."),
        (state({**SHARE, "options": ["noexec", "rw"]}, OURS), "is mounted with noexec, so git could run no hooks"),
        (state({**SHARE, "uid": 0, "readable": False}), "can be read neither by root nor by the service user; let its top folder belong to the user 2200"),
        (state(EMPTY, NONE, OURS), "has no marker .kallithea-cluster, though the host has used this cluster's storage there"),
        (state({**SHARE, "folders": []}, OURS), "has its marker but no folder repositories"),
        (state({**EMPTY, "entries": ["films", "music"]}), "is not empty (films, music) and has no marker of a cluster"),
        (state({**EMPTY, "root_may_write": False}), "belongs to the user 0, not to the service user 2200, and root may not change that"),
        (state({**SHARE, "uid": 0}), "belongs to the user 0, not to the service user 2200, and an owner is changed only where the storage is empty"),
        (state({**SHARE, "uid": 7}, OURS), "belongs to the user 7, not to the service user 2200, and an owner is changed only"),
    ],
)
def test_a_bad_share(bad: dict[str, Any], says: str) -> None:
    (problem,) = storage.storage_host_problems("app1", bad, "existing", "ours", UID)
    assert problem.startswith("The storage /srv/kallithea of host app1 ")
    assert says in problem


BENEATH = {**EMPTY, "is_mount": False, "fstype": "", "source": "", "options": []}


@pytest.mark.parametrize(
    "good",
    [
        # Not mounted yet, or not any more: the role mounts it.
        state(BENEATH),
        state({**BENEATH, "uid": -1, "readable": False}),
        state(BENEATH, NONE, OURS),
        state(SHARE, OURS, OURS),
    ],
)
def test_a_good_place_for_the_storage_hosts_tree(good: dict[str, Any]) -> None:
    assert storage.storage_host_problems("app1", good, "nfs", "ours", UID) == []


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        (state({**BENEATH, "entries": ["films"]}), "The mount point /srv/kallithea of host app1 is not empty (films), which the mount would hide; move it"),
        (state({**BENEATH, "folders": ["repositories"]}, OURS), "is not empty (repositories, .kallithea-cluster)"),
        (state({**BENEATH, "is_link": True}), "is a link; give kallithea_storage_path the path that it leads to"),
        (
            state({**SHARE, "fstype": "ext4", "source": "/dev/vdb"}, OURS),
            "is a file system of its own (ext4 /dev/vdb), where the storage host's has to be",
        ),
        (state(EMPTY), "is mounted from files:/k and has no marker .kallithea-cluster: unmount it, or restore the storage host's from a backup."),
        (state({**SHARE, "uid": 65534}, OURS), "belongs to the user 65534, not to the service user 2200"),
        (state({**SHARE, "options": ["noexec", "rw"]}, OURS), "is mounted with noexec, so git could run no hooks"),
        (
            state({**EMPTY, "readable": False}, NONE, OURS),
            "is refused to it by its server (files:/k): see that the storage host runs and lets the host reach it, then run the playbook",
        ),
        (state({**EMPTY, "readable": False, "answers": False}, NONE, OURS), "gets no answer from its server (files:/k): see that"),
    ],
)
def test_a_bad_place_for_the_storage_hosts_tree(bad: dict[str, Any], says: str) -> None:
    (problem,) = storage.storage_host_problems("app1", bad, "nfs", "ours", UID)
    assert says in problem


@pytest.mark.parametrize("answers", [True, False])
def test_what_the_storage_host_does_not_serve_is_mended_where_it_takes_part(answers: bool) -> None:
    refused = state({**EMPTY, "readable": False, "answers": answers}, NONE, OURS)
    assert storage.storage_host_problems("app1", refused, "nfs", "ours", UID, "store1") == []
    assert storage.storage_host_problems("app1", refused, "existing", "ours", UID, "store1")


@pytest.mark.parametrize("kind", ["local", "existing"])
def test_a_storage_that_hangs(kind: str) -> None:
    (problem,) = storage.storage_host_problems("app1", state({**EMPTY, "answers": False, "readable": False}, NONE, OURS), kind, "ours", UID)
    assert problem == (
        "The storage /srv/kallithea of host app1 does not answer (it is mounted from files:/k): see that its server runs and lets the host reach it."
    )


def test_an_empty_tree_never_takes_the_place_of_a_used_one() -> None:
    theirs = {"exists": True, "cluster_id": "theirs"}
    hosts = {
        "store1": {**state({**EMPTY, "is_mount": False}), "identity": NONE},
        "app1": {**state(SHARE, OURS, OURS), "identity": OURS},
        "app2": {**state(EMPTY, NONE, theirs), "identity": OURS},
    }
    (problem,) = storage.lost_storage_problems(hosts, ["store1"])
    assert problem.startswith(
        "The storage /srv/kallithea of host store1 has no marker .kallithea-cluster, though app1 used this cluster's storage before: mount its disk"
    )
    assert storage.lost_storage_problems({**hosts, "app1": {**hosts["app1"], "storage_identity": NONE}}, ["store1"]) == []
    assert storage.lost_storage_problems({**hosts, "store1": {**hosts["store1"], "marker": OURS}}, ["store1"]) == []
    assert storage.lost_storage_problems({"app1": hosts["app1"]}, ["store1"]) == []
    assert storage.lost_storage_problems(hosts, []) == []


SERVED = {**SHARE, "source": "192.0.2.40:/srv/kallithea", "super_options": ["addr=192.0.2.40", "hard", "rw"]}


@pytest.mark.parametrize(
    "share",
    [
        SERVED,
        # Another name or address of the same server, and what is no mount, has a sentence already, or says no address.
        {**SERVED, "source": "[2001:db8::40]:/srv/kallithea/", "super_options": ["addr=2001:db8::40"]},
        {**SERVED, "source": "store1.example.org:/srv/kallithea"},
        {**SERVED, "super_options": ["rw"]},
        {**SERVED, "is_mount": False, "super_options": []},
        {**SERVED, "answers": False, "super_options": ["addr=192.0.2.50"]},
        {**SERVED, "fstype": "ext4", "source": "/dev/vdb", "super_options": ["rw"]},
    ],
)
def test_hosts_that_have_the_storage_hosts_tree(share: dict[str, Any]) -> None:
    store = {**state({**EMPTY, "is_mount": False}, OURS), "addresses": ["127.0.0.1", "192.0.2.40", "2001:db8::40"]}
    assert storage.other_server_problems({"store1": store, "app1": state(share, OURS, OURS)}, ["store1"]) == []


def test_another_servers_tree_is_not_changed_for_the_storage_hosts_one_host_at_a_time() -> None:
    store = {**state({**EMPTY, "is_mount": False}, OURS), "addresses": ["192.0.2.40"]}
    old = state({**SERVED, "source": "files:/srv/kallithea", "super_options": ["addr=192.0.2.50"]}, OURS, OURS)
    elsewhere = state({**SERVED, "source": "192.0.2.40:/export/k"}, OURS, OURS)
    first, second = storage.other_server_problems({"store1": store, "app2": old, "app1": old, "ci1": elsewhere}, ["store1"])
    assert first.startswith("The storage /srv/kallithea of host ci1 is mounted from 192.0.2.40:/export/k, which is not that of the storage host store1")
    assert second.startswith("The storage /srv/kallithea of host app1, app2 is mounted from files:/srv/kallithea, which is not that of the storage host store1")
    assert "stop the application, copy the storage, unmount it on every host" in second
    assert storage.other_server_problems({"app1": old}, ["store1"]) == []
    assert storage.other_server_problems({"store1": store, "app1": old}, []) == []


@pytest.mark.parametrize(
    ("host", "kind", "says"),
    [
        # The one application host of a local storage becomes a host that mounts it.
        (state({**BENEATH, "folders": ["repositories", "data"]}, OURS, OURS), "nfs", "is not empty (repositories, data, .kallithea-cluster), which the mount"),
        # The storage host is given another path than the one that its tree has.
        (state(BENEATH, NONE, OURS), "local", "give kallithea_storage_path its old value, or restore it from a backup."),
    ],
)
def test_a_running_cluster_gets_another_kind_or_path(host: dict[str, Any], kind: str, says: str) -> None:
    (problem,) = storage.storage_host_problems("app1", host, kind, "ours", UID)
    assert says in problem


def test_a_local_storage_is_asked_for_its_marker_alone() -> None:
    folder = {**EMPTY, "is_mount": False, "entries": ["films"], "readable": False}
    assert storage.storage_host_problems("app1", state(folder), "local", "ours", UID) == []
    (problem,) = storage.storage_host_problems("app1", state(folder, NONE, OURS), "local", "ours", UID)
    assert "has no marker" in problem


def test_all_hosts_see_the_same() -> None:
    hosts = {"app1": state(SHARE, OURS), "app2": state({**SHARE, "source": "other-name:/k"}, OURS), "db1": state({**EMPTY, "is_mount": False})}
    assert storage.storage_differences(hosts) == []
    assert storage.storage_differences({}) == []


@pytest.mark.parametrize(
    ("other", "says"),
    [
        (state({**SHARE, "uid": 7}, OURS), "owner 7:2200, mode 0750, the marker of cluster ours... on ci1 (nfs4 files:/k)"),
        (state({**SHARE, "mode": "0755"}, OURS), "owner 2200:2200, mode 0755, the marker of cluster ours... on ci1 (nfs4 files:/k)"),
        (state(SHARE, {"exists": True, "cluster_id": "theirs"}), "the marker of cluster thei... on ci1 (nfs4 files:/k)"),
        (state({**SHARE, "fstype": "ext4", "source": "/dev/vdb"}), "no marker on ci1 (ext4 /dev/vdb)"),
    ],
)
def test_a_host_that_sees_another_storage(other: dict[str, Any], says: str) -> None:
    hosts = {"app1": state(SHARE, OURS), "app2": state(SHARE, OURS), "ci1": other}
    (problem,) = storage.storage_differences(hosts)
    assert problem.startswith("The storage /srv/kallithea is not the same everywhere: owner 2200:2200, mode 0750, the marker of cluster ours... on app1 (")
    assert says in problem
    assert problem.endswith("; mount the same file system on every host.")


class Cursor:
    """The repositories that a database knows."""

    def __init__(self, names: list[str]) -> None:
        self.names = names

    def __enter__(self) -> Cursor:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def execute(self, _: str) -> None:
        return None

    def fetchall(self) -> list[tuple[str]]:
        return [(name,) for name in self.names]


@pytest.fixture
def db_create(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """Load the script without what only a release has."""
    for name in ("psycopg2", "kallithea_database"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    loader = importlib.machinery.SourceFileLoader("kallithea_db_create", str(FILES / "kallithea-db-create"))
    spec = importlib.util.spec_from_loader("kallithea_db_create", loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("marker", "known", "says"),
    [
        ({"cluster_id": "ours"}, ["lost", "group/there"], ""),
        ({"cluster_id": "ours"}, [], ""),
        (None, [], "The database k is complete but the storage {} lacks its marker .kallithea-cluster"),
        ({"cluster_id": "theirs"}, [], "the storage {} belongs to another cluster, or its marker {}/.kallithea-cluster cannot be read"),
        ({"another": "key"}, [], "belongs to another cluster"),
        ([], [], "belongs to another cluster"),
        ({"cluster_id": "ours"}, ["a", "b"], "The database k knows 2 repositories but the storage {} holds none of them"),
    ],
)
def test_a_complete_database_wants_its_storage(db_create: types.ModuleType, tmp_path: pathlib.Path, marker: Any, known: list[str], says: str) -> None:
    (tmp_path / "repositories" / "group" / "there").mkdir(parents=True)
    if marker is not None:
        (tmp_path / ".kallithea-cluster").write_text(json.dumps(marker))
    connection = types.SimpleNamespace(cursor=lambda: Cursor(known))
    root = str(tmp_path / "repositories")
    if not says:
        db_create.check_storage(connection, "k", root, "ours")
        return
    with pytest.raises(db_create.Refused, match=re.escape(says.replace("{}", str(tmp_path)))):
        db_create.check_storage(connection, "k", root, "ours")


@pytest.mark.parametrize(
    ("there", "wanted"),
    [
        ({}, ["CREATE members", "CREATE log_repository"]),
        ({"members": True, "log_repository": True}, []),
        ({"members": True, "log_repository": False}, ["DROP log_repository", "CREATE log_repository"]),
    ],
)
def test_missing_indexes_are_made_and_what_an_interrupted_run_left_is_made_anew(
    db_create: types.ModuleType, monkeypatch: pytest.MonkeyPatch, there: dict[str, bool], wanted: list[str]
) -> None:
    said: list[str] = []
    monkeypatch.setattr(db_create.kallithea_database, "value", lambda _, __, names: there.get(names[0].removeprefix("kallithea_cluster_")), raising=False)
    cursor = types.SimpleNamespace(execute=said.append)
    connection = types.SimpleNamespace(cursor=lambda: contextlib.nullcontext(cursor))
    assert db_create.ensure_indexes(connection) == (bool(wanted), "")
    assert bool(db_create.missing_indexes(connection)) is bool(wanted)
    made = [statement for statement in said if "INDEX" in statement]
    assert all(" INDEX CONCURRENTLY IF " in statement for statement in made)
    assert [re.sub(r"^(\w+) .* kallithea_cluster_(\w+).*", r"\1 \2", statement) for statement in made] == wanted


@pytest.mark.parametrize("error", ["QueryCanceled", "InsufficientPrivilege"])
def test_an_index_that_cannot_be_made_stops_nothing(db_create: types.ModuleType, monkeypatch: pytest.MonkeyPatch, error: str) -> None:
    """A backup that holds a snapshot, tables of another owner: everything works without it."""
    said: list[str] = []
    errors = {name: type(name, (Exception,), {}) for name in ("QueryCanceled", "InsufficientPrivilege")}
    monkeypatch.setattr(db_create.psycopg2, "errors", types.SimpleNamespace(**errors), raising=False)

    def execute(statement: str) -> None:
        said.append(statement)
        if "INDEX" in statement:
            raise errors[error]("must be owner of table users_groups_members\n")

    monkeypatch.setattr(db_create.kallithea_database, "value", lambda *_: None, raising=False)
    connection = types.SimpleNamespace(cursor=lambda: contextlib.nullcontext(types.SimpleNamespace(execute=execute)))
    changed, warning = db_create.ensure_indexes(connection)
    assert (changed, said[-1]) == (False, "RESET statement_timeout")
    assert "was not made (must be owner of table users_groups_members); the next run tries again" in warning
    assert warning.endswith("CREATE INDEX CONCURRENTLY kallithea_cluster_members ON users_groups_members (user_id, users_group_id)")


@pytest.fixture
def folder() -> Iterator[pathlib.Path]:
    """Make a folder that the service user may enter too."""
    with tempfile.TemporaryDirectory() as name:
        pathlib.Path(name).chmod(0o755)
        yield pathlib.Path(name)


@pytest.mark.parametrize(
    ("command", "marker", "status"),
    [
        ("repo-scan", {"cluster_id": "ours"}, 0),
        ("repo-scan", {"cluster_id": "theirs"}, 1),
        ("repo-purge-deleted", None, 1),
        ("index-create", None, 1),
        ("db-upgrade", None, 0),
    ],
)
def test_the_command_line_scans_this_clusters_storage_only(folder: pathlib.Path, command: str, marker: dict | None, status: int) -> None:
    user = "daemon" if os.getuid() == 0 else pwd.getpwuid(os.getuid()).pw_name
    values = {
        "kallithea_user": user,
        "kallithea_storage_path": str(folder),
        "__kallithea_app_home": str(folder),
        "__kallithea_app_config": str(folder),
        "__kallithea_app_current": str(folder),
    }
    (folder / "bin").mkdir()
    (folder / "bin" / "kallithea-cli").write_text('#!/bin/sh\necho "$@"\n')
    (folder / "bin" / "kallithea-cli").chmod(0o755)
    (folder / "cluster.json").write_text(json.dumps({"cluster_id": "ours"}))
    if marker is not None:
        (folder / ".kallithea-cluster").write_text(json.dumps(marker))
    script = folder / "wrapper"
    script.write_text(render("app", "kallithea-cli.j2", values))
    script.chmod(0o755)
    done = subprocess.run([script, command, "--remove-missing"], capture_output=True, text=True, check=False)
    assert done.returncode == status, done
    if status == 0:
        assert done.stdout.split() == [command, "-c", "/etc/kallithea/kallithea.ini", "--remove-missing"]
    else:
        assert f"The shared storage {folder} is not mounted or is another cluster's" in done.stderr


@pytest.mark.parametrize(
    ("marker", "good"), [('{"cluster_id": "ours"}', True), ('{"cluster_id": "theirs"}', False), ("{", False), ("[]", False), (None, False)]
)
def test_a_rescan_wants_this_clusters_storage(tmp_path: pathlib.Path, marker: str | None, good: bool) -> None:
    patch = (FILES / "patches" / "safety-06-foreign-storage.patch").read_text(encoding="utf-8")
    added = "\n".join(line[1:] for line in patch.splitlines() if line.startswith("+") and not line.startswith("+++"))
    function = re.search(r"^def check_storage.*?(?=^def |^    if remove_obsolete)", added, re.MULTILINE | re.DOTALL)
    assert function
    names: dict[str, Any] = {
        "os": os,
        "json": json,
        "kallithea": types.SimpleNamespace(CONFIG={"kallithea_cluster_id": "ours"}),
        "ForeignStorageError": type("ForeignStorageError", (Exception,), {}),
    }
    exec(function.group(0), names)
    (tmp_path / "repositories").mkdir()
    if marker is not None:
        (tmp_path / ".kallithea-cluster").write_text(marker)
    if good:
        names["check_storage"](str(tmp_path / "repositories"))
        return
    with pytest.raises(names["ForeignStorageError"], match="is not mounted or is not the one of this cluster"):
        names["check_storage"](str(tmp_path / "repositories"))
