"""Mercurial's lock of a host that is gone: a push ends soon, with a sentence that names the holder; real hg against what the patch makes of hgweb."""

from __future__ import annotations

import os
import pathlib
import re
import subprocess
from collections.abc import Iterator

import pytest
from render import ROOT

PATCH = ROOT / "roles" / "app" / "files" / "patches" / "safety-08-mercurial-lock.patch"
# Kallithea's part, as small as it can be; with Debian's Mercurial, so with Debian's Python.
SERVER = """
import logging, os, socketserver, sys
from wsgiref.simple_server import WSGIRequestHandler, make_server

import mercurial.config, mercurial.error, mercurial.hgweb, mercurial.ui

log = logging.getLogger("test")
{function}
baseui = mercurial.ui.ui()
baseui.setconfig(b"web", b"push_ssl", False)
baseui.setconfig(b"web", b"allow-push", b"*")
{timeout}
baseui.setconfig(b"ui", b"timeout", b"%d" % (int(baseui.config(b"ui", b"timeout")) // 15))
hgweb_app = mercurial.hgweb.hgweb(os.fsencode(sys.argv[1]), baseui=baseui)


def app(environ, start_response):
    return tell_who_holds_the_lock(hgweb_app(environ, start_response), start_response)


server = make_server("127.0.0.1", 0, app)
print(server.server_address[1], flush=True)
server.serve_forever()
"""


def hg(*words: str | pathlib.Path) -> subprocess.CompletedProcess[str]:
    """Run hg without anybody's configuration."""
    environment = {**os.environ, "HGRCPATH": "", "HGPLAIN": "1", "HGUSER": "a", "LC_ALL": "C.UTF-8", "no_proxy": "127.0.0.1"}
    return subprocess.run(["hg", *words], env=environment, capture_output=True, text=True, check=False, timeout=60)


@pytest.fixture
def repository(tmp_path: pathlib.Path) -> pathlib.Path:
    """Return an empty repository on the server's side."""
    assert hg("init", tmp_path / "served").returncode == 0
    return tmp_path / "served"


@pytest.fixture
def url(repository: pathlib.Path) -> Iterator[str]:
    """Serve the repository; a lock is waited for 2 s, a fifteenth of what the patch says."""
    added = "\n".join(line[1:] for line in PATCH.read_text().splitlines() if line.startswith("+") and not line.startswith("+++"))
    function = re.search(r"^def tell_who.*?(?=^\S|^ +return tell)", added, re.MULTILINE | re.DOTALL)
    timeout = re.search(r"baseui\.setconfig\(b'ui', b'timeout', b'\d+'\)", added)
    assert function and timeout
    script = SERVER.format(function=function.group(0), timeout=timeout.group(0))
    with subprocess.Popen(["/usr/bin/python3", "-c", script, repository], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
        assert server.stdout
        yield f"http://127.0.0.1:{server.stdout.readline().strip()}/"
        server.kill()


@pytest.fixture
def work(tmp_path: pathlib.Path) -> pathlib.Path:
    """Return a clone with a commit that is to be pushed."""
    folder = tmp_path / "work"
    hg("init", folder)
    (folder / "file").write_text("first")
    assert hg("-R", folder, "commit", "-q", "-A", "-m", "first").returncode == 0
    return folder


def test_who_pushes_past_a_lock_left_behind_reads_who_holds_it(repository: pathlib.Path, url: str, work: pathlib.Path) -> None:
    lock = repository / ".hg" / "store" / "lock"
    lock.symlink_to("app2/f0000000:4242")
    push = hg("-R", work, "push", url)
    assert push.returncode != 0
    assert "The repository is locked by process 4242 on app2, which did not end in time." in push.stdout + push.stderr
    # Another host's lock is never taken away.
    assert lock.is_symlink()
    assert hg("-R", repository, "log", "-T", "{desc}").stdout == ""
    lock.unlink()
    assert hg("-R", work, "push", url).returncode == 0
    assert hg("-R", repository, "log", "-T", "{desc}").stdout == "first"


def test_what_only_reads_does_not_wait(repository: pathlib.Path, url: str, work: pathlib.Path, tmp_path: pathlib.Path) -> None:
    assert hg("-R", work, "push", url).returncode == 0
    (repository / ".hg" / "store" / "lock").symlink_to("app2/f0000000:4242")
    assert hg("clone", "-q", url, tmp_path / "clone").returncode == 0
    assert (tmp_path / "clone" / "file").read_text() == "first"
