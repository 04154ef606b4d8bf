"""How the benchmark uses the site: pages with a session, the API, and git with credentials that never stand on a command line."""

from __future__ import annotations

import contextlib
import http.cookiejar
import json
import os
import pathlib
import re
import shlex
import signal
import ssl
import subprocess
import tempfile
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from storm import TOKEN, git_environment

STEP_SECONDS = 60
# What is made on this machine for a site.
SOURCE_SECONDS = 600


class BenchFailed(Exception):
    """There is no point in going on; the message is for the user."""


class Browser:
    """A session whose cookies the load generator gets, and the API."""

    def __init__(self, url: str, user: str, password: str, ca_file: str) -> None:
        """Start without a session."""
        self.user, self.password = user, password
        self.api_key = ""
        self.jar = http.cookiejar.CookieJar()
        self.opener = urllib.request.build_opener(
            urllib.request.HTTPSHandler(context=ssl.create_default_context(cafile=ca_file or None)),
            urllib.request.HTTPCookieProcessor(self.jar),
            urllib.request.ProxyHandler({}),
        )
        self.go_to(url)

    def go_to(self, url: str) -> None:
        """Ask the site by another address; by plain http as the proxy that the balancer trusts while its TLS is off."""
        self.url = url
        self.opener.addheaders = [("X-Forwarded-Proto", "https")] if url.startswith("http:") else []

    def page(self, path: str, form: dict[str, str] | None = None, seconds: float = STEP_SECONDS) -> str:
        """Return a page's text; with a form, post it."""
        data = urllib.parse.urlencode(form).encode() if form else None
        with self.opener.open(self.url + path, data, timeout=seconds) as answer:
            text: bytes = answer.read()
        return text.decode("utf-8", "replace")

    def login(self) -> None:
        """Log in as people do, and read the account's API key from its page."""
        form = {"username": self.user, "password": self.password}
        token = TOKEN.search(self.page("/_admin/login"))
        if token:
            form["_session_csrf_secret_token"] = token.group(1) or token.group(2)
        if 'name="password"' in self.page("/_admin/login", form):
            raise BenchFailed(f"{self.user} cannot log in with the password in KALLITHEA_ADMIN_PASSWORD_FILE.")
        key = re.search(r'<div class="truncate autoexpand">([0-9A-Za-z]+)</div>', self.page("/_admin/my_account/api_keys"))
        if not key:
            raise BenchFailed("the account's page shows no API key, so no repository can be made.")
        self.api_key = key.group(1)

    def cookies(self) -> str:
        """Return the header's value."""
        return "; ".join(f"{cookie.name}={cookie.value}" for cookie in self.jar)

    def call(self, method: str, **arguments: Any) -> Any:
        """Call a method of the API and return its result."""
        body = json.dumps({"id": 1, "api_key": self.api_key, "method": method, "args": arguments}).encode()
        request = urllib.request.Request(self.url + "/_admin/api", body, {"Content-Type": "application/json"})
        with self.opener.open(request, timeout=STEP_SECONDS) as answer:
            result = json.load(answer)
        if result.get("error"):
            raise BenchFailed(f"the API's {method} answered: {result['error']}")
        return result["result"]

    def create_repository(self, name: str, kind: str = "git") -> None:
        """Create an empty repository and wait until it exists: the API only queues it."""
        self.call("create_repo", repo_name=name, repo_type=kind, description="made by scripts/bench", private=True)
        end = time.monotonic() + STEP_SECONDS
        while True:
            try:
                self.call("get_repo", repoid=name)
                return
            except BenchFailed as error:
                if time.monotonic() > end:
                    raise BenchFailed(f"{name} was queued but not made within {STEP_SECONDS} s (is kallithea-celery running?): {error}") from error
            time.sleep(0.5)


class Git:
    """Real git in a folder of its own."""

    def __init__(self, folder: pathlib.Path, user: str, password: str, ca_file: str) -> None:
        """Write the private files that git reads the credentials from."""
        self.folder = folder
        self.environment = git_environment(folder, user, password, ca_file)

    def run(self, *arguments: str, seconds: float = STEP_SECONDS) -> float:
        """Run git and return its seconds."""
        return timed(("git", *arguments), self.folder, self.environment, seconds)[0]

    def says(self, *arguments: str, pieces: Iterable[bytes] = ()) -> str:
        """Feed git the pieces and return what it printed; for work on this machine alone."""
        return timed(("git", *arguments), self.folder, self.environment, SOURCE_SECONDS, pieces)[1]


class Hg:
    """Real hg in a folder of its own."""

    def __init__(self, folder: pathlib.Path, url: str, user: str, password: str, ca_file: str) -> None:
        """Write the private file that hg reads the credentials from."""
        self.folder = folder
        parts = urllib.parse.urlsplit(url)
        settings = folder / "hgrc"
        settings.touch(mode=0o600)
        settings.write_text(
            f"[ui]\nusername = Bench\n[web]\ncacerts = {ca_file}\n[auth]\nsite.prefix = {parts.netloc}\nsite.schemes = {parts.scheme}\n"
            f"site.username = {user}\nsite.password = {password}\n"
        )
        self.environment = {"PATH": os.environ["PATH"], "HOME": str(folder), "LC_ALL": "C.UTF-8", "HGRCPATH": str(settings)}

    def run(self, *arguments: str, seconds: float = STEP_SECONDS) -> float:
        """Run hg and return its seconds."""
        return timed(("hg", *arguments), self.folder, self.environment, seconds)[0]

    def says(self, *arguments: str) -> str:
        """Run hg on this machine alone and return what it printed."""
        return timed(("hg", *arguments), self.folder, self.environment, STEP_SECONDS)[1]


def timed(command: Sequence[str], folder: pathlib.Path, environment: Mapping[str, str], seconds: float, pieces: Iterable[bytes] = ()) -> tuple[float, str]:
    """Run a program that reads the pieces, and return its seconds and what it printed; one that hangs ends with all its helpers."""
    begin = time.monotonic()
    with tempfile.TemporaryFile() as said, tempfile.TemporaryFile() as complained:
        process = subprocess.Popen(command, cwd=folder, env=environment, stdin=subprocess.PIPE, stdout=said, stderr=complained, start_new_session=True)
        limit = threading.Timer(seconds, os.killpg, (process.pid, signal.SIGKILL))
        limit.start()
        try:
            assert process.stdin
            with contextlib.suppress(BrokenPipeError), process.stdin:
                for piece in pieces:
                    process.stdin.write(piece)
            status = process.wait()
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            raise
        finally:
            limit.cancel()
        taken = time.monotonic() - begin
        for stream in (said, complained):
            stream.seek(0)
        if status == -signal.SIGKILL and taken >= seconds:
            raise BenchFailed(f"{shlex.join(command)} took longer than {seconds:.0f} s.")
        if status:
            raise BenchFailed(f"{shlex.join(command)} ended with {status}: {complained.read().decode(errors='replace').strip()[-400:]}")
        return taken, said.read().decode(errors="replace").strip()
