"""The storage's acceptance test: its steps between processes that play hosts, and each failing point as a sentence."""

from __future__ import annotations

import copy
import errno
import fcntl
import multiprocessing
import os
import pathlib
import re
import socket
import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from ansible_collections.kallithea.cluster.plugins.filter import acceptance, topology
from ansible_collections.kallithea.cluster.plugins.module_utils import storage_acceptance as steps
from ansible_collections.kallithea.cluster.plugins.module_utils import storage_holder, storage_probes

FORK = multiprocessing.get_context("fork")
IDS = [os.getuid(), os.getgid()]
PATH = "/srv/kallithea"
NFS = {
    "is_mount": True,
    "fstype": "nfs4",
    "source": "store1:/srv/kallithea",
    "options": ["nodev", "nosuid", "rw"],
    "super_options": ["hard", "local_lock=none", "lookupcache=pos", "rw", "vers=4.2"],
}


@pytest.fixture(scope="module", autouse=True)
def _umask() -> Any:
    """Make files as the service user does."""
    before = os.umask(0o027)
    yield
    os.umask(before)


def together(step: str, folders: Sequence[pathlib.Path], run: str, earlier: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Let a process for each host do a step at the same time."""
    with FORK.Pool(len(folders)) as pool:
        work = [(step, str(folder), run, number, len(folders), earlier[number]) for number, folder in enumerate(folders)]
        return list(pool.starmap(steps.step, work, chunksize=1))


def try_storage(*tops: pathlib.Path) -> dict[str, dict[str, Any]]:
    """Return what hosts find that have these folders as their storage."""
    folders = [top / steps.FOLDER for top in tops]
    run = steps.step("begin", str(folders[0]), "", 0, len(tops), {})["run"]
    found: list[dict[str, Any]] = [{} for _ in tops]
    for step in ("look", "change", "see"):
        if all(host.get("shared", True) for host in found):
            found = together(step, folders, run, found)
    together("end", folders, run, found)
    return {f"app{number + 1}": {"mount": {**NFS, "super_options": []}, **host} for number, host in enumerate(found)}


def problems(found: dict[str, dict[str, Any]], **more: Any) -> list[str]:
    """Return the sentences about what was found."""
    return list(acceptance.acceptance_problems(found, PATH, IDS, **more))


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """Return what two hosts really find on one folder, made once; with mounts and space as they should be."""
    found = try_storage(*[tmp_path_factory.mktemp("shared")] * 2)
    for host in found.values():
        host.update(mount=dict(NFS), space={"free": 90, "all": 100, "free_inodes": 90, "inodes": 100})
    return found


@pytest.fixture
def found(good: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return a copy of it that a test may spoil."""
    return copy.deepcopy(good)


def test_a_shared_folder_is_accepted(good: dict[str, dict[str, Any]]) -> None:
    assert problems(good) == []
    for kind in acceptance.RACES:
        won = [set(host["races"][kind]["won"]) for host in good.values()]
        assert won[0] and won[1], f"{kind}: the hosts did not meet"
        assert won[0] | won[1] == set(range(200)) and not won[0] & won[1]
    lines = " ".join(acceptance.acceptance_lines(good, PATH))
    assert re.search(r"on app2 \(nfs4 store1:/srv/kallithea\): create \d+\.\d ms \(worst \d+\.\d\), fsync \d+\.\d ms .*rename \d+\.\d ms", lines)
    assert "200 rounds of races, exclusive creation won by app1" in lines and "a new file" not in lines and re.search(r"at most: new \d+ ms", lines)


def test_nothing_is_left_behind(tmp_path: pathlib.Path) -> None:
    try_storage(tmp_path, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_run_waits_for_another_one(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else both would take the storage for one that shows wrong files."""
    folder = str(tmp_path / steps.FOLDER)
    run = steps.begin(folder)["run"]
    waited: list[float] = []

    def ends_meanwhile(seconds: float) -> None:
        waited.append(seconds)
        if len(waited) == 3:
            steps.end(folder, run, 0)

    monkeypatch.setattr(steps.time, "sleep", ends_meanwhile)
    assert steps.begin(folder)["run"] != run
    assert waited[:3] == [0.5] * 3


def test_what_a_killed_run_left_is_removed(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steps, "OTHER_RUN_SECONDS", 0.1)
    folder = str(tmp_path / steps.FOLDER)
    run = steps.begin(folder)["run"]
    # Its holder still has the lock.
    assert steps.look(folder, run, 0)["shared"]
    assert storage_probes.try_lock(f"{folder}/lock") == "refused"
    again = steps.begin(folder)["run"]
    assert again != run and storage_probes.try_lock(f"{folder}/lock") == "granted"
    with pytest.raises(ProcessLookupError, match="the process that looked before the changes is gone"):
        storage_holder.ask_holder(run, 0)
    steps.end(folder, again, 0)
    assert list(tmp_path.iterdir()) == []


def test_one_host_alone(tmp_path: pathlib.Path) -> None:
    found = try_storage(tmp_path)
    assert problems(found) == [] and "races" not in found["app1"]
    assert "tried by app1 alone" in acceptance.acceptance_lines(found, PATH)[-1]


def test_folders_that_are_not_shared(tmp_path: pathlib.Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    one.mkdir()
    other.mkdir()
    found = try_storage(one, other)
    found["app2"]["mount"] = {**NFS, "fstype": "ext4", "source": "/dev/vdb"}
    (sentence,) = problems(found)
    assert sentence == (
        f"The storage {PATH} of host app2 does not show what app1 made, so it is not shared between them "
        "(ext4 /dev/vdb, but nfs4 store1:/srv/kallithea on app1): mount the same file system on every host."
    )
    assert list(other.iterdir()) == []


def test_locks_of_each_host_alone(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flock = fcntl.flock

    def local(descriptor: int, operation: int) -> None:
        """Exclude nobody but on the first host, whose holder is another process."""
        if multiprocessing.parent_process() is None or "lock" not in os.readlink(f"/proc/self/fd/{descriptor}"):
            flock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", local)
    found = try_storage(tmp_path, tmp_path)
    found["app2"]["mount"] = {**NFS, "super_options": ["vers=3", "nolock", "local_lock=all"]}
    said = " ".join(problems(found))
    assert "of host app2 granted a lock (flock) that app1 held at that moment: it is mounted with nolock or local_lock" in said


def test_a_race_with_two_winners(tmp_path: pathlib.Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    for folder in (one, other):
        (folder / "race").mkdir(parents=True)
    races = [storage_probes.race(str(folder), dict.fromkeys(acceptance.RACES, os.mkdir), rounds=20) for folder in (one, other)]
    found = {f"app{number}": {"shared": True, "races": race} for number, race in enumerate(races)}
    said = acceptance.race_points(PATH, found)
    assert len(said) == 2 and "let app0 and app1 win exclusive creation (O_EXCL), as git locks a branch at the same time, 20 of 20 times" in said[0]


def test_a_late_host_meets_the_others(tmp_path: pathlib.Path) -> None:
    (tmp_path / "race").mkdir()

    def late(seconds: float, answers: Any) -> None:
        time.sleep(seconds)
        answers.put(storage_probes.race(str(tmp_path), {"x": os.mkdir})["x"])

    answers = FORK.Queue()
    hosts = [FORK.Process(target=late, args=(seconds, answers)) for seconds in (0.0, 0.5)]
    for host in hosts:
        host.start()
    races = [answers.get(timeout=20) for _ in hosts]
    for host in hosts:
        host.join()
    assert all(race["tried"] == 200 and race["won"] and not race["error"] for race in races)


def test_a_race_ends_in_time(tmp_path: pathlib.Path) -> None:
    (tmp_path / "race").mkdir()
    race = storage_probes.race(str(tmp_path), {"x": lambda path: time.sleep(0.05)}, seconds=0.2)["x"]
    assert 2 <= race["tried"] <= 5


def test_an_error_ends_a_race(tmp_path: pathlib.Path) -> None:
    assert storage_probes.race(str(tmp_path), {"x": os.mkdir})["x"] == {"tried": 0, "won": [], "error": "ENOENT: No such file or directory"}


def test_a_host_that_failed_does_nothing_more(tmp_path: pathlib.Path) -> None:
    for earlier in ({"error": "EIO: x"}, {"shared": False}, {}):
        assert steps.step("change", str(tmp_path / "none"), "run", 1, 2, earlier) == earlier


def test_the_holder_ends_by_itself(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage_holder, "HOLD_SECONDS", 0.2)
    folder = str(tmp_path / steps.FOLDER)
    run = steps.begin(folder)["run"]
    steps.look(folder, run, 0)
    assert storage_probes.try_lock(f"{folder}/lock", 5.0) == "granted"


def test_one_process_looks_before_and_after(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another one would make an NFS client ask anew, and hide what it remembers from those that live long."""
    process = tmp_path / "process"
    monkeypatch.setattr(storage_holder, "remember", lambda folder: process.write_text(str(os.getpid())))
    monkeypatch.setattr(storage_holder, "sights", lambda folder: os.getpid())
    folder = str(tmp_path / steps.FOLDER)
    run = steps.begin(folder)["run"]
    steps.look(folder, run, 1)
    assert steps.see(folder, run, 1)["sights"] == int(process.read_text()) != os.getpid()


def test_a_lock_that_nobody_can_hold(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    folder = str(tmp_path / steps.FOLDER)
    run = steps.begin(folder)["run"]
    assert storage_probes.try_lock(f"{folder}/lock") == "ENOLCK: No locks available"
    with pytest.raises(OSError, match="No locks available"):
        steps.look(folder, run, 0)


def test_sights_of_stale_names(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the first host changed nothing, nothing is seen by name nor by a list."""
    monkeypatch.setattr(storage_probes, "SIGHT_SECONDS", 0.1)
    monkeypatch.setattr(storage_probes, "LISTED_SECONDS", 0.1)
    folder = str(tmp_path / steps.FOLDER)
    steps.begin(folder)
    assert {name: sight["how"] for name, sight in storage_probes.sights(folder).items()} == dict.fromkeys(acceptance.SIGHTS, "")
    steps.make_changes(folder)
    assert {name: sight["how"] for name, sight in storage_probes.sights(folder).items()} == dict.fromkeys(acceptance.SIGHTS, "opened")


def test_sights_after_a_list(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that trusts a name until it looks into the folder, and a server that forgets a file."""
    monkeypatch.setattr(storage_probes, "SIGHT_SECONDS", 0.1)
    folder = str(tmp_path / steps.FOLDER)
    steps.begin(folder)
    steps.make_changes(folder)
    listed: set[str] = set()
    listdir, opens = os.listdir, storage_probes.opens

    def remember(path: str) -> list[str]:
        listed.add(path)
        return listdir(path)

    monkeypatch.setattr(os, "listdir", remember)

    def stale(path: str) -> bool:
        if path.endswith("new/file"):
            raise OSError(errno.ESTALE, "Stale file handle")
        return opens(path) if os.path.dirname(path) in listed else path.endswith("before")

    monkeypatch.setattr(storage_probes, "opens", stale)
    sights = storage_probes.sights(folder)
    assert {name: sight["how"] for name, sight in sights.items() if sight["how"] != "opened"} == {"new": "", "renamed": "listed", "renamed away": "listed"}
    assert sights["new"]["error"] == "ESTALE: Stale file handle"


def test_export_table() -> None:
    table = "/srv/kallithea\t192.0.2.1(rw,sync,root_squash)\n/srv/kallithea\t192.0.2.2(rw,async)\n/srv/other\t*(ro,async)\n\n"
    assert steps.export_options(table, PATH) == [["rw", "sync", "root_squash"], ["rw", "async"]]
    assert steps.export_options("", PATH) == []


def test_no_local_user_is_in_the_way(tmp_path: pathlib.Path) -> None:
    """A name that somebody else has is an error, and nothing hangs."""
    folder = str(tmp_path / steps.FOLDER)
    run = steps.begin(folder)["run"]
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as other:
        other.bind(storage_holder.address(run, 0))
        with pytest.raises(OSError, match="in use"):
            steps.look(folder, run, 0)


Spoil = Callable[[dict[str, Any]], Any]


def sight(name: str, how: str = "", error: str = "") -> Spoil:
    """Return what lets a change be seen otherwise."""
    return lambda host: host["sights"][name].update(how=how, error=error)


def mounted(*options: str, without: str = "", **more: Any) -> Spoil:
    """Return what mounts it otherwise."""
    kept = [option for option in NFS["super_options"] if option != without and option.partition("=")[0] not in {name.partition("=")[0] for name in options}]  # type: ignore[attr-defined]
    return lambda host: host["mount"].update(super_options=[*kept, *options], **more)


POINTS: list[tuple[str, list[Spoil], list[str]]] = [
    (
        "cached absence",
        [mounted("acdirmax=60", without="lookupcache=pos"), sight("new"), sight("renamed", "listed")],
        [
            "does not show within 1 s a new file that app1 made: its client remembers what was missing; mount it with lookupcache=positive.",
            "does not show within 1 s the new name of a file that app1 renamed: its client remembers what was missing",
        ],
    ),
    (
        "cached attributes",
        [mounted("acregmin=60", "acdirmax=60"), sight("removed"), sight("renamed away")],
        ["that app1 removed a file: its client trusts what it knows for up to 60 s (actimeo)", "old name is gone since app1 renamed it: its client trusts"],
    ),
    (
        "nocto",
        [mounted("nocto"), sight("rewritten", "listed")],
        ["app2 is mounted with nocto, so that", "what app1 wrote into a file that was there: it is mounted with nocto"],
    ),
    ("replaced", [sight("replaced", error="ESTALE: x")], ["the new file that app1 renamed over one that is open (ESTALE: x): nfs4 store1"]),
    ("replaced on NFS 3", [mounted("vers=3"), sight("replaced", error="ESTALE: x")], ["is mounted as NFS 3,", "(ESTALE: x): it is mounted as NFS 3,"]),
    ("held", [lambda host: host.update(held="ESTALE: Stale file handle")], ["read ESTALE: Stale file handle instead of the old file"]),
    ("held by nobody", [lambda host: host.update(held="")], ["read nothing at all instead of the old file"]),
    ("granted", [lambda host: host.update(lock="granted")], ["granted a lock (flock) that app1 held at that moment: nfs4"]),
    (
        "granted by FUSE",
        [lambda host: host.update(lock="granted"), mounted(fstype="fuse.sshfs")],
        ["held at that moment: fuse.sshfs is a FUSE file system, which may know no locks"],
    ),
    ("no locks", [lambda host: host.update(lock="ENOLCK: No locks available")], ["can not lock a file (ENOLCK: No locks available): nobody keeps locks"]),
    ("not released", [lambda host: host.update(released="refused")], ["does not give a lock (flock) that app1 has released (refused)"]),
    ("squashed", [lambda host: host["owners"].update({"1": [65534, 65534, "0640"]})], ["the owner 65534:65534, mode 0640: the file server squashes"]),
    ("mode", [lambda host: host["owners"].update({"1": [*IDS, "0777"]})], ["mode 0777: the file server squashes or maps ids, or an access list"]),
    ("soft", [mounted("soft")], ["app2 is mounted with soft, so that a server which is slow"]),
    ("softerr", [mounted("softerr")], ["app2 is mounted with soft,"]),
    ("nolock", [mounted("nolock")], ["is mounted with nolock or local_lock, so that each host has locks of its own"]),
    ("local_lock", [mounted("local_lock=flock")], ["is mounted with nolock or local_lock"]),
    ("version", [mounted("vers=4.0")], ["is mounted as NFS 4.0, which"]),
    ("cifs", [mounted(fstype="cifs")], ["is a Windows share (CIFS)"]),
    ("set-uid", [mounted(options=["rw"])], ["lets programs on it run as another user (set-uid); mount it with nosuid."]),
    ("space", [lambda host: host["space"].update(free=3)], ["has only 3.0% of its space free, less than 5%"]),
    ("inodes", [lambda host: host["space"].update(free_inodes=0)], ["has only 0.0% of its inodes free"]),
    ("no inodes", [lambda host: host["space"].update(free_inodes=0, inodes=0)], []),
    (
        "another user",
        [lambda host: host.update(error="EACCES: Permission denied")],
        ["could not be tried by the service user", "the same numeric ids on every host"],
    ),
    ("hung", [lambda host: host.update(error="ETIMEDOUT: no answer within 6 s")], ["(ETIMEDOUT: no answer within 6 s): the file server does not answer"]),
    ("not shared, one NFS", [mounted(without="lookupcache=pos"), lambda host: host.update(shared=False)], ["the folder that app1 made: its client remembers"]),
    (
        "race error",
        [lambda host: host["races"]["symlink"].update(error="EPERM: x")],
        ["fails in the symbolic link that is Mercurial's lock (EPERM: x): the file server"],
    ),
    ("two winners", [lambda host: host["races"]["symlink"].update(won=list(range(200)))], ["win the symbolic link that is Mercurial's lock at the same time,"]),
    ("no winner", [lambda host: host["races"]["exclusive"].update(won=[])], ["let nobody win exclusive creation"]),
]


@pytest.mark.parametrize(("spoil", "says"), [point[1:] for point in POINTS], ids=[point[0] for point in POINTS])
def test_each_point_is_a_sentence(found: dict[str, dict[str, Any]], spoil: list[Spoil], says: list[str]) -> None:
    for change in spoil:
        change(found["app2"])
    said = problems(found)
    for words in says:
        assert any(words in sentence for sentence in said), said
    assert bool(said) == bool(says)
    for sentence in said:
        assert PATH in sentence and sentence.endswith(".") and len(re.findall(r"\.(?: |$)", sentence)) == 1, sentence


def test_names_that_a_list_renews_are_no_problem(found: dict[str, dict[str, Any]]) -> None:
    for name in ("removed", "renamed away", "replaced"):
        sight(name, "listed")(found["app2"])
    assert problems(found) == []
    assert re.search(r"removed \d+ ms \(by a look into its folder\)", acceptance.acceptance_lines(found, PATH)[-1])


def test_hosts_that_do_not_meet(found: dict[str, dict[str, Any]]) -> None:
    found["app1"]["races"]["exclusive"]["won"], found["app2"]["races"]["exclusive"]["won"] = list(range(200)), []
    (sentence,) = problems(found)
    assert "is not known to be safe for exclusive creation" in sentence and "forks of at least 2" in sentence


def test_unsafe_mounts_that_a_site_accepts(found: dict[str, dict[str, Any]]) -> None:
    found["app1"]["mount"] = {**NFS, "options": ["rw"], "super_options": ["vers=3", "soft", "nocto", "lookupcache=pos"]}
    assert len(problems(found)) == 4
    assert problems(found, accepted=["version", "soft", "nocto", "set_uid", "async"], exports=[["rw", "async"]]) == []


@pytest.mark.parametrize(
    ("exports", "says"),
    [
        (None, ""),
        ([["rw", "sync"]], ""),
        ([["rw", "sync"], ["rw", "async"]], "exports /srv/kallithea with async"),
        ([], "exports no /srv/kallithea to anybody"),
    ],
)
def test_exports(found: dict[str, dict[str, Any]], exports: list[list[str]] | None, says: str) -> None:
    said = problems(found, exports=exports)
    assert says in " ".join(said) and len(said) == bool(says)


def test_what_is_left_behind(found: dict[str, dict[str, Any]]) -> None:
    assert "keeps the folder .kallithea-acceptance, which app1 could not remove (EBUSY: x)" in problems(found, left="EBUSY: x")[0]


def test_a_first_host_that_can_not_begin() -> None:
    (sentence,) = problems({"app1": {"error": "EROFS: Read-only file system"}})
    assert "of host app1 could not be tried" in sentence and "mount and export it read-write" in sentence


def test_what_the_hosts_found_last() -> None:
    def did(**steps: str) -> dict[str, Any]:
        return {f"__kallithea_storage_{step}": {"result": {"in": what}} if what else {"skipped": True} for step, what in steps.items()}

    # A step that was skipped in this trial hides what it found in an earlier one.
    variables = {"app1": did(begun="b", looked="l", changed="", seen_by=""), "app2": did(looked="l", changed="c", seen_by="s"), "app3": did(looked="")}
    assert acceptance.acceptance_found(list(variables), variables) == {"app1": {"in": "l"}, "app2": {"in": "s"}, "app3": {}}


COVERS = {"hosts": ["app1", "app2"], "ids": IDS, "unsafe": []}
STAMP = {**acceptance.acceptance_stamp(NFS, COVERS), "lines": ["fast"]}


def host(stamp: dict[str, Any] = STAMP, mount: dict[str, Any] = NFS, marked: bool = True, **more: Any) -> dict[str, Any]:
    """Return a host's variables."""
    storage = {"path": PATH, "uid": IDS[0], "gid": IDS[1], "mode": "0750", "readable": True, **mount}
    state = {"storage": storage, "storage_accepted": stamp, "marker": {"exists": marked, "cluster_id": "ours"}}
    return {"__kallithea_common_host": {"state": state}, **more}


@pytest.mark.parametrize(
    ("second", "mode", "untouched", "due"),
    [
        (host(), "changed", False, False),
        (host(), "always", False, True),
        (host(), "always", True, True),
        (host({}), "never", False, False),
        # A new host, another mount, and a mount made in this run, whatever was known before.
        (host({}), "changed", False, True),
        (host({}), "changed", True, True),
        (host(mount={**NFS, "super_options": ["soft"]}), "changed", False, True),
        (host(__kallithea_storage_mounted_anew={}), "changed", False, True),
        # Before anything is changed, what has a sentence already is not tried.
        (host({}, marked=False), "changed", True, False),
        (host({}, mount={**NFS, "is_mount": False}), "changed", True, False),
        (host({}, __kallithea_storage_problems=["It is full."]), "changed", True, False),
        (host({}, mount={**NFS, "mode": "0700"}), "changed", True, False),
        # Tried in this run.
        (host({}, __kallithea_storage_acceptance={}), "always", False, False),
    ],
)
def test_when_it_is_due(second: dict[str, Any], mode: str, untouched: bool, due: bool) -> None:
    first = {**host(), "__kallithea_storage_acceptance": {}} if "__kallithea_storage_acceptance" in second else host()
    assert acceptance.acceptance_due(["app1", "app2"], {"app1": first, "app2": second, "db1": {}}, mode, COVERS, untouched) is due


@pytest.mark.parametrize(
    ("hosts", "other", "due"),
    [
        (["app1", "app2"], {}, False),
        (["app1"], {"hosts": ["app1"]}, False),
        (["app1"], {"hosts": ["app1", "app3"]}, True),
        (["app1"], {"ids": [1, 1]}, True),
        (["app1"], {"unsafe": ["soft"]}, True),
        ([], {"unsafe": ["soft"]}, False),
    ],
)
def test_it_is_due_for_other_hosts_ids_and_choices(hosts: list[str], other: dict[str, Any], due: bool) -> None:
    assert acceptance.acceptance_due(hosts, {"app1": host(), "app2": host()}, "changed", {**COVERS, **other}) is due


def test_report_shows_the_figures() -> None:
    assert topology.storage_lines(host()) == ["fast"]
    nobody: dict[str, list[Any]] = {tier: [] for tier in topology.TIERS}
    assert "fast" in topology.site_report(nobody, {"kallithea_hostname": "scm.example.org", **host()})
    assert topology.storage_lines(host(__kallithea_storage_acceptance={"lines": ["faster"]})) == ["faster"]
    assert topology.storage_lines({}) == [] and topology.storage_lines(host({})) == []
