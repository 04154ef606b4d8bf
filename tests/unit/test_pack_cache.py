"""The cache of git's packs, by real git: the hook of upload-pack, set as the service user's configuration sets it."""

from __future__ import annotations

import contextlib
import importlib.machinery
import importlib.util
import os
import pathlib
import select
import shutil
import signal
import subprocess
import sys
import time
import types
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from render import ROOT, render

PROGRAM = ROOT / "roles" / "app" / "files" / "kallithea-pack-cache"
GIT = shutil.which("git") or "git"
SIZE = 600_000
ARGUMENTS = ["pack-objects", "--revs", "--stdout", "--delta-base-offset"]
# Stands before git: notes each run, and does what the file "trouble" says.
RUNNER = """#!/bin/sh
trouble=$(cat {folder}/trouble)
echo run >>{folder}/runs
case $trouble in
  slow) sleep 1; exec "$@" ;;
  silent) exec sleep 60 ;;
  failing) "$@"; exit 3 ;;
  stuck) "$@" | {{ head -c 300000; exec sleep 60; }} ;;
  *) exec "$@" ;;
esac
"""


def wait_for(true: Callable[[], bool]) -> None:
    """Wait until something is so."""
    end = time.monotonic() + 20
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)


class Rig:
    """A cache, repositories, and clients that reach them by git upload-pack."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder = folder
        self.cache = folder / "cache"
        self.cache.mkdir()
        self.runner = folder / "runner"
        self.runner.write_text(RUNNER.format(folder=folder))
        self.runner.chmod(0o755)
        (folder / "runs").touch()
        self.trouble = folder / "trouble"
        self.trouble.touch()
        self.number = 0
        self.processes: list[subprocess.Popen[bytes]] = []
        author = {f"GIT_{who}_{what}": "a@example.org" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
        plain = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
        # Nobody waits for a disk.
        settings = folder / "settings"
        settings.write_text("[core]\n\tfsync = none\n")
        self.plain = {**plain, **author, "GIT_CONFIG_GLOBAL": str(settings), "GIT_CONFIG_SYSTEM": "/dev/null", "LC_ALL": "C.UTF-8"}
        self.configure()

    def configure(self, limit: int = 100 << 20, seconds: int = 3600, program: pathlib.Path = PROGRAM, cache: pathlib.Path | None = None) -> None:
        """Write git's configuration."""
        self.words = [str(program), str(cache or self.cache), str(limit), str(seconds), str(self.runner), "git"]
        configuration = self.folder / "gitconfig"
        configuration.write_text(f"[uploadpack]\n\tpackObjectsHook = {' '.join(self.words[:-1])}\n")
        self.environment = {**self.plain, "GIT_CONFIG_SYSTEM": str(configuration)}

    def git(self, *words: str | pathlib.Path, folder: pathlib.Path | None = None, given: bytes = b"", plain: bool = False) -> str:
        """Run git and return what it says."""
        environment = self.plain if plain else self.environment
        return subprocess.run([GIT, *words], cwd=folder, env=environment, input=given, capture_output=True, check=True, timeout=60).stdout.decode().strip()

    def repository(self, name: str, commits: int = 2) -> pathlib.Path:
        """Make a repository with some commits."""
        path = self.folder / "srv" / name
        path.mkdir(parents=True)
        self.git("init", "-q", "--bare", "-b", "main", folder=path)
        self.git("config", "uploadpack.allowFilter", "true", folder=path)
        for _number in range(commits):
            self.commit(path)
        return path

    def commit(self, path: pathlib.Path, branch: str = "main", parent: str | None = None) -> str:
        """Add a commit to a branch, or make the branch one with that parent; its content cannot be made smaller."""
        if parent is None:
            parent = self.git("for-each-ref", "--format=%(objectname)", f"refs/heads/{branch}", folder=path)
        blob = self.git("hash-object", "-w", "--stdin", folder=path, given=os.urandom(SIZE))
        tree = self.git("mktree", folder=path, given=f"100644 blob {blob}\tfile\n".encode())
        commit = self.git("commit-tree", tree, "-m", "change", *(["-p", parent] if parent else []), folder=path)
        self.git("update-ref", f"refs/heads/{branch}", commit, folder=path)
        return commit

    def place(self) -> pathlib.Path:
        """Return where the next clone goes."""
        self.number += 1
        return self.folder / f"clone{self.number}"

    def clone(self, path: pathlib.Path, *words: str, plain: bool = False) -> pathlib.Path:
        """Clone a repository, and look whether all that belongs to it is there."""
        place = self.place()
        self.git("clone", "-q", "--bare", *words, f"file://{path}", place, plain=plain)
        self.git("fsck", "--strict", folder=place)
        return place

    def objects(self, path: pathlib.Path) -> list[str]:
        """Return the names of a clone's objects."""
        words = ["cat-file", "--batch-all-objects", "--batch-check=%(objectname)"]
        # What a partial clone lacks is not to be fetched for it.
        return subprocess.run([GIT, *words], cwd=path, env={**self.plain, "GIT_NO_LAZY_FETCH": "1"}, capture_output=True, check=True).stdout.decode().split()

    def start(self, path: pathlib.Path, *words: str, given: str = "main\n") -> subprocess.Popen[bytes]:
        """Start the hook as upload-pack does."""
        pipe = subprocess.PIPE
        words = (*self.words, *ARGUMENTS, *words)
        process = subprocess.Popen(words, cwd=path, env=self.environment, stdin=pipe, stdout=pipe, stderr=pipe, start_new_session=True)
        self.processes.append(process)
        assert process.stdin
        process.stdin.write(given.encode())
        process.stdin.close()
        process.stdin = None
        return process

    def check(self, path: pathlib.Path, pack: bytes) -> None:
        """Look whether a pack holds all of the repository's objects."""
        place = self.place()
        self.git("init", "-q", "--bare", place)
        self.git("index-pack", "--stdin", "--strict", folder=place, given=pack)
        assert self.objects(place) == self.objects(path)

    @property
    def runs(self) -> int:
        """Return how often git pack-objects ran."""
        return len((self.folder / "runs").read_text().split())

    @property
    def entries(self) -> list[pathlib.Path]:
        """Return what the cache holds."""
        return sorted(path for path in self.cache.iterdir() if len(path.name) == 64)

    @property
    def unfinished(self) -> list[pathlib.Path]:
        """Return what is being written, or was."""
        return [path for path in self.cache.iterdir() if len(path.name) > 64 and path.name.endswith(".new")]

    @property
    def counters(self) -> dict[str, int]:
        """Return the counters, by their names' own part."""
        path = self.cache / "kallithea_pack_cache.prom"
        lines = [line.split() for line in path.read_text().splitlines() if not line.startswith("#")] if path.exists() else []
        return {name.removeprefix("kallithea_pack_cache_"): int(value) for name, value in lines}

    @property
    def counted(self) -> tuple[int, int, int]:
        """Return hits, misses and failures."""
        counters = self.counters
        return counters.get("hits_total", 0), counters.get("misses_total", 0), counters.get("failures_total", 0)


@pytest.fixture
def rig(tmp_path: pathlib.Path) -> Iterator[Rig]:
    rig = Rig(tmp_path)
    yield rig
    for process in rig.processes:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


@pytest.fixture
def program(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    loader = importlib.machinery.SourceFileLoader("kallithea_pack_cache", str(PROGRAM))
    spec = importlib.util.spec_from_loader("kallithea_pack_cache", loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


WAYS = [[], ["--depth=1"], ["--filter=blob:none"], ["--filter=blob:limit=1k", "--depth=1"], ["--no-tags"], ["--single-branch"], ["--mirror"]]


@pytest.mark.parametrize("words", WAYS, ids=" ".join)
def test_a_clone_gets_the_same_objects_and_git_packs_once(rig: Rig, words: list[str]) -> None:
    path = rig.repository("one", commits=3)
    rig.git("tag", "-a", "-m", "x", "v1", "main", folder=path)
    # What comes without files is too small to be kept.
    kept = not any("blob" in word for word in words)
    wanted = rig.objects(rig.clone(path, *words, plain=True))
    assert rig.runs == 0
    assert rig.objects(rig.clone(path, *words)) == wanted
    assert rig.runs == 1
    assert rig.objects(rig.clone(path, *words)) == wanted
    assert rig.runs == (1 if kept else 2)
    assert rig.counted == ((1, 1, 0) if kept else (0, 2, 0))
    assert len(rig.entries) == kept


def test_each_way_to_clone_has_an_entry_of_its_own(rig: Rig) -> None:
    path = rig.repository("one", commits=3)
    for _round in range(2):
        assert len(rig.objects(rig.clone(path))) == 9
        assert len(rig.objects(rig.clone(path, "--depth=1"))) == 3
        assert len(rig.objects(rig.clone(path, "--depth=2"))) == 6
        assert len(rig.objects(rig.clone(path, "--filter=blob:none"))) == 6
        assert len(rig.objects(rig.clone(path, "--filter=tree:0"))) == 3
    assert rig.counted == (3, 7, 0)


def test_a_fetch_gets_what_it_has_not(rig: Rig) -> None:
    path = rig.repository("one", commits=1)
    old, older = rig.clone(path), rig.clone(path)
    rig.commit(path)
    new = rig.clone(path)
    rig.commit(path)
    for place in (old, new, older):
        rig.git("fetch", "-q", "origin", "main:main", folder=place)
        rig.git("fsck", "--strict", folder=place)
        assert rig.objects(place) == rig.objects(path)
    # The clone of old is a miss, that of older a hit; the fetch of old a miss, that of older a hit; new is alone with what it has.
    assert rig.counted == (2, 4, 0)
    sizes = sorted(path.stat().st_size // SIZE for path in rig.entries)
    assert sizes == [1, 1, 2, 2]


def test_people_and_robots_share_an_answer(rig: Rig) -> None:
    path = rig.repository("one")
    said = [rig.start(path, *words).communicate(timeout=20) for words in (["--progress"], ["-q"], [], ["--progress"])]
    assert b"Total 6" in said[0][1]
    # An answer from the cache has no progress.
    assert [errors for _pack, errors in said[1:]] == [b"", b"", b""]
    assert said[0][0] == said[2][0] == said[3][0]
    assert rig.counted == (2, 2, 0)


def test_history_that_was_rewritten_is_not_seen(rig: Rig) -> None:
    path = rig.repository("one", commits=1)
    first = rig.git("rev-parse", "main", folder=path)
    old = rig.commit(path)
    rig.clone(path)
    new = rig.commit(path, parent=first)
    objects = rig.objects(rig.clone(path))
    assert new in objects
    assert old not in objects
    # Back to what it was: the same request.
    rig.git("update-ref", "refs/heads/main", old, folder=path)
    objects = rig.objects(rig.clone(path))
    assert old in objects
    assert new not in objects
    assert rig.counted == (1, 2, 0)


def test_a_branch_removed_while_its_pack_is_served(rig: Rig) -> None:
    path = rig.repository("one")
    secret = rig.commit(path, branch="secret", parent="main")
    rig.trouble.write_text("slow")
    place = rig.place()
    clone = subprocess.Popen([GIT, "clone", "-q", "--bare", f"file://{path}", place], env=rig.environment)
    wait_for(lambda: rig.runs == 1)
    rig.git("update-ref", "-d", "refs/heads/secret", folder=path)
    assert clone.wait(timeout=20) == 0
    assert rig.git("rev-parse", "secret", folder=place) == secret
    rig.trouble.write_text("")
    # What is in the cache is nobody's any more: git asks before the cache is asked.
    assert secret not in rig.objects(rig.clone(path))
    other = rig.place()
    rig.git("init", "-q", "--bare", other)
    with pytest.raises(subprocess.CalledProcessError) as failed:
        rig.git("-c", "protocol.version=0", "fetch", "-q", f"file://{path}", secret, folder=other)
    assert b"not our ref" in failed.value.stderr or b"unadvertised object" in failed.value.stderr


@pytest.mark.parametrize("packed", [False, True])
def test_a_tag_that_comes_and_goes(rig: Rig, packed: bool) -> None:
    path = rig.repository("one")
    words = ["--single-branch", "--branch=main"]
    assert rig.git("tag", folder=rig.clone(path, *words)) == ""
    rig.git("tag", "-a", "-m", "x", "group/v1", "main", folder=path)
    if packed:
        rig.git("pack-refs", "--all", folder=path)
    assert rig.git("tag", folder=rig.clone(path, *words)) == "group/v1"
    tag = rig.git("rev-parse", "group/v1", folder=path)
    rig.git("tag", "-d", "group/v1", folder=path)
    assert tag not in rig.objects(rig.clone(path, *words))


def recreate(rig: Rig, path: pathlib.Path) -> None:
    """Put a repository with the same content in another one's place."""
    copy = rig.clone(path, plain=True)
    shutil.rmtree(path)
    shutil.move(copy, path)


def move_config(rig: Rig, path: pathlib.Path) -> None:
    """Make what lies there look as a repository that was made later, and that the system has given the same numbers."""
    os.utime(path / "config", (1, 1))


def become_shallow(rig: Rig, path: pathlib.Path) -> None:
    """Cut the repository's own history."""
    (path / "shallow").write_text(rig.git("rev-parse", "main", folder=path) + "\n")


def graft(rig: Rig, path: pathlib.Path) -> None:
    """Cut the repository's history by a graft."""
    (path / "info").mkdir(exist_ok=True)
    (path / "info" / "grafts").write_text(rig.git("rev-parse", "main", folder=path) + "\n")


def settings(rig: Rig, path: pathlib.Path) -> None:
    """Change git's settings."""
    rig.environment["GIT_CONFIG_PARAMETERS"] = "'core.compression=0'"


def lend(rig: Rig, path: pathlib.Path) -> None:
    """Let the repository use another one's objects."""
    (path / "objects" / "info" / "alternates").write_text(f"{rig.repository('other')}/objects\n")


@pytest.mark.parametrize("change", [recreate, move_config, become_shallow, graft, settings, lend])
def test_what_shapes_the_answer_makes_it_another_one(rig: Rig, change: Callable[[Rig, pathlib.Path], None]) -> None:
    path = rig.repository("one")
    for count in (1, 1):
        rig.start(path).communicate(timeout=20)
        assert rig.runs == count
    change(rig, path)
    pack, _errors = rig.start(path).communicate(timeout=20)
    assert pack
    assert rig.runs == 2


def test_repositories_with_the_same_content_share_nothing(rig: Rig) -> None:
    first = rig.repository("first")
    second = first.with_name("second")
    shutil.copytree(first, second, copy_function=shutil.copy2)
    assert rig.objects(rig.clone(first)) == rig.objects(rig.clone(second))
    assert rig.counted == (0, 2, 0)
    assert len(rig.entries) == 2


def test_a_repository_deleted_and_made_again_has_its_own_objects(rig: Rig) -> None:
    path = rig.repository("one")
    old = rig.objects(rig.clone(path))
    shutil.rmtree(path)
    rig.repository("one")
    new = rig.objects(rig.clone(path))
    assert new == rig.objects(path)
    assert not set(old) & set(new)
    assert rig.counted == (0, 2, 0)


def test_a_repository_that_changes_meanwhile_is_answered_and_not_kept(rig: Rig) -> None:
    path = rig.repository("one")
    rig.trouble.write_text("slow")
    process = rig.start(path, "--include-tag")
    wait_for(lambda: rig.runs == 1)
    rig.git("tag", "-a", "-m", "x", "v1", "main", folder=path)
    rig.check(path, process.communicate(timeout=20)[0])
    assert process.returncode == 0
    assert not rig.entries
    assert not rig.unfinished


def test_who_asks_the_same_meanwhile_waits_for_the_one_answer(rig: Rig) -> None:
    path = rig.repository("one")
    rig.trouble.write_text("slow")
    processes = [rig.start(path) for _number in range(4)]
    packs = {process.communicate(timeout=20)[0] for process in processes}
    assert len(packs) == 1
    rig.check(path, packs.pop())
    assert rig.runs == 1
    assert rig.counted == (3, 1, 0)


def test_a_client_that_takes_its_time_holds_nobody_up(rig: Rig) -> None:
    path = rig.repository("one")
    rig.trouble.write_text("slow")
    slow = rig.start(path)
    wait_for(lambda: rig.runs == 1)
    # They read nothing either, yet each has something to read.
    others = [rig.start(path) for _number in range(3)]
    for process in others:
        assert process.stdout
        assert select.select([process.stdout], [], [], 20)[0]
    packs = {process.communicate(timeout=20)[0] for process in (*others, slow)}
    assert len(packs) == 1
    rig.check(path, packs.pop())
    assert rig.counted == (3, 1, 0)


def test_what_is_kept_counts_although_its_client_went_away(rig: Rig) -> None:
    process = rig.start(rig.repository("one"))
    wait_for(lambda: len(rig.entries) == 1)
    assert process.stdout
    process.stdout.close()
    assert process.wait(timeout=20) == 141
    assert rig.counted == (0, 1, 0)
    assert rig.counters["stored_bytes"] == rig.entries[0].stat().st_size


def stop(process: subprocess.Popen[bytes]) -> None:
    """Kill the process that makes the answer."""
    process.kill()


def go_away(process: subprocess.Popen[bytes]) -> None:
    """Be a client that goes away."""
    assert process.stdout
    process.stdout.close()


@pytest.mark.parametrize("trouble", ["stuck", "silent"])
@pytest.mark.parametrize(("end", "status"), [(stop, -signal.SIGKILL), (go_away, 141)])
def test_who_waits_goes_on_where_the_first_one_ended(rig: Rig, end: Callable[[subprocess.Popen[bytes]], None], status: int, trouble: str) -> None:
    path = rig.repository("one")
    rig.trouble.write_text(trouble)
    first = rig.start(path)
    wait_for(lambda: rig.runs == 1 and (trouble == "silent" or sum(path.stat().st_size for path in rig.unfinished) >= 200_000))
    rig.trouble.write_text("")
    second = rig.start(path)
    time.sleep(0.2)
    assert second.poll() is None
    end(first)
    rig.check(path, second.communicate(timeout=20)[0])
    assert first.wait(timeout=20) == status
    assert rig.runs == 2
    rig.check(path, rig.start(path).communicate(timeout=20)[0])
    assert rig.runs == 2
    assert rig.counted == (1, 1, 0)
    assert not rig.unfinished


def terminate(process: subprocess.Popen[bytes]) -> None:
    """End the process as upload-pack does where it is ended itself."""
    process.terminate()


@pytest.mark.parametrize(("end", "status"), [(terminate, 143), (go_away, 141)])
def test_no_git_goes_on_for_nobody(rig: Rig, end: Callable[[subprocess.Popen[bytes]], None], status: int) -> None:
    rig.trouble.write_text("silent")
    process = rig.start(rig.repository("one"))
    wait_for(lambda: rig.runs == 1)
    end(process)
    assert process.wait(timeout=20) == status

    def is_empty() -> bool:
        try:
            os.killpg(process.pid, 0)
        except ProcessLookupError:
            return True
        return False

    wait_for(is_empty)


def test_what_a_killed_process_has_left_is_written_anew_and_removed_at_last(rig: Rig) -> None:
    path, other = rig.repository("one"), rig.repository("other")
    for place in (path, other):
        rig.trouble.write_text("stuck")
        process = rig.start(place)
        wait_for(lambda: any(path.stat().st_size >= 200_000 for path in rig.unfinished))
        process.kill()
        process.wait(timeout=20)
        rig.trouble.write_text("")
        if place == path:
            # Longer than what comes in its place.
            os.truncate(rig.unfinished[0], SIZE * 5)
            for _round in range(2):
                rig.check(path, rig.start(path).communicate(timeout=20)[0])
            assert not rig.unfinished
            assert rig.counted == (1, 1, 0)
    assert len(rig.unfinished) == 1
    os.utime(rig.unfinished[0], (1, 1))
    third = rig.repository("third")
    rig.clone(third)
    assert not rig.unfinished
    assert len(rig.entries) == 2


def test_who_has_waited_too_long_is_answered_by_git(rig: Rig) -> None:
    path = rig.repository("one")
    impatient = rig.folder / "impatient"
    impatient.write_text(PROGRAM.read_text().replace("WAIT_SECONDS = 60", "WAIT_SECONDS = 0.2"))
    impatient.chmod(0o755)
    rig.configure(program=impatient)
    rig.trouble.write_text("stuck")
    rig.start(path)
    wait_for(lambda: rig.runs == 1)
    rig.trouble.write_text("")
    rig.check(path, rig.start(path).communicate(timeout=20)[0])
    assert rig.counted == (0, 0, 1)


@pytest.mark.parametrize("blocks", [1, 400], ids=["512 bytes", "200 KiB"])
def test_a_full_disk_is_no_failure(rig: Rig, blocks: int) -> None:
    path = rig.repository("one")
    full = rig.folder / "full"
    full.write_text(f'#!/bin/sh\nulimit -f {blocks}\nexec {PROGRAM} "$@"\n')
    full.chmod(0o755)
    rig.configure(program=full)
    for _round in range(2):
        process = rig.start(path)
        rig.check(path, process.communicate(timeout=20)[0])
        assert process.returncode == 0
    assert rig.runs == 2
    assert not rig.entries
    assert not rig.unfinished
    assert rig.counted == ((0, 0, 2) if blocks > 1 else (0, 0, 0))


def test_the_last_of_a_disk_is_left_to_others(rig: Rig, program: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with (rig.cache / "entry").open("wb") as stream:
        answer = program.Answer(["true"], stream.fileno(), program.Client())
        assert answer.status() == 0
        values = {"f_frsize": 4096, "f_blocks": 1000, "f_bavail": 51}
        monkeypatch.setattr(os, "statvfs", lambda file: types.SimpleNamespace(**values))
        assert answer.is_kept(b"x" * 4096, 1 << 30)
        assert not answer.is_kept(b"x" * 4097, 1 << 30)
        assert answer.kept == 4096


def no_folder(cache: pathlib.Path) -> None:
    """Take the folder away."""
    cache.rmdir()


def a_file(cache: pathlib.Path) -> None:
    """Put a file in the folder's place."""
    cache.rmdir()
    cache.touch()


def not_ours(cache: pathlib.Path) -> None:
    """Let the folder be one where nobody can write, not even root."""
    cache.rmdir()
    cache.symlink_to("/proc/sys")


@pytest.mark.parametrize("break_it", [no_folder, a_file, not_ours])
def test_a_folder_that_cannot_be_used_is_no_failure(rig: Rig, break_it: Callable[[pathlib.Path], None]) -> None:
    path = rig.repository("one")
    break_it(rig.cache)
    for _round in range(2):
        assert rig.objects(rig.clone(path)) == rig.objects(path)
    assert rig.runs == 2


def shorten(entry: pathlib.Path) -> None:
    """Cut an entry's end off."""
    os.truncate(entry, entry.stat().st_size - 100)


def empty(entry: pathlib.Path) -> None:
    """Leave nothing of an entry."""
    os.truncate(entry, 0)


def lengthen(entry: pathlib.Path) -> None:
    """Add something to an entry."""
    with entry.open("ab") as stream:
        stream.write(b"more")


def flip(entry: pathlib.Path) -> None:
    """Change a byte of the answer."""
    with entry.open("r+b") as stream:
        stream.seek(entry.stat().st_size // 2)
        byte = stream.read(1)
        stream.seek(-1, os.SEEK_CUR)
        stream.write(bytes([byte[0] ^ 1]))


def replace_by_pipe(entry: pathlib.Path) -> None:
    """Put a pipe in an entry's place, that nobody writes to."""
    entry.unlink()
    os.mkfifo(entry)


@pytest.mark.parametrize("break_it", [shorten, empty, lengthen, flip, replace_by_pipe])
def test_a_broken_entry_is_never_given(rig: Rig, break_it: Callable[[pathlib.Path], None]) -> None:
    path = rig.repository("one")
    rig.clone(path)
    break_it(rig.entries[0])
    assert rig.objects(rig.clone(path)) == rig.objects(path)
    assert rig.counted == (0, 1, 1)
    for _round in range(2):
        assert rig.objects(rig.clone(path)) == rig.objects(path)
    assert rig.counted == (1, 2, 1)


@pytest.mark.parametrize("when", [-3600, 60], ids=["too old", "the clock went back"])
def test_an_entry_of_another_time_is_made_anew(rig: Rig, when: int) -> None:
    path = rig.repository("one")
    rig.clone(path)
    os.utime(rig.entries[0], (time.time(), time.time() + when))
    rig.clone(path)
    assert rig.counted == (0, 2, 0)
    rig.clone(path)
    assert rig.counted == (1, 2, 0)
    assert len(rig.entries) == 1


@pytest.mark.parametrize("when", [-3600, 60], ids=["too old", "from the future"])
def test_nobody_believes_for_ever_that_an_answer_is_too_large(rig: Rig, when: int) -> None:
    rig.configure(limit=SIZE * 3)
    path = rig.repository("one")
    rig.clone(path)
    (large,) = rig.cache.glob("*.large")
    os.utime(large, (time.time(), time.time() + when))
    assert rig.objects(rig.clone(path)) == rig.objects(path)
    assert rig.counted == (0, 0, 2), "it was not tried again"


@pytest.mark.parametrize("shift", [-86400, 86400], ids=["behind", "ahead"])
def test_two_hosts_answer_from_what_the_storage_has_whatever_its_clock_says(rig: Rig, shift: int) -> None:
    path = rig.repository("one", commits=1)
    first = rig.git("rev-parse", "main", folder=path)
    own = [rig.folder / name for name in ("here", "there")]
    then = time.time() + shift
    for folder in own:
        folder.mkdir()

    def seen() -> set[str]:
        """Clone twice by each host, whose cache is its own; times on the storage are by another clock."""
        for file in path.rglob("*"):
            os.utime(file, (then, then))
        found = set()
        for rig.cache in own:
            rig.configure()
            found |= {rig.git("rev-parse", "main", folder=rig.clone(path)) for _round in range(2)}
        return found

    old = rig.commit(path)
    assert seen() == {old}
    new = rig.commit(path, parent=first)
    assert seen() == {new}
    for rig.cache in own:
        assert rig.counted == (2, 2, 0)


def test_what_was_not_used_for_longest_is_removed_first(rig: Rig) -> None:
    rig.configure(limit=SIZE * 5)
    paths = [rig.repository(name) for name in ("one", "two", "three")]
    # The file system notes who reads first after a write, and nobody who reads later.
    for number in (0, 0, 1, 1, 0, 2):
        rig.clone(paths[number])
        time.sleep(0.02)
    assert rig.counted == (3, 3, 0)
    assert len(rig.entries) == 2
    assert rig.counters["stored_bytes"] == sum(path.stat().st_size for path in rig.entries)
    rig.clone(paths[0])
    assert rig.counted == (4, 3, 0)
    rig.clone(paths[1])
    assert rig.counted == (4, 4, 0)


@pytest.mark.parametrize("when", [-3600, 60], ids=["too old", "from the future"])
def test_what_is_of_another_time_is_removed_by_who_writes_next(rig: Rig, when: int) -> None:
    one, two = rig.repository("one"), rig.repository("two")
    rig.clone(one)
    os.utime(rig.entries[0], (time.time(), time.time() + when))
    rig.clone(two)
    assert len(rig.entries) == 1
    assert rig.counters["stored_bytes"] == rig.entries[0].stat().st_size


def test_an_answer_of_more_than_half_of_the_cache_is_not_kept(rig: Rig) -> None:
    rig.configure(limit=SIZE * 3)
    path = rig.repository("one")
    for _round in range(2):
        assert rig.objects(rig.clone(path)) == rig.objects(path)
    assert rig.counted == (0, 1, 1), "the second one tries no more to keep it"
    assert not rig.entries
    assert not rig.unfinished


def test_nobody_waits_for_the_client_of_an_answer_that_is_not_kept(rig: Rig) -> None:
    rig.configure(limit=SIZE * 3)
    path = rig.repository("one")
    rig.trouble.write_text("slow")
    slow = rig.start(path)
    wait_for(lambda: rig.runs == 1)
    # It has asked before the answer turns out to be too large.
    begin = time.monotonic()
    other = rig.start(path)
    pack = other.communicate(timeout=20)[0]
    assert time.monotonic() - begin < 10, "it waited for a client that reads nothing"
    rig.check(path, pack)
    rig.check(path, slow.communicate(timeout=20)[0])
    assert (slow.returncode, other.returncode, rig.runs) == (0, 0, 2)


def test_a_folder_that_is_emptied_meanwhile_is_no_failure(rig: Rig) -> None:
    path = rig.repository("one")
    rig.trouble.write_text("slow")
    process = rig.start(path)
    wait_for(lambda: bool(rig.unfinished) and rig.runs == 1)
    for found in rig.cache.iterdir():
        found.unlink()
    pack, errors = process.communicate(timeout=20)
    assert (process.returncode, errors) == (0, b"")
    rig.check(path, pack)
    assert not rig.entries


@pytest.mark.parametrize("folder", ["", "cache/none"])
def test_a_git_that_fails_fails_as_without_a_cache(rig: Rig, folder: str) -> None:
    path = rig.repository("one")
    blob = rig.git("rev-parse", "main:file", folder=path)
    (path / "objects" / blob[:2] / blob[2:]).unlink()
    stock = subprocess.run(["git", *ARGUMENTS], cwd=path, env=rig.plain, input=b"main\n", capture_output=True, timeout=20)
    assert stock.returncode == 128
    rig.configure(cache=rig.folder / folder if folder else None)
    process = rig.start(path)
    pack, errors = process.communicate(timeout=20)
    assert (process.returncode, pack, errors) == (stock.returncode, stock.stdout, stock.stderr)
    assert not rig.entries
    assert not rig.unfinished


def test_what_a_git_has_said_that_fails_at_last_is_not_kept(rig: Rig) -> None:
    path = rig.repository("one")
    rig.trouble.write_text("failing")
    for _round in range(2):
        process = rig.start(path)
        rig.check(path, process.communicate(timeout=20)[0])
        assert process.returncode == 3
    assert rig.runs == 2
    assert not rig.entries
    assert not rig.unfinished


def test_what_it_keeps_is_for_the_service_user_alone_and_its_counters_for_all(rig: Rig) -> None:
    path = rig.repository("one")
    rig.clone(path)
    rig.clone(path)
    assert rig.entries[0].stat().st_mode & 0o777 == 0o600
    assert (rig.cache / "kallithea_pack_cache.prom").stat().st_mode & 0o777 == 0o644
    assert rig.counters == {
        "hits_total": 1,
        "misses_total": 1,
        "failures_total": 0,
        "hit_bytes_total": rig.entries[0].stat().st_size - 12,
        "stored_bytes": rig.entries[0].stat().st_size,
    }
    text = (rig.cache / "kallithea_pack_cache.prom").read_text()
    assert "# TYPE kallithea_pack_cache_hits_total counter\nkallithea_pack_cache_hits_total 1\n" in text


@pytest.mark.parametrize(
    "text", [b"garbage\n", b"\n", b"a b c\n\0\0\xff\n", b"kallithea_pack_cache_hits_total -1\n", b"kallithea_pack_cache_hits_total " + b"9" * 5000]
)
def test_counters_that_cannot_be_read_begin_anew(rig: Rig, text: bytes) -> None:
    path = rig.repository("one")
    rig.clone(path)
    (rig.cache / "kallithea_pack_cache.prom").write_bytes(text)
    assert rig.objects(rig.clone(path)) == rig.objects(path)
    assert rig.runs == 1
    assert rig.counted == (1, 0, 0)


def test_what_is_old_is_removed_whatever_the_counters_say(rig: Rig) -> None:
    path = rig.repository("one")
    rig.clone(path)
    (old,) = rig.entries
    os.utime(old, (time.time(), time.time() - 3601))
    (rig.cache / "kallithea_pack_cache.prom").write_bytes(b"garbage\0")
    rig.clone(rig.repository("two"))
    assert old not in rig.entries


def hook(rig: Rig) -> None:
    """Let git ask the cache as it does on a host."""
    lib = rig.folder / "lib"
    lib.mkdir()
    (lib / "kallithea-pack-cache").symlink_to(PROGRAM)
    values = {"__kallithea_app_lib": str(lib), "kallithea_app_pack_cache_path": str(rig.cache)}
    script = lib / "kallithea-pack-objects"
    script.write_text(render("app", "kallithea-pack-objects.j2", values))
    script.chmod(0o755)
    configuration = rig.folder / "gitconfig"
    configuration.write_text(render("app", "gitconfig.j2", values).replace("/kallithea-pack-objects", f"/kallithea-pack-objects {rig.runner}"))


def test_only_what_can_save_something_reaches_the_cache(rig: Rig) -> None:
    hook(rig)
    path = rig.repository("one", commits=5)
    old = rig.clone(path)
    rig.clone(path)
    assert (rig.runs, rig.counted) == (2, (0, 0, 0))
    small = rig.repository("small")
    rig.git("repack", "-adq", folder=small)
    rig.clone(small)
    assert (rig.runs, rig.counted) == (3, (0, 0, 0))
    rig.git("repack", "-adq", folder=path)
    for _round in range(2):
        assert rig.objects(rig.clone(path)) == rig.objects(path)
        assert len(rig.objects(rig.clone(path, "--depth=1"))) == 3
    assert (rig.runs, rig.counted) == (5, (2, 2, 0))
    # Who has a part of it is answered by git alone.
    rig.commit(path)
    rig.git("fetch", "-q", "origin", "main:main", folder=old)
    assert rig.objects(old) == rig.objects(path)
    assert (rig.runs, rig.counted) == (6, (2, 2, 0))


def test_a_request_of_many_references_reaches_git_whole(rig: Rig) -> None:
    hook(rig)
    path = rig.repository("one", commits=5)
    branches = "".join(f"commit refs/heads/b{number}\ncommitter a <a@example.org> {number} +0000\ndata 0\nfrom refs/heads/main\n" for number in range(3000))
    rig.git("fast-import", "--quiet", folder=path, given=branches.encode())
    rig.git("repack", "-adq", folder=path)
    rig.git("pack-refs", "--all", folder=path)
    for _round in range(2):
        assert rig.objects(rig.clone(path)) == rig.objects(path)
    assert rig.counted == (1, 1, 0)


@pytest.mark.parametrize(("size", "there"), [(0, False), (1 << 30, True)])
def test_git_knows_of_the_cache_where_it_is_on(size: int, there: bool) -> None:
    values = {"kallithea_app_pack_cache_bytes": size}
    assert ("packObjectsHook = /usr/local/lib/kallithea/kallithea-pack-objects\n" in render("app", "gitconfig.j2", values)) == there
