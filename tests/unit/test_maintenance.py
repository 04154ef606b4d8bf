"""The maintenance of repositories, against real git and Mercurial repositories."""

from __future__ import annotations

import concurrent.futures
import fcntl
import importlib.machinery
import importlib.util
import os
import pathlib
import pwd
import shutil
import signal
import subprocess
import sys
import time
import types
from collections.abc import Callable
from typing import Any

import pytest
from render import ROOT, render

PATH = ROOT / "roles" / "app" / "files" / "kallithea-maintenance"
HG = "hg"


def git(*words: str | pathlib.Path, folder: pathlib.Path, given: bytes = b"") -> str:
    """Run git and return what it says."""
    author = {f"GIT_{who}_{what}": "a@example.org" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    environment = {**os.environ, **author, "GIT_CONFIG_GLOBAL": "/dev/null"}
    return subprocess.run(["git", *words], cwd=folder, env=environment, input=given, capture_output=True, check=True, timeout=60).stdout.decode().strip()


class Site:
    """A storage, the program, and the program that stands for git."""

    def __init__(self, folder: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self.storage = folder / "srv"
        self.repositories = self.storage / "repositories"
        self.repositories.mkdir(parents=True)
        (self.storage / "locks").mkdir()
        self.cluster = folder / "cluster.json"
        for path in (self.cluster, self.storage / ".kallithea-cluster"):
            path.write_text('{"cluster_id": "one"}')
        monkeypatch.setattr(sys, "dont_write_bytecode", True)
        loader = importlib.machinery.SourceFileLoader("kallithea_maintenance", str(PATH))
        spec = importlib.util.spec_from_loader("kallithea_maintenance", loader)
        assert spec is not None
        self.program: Any = importlib.util.module_from_spec(spec)
        loader.exec_module(self.program)
        values = {
            "kallithea_storage_path": str(self.storage),
            "__kallithea_app_config": str(folder),
            "kallithea_app_write_wait_seconds": 5,
            "kallithea_app_pack_cache_bytes": 0,
        }
        (folder / "gitconfig").write_text(render("app", "gitconfig.j2", values))
        self.writer = folder / "kallithea-git"
        self.writer.write_text(render("app", "kallithea-git.j2", values))
        self.writer.chmod(0o755)
        monkeypatch.setattr(self.program, "GIT_CONFIG", str(folder / "gitconfig"))
        monkeypatch.setattr(self.program, "HG", HG)
        self.monkeypatch = monkeypatch
        self.capsys = capsys

    def git(self, name: str, pushes: int = 3) -> pathlib.Path:
        """Make a bare repository with that many pushes, each a pack of its own."""
        path = self.repositories / name
        path.mkdir(parents=True)
        git("init", "-q", "--bare", "-b", "main", folder=path)
        for number in range(pushes):
            self.push(path, f"branch{number}")
        return path

    def push(self, path: pathlib.Path, branch: str) -> str:
        """Write as a push does: a pack, and a reference with the lock held."""
        parent = git("for-each-ref", "--format=%(objectname)", "--count=1", "--sort=-committerdate", folder=path)
        blob = git("hash-object", "-w", "--stdin", folder=path, given=os.urandom(2000))
        tree = git("mktree", folder=path, given=f"100644 blob {blob}\tfile\n".encode())
        commit = git("commit-tree", tree, "-m", branch, *(["-p", parent] if parent else []), folder=path)
        git("pack-objects", "-q", "objects/pack/pack", folder=path, given=f"{commit}\n{tree}\n{blob}\n".encode())
        git("prune-packed", "-q", folder=path)
        self.write(path, f"refs/heads/{branch}", commit)
        return commit

    def write(self, path: pathlib.Path, reference: str, commit: str) -> None:
        """Move a reference as Kallithea does."""
        subprocess.run([self.writer, "update-ref", reference, commit], cwd=path, check=True, capture_output=True, timeout=30)

    def wait_for_lock(self, name: str) -> None:
        """Wait until all who were killed have ended and with them their lock."""
        with (self.storage / "locks" / name / ".lock").open("a+") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)

    def run(self, *words: str) -> tuple[int, list[str]]:
        """Run the maintenance; return its status and what it says."""
        command = ["kallithea-maintenance", "--storage", str(self.storage), "--cluster", str(self.cluster), *words]
        self.monkeypatch.setattr(sys, "argv", command)
        status = self.program.main()
        return status, self.capsys.readouterr().out.splitlines()

    def results(self, *words: str) -> dict[str, str]:
        """Run the maintenance; return how each repository's turn ended."""
        lines = self.run(*words)[1][:-1]
        return {line.split(" (")[0]: line.split("): ")[1].rsplit(", ", 1)[0] for line in lines}


@pytest.fixture
def site(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Site:
    return Site(tmp_path, monkeypatch, capsys)


def packs(path: pathlib.Path) -> int:
    """Return the number of packs."""
    return len(list((path / "objects" / "pack").glob("*.pack")))


def test_packs_and_references_are_joined_and_every_object_survives(site: Site) -> None:
    path = site.git("group/one", pushes=6)
    lost = site.push(path, "gone")
    git("update-ref", "-d", "refs/heads/gone", folder=path)
    loose = git("hash-object", "-w", "--stdin", folder=path, given=b"nobody's")
    before = git("cat-file", "--batch-all-objects", "--batch-check", folder=path).splitlines()
    references = git("for-each-ref", folder=path)
    assert packs(path) == 7
    status, lines = site.run()
    assert status == 0
    assert lines[0].startswith("group/one (git): done, ")
    assert lines[1].startswith("1 repositories: 1 done, 0 unchanged, 0 busy, 0 failed, 0 left for the next run; ")
    assert packs(path) == 1
    assert not list((path / "refs" / "heads").iterdir())
    assert (path / "objects" / "info" / "commit-graph").exists()
    assert git("for-each-ref", folder=path) == references
    assert git("cat-file", "--batch-all-objects", "--batch-check", folder=path).splitlines() == before
    assert {git("cat-file", "-t", name, folder=path) for name in (lost, loose)} == {"commit", "blob"}
    git("fsck", "--full", "--strict", folder=path)
    host, process, who = (site.storage / "locks" / "group" / "one" / ".lock").read_text().split()
    assert (host, int(process), who) == (os.uname().nodename, os.getpid(), "maintenance")


def bitmaps(path: pathlib.Path) -> list[str]:
    """Return the names of the bitmaps, each one's pack is there."""
    found = sorted((path / "objects" / "pack").glob("*.bitmap"))
    assert all(file.with_suffix(".pack").exists() for file in found)
    return [file.name for file in found]


def test_a_large_repository_is_one_pack_with_a_bitmap_until_it_has_grown_by_a_tenth(site: Site) -> None:
    path = site.git("one", pushes=20)
    small = site.git("small", pushes=2)
    site.monkeypatch.setattr(site.program, "BITMAP_BYTES", 20000)
    lost = site.push(path, "gone")
    git("update-ref", "-d", "refs/heads/gone", folder=path)
    loose = git("hash-object", "-w", "--stdin", folder=path, given=b"nobody's")
    before = git("cat-file", "--batch-all-objects", "--batch-check", folder=path).splitlines()
    assert site.results() == {"one": "done", "small": "done"}
    (first,) = bitmaps(path)
    assert packs(path) == 1
    assert bitmaps(small) == []
    assert git("cat-file", "--batch-all-objects", "--batch-check", folder=path).splitlines() == before
    assert {git("cat-file", "-t", name, folder=path) for name in (lost, loose)} == {"commit", "blob"}
    # Git's own word that it is of use.
    git("rev-list", "--test-bitmap", "branch19", folder=path)
    site.push(path, "little")
    assert site.results() == {"one": "done"}
    assert bitmaps(path) == [first]
    assert packs(path) == 2
    for number in range(3):
        site.push(path, f"more{number}")
    assert site.results() == {"one": "done"}
    (second,) = bitmaps(path)
    assert second != first
    assert packs(path) == 1
    assert not (path / "objects" / "pack" / "multi-pack-index").exists()
    git("fsck", "--full", "--strict", folder=path)


@pytest.mark.parametrize("obstacle", ["shallow", "alternates", "keep", "full"])
def test_what_cannot_have_a_bitmap_is_not_packed_for_it(site: Site, obstacle: str) -> None:
    path = site.git("one")
    site.monkeypatch.setattr(site.program, "BITMAP_BYTES", 100)
    why = {
        "shallow": "its history is not all here (shallow)",
        "alternates": "its history is not all here (objects/info/alternates)",
        "keep": "a pack is to stay as it is (NAME.keep)",
        "full": "failed: it would leave less than 100% of the storage's disk free",
    }[obstacle]
    if obstacle == "shallow":
        (path / "shallow").write_text(git("rev-parse", "branch0", folder=path) + "\n")
    elif obstacle == "alternates":
        (path / "objects" / "info" / "alternates").write_text(f"{site.git('other', pushes=1)}/objects\n")
    elif obstacle == "keep":
        keep = next((path / "objects" / "pack").glob("*.pack")).with_suffix(".keep")
        keep.write_text("an administrator's\n")
        why = why.replace("NAME", keep.stem)
    else:
        site.monkeypatch.setattr(site.program, "KEPT_FREE", 1.0)
    assert site.results("one") == {"one": f"done, but no new bitmap: {why}"}
    assert bitmaps(path) == []
    assert obstacle != "keep" or keep.exists()
    # Where there is no room today, there may be some tomorrow.
    assert ("one" in site.results()) is (obstacle == "full")


@pytest.mark.parametrize("writer_comes", [False, True])
def test_a_bitmap_that_has_no_time_holds_up_nothing_and_is_tried_again(site: Site, writer_comes: bool) -> None:
    path = site.git("one")
    site.monkeypatch.setattr(site.program, "BITMAP_BYTES", 100)
    # As many pieces as a turn leaves here: for that alone it has no turn at once.
    site.monkeypatch.setattr(site.program, "WORN", 1)
    script = f'case "$*" in *--write-bitmap-index*) touch {site.storage}/begun; exec sleep 60 ;; esac; shift; exec git "$@"'
    with site.monkeypatch.context() as context, concurrent.futures.ThreadPoolExecutor() as pool:
        context.setattr(site.program, "GIT", ["sh", "-c", script, "git", "git"])
        running = pool.submit(site.results, "--repository-seconds", "60" if writer_comes else "4")
        if writer_comes:
            wait_for(site.storage / "begun")
            site.write(path, "refs/heads/meanwhile", git("rev-parse", "branch0", folder=path))
        why = "busy: made way for a writer" if writer_comes else "failed: out of time"
        assert running.result(timeout=30) == {"one": f"done, but no new bitmap: {why}"}
    assert (path / "objects" / "info" / "commit-graph").exists()
    assert bitmaps(path) == []
    site.wait_for_lock("one")
    assert list(site.results("--worn")) == (["one"] if writer_comes else [])
    if not writer_comes:
        assert site.results() == {"one": "done"}
    assert bitmaps(path)
    assert site.results() == {}


def test_what_an_earlier_release_has_done_has_one_turn_more(site: Site) -> None:
    path = site.git("one")
    assert site.results() == {"one": "done"}
    site.monkeypatch.setattr(site.program, "BITMAP_BYTES", 100)
    assert site.results() == {}
    lock, stamp = (site.storage / "locks" / "one" / name for name in (".lock", ".maintained"))
    stamp.write_text(f"done {site.program.file_version(lock)}\n")
    assert site.results("--worn") == {}
    assert site.results() == {"one": "done"}
    assert bitmaps(path)
    assert site.results() == {}


def test_a_broken_object_costs_the_bitmap_alone_and_is_said_each_day(site: Site) -> None:
    path = site.git("one")
    assert site.results() == {"one": "done"}
    (pack,) = (path / "objects" / "pack").glob("*.pack")
    listed = git("verify-pack", "-v", str(pack), folder=path).splitlines()
    start = next(int(line.split()[4]) for line in listed if " blob " in line)
    content = bytearray(pack.read_bytes())
    content[start + 100] ^= 255
    pack.chmod(0o644)
    pack.write_bytes(content)
    (path / "objects" / "info" / "commit-graph").unlink()
    site.monkeypatch.setattr(site.program, "BITMAP_BYTES", 100)
    site.push(path, "new")
    for _day in range(2):
        assert site.results()["one"].startswith("done, but no new bitmap: failed: git --keep-unreachable --write-bitmap-index ended with "), site.results()
    assert (path / "objects" / "info" / "commit-graph").exists()
    assert not leftovers(path)
    # A few minutes later it is not tried, however many packs there were.
    site.monkeypatch.setattr(site.program, "WORN", 1)
    assert site.results("--worn") == {}


def leftovers(path: pathlib.Path) -> list[str]:
    """Return what is below objects beside objects, packs and what belongs to them."""
    found = [file.relative_to(path / "objects") for file in (path / "objects").rglob("*") if file.is_file()]
    return [str(file) for file in found if file.parts[0] != "info" and (file.name.startswith((".", "tmp")) or file.suffix == ".keep" or len(file.parts) > 2)]


def wait_for(*paths: pathlib.Path, pattern: str = "") -> None:
    """Wait until all of these are there, or something with this pattern in the first."""
    end = time.monotonic() + 60
    while not (any(paths[0].glob(pattern)) if pattern else all(path.exists() for path in paths)):
        assert time.monotonic() < end
        time.sleep(0.005)


def test_what_a_killed_repack_left_is_removed(site: Site) -> None:
    path = site.git("one")
    for _ in range(3):
        git("hash-object", "-w", "--stdin", folder=path, given=os.urandom(10 << 20))
    before = git("cat-file", "--batch-all-objects", "--batch-check", folder=path)
    repack = subprocess.Popen(["git", "-c", "pack.threads=1", "repack", "-q", "-d", "--geometric=2"], cwd=path, start_new_session=True)
    try:
        wait_for(path / "objects" / "pack", pattern="tmp_pack_*")
    finally:
        os.killpg(repack.pid, signal.SIGKILL)
    assert repack.wait(10) == -signal.SIGKILL
    (path / "objects" / "pack" / f".tmp-{repack.pid}-pack-{'0' * 40}.pack").touch()
    (path / "objects" / "info" / "commit-graph.lock").touch()
    assert len(leftovers(path)) == 2
    # Who writes may need it.
    with (site.storage / "locks" / "one" / ".lock").open("a+") as writer:
        fcntl.flock(writer, fcntl.LOCK_SH)
        assert site.results() == {"one": "busy: somebody writes to it"}
    assert len(leftovers(path)) == 2
    assert site.results() == {"one": "done"}
    assert leftovers(path) == []
    assert git("cat-file", "--batch-all-objects", "--batch-check", folder=path) == before
    git("fsck", "--full", "--strict", folder=path)


def test_what_its_own_repack_left_is_removed_at_once(site: Site) -> None:
    path = site.git("one")
    for _ in range(3):
        git("hash-object", "-w", "--stdin", folder=path, given=os.urandom(10 << 20))
    site.monkeypatch.setattr(site.program, "LOOK_SECONDS", 0.02)
    seen: list[str] = []
    real = site.program.remove_leftovers

    def remove(folder: pathlib.Path) -> None:
        seen.extend(leftovers(folder))
        real(folder)

    site.monkeypatch.setattr(site.program, "remove_leftovers", remove)
    with concurrent.futures.ThreadPoolExecutor() as pool, (site.storage / "locks" / "one" / ".waiting").open("a+") as writer:
        running = pool.submit(site.results)
        wait_for(path / "objects" / "pack", pattern="tmp_pack_*")
        fcntl.flock(writer, fcntl.LOCK_EX)
        assert running.result(timeout=30) == {"one": "busy: made way for a writer"}
    assert [name for name in seen if name.startswith("pack/tmp_pack_")]
    assert leftovers(path) == []
    site.wait_for_lock("one")
    assert site.results() == {"one": "done"}
    git("fsck", "--full", "--strict", folder=path)


@pytest.mark.parametrize(("hook", "left"), [("update", "pack/pack-*.keep"), ("pre-receive", "tmp_objdir-incoming-*")])
def test_what_a_killed_push_left_is_removed_and_hinders_no_bitmap(site: Site, tmp_path: pathlib.Path, hook: str, left: str) -> None:
    path = site.git("one")
    site.monkeypatch.setattr(site.program, "BITMAP_BYTES", 100)
    (path / "hooks" / hook).write_text("#!/bin/sh\nkill -KILL $PPID\n")
    (path / "hooks" / hook).chmod(0o755)
    work = tmp_path / "work"
    git("init", "-q", "-b", "main", str(work), folder=tmp_path)
    git("commit", "-q", "--allow-empty", "-m", "new", folder=work)
    with pytest.raises(subprocess.CalledProcessError):
        git("push", "-q", f"--receive-pack={site.writer} receive-pack", str(path), "main", folder=work)
    (found,) = (path / "objects").glob(left)
    assert found.is_dir() or found.read_text().startswith("receive-pack ")
    site.wait_for_lock("one")
    assert site.results() == {"one": "done"}
    assert leftovers(path) == []
    assert not found.exists()
    assert bitmaps(path)
    git("fsck", "--full", "--strict", folder=path)


def test_only_what_was_written_to_has_a_turn(site: Site) -> None:
    one = site.git("one")
    site.git("two")
    assert site.results() == {"one": "done", "two": "done"}
    assert site.results() == {}
    site.push(one, "new")
    assert site.results() == {"one": "done"}
    assert site.results("two") == {"two": "done"}


def test_soon_only_what_many_pushes_have_left_in_pieces_has_a_turn(site: Site) -> None:
    site.monkeypatch.setattr(site.program, "WORN", 6)
    packed, loose, few = (site.git(name, pushes=number) for name, number in (("packed", 3), ("loose", 3), ("few", 2)))
    Mercurial(site)
    (site.repositories / "checkout").mkdir()
    git("init", "-q", str(site.repositories / "checkout"), folder=site.repositories)
    assert site.results("--worn") == {}
    for _ in range(3):
        site.push(packed, "branch0")
    for number in range(3):
        site.write(loose, f"refs/heads/a/b/{number}", git("rev-parse", "branch0", folder=loose))
    assert (packs(packed), packs(loose)) == (6, 3)
    assert site.results("--worn") == {"packed": "done", "loose": "done"}
    for path in (packed, loose):
        assert packs(path) < 3
        assert not [name for _folder, _folders, names in os.walk(path / "refs") for name in names]
        assert (path / "objects" / "info" / "commit-graph").exists()
    assert site.results("--worn") == {}
    # A little more is for the whole maintenance.
    site.push(packed, "branch1")
    assert site.results("--worn") == {}
    assert set(site.results()) == {"packed", "few", "m", "checkout"}
    # What failed is tried again by the whole maintenance alone.
    for number in range(6):
        site.push(few, f"more{number}")
    (few / "packed-refs.lock").touch()
    assert site.results("--worn")["few"].startswith("failed: ")
    assert site.results("--worn") == {}
    (few / "packed-refs.lock").unlink()
    assert site.results() == {"few": "done"}


def test_a_write_after_the_lock_was_given_back_is_not_forgotten(site: Site) -> None:
    one = site.git("one")
    real = site.program.Repository.keep

    def late(*arguments: Any) -> None:
        site.write(one, "refs/heads/late", git("rev-parse", "branch0", folder=one))
        real(*arguments)

    with site.monkeypatch.context() as context:
        context.setattr(site.program.Repository, "keep", late)
        assert site.results() == {"one": "done"}
    assert site.results() == {"one": "done"}
    assert site.results() == {}


def test_two_runs_at_once_do_not_disturb_each_other(site: Site) -> None:
    path = site.git("one")
    script = f'case "$*" in *commit-graph*) touch {path}/writing; sleep 1 ;; esac; shift; exec git "$@"'
    site.monkeypatch.setattr(site.program, "GIT", ["sh", "-c", script, "git", "git"])
    with concurrent.futures.ThreadPoolExecutor() as pool:
        running = pool.submit(site.program.turn, next(site.program.find(site.storage)), 60)
        wait_for(path / "writing")
        assert site.program.turn(next(site.program.find(site.storage)), 60) == "busy"
        assert running.result(timeout=30) == "done"
    assert not next(site.program.find(site.storage)).is_due


def test_who_writes_is_not_disturbed(site: Site) -> None:
    path = site.git("one")
    with (site.storage / "locks" / "one" / ".lock").open("a+") as writer:
        fcntl.flock(writer, fcntl.LOCK_SH)
        assert site.results() == {"one": "busy: somebody writes to it"}
        assert site.run("one")[0] == 1
    with (site.storage / "locks" / "one" / ".waiting").open("a+") as writer:
        fcntl.flock(writer, fcntl.LOCK_EX)
        assert site.results() == {"one": "busy: a writer waits for it"}
    assert packs(path) == 3
    assert site.results() == {"one": "done"}


def test_nobody_writes_while_it_works_and_it_makes_way(site: Site) -> None:
    path = site.git("one")
    commit = git("rev-parse", "branch0", folder=path)
    site.monkeypatch.setattr(site.program, "GIT", ["sh", "-c", 'trap "exit 1" TERM; touch started; sleep 60 & wait', "git"])
    with concurrent.futures.ThreadPoolExecutor() as pool:
        running = pool.submit(site.results)
        while not (path / "started").exists():
            time.sleep(0.02)
        begin = time.monotonic()
        site.write(path, "refs/heads/meanwhile", commit)
        assert time.monotonic() - begin < 3
        assert running.result(timeout=10) == {"one": "busy: made way for a writer"}
    assert git("rev-parse", "meanwhile", folder=path) == commit


def test_the_lock_stays_with_git_when_the_program_is_killed(site: Site) -> None:
    site.git("one")
    repository = next(site.program.find(site.storage))
    with site.program.alone(repository) as descriptor:
        child = subprocess.Popen(["sleep", "60"], pass_fds=(descriptor,))
    try:
        with pytest.raises(site.program.Stopped, match="busy"), site.program.alone(repository):
            pass
    finally:
        child.kill()
        child.wait()


def test_a_repository_has_so_much_time(site: Site) -> None:
    site.git("one")
    site.monkeypatch.setattr(site.program, "GIT", ["sh", "-c", "sleep 60", "git"])
    begin = time.monotonic()
    assert site.results("--repository-seconds", "0.1") == {"one": "failed: out of time"}
    assert time.monotonic() - begin < 10


def test_a_run_that_ends_early_is_gone_on_with(site: Site) -> None:
    for name in ("a", "b", "c"):
        site.git(name, pushes=1)
    real = site.program.turn

    def slow(*arguments: Any) -> Any:
        time.sleep(0.3)
        return real(*arguments)

    site.monkeypatch.setattr(site.program, "turn", slow)
    status, lines = site.run("--run-seconds", "0.2")
    assert status == 0
    assert lines[-1].startswith("3 repositories: 0 done, 0 unchanged, 0 busy, 1 failed, 2 left") or lines[-1].startswith("3 repositories: 1 done, 0 unchanged")
    assert lines[0].startswith("a (git)")
    assert list(site.results("--run-seconds", "0.2")) == ["b"]
    assert list(site.results("--run-seconds", "0.2")) == ["c"]


def test_a_broken_repository_is_said_and_comes_last_next_time(site: Site) -> None:
    broken = site.git("a")
    site.git("b")
    for pack in (broken / "objects" / "pack").glob("*.pack"):
        pack.chmod(0o644)
        pack.write_bytes(pack.read_bytes()[:100])
    results = site.results()
    assert results["a"].startswith("failed: git -d --geometric=2 ended with "), results["a"]
    assert results["b"] == "done"
    assert packs(broken) == 3
    assert list(site.results("a", "b")) == ["a", "b"]
    assert list(site.results()) == ["a"]


def test_mercurial_has_its_caches_and_its_own_lock(site: Site) -> None:
    path = site.repositories / "group" / "m"
    environment = {**os.environ, "HGRCPATH": ""}
    subprocess.run([HG, "init", str(path)], env=environment, check=True)
    (path / "file").write_text("1")
    subprocess.run([HG, "commit", "-q", "-A", "-m", "1", "-u", "a"], cwd=path, env=environment, check=True)
    (path / ".hg" / "store" / "lock").symlink_to("otherhost:1")
    results = site.results()
    assert results == {"group/m": "busy: somebody writes to it"}
    (path / ".hg" / "store" / "lock").unlink()
    shutil.rmtree(path / ".hg" / "cache", ignore_errors=True)
    assert site.results() == {"group/m": "done"}
    assert (path / ".hg" / "cache" / "branch2-served").exists()
    assert site.results() == {}
    (path / "file").write_text("2")
    subprocess.run([HG, "commit", "-q", "-m", "2", "-u", "a"], cwd=path, env=environment, check=True)
    assert site.results() == {"group/m": "done"}


def test_what_is_no_repository_of_kallithea_has_no_turn(site: Site) -> None:
    for name in (".rc_gist_store/1", "rm__20260101_120000_123456_gone", "group/rm__20260101_120000_123456_gone"):
        site.git(name, pushes=1)
    git("init", "-q", "-b", "main", str(site.repositories / "tree"), folder=site.repositories)
    assert site.results() == {"tree": "done"}
    assert (site.storage / "locks" / "tree" / ".lock").exists()


def test_the_two_programs_mean_the_same_lock(site: Site) -> None:
    for name in ("with space", "$(x) 'y' %2F", "ümläut", "deep/er/er"):
        path = site.git(name, pushes=1)
        folder = site.program.lock_folder(site.storage, path)
        assert folder == site.storage / "locks" / name
        assert (folder / ".lock").read_text().endswith(" update-ref\n")


@pytest.mark.parametrize("marker", ['{"cluster_id": "two"}', None])
def test_a_storage_that_is_not_ours_is_left_alone(site: Site, marker: str | None) -> None:
    path = site.git("one")
    (site.storage / ".kallithea-cluster").unlink()
    if marker:
        (site.storage / ".kallithea-cluster").write_text(marker)
    with pytest.raises(SystemExit, match="is not mounted or is another cluster's"):
        site.run()
    assert packs(path) == 3


def test_a_storage_that_goes_away_ends_the_run(site: Site) -> None:
    site.git("a")
    site.git("b")
    real = site.program.turn

    def turn(*arguments: Any) -> Any:
        (site.storage / ".kallithea-cluster").unlink()
        return real(*arguments)

    site.monkeypatch.setattr(site.program, "turn", turn)
    with pytest.raises(SystemExit, match="is not mounted"):
        site.run()


def test_an_unknown_repository_is_said(site: Site) -> None:
    site.git("one")
    with pytest.raises(SystemExit, match="No repository two in "):
        site.run("one", "two")


def test_only_the_repositories_owner_runs_it(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """What root makes there the next run could not replace, and git does nothing in another user's repository."""
    site.git("one")
    before = sorted(site.storage.rglob("*"))
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    name = pwd.getpwuid((site.storage / "repositories").stat().st_uid).pw_name
    with pytest.raises(SystemExit, match=rf"The repositories of \S+ are {name}'s: run this as {name}, with runuser -u {name} -- before the command\."):
        site.run("one")
    assert sorted(site.storage.rglob("*")) == before


def test_a_bundle_size_below_nothing_is_refused(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        site.run("--bundle-bytes", "-3")
    assert "--bundle-bytes must be at least 0." in capsys.readouterr().err


class Mercurial:
    """A Mercurial repository with some pushed changesets, and the maintenance with bundles."""

    def __init__(self, site: Site, name: str = "m", *configuration: str) -> None:
        self.site = site
        self.path = site.repositories / name
        hg(*(word for line in configuration for word in ("--config", line)), "init", str(self.path), folder=site.repositories)
        for _ in range(4):
            self.commit()
        self.hg = self.path / ".hg"

    def commit(self, size: int = 4000) -> None:
        (self.path / "file").write_bytes(os.urandom(size))
        hg("--config", "phases.new-commit=public", "commit", "-A", "-m", "m", "-u", "a", folder=self.path)

    def strip(self, revision: str) -> None:
        hg("--config", "extensions.strip=", "strip", "--no-backup", "--force", "-r", revision, folder=self.path)

    @property
    def heads(self) -> set[str]:
        return set(hg("log", "-T", "{node} ", "-r", "heads(public())", folder=self.path).split())

    @property
    def line(self) -> str:
        """Return the manifest's only line, if there is a manifest."""
        path = self.hg / "pullbundles" / "manifest"
        return path.read_text() if path.exists() else ""

    @property
    def manifest(self) -> dict[str, str]:
        """Return what the line says."""
        path, *words = self.line.split()
        return {"path": path, **dict(word.split("=", 1) for word in words)}

    @property
    def files(self) -> list[str]:
        return sorted(path.name for path in (self.hg / "pullbundles").glob("*") if path.name != "manifest")

    def maintain(self, least: int = 1000, result: str = "done") -> bool:
        """Run the maintenance; tell whether the manifest names another bundle than before."""
        before = self.line
        assert self.site.results(self.path.name, "--bundle-bytes", str(least)) == {self.path.name: result}
        return self.line not in ("", before)

    def age(self, hours: int) -> None:
        """Let all bundles be older."""
        for path in (self.hg / "pullbundles").iterdir():
            os.utime(path, (time.time() - hours * 3600,) * 2)


def hg(*words: str | pathlib.Path, folder: pathlib.Path) -> str:
    """Run hg and return what it says."""
    return subprocess.run([HG, *words], cwd=folder, env={**os.environ, "HGRCPATH": ""}, capture_output=True, check=True, timeout=60).stdout.decode()


def test_a_large_mercurial_repository_has_a_bundle_of_all_that_is_public(site: Site, tmp_path: pathlib.Path) -> None:
    large, small = Mercurial(site), Mercurial(site, "small")
    hg("update", "-r", "2", folder=large.path)
    large.commit(100)
    (large.path / "file").write_text("draft")
    hg("commit", "-m", "draft", "-u", "a", folder=large.path)
    least = sum(path.stat().st_size for path in (large.hg / "store").rglob("*") if path.is_file())
    assert site.results("--bundle-bytes", str(least)) == {"m": "done", "small": "done"}
    assert small.line == ""
    manifest = large.manifest
    bundle = large.hg / manifest["path"]
    assert set(manifest["heads"].split(";")) == large.heads
    assert len(large.heads) == 2
    assert manifest["BUNDLESPEC"] == "zstd-v2"
    assert int(manifest["size"]) == bundle.stat().st_size
    assert [f"pullbundles/{name}" for name in large.files] == [manifest["path"]]
    hg("init", "clone", folder=tmp_path)
    hg("unbundle", str(bundle), folder=tmp_path / "clone")
    template = ("log", "-T", "{node} {phase}\n", "-r", "public()")
    assert hg(*template, folder=tmp_path / "clone") == hg(*template, folder=large.path)
    assert hg("log", "-T", "x", "-r", "not public()", folder=tmp_path / "clone") == ""
    assert site.results("--bundle-bytes", str(least)) == {}
    assert site.results("--bundle-bytes", str(least + 1)) == {"m": "done", "small": "done"}
    assert large.line == ""


def test_a_bundle_is_made_anew_when_the_store_has_grown_by_a_tenth(site: Site) -> None:
    repository = Mercurial(site)
    assert repository.maintain()
    assert not repository.maintain()
    repository.commit(600)
    assert not repository.maintain()
    repository.commit(3000)
    assert repository.maintain()
    assert set(repository.manifest["heads"].split(";")) == repository.heads


def test_a_bundle_that_has_what_is_gone_or_not_public_any_more_is_made_anew(site: Site) -> None:
    repository = Mercurial(site)
    assert repository.maintain()
    repository.strip("tip")
    assert repository.maintain()
    assert set(repository.manifest["heads"].split(";")) == repository.heads
    hg("phase", "--force", "--secret", "-r", "tip", folder=repository.path)
    assert repository.maintain()
    assert set(repository.manifest["heads"].split(";")) == repository.heads


def test_a_bundle_that_is_gone_or_not_whole_is_made_anew(site: Site) -> None:
    repository = Mercurial(site)
    assert repository.maintain()
    bundle = repository.hg / repository.manifest["path"]
    bundle.write_bytes(bundle.read_bytes()[:-1])
    assert repository.maintain()
    (repository.hg / repository.manifest["path"]).unlink()
    assert repository.maintain()
    (repository.hg / "pullbundles" / "manifest").write_text("nonsense\n")
    assert repository.maintain()


def test_a_turn_comes_where_a_bundle_does_not_fit_any_more_although_nothing_was_pushed(site: Site) -> None:
    repository = Mercurial(site)
    repository.maintain()
    words = ("--bundle-bytes", "1000")
    assert site.results(*words) == {}
    changes: list[Callable[[], object]] = [
        lambda: hg("phase", "--force", "--draft", "-r", "tip", folder=repository.path),
        lambda: hg("bookmark", "-r", "tip", "mark", folder=repository.path),
        lambda: hg("bookmark", "--delete", "mark", folder=repository.path),
        lambda: (repository.hg / repository.manifest["path"]).unlink(),
        lambda: (repository.hg / "pullbundles" / "manifest").write_text("nonsense\n"),
        lambda: shutil.rmtree(repository.hg / "pullbundles"),
    ]
    for number, change in enumerate(changes):
        before = repository.line
        change()
        assert site.results(*words) == {"m": "done"}, number
        assert (repository.line == "") is (number == 1), number
        assert repository.line != before, number
        repository.age(hours=7)
        site.results(*words)
        assert site.results(*words) == {}, number


def test_a_bundle_without_a_name_stays_for_hours_and_then_goes(site: Site) -> None:
    repository = Mercurial(site)
    repository.maintain()
    repository.age(hours=100)
    first = repository.files
    repository.commit(20000)
    assert site.results("--bundle-bytes", "1000") == {"m": "done"}
    second = [name for name in repository.files if name not in first]
    assert len(repository.files) == 2
    # Nothing was pushed, but something is to be removed.
    assert site.results("--bundle-bytes", "1000") == {"m": "done"}
    assert len(repository.files) == 2
    repository.age(hours=5)
    site.results("--bundle-bytes", "1000")
    assert len(repository.files) == 2
    repository.age(hours=7)
    assert site.results("--bundle-bytes", "1000") == {"m": "done"}
    assert repository.files == second
    assert site.results("--bundle-bytes", "1000") == {}
    # By hand, without a word about bundles: they stay, and the next run looks again.
    assert site.results("m") == {"m": "done"}
    assert repository.line and repository.files == second
    assert site.results("--bundle-bytes", "1000") == {"m": "done"}
    # Off: the name goes at once, the file later.
    off = ("--bundle-bytes", "0")
    assert site.results(*off) == {"m": "done"}
    assert repository.line == ""
    assert repository.files == second
    repository.age(hours=7)
    assert site.results(*off) == {"m": "done"}
    assert repository.files == []
    assert site.results(*off) == {}


def test_bookmarks_secrets_and_trees_have_no_bundle(site: Site) -> None:
    marked, secret, trees = Mercurial(site, "marked"), Mercurial(site, "secret"), Mercurial(site, "trees", "experimental.treemanifest=1")
    assert marked.maintain()
    hg("bookmark", "-r", "tip", "mark", folder=marked.path)
    hg("phase", "--force", "--secret", "-r", "all()", folder=secret.path)
    for repository in (marked, secret, trees):
        assert not repository.maintain()
        assert repository.line == ""
    assert trees.files == []


def test_a_bundle_of_what_was_rewritten_meanwhile_is_thrown_away(site: Site) -> None:
    repository = Mercurial(site)
    hg("update", "-r", "1", folder=repository.path)
    repository.commit(100)
    real = site.program.run

    def run(command: list[str], *rest: Any) -> Any:
        answer = real(command, *rest)
        if "bundle" in command:
            repository.commit()
            if rewrite:
                repository.strip("3")
        return answer

    site.monkeypatch.setattr(site.program, "run", run)
    rewrite = True
    assert not repository.maintain(result="busy: somebody rewrites it")
    assert repository.files == []
    rewrite = False
    assert repository.maintain()


def test_a_bundle_that_fails_leaves_nothing_and_the_one_before_stays(site: Site) -> None:
    repository = Mercurial(site)
    repository.maintain()
    manifest, files = repository.manifest, repository.files
    repository.commit(20000)
    program = site.storage.parent / "hg"
    program.write_text(f'#!/bin/sh\ncase "$*" in *phases=yes*) for last; do :; done; echo half > "$last"; exit 1; esac\nexec {HG} "$@"\n')
    program.chmod(0o755)
    site.monkeypatch.setattr(site.program, "HG", str(program))
    assert site.results("--bundle-bytes", "1000")["m"].startswith("failed: ")
    assert (repository.manifest, repository.files) == (manifest, files)
    program.write_text(program.read_text().replace("exit 1", "sleep 60"))
    assert site.results("--bundle-bytes", "1000", "--repository-seconds", "2") == {"m": "failed: out of time"}
    assert (repository.manifest, repository.files) == (manifest, files)


def test_no_bundle_fills_the_storage(site: Site) -> None:
    repository = Mercurial(site)
    site.monkeypatch.setattr(site.program.shutil, "disk_usage", lambda _: types.SimpleNamespace(total=10**6, free=60_000))
    assert not repository.maintain(result="failed: a bundle of it would leave less than 5% of the storage's disk free")
    site.monkeypatch.setattr(site.program.shutil, "disk_usage", lambda _: types.SimpleNamespace(total=10**6, free=100_000))
    assert repository.maintain()
