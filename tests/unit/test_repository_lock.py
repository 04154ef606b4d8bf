"""The lock of a repository: git as Kallithea runs it, against real git repositories and a real git client."""

from __future__ import annotations

import concurrent.futures
import contextlib
import fcntl
import gzip
import http.server
import os
import pathlib
import re
import subprocess
import textwrap
import threading
import time
import types
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from render import ROOT, render

SENTENCE = "The repository is being maintained; the write waited 2 s for it. Please try again in a minute."


def git(*words: str | pathlib.Path, folder: pathlib.Path | None = None, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run git without anybody's configuration."""
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("GIT_")},
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": "/dev/null",
        "GIT_AUTHOR_NAME": "a",
        "GIT_AUTHOR_EMAIL": "a@example.org",
        "GIT_COMMITTER_NAME": "a",
        "GIT_COMMITTER_EMAIL": "a@example.org",
        "GIT_TERMINAL_PROMPT": "0",
        "no_proxy": "127.0.0.1",
        "LC_ALL": "C",
    }
    return subprocess.run(["git", *words], cwd=folder, env=environment, capture_output=True, text=True, check=check, timeout=60)


class Site:
    """A storage with a repository, the program that stands for git, and a server as small as Kallithea's own."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.storage = folder / "srv"
        self.repository = self.storage / "repositories" / "group" / "one.git"
        self.locks = self.storage / "locks" / "group" / "one.git"
        (self.storage / "locks").mkdir(parents=True)
        self.program = folder / "kallithea-git"
        values = {
            "kallithea_storage_path": str(self.storage),
            "__kallithea_app_config": str(folder),
            "kallithea_app_write_wait_seconds": 2,
            "kallithea_app_pack_cache_bytes": 0,
        }
        self.program.write_text(render("app", "kallithea-git.j2", values))
        self.program.chmod(0o755)
        (folder / "gitconfig").write_text(render("app", "gitconfig.j2", values))
        git("init", "-q", "--bare", "-b", "main", self.repository)
        self.work = folder / "work"
        git("init", "-q", "-b", "main", self.work)
        self.commit("first")
        site = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                answer = site.run("receive-pack", "--stateless-rpc", "--advertise-refs", str(site.repository)).stdout
                self.answer(b"001f# service=git-receive-pack\n0000" + answer, "advertisement")

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                self.answer(site.run("receive-pack", "--stateless-rpc", str(site.repository), body=body, check=True).stdout, "result")

            def answer(self, body: bytes, kind: str) -> None:
                self.send_response(200)
                self.send_header("Content-Type", f"application/x-git-receive-pack-{kind}")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:
                """Say nothing."""

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def run(self, *words: str, body: bytes = b"", check: bool = False) -> subprocess.CompletedProcess[bytes]:
        """Run what stands for git, in the repository as Kallithea does."""
        return subprocess.run([self.program, *words], cwd=self.repository, input=body, capture_output=True, check=check, timeout=60)

    def commit(self, text: str) -> str:
        """Commit a file and return its name."""
        (self.work / "file").write_text(text)
        git("add", "file", folder=self.work)
        git("commit", "-q", "-m", text, folder=self.work)
        return git("rev-parse", "HEAD", folder=self.work).stdout.strip()

    def push(self) -> subprocess.CompletedProcess[str]:
        """Push over HTTP."""
        return git("push", f"http://127.0.0.1:{self.server.server_address[1]}/one.git", "main", folder=self.work, check=False)

    @property
    def head(self) -> str:
        """Return what the repository has."""
        return git("rev-parse", "--verify", "-q", "main", folder=self.repository, check=False).stdout.strip()

    @contextlib.contextmanager
    def held(self, name: str = ".lock") -> Iterator[None]:
        """Hold a lock as whoever needs the repository without writers does."""
        self.locks.mkdir(parents=True, exist_ok=True)
        with (self.locks / name).open("a") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)
            yield


@pytest.fixture
def site(tmp_path: pathlib.Path) -> Iterator[Site]:
    made = Site(tmp_path)
    yield made
    made.server.shutdown()
    made.server.server_close()


def test_a_push_leaves_its_host_and_process_in_the_lock_file(site: Site) -> None:
    assert site.push().returncode == 0
    host, process, command = (site.locks / ".lock").read_text().split()
    assert (host, command) == (os.uname().nodename, "receive-pack")
    assert int(process) > 1
    assert not list(site.repository.rglob(".lock"))
    with site.held():
        pass


def test_what_reads_takes_no_lock(site: Site) -> None:
    site.push()
    (site.locks / ".lock").unlink()
    with site.held():
        assert site.run("-c", "core.quotepath=false", "rev-parse", "main").stdout.decode().strip() == site.head
        assert site.run("receive-pack", "--stateless-rpc", "--advertise-refs", str(site.repository)).returncode == 0
        assert site.run("upload-pack", "--stateless-rpc", "--advertise-refs", str(site.repository)).returncode == 0
    assert (site.locks / ".lock").read_text() == ""


def test_the_settings_hold_for_what_reads_and_what_writes(site: Site) -> None:
    names = ("core.fsync", "core.filesRefLockTimeout", "core.packedRefsTimeout", "gc.auto", "maintenance.auto", "receive.autogc", "transfer.unpackLimit")
    values = [site.run("config", "--get", name).stdout.decode().strip() for name in names]
    assert values == ["committed", "5000", "5000", "0", "false", "false", "1"]
    site.push()
    assert [path.suffix for path in sorted((site.repository / "objects" / "pack").iterdir()) if path.suffix == ".pack"] == [".pack"]
    assert not [path for path in (site.repository / "objects").iterdir() if len(path.name) == 2]


def test_a_push_waits_and_then_its_user_reads_the_sentence(site: Site) -> None:
    begin = time.monotonic()
    with site.held():
        refused = site.push()
    assert 2 <= time.monotonic() - begin < 10
    assert refused.returncode != 0
    assert f"remote: {SENTENCE}" in refused.stderr, refused.stderr
    assert f"remote unpack failed: {SENTENCE}" in refused.stderr, refused.stderr
    assert site.head == ""
    assert site.push().returncode == 0
    assert site.head == git("rev-parse", "HEAD", folder=site.work).stdout.strip()


def test_a_push_goes_on_as_soon_as_the_lock_is_free(site: Site) -> None:
    with concurrent.futures.ThreadPoolExecutor() as pool:
        with site.held():
            waiting = pool.submit(site.push)
            time.sleep(0.7)
            assert not waiting.done()
        assert waiting.result(timeout=10).returncode == 0
    assert site.head


def test_one_writer_waits_and_the_next_is_refused_at_once(site: Site) -> None:
    begin = time.monotonic()
    with site.held(), site.held(".waiting"):
        refused = site.push()
    assert time.monotonic() - begin < 2
    assert "remote: The repository is being maintained and another writer waits for it already." in refused.stderr, refused.stderr


def test_writers_do_not_exclude_each_other(site: Site) -> None:
    site.locks.mkdir(parents=True)
    with (site.locks / ".lock").open("a+") as stream:
        fcntl.flock(stream, fcntl.LOCK_SH)
        assert site.push().returncode == 0


def test_over_ssh_the_sentence_comes_before_the_references(site: Site) -> None:
    with site.held():
        refused = git("push", f"--receive-pack={site.program} receive-pack", site.repository, "main", folder=site.work, check=False)
    assert f"remote error: {SENTENCE}" in refused.stderr, refused.stderr


@pytest.mark.parametrize(
    "command", [["-c", "core.quotepath=false", "fetch", "URL", "--", "+refs/heads/main:refs/heads/main"], ["update-ref", "refs/heads/main", "SHA"]]
)
def test_the_application_itself_waits_too(site: Site, command: list[str]) -> None:
    site.push()
    second = site.commit("second")
    # An object that is there already.
    git("fetch", "-q", site.work, "main", folder=site.repository)
    words = [word.replace("URL", str(site.work)).replace("SHA", second) for word in command]
    with site.held():
        refused = site.run(*words)
    assert refused.returncode == 75
    assert SENTENCE in refused.stderr.decode()
    assert site.head != second
    assert site.run(*words).returncode == 0
    assert site.head == second


def test_a_new_repository_has_its_lock_from_the_start(site: Site) -> None:
    new = site.repository.with_name("two.git")
    assert site.run("-c", "core.quotepath=false", "clone", "-q", "--bare", "--", f"file://{site.work}", str(new)).returncode == 0
    assert (site.locks.with_name("two.git") / ".lock").read_text().split()[2] == "clone"


@pytest.mark.parametrize("name", ["with space", "-n", "$(x) 'y' %2F", "ümläut", "x.lock/lock", "a" * 200 + "/" + "b" * 200])
def test_odd_names(site: Site, name: str) -> None:
    repository = site.storage / "repositories" / name
    git("init", "-q", "--bare", repository)
    (site.storage / "elsewhere").symlink_to(repository, target_is_directory=True)
    for path in (repository, site.storage / "elsewhere"):
        assert site.run("receive-pack", str(path), body=b"0000").returncode == 0
        assert (site.storage / "locks" / name / ".lock").read_text().endswith("receive-pack\n")
        (site.storage / "locks" / name / ".lock").unlink()


def test_a_storage_behind_a_link_has_the_same_locks(site: Site) -> None:
    moved = site.storage.with_name("moved")
    site.storage.rename(moved)
    site.storage.symlink_to(moved, target_is_directory=True)
    assert site.run("receive-pack", str(site.repository), body=b"0000").returncode == 0
    assert (moved / "locks" / "group" / "one.git" / ".lock").read_text().endswith("receive-pack\n")


def test_a_storage_that_takes_no_lock_is_said(site: Site) -> None:
    (site.storage / "locks").rmdir()
    (site.storage / "locks").write_text("")
    refused = site.push()
    assert "remote: The repository's lock cannot be taken; the storage is full, read-only or not the cluster's." in refused.stderr, refused.stderr
    assert site.head == ""


def test_a_repository_that_is_gone_is_gits_own_error(site: Site) -> None:
    assert site.run("receive-pack", str(site.repository / "nowhere")).returncode == 128


class CommitError(Exception):
    """What Kallithea says of a commit that it could not make."""


@pytest.fixture
def move_ref(site: Site) -> Callable[[str, str], None]:
    """Return what the patch lets an edit in the browser do, in the site's repository."""
    patch = (ROOT / "roles" / "app" / "files" / "patches" / "safety-07-repository-lock.patch").read_text(encoding="utf-8")
    added = "\n".join(line[1:] for line in patch.splitlines() if line.startswith("+") and not line.startswith("+++"))
    function = re.search(r"^    def move_ref.*?(?=^\S)", added, re.MULTILINE | re.DOTALL)
    assert function
    names: dict[str, Any] = {
        "subprocess": subprocess,
        "settings": types.SimpleNamespace(GIT_EXECUTABLE_PATH=str(site.program)),
        "CommitError": CommitError,
    }
    exec(textwrap.dedent(function.group(0)), names)
    changeset = types.SimpleNamespace(repository=types.SimpleNamespace(path=str(site.repository)))
    return lambda new, old: names["move_ref"](changeset, b"refs/heads/main", new.encode(), old.encode())


def test_an_edit_in_the_browser_moves_the_branch_from_where_it_began(site: Site, move_ref: Callable[[str, str], None]) -> None:
    first = site.head or git("rev-parse", "HEAD", folder=site.work).stdout.strip()
    second = site.commit("second")
    git("fetch", "-q", site.work, "main", folder=site.repository)
    move_ref(first, "0" * 40)
    assert site.head == first
    move_ref(second, first)
    assert site.head == second
    assert (site.locks / ".lock").read_text().split()[2] == "update-ref"


def test_an_edit_in_the_browser_rolls_no_push_back(site: Site, move_ref: Callable[[str, str], None]) -> None:
    site.push()
    first = site.head
    edited = git("commit-tree", "-p", first, "-m", "edited", f"{first}^{{tree}}", folder=site.repository).stdout.strip()
    pushed = site.commit("pushed")
    assert site.push().returncode == 0
    with pytest.raises(CommitError, match="changed by somebody else"):
        move_ref(edited, first)
    with pytest.raises(CommitError, match="changed by somebody else"):
        move_ref(edited, "0" * 40)
    assert site.head == pushed


def test_an_edit_in_the_browser_waits_for_the_lock(site: Site, move_ref: Callable[[str, str], None]) -> None:
    git("fetch", "-q", site.work, "main", folder=site.repository)
    with site.held(), pytest.raises(CommitError, match=SENTENCE):
        move_ref(git("rev-parse", "HEAD", folder=site.work).stdout.strip(), "0" * 40)
    assert site.head == ""
