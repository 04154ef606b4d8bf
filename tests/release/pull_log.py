"""What git and hg leave in the journal with the patch and without it, over HTTP with real clients.

pull_log.py WITHOUT WITH: folders that hold the package kallithea. Ends with an error where a row is missing or too much. Needs the Python of a release.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import subprocess
import sys
import tempfile
import threading
import wsgiref.simple_server
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import trees
from application import PASSWORD, Application

# With the patch: what is in the journal of a step that leaves a row without it.
SPARED = {
    "git: references",
    "git: nothing new",
    "git: clone of nothing",
    "git: a bot's references",
    "git: a bot's clone",
    "hg: a bot's clone",
    "git: a bot's references, logged",
}


class Quiet(wsgiref.simple_server.WSGIRequestHandler):
    """Says nothing of requests."""

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


class Clients:
    """The tree that Python finds behind a web server, clients of it, and what each step leaves."""

    def __init__(self, folder: Path) -> None:
        """Serve on a port of the loopback that is free."""
        import kallithea

        self.folder = folder
        self.app = Application(folder, log_bot_pulls="false")
        self.config = kallithea.CONFIG
        self.extension_calls = self.requests = 0
        kallithea.EXTENSIONS = type("Extensions", (), {"PULL_HOOK": staticmethod(self.called)})
        self.server = wsgiref.simple_server.make_server("127.0.0.1", 0, self.serve, handler_class=Quiet)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.rows: dict[str, list[list[str]]] = {}
        self.calls: dict[str, int] = {}
        (folder / "home").mkdir()
        self.environment = {
            **{name: value for name, value in os.environ.items() if name in ("PATH", "LANG")},
            "HOME": str(folder / "home"),
            "GIT_AUTHOR_NAME": "t",
            "GIT_AUTHOR_EMAIL": "t@example.org",
            "GIT_COMMITTER_NAME": "t",
            "GIT_COMMITTER_EMAIL": "t@example.org",
            "HGUSER": "t",
        }

    def serve(self, environ: dict[str, Any], start_response: Any) -> Any:
        """Pass a request on; as under Apache its body has an end."""
        environ["wsgi.input"] = io.BytesIO(environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0)))
        self.requests += 1
        return self.app.wsgi(environ, start_response)

    def called(self, **given: Any) -> None:
        """Count what extensions are told."""
        self.extension_calls += 1

    def url(self, name: str, user: str = "user", password: str = PASSWORD) -> str:
        """Return a repository's address for a client."""
        return f"http://{user}:{password.replace(' ', '%20')}@127.0.0.1:{self.server.server_port}/{name}"

    def is_whole(self, clone: str) -> bool:
        """Tell whether a clone of git has all of its history."""
        command = ["git", "-C", str(self.folder / clone), "fsck", "--full", "--connectivity-only", "HEAD"]
        return subprocess.run(command, env=self.environment, capture_output=True, timeout=60, check=False).returncode == 0

    def run(self, *command: str, folder: Path | None = None, fails: bool | None = False) -> None:
        """Run a program as a client does; where fails is None, it may."""
        if command[0] == "hg":
            command = (sys.executable, str(Path(sys.executable).parent / "hg"), *command[1:])
        done = subprocess.run(command, cwd=folder or self.folder, env=self.environment, capture_output=True, text=True, timeout=60, check=False)
        assert fails in (None, done.returncode != 0), (command, done.stdout, done.stderr)

    def step(self, name: str, *command: str, folder: Path | None = None, fails: bool = False) -> None:
        """Run a program, and keep the rows that it left."""
        from kallithea.model import db, meta

        before = db.UserLog.query().count()
        calls = self.extension_calls
        self.requests = 0
        meta.Session.remove()
        self.run(*command, folder=folder, fails=fails)
        new = db.UserLog.query().order_by(db.UserLog.user_log_id).offset(before)
        assert name not in self.rows, name
        self.rows[name] = [[row.username, row.action.partition(":")[0], row.repository_name, row.user_ip] for row in new]
        self.calls[name] = self.extension_calls - calls
        meta.Session.remove()


def git_steps(clients: Clients) -> None:
    """Look, clone, fetch what is new and what is not, as a person and as a bot."""
    stored = clients.app.make_repository("git", "g", "repository.read")
    clients.app.make_repository("git", "empty", "repository.read")
    clients.app.make_repository("git", "secret", "repository.none")
    work = clients.folder / "work"
    clients.run("git", "init", "-q", "-b", "master", str(work))

    def commit(count: int) -> None:
        for number in range(count):
            clients.run("git", "commit", "-q", "--allow-empty", "-m", f"{number}", folder=work)
        clients.run("git", "push", "-q", str(stored), "HEAD:refs/heads/master", folder=work)

    commit(3)
    clone = clients.folder / "clone"
    bot = ("-c", "http.extraHeader=X-Kallithea-Who: bot")
    clients.step("git: references", "git", "ls-remote", clients.url("g"))
    clients.step("git: clone", "git", "clone", "-q", clients.url("g"), str(clone))
    clients.step("git: nothing new", "git", "fetch", folder=clone)
    commit(1)
    clients.step("git: something new", "git", "fetch", folder=clone)
    # What the client has and the server does not makes them talk for several requests.
    for number in range(150):
        clients.run("git", "commit", "-q", "--allow-empty", "-m", f"own {number}", folder=clone)
    commit(1)
    clients.step("git: after a long talk", "git", "fetch", folder=clone)
    # References without and with credentials, and more than one request for the pack.
    assert clients.requests > 3, clients.requests
    clients.step("git: shallow", "git", "clone", "-q", "--depth=1", clients.url("g"), "shallow")
    commit(1)
    clients.step("git: deeper", "git", "fetch", "--depth=3", folder=clients.folder / "shallow")
    # Lines for which an answer has no room in what is read of it at first.
    tips = "".join(f"commit refs/heads/tip-{number}\ncommitter t <t@example.org> {number} +0000\ndata 0\nfrom refs/heads/master\n" for number in range(3000))
    subprocess.run(["git", "fast-import", "--quiet"], cwd=stored, input=tips.encode(), check=True)
    clients.step("git: shallow, many tips", "git", "clone", "-q", "--depth=1", "--no-single-branch", clients.url("g"), "tips")
    clients.step("git: clone of nothing", "git", "clone", "-q", clients.url("empty"), "nothing")
    clients.step("git: forbidden", "git", "ls-remote", clients.url("secret"), fails=True)
    clients.step("git: wrong password", "git", "-c", "core.askPass=true", "ls-remote", clients.url("g", password="wrong"), fails=True)
    clients.step("git: a person's word", "git", "-c", "http.extraHeader=X-Kallithea-Who: person", "clone", "-q", clients.url("g"), "person")
    clients.step("git: a bot's references", "git", *bot, "ls-remote", clients.url("g"))
    clients.step("git: a bot's clone", "git", *bot, "clone", "-q", clients.url("g"), "bot")
    clients.step("git: a person after a bot", "git", "clone", "-q", clients.url("g"), "after")
    clients.config["log_bot_pulls"] = "true"
    clients.step("git: a bot's references, logged", "git", *bot, "ls-remote", clients.url("g"))
    clients.step("git: a bot's clone, logged", "git", *bot, "clone", "-q", clients.url("g"), "logged")
    clients.config["log_bot_pulls"] = "false"


@contextlib.contextmanager
def broken_journal() -> Iterator[None]:
    """Let each row of the journal break its session, as a commit does that fails."""
    from kallithea.model import db, meta, userlog

    real = userlog.action_logger

    def fail(*arguments: Any, **words: Any) -> None:
        meta.Session().add(db.UserLog(user_log_id="no number"))
        meta.Session().commit()

    userlog.action_logger = fail
    try:
        yield
    finally:
        userlog.action_logger = real


def broken_steps(clients: Clients) -> dict[str, bool]:
    """Clone where the journal cannot be written, and once more where it can be; tell of each whether it is whole."""
    with broken_journal():
        clients.run("git", "clone", "-q", clients.url("g"), "broken", fails=None)
    clients.step("git: clone after it", "git", "clone", "-q", clients.url("g"), "mended")
    return {name: clients.is_whole(name) for name in ("broken", "mended")}


def found_packs() -> dict[str, list[bool]]:
    """Return whether the pack is found in answers of each kind, however they are cut into blocks; nothing without the patch."""
    from kallithea.config.middleware import pygrack

    def line(content: bytes) -> bytes:
        return b"%04x%s" % (len(content) + 4, content)

    shallow = line(b"shallow " + b"PACK" * 10) * 20000 + b"0000"
    answers = {
        "bands": line(b"NAK\n") + line(b"\2Counting") + line(b"\1PACK\0\0\0\2"),
        "many lines, bands": shallow + line(b"NAK\n") + line(b"\1") + line(b"\1PACK\0\0\0\2"),
        "many lines, no bands": shallow + line(b"ACK %040d\n" % 1) + b"PACK\0\0\0\2",
        "none": shallow + line(b"NAK\n"),
        "none, at work": line(b"NAK\n") + line(b"\1") + line(b"\3fatal: PACK\0\0\0\2"),
        "nothing": b"",
    }
    found: dict[str, list[bool]] = {}
    for name, content in answers.items() if hasattr(pygrack, "PullLogger") else ():
        for size in (1, 7, 65536, 10**7):
            logger = pygrack.PullLogger(io.BytesIO(content))
            ends = [logger.find_pack(content[start : start + size]) for start in range(0, len(content), size)]
            found.setdefault(name, []).append(any(ends))
            assert len(logger.rest) < 10 or any(ends), (name, len(logger.rest))
    return found


def hg_steps(clients: Clients) -> None:
    """The same for Mercurial, whose own hook knows what goes out; and pushes, also a bot's."""
    stored = clients.app.make_repository("hg", "h", "repository.write")
    work, clone = clients.folder / "hg-work", clients.folder / "hg-clone"
    clients.run("hg", "init", str(work))

    def commit(text: str, to: str = str(stored)) -> None:
        (work / "file").write_text(text)
        clients.run("hg", "commit", "-A", "-m", text, folder=work)
        if to:
            clients.run("hg", "push", to, folder=work)

    commit("first")
    clients.step("hg: identify", "hg", "identify", clients.url("h"))
    clients.step("hg: clone", "hg", "clone", clients.url("h"), str(clone))
    clients.step("hg: nothing new", "hg", "pull", clients.url("h"), folder=clone)
    commit("second")
    clients.step("hg: something new", "hg", "pull", clients.url("h"), folder=clone)
    # The balancer's word as Mercurial sends a header: by the server's own environment.
    commit("third", to="")
    clients.step("hg: push", "hg", "push", clients.url("h"), folder=work)
    clients.server.base_environ["HTTP_X_KALLITHEA_WHO"] = "bot"
    clients.step("hg: a bot's clone", "hg", "clone", clients.url("h"), "hg-bot")
    commit("fourth", to="")
    clients.step("hg: a bot's push", "hg", "push", clients.url("h"), folder=work)


def run(folder: Path) -> dict[str, Any]:
    """Go through the steps with the tree that Python finds."""
    logging.disable(logging.CRITICAL)
    clients = Clients(folder)
    git_steps(clients)
    whole = broken_steps(clients)
    hg_steps(clients)
    return {"rows": clients.rows, "calls": clients.calls, "packs": found_packs(), "whole": whole}


def main() -> None:
    """Compare two trees, or go through the steps with one."""
    if len(sys.argv) == 1:
        with tempfile.TemporaryDirectory() as folder:
            print(json.dumps(run(Path(folder))))
        return
    without, patched = (trees.ask(Path(tree), __file__) for tree in sys.argv[1:3])
    for step, rows in without["rows"].items():
        print(f"{step}: {rows}, with the patch {patched['rows'][step]}")
        assert patched["rows"][step] == ([] if step in SPARED else rows), step
        assert len(rows) == 1 or step not in SPARED, step
    assert patched["calls"] == without["calls"], (patched["calls"], without["calls"])
    print(f"whole: {without['whole']}, with the patch {patched['whole']}")
    assert patched["whole"] == {"broken": True, "mended": True}, patched["whole"]
    for kind, found in patched["packs"].items():
        print(f"pack with {kind}: {found}")
        assert found == [not kind.startswith("no")] * 4, kind
    for step in (
        "git: clone",
        "git: clone after it",
        "git: after a long talk",
        "git: deeper",
        "git: shallow, many tips",
        "hg: clone",
        "hg: push",
        "hg: a bot's push",
    ):
        assert len(patched["rows"][step]) == 1, step


if __name__ == "__main__":
    main()
