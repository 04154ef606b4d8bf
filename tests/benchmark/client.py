"""How the benchmark uses the site: pages with a session, the API, and git with credentials that never stand on a command line."""

from __future__ import annotations

import http.cookiejar
import json
import os
import pathlib
import re
import shlex
import signal
import ssl
import subprocess
import time
import urllib.parse
import urllib.request
from typing import Any

from storm import TOKEN, git_environment

STEP_SECONDS = 60


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

    def page(self, path: str, form: dict[str, str] | None = None) -> str:
        """Return a page's text; with a form, post it."""
        data = urllib.parse.urlencode(form).encode() if form else None
        with self.opener.open(self.url + path, data, timeout=STEP_SECONDS) as answer:
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

    def run(self, *arguments: str) -> float:
        """Run git and return its seconds; one that hangs ends with all its helpers."""
        begin = time.monotonic()
        with subprocess.Popen(
            ("git", *arguments),
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        ) as git:
            try:
                _, said = git.communicate(timeout=STEP_SECONDS)
            except BaseException as error:
                os.killpg(git.pid, signal.SIGKILL)
                if isinstance(error, subprocess.TimeoutExpired):
                    raise BenchFailed(f"{shlex.join(git.args)} took longer than {STEP_SECONDS} s.") from error  # type: ignore[arg-type]
                raise
        if git.returncode:
            raise BenchFailed(f"git {shlex.join(arguments)} ended with {git.returncode}: {said.strip()[-400:]}")
        return time.monotonic() - begin
