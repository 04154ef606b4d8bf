#!/usr/bin/env python3
# Copyright: The kallithea.cluster maintainers
# GPL-3.0-or-later (see LICENSE)
"""Use the cluster as a person would, by its public name: log in, create, push, clone, look; then remove exactly what was made.

Reads one JSON object from standard input: url, user, password, api_key, ca (PEM text, may be empty),
repositories (path of the share), service_user (whose files these are), hg (command),
folder (where a private folder may be made: git executes a file of ours, and /tmp may be mounted noexec).
Prints one line a step; ends with 1 and one sentence where a step failed.
"""

from __future__ import annotations

import contextlib
import fcntl
import http.cookiejar
import json
import os
import pathlib
import pwd
import re
import secrets
import shutil
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from typing import Any

GROUP = "kallithea-verify"
WORD = "verify"
# Held while the group is in use, since another run would make and remove it too.
LOCK = "/run/lock/kallithea-verify.lock"
STEP_SECONDS = 60
SYSTEM_AUTHORITIES = "/etc/ssl/certs/ca-certificates.crt"


class StepFailed(Exception):
    """A step did not do what it should."""


class Site:
    """The cluster as a client sees it: pages with a session, and the API."""

    def __init__(self, settings: dict[str, str]) -> None:
        """Remember where the site is and whom to trust."""
        self.settings = settings
        self.url = settings["url"].rstrip("/")
        context = ssl.create_default_context(cadata=settings["ca"] or None)
        self.opener = urllib.request.build_opener(
            urllib.request.HTTPSHandler(context=context),
            urllib.request.HTTPCookieProcessor(http.cookiejar.CookieJar()),
            urllib.request.ProxyHandler({}),
        )

    def page(self, path: str, form: dict[str, str] | None = None) -> str:
        """Return a page's text; with a form, post it."""
        data = urllib.parse.urlencode(form).encode() if form else None
        with self.opener.open(self.url + path, data, timeout=STEP_SECONDS) as answer:
            return answer.read().decode("utf-8", "replace")

    def call(self, method: str, **arguments: Any) -> Any:
        """Call a method of the API and return its result."""
        body = json.dumps({"id": 1, "api_key": self.settings["api_key"], "method": method, "args": arguments}).encode()
        request = urllib.request.Request(self.url + "/_admin/api", body, {"Content-Type": "application/json"})
        with self.opener.open(request, timeout=STEP_SECONDS) as answer:
            result = json.load(answer)
        if result.get("error"):
            raise StepFailed(f"the API's {method} answered: {result['error']}")
        return result["result"]

    def login(self) -> None:
        """Log in as a browser does."""
        page = self.page("/_admin/login")
        token = re.search(r'name="_session_csrf_secret_token"[^>]*value="([^"]+)"|_session_csrf_secret_token = "([^"]+)"', page)
        form = {"username": self.settings["user"], "password": self.settings["password"]}
        if token:
            form["_session_csrf_secret_token"] = token.group(1) or token.group(2)
        answer = self.page("/_admin/login?came_from=%2F_admin%2Fmy_account", form)
        if self.settings["user"] not in answer or 'name="password"' in answer:
            raise StepFailed("logging in with the administrator's name and password did not lead to the account's page")

    def wait_for_repository(self, name: str) -> None:
        """Wait until a repository that was asked for exists: the API only queues it."""
        end = time.monotonic() + STEP_SECONDS
        while True:
            try:
                self.call("get_repo", repoid=name, with_revision_names=True)
                return
            except StepFailed as error:
                if time.monotonic() > end:
                    raise StepFailed(f"{name} was queued but not made within {STEP_SECONDS} s (is kallithea-celery running?): {error}") from error
            time.sleep(0.5)


class Client:
    """Real git and hg with credentials that never stand on a command line."""

    def __init__(self, folder: pathlib.Path, settings: dict[str, str]) -> None:
        """Write the private files that git and hg read the credentials from."""
        self.folder = folder
        self.hg_command = settings["hg"]
        host = urllib.parse.urlsplit(settings["url"])
        askpass = folder / "askpass"
        askpass.write_text('#!/bin/sh\ncase "$1" in Username*) cat "$ACCEPTANCE_USER";; *) cat "$ACCEPTANCE_PASSWORD";; esac\n')
        askpass.chmod(0o700)
        (folder / "user").write_text(settings["user"])
        (folder / "password").write_text(settings["password"])
        hgrc = f"[ui]\nusername = verify\n[auth]\na.prefix = {host.netloc}\na.schemes = {host.scheme}\n"
        hgrc += f"a.username = {settings['user']}\na.password = {settings['password']}\n"
        if settings["ca"]:
            (folder / "ca.pem").write_text(settings["ca"])
            hgrc += f"[web]\ncacerts = {folder / 'ca.pem'}\n"
        elif os.path.exists(SYSTEM_AUTHORITIES):
            # The release's Mercurial would trust the authorities that its Python packages bring, and not those that the host was given.
            hgrc += f"[web]\ncacerts = {SYSTEM_AUTHORITIES}\n"
        (folder / "hgrc").write_text(hgrc)
        self.environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "LC_ALL": "C.UTF-8",
            "GIT_ASKPASS": str(askpass),
            "GIT_TERMINAL_PROMPT": "0",
            "ACCEPTANCE_USER": str(folder / "user"),
            "ACCEPTANCE_PASSWORD": str(folder / "password"),
            "HGRCPATH": str(folder / "hgrc"),
            "GIT_AUTHOR_NAME": "verify",
            "GIT_AUTHOR_EMAIL": "verify@localhost",
            "GIT_COMMITTER_NAME": "verify",
            "GIT_COMMITTER_EMAIL": "verify@localhost",
        }
        if settings["ca"]:
            self.environment["GIT_SSL_CAINFO"] = str(folder / "ca.pem")

    def run(self, *command: str) -> str:
        """Run a command and return what it printed."""
        done = subprocess.run(
            command, cwd=self.folder, env=self.environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=STEP_SECONDS, check=False
        )
        if done.returncode:
            raise StepFailed(f"{' '.join(command)} ended with {done.returncode}: {(done.stderr or done.stdout).strip()[-600:]}")
        return done.stdout

    def push_git(self, url: str, word: str) -> str:
        """Push a commit and return its id."""
        self.run("git", "init", "-q", "-b", "master", "git-out")
        (self.folder / "git-out" / "word").write_text(word)
        self.run("git", "-C", "git-out", "add", "word")
        self.run("git", "-C", "git-out", "commit", "-q", "-m", word)
        self.run("git", "-C", "git-out", "push", "-q", url, "master")
        return self.run("git", "-C", "git-out", "rev-parse", "HEAD").strip()

    def clone_git(self, url: str) -> str:
        """Clone and return the pushed file's text."""
        self.run("git", "clone", "-q", url, "git-in")
        return (self.folder / "git-in" / "word").read_text()

    def push_hg(self, url: str, word: str) -> str:
        """Push a changeset and return its id."""
        self.run(self.hg_command, "init", "hg-out")
        (self.folder / "hg-out" / "word").write_text(word)
        self.run(self.hg_command, "-R", "hg-out", "commit", "-q", "-A", "-m", word, "hg-out/word")
        self.run(self.hg_command, "-R", "hg-out", "push", "-q", url)
        return self.run(self.hg_command, "-R", "hg-out", "log", "-r", "tip", "-T", "{node}").strip()

    def clone_hg(self, url: str) -> str:
        """Clone and return the pushed file's text."""
        self.run(self.hg_command, "clone", "-q", url, "hg-in")
        return (self.folder / "hg-in" / "word").read_text()


def step(text: str) -> None:
    """Tell how far it is."""
    print(text, flush=True)


def check(site: Site, client: Client, kind: str, name: str, word: str) -> None:
    """Create a repository, push to it, clone it and look at the commit's page."""
    site.call("create_repo", repo_name=name, repo_type=kind, description="made by verify", private=True)
    site.wait_for_repository(name)
    step(f"created the {kind} repository {name}")
    url = f"{site.url}/{name}"
    revision = client.push_git(url, word) if kind == "git" else client.push_hg(url, word)
    step(f"pushed {revision[:12]} by {kind}")
    text = client.clone_git(url) if kind == "git" else client.clone_hg(url)
    if text != word:
        raise StepFailed(f"the {kind} clone holds '{text}' instead of what was pushed")
    if word not in site.page(f"/{name}/changeset/{revision}"):
        raise StepFailed(f"the page of changeset {revision[:12]} does not show its message")
    step(f"cloned it and saw the commit's page ({kind})")


@contextlib.contextmanager
def acting_as(user: str) -> Iterator[None]:
    """Touch files as a user, since a file server lets root look at nothing of his."""
    account = pwd.getpwnam(user)
    os.setegid(account.pw_gid)
    os.seteuid(account.pw_uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)


def remove_leftovers(repositories: pathlib.Path) -> None:
    """Remove what Kallithea moved aside when it deleted what was made here, now and earlier: on NFS a folder stays while somebody has one of its files open."""
    moved_groups = list(repositories.glob(f"rm__*_GROUP_{GROUP}"))
    for parent in [repositories / GROUP, *moved_groups]:
        for path in parent.glob(f"rm__*__{WORD}*"):
            shutil.rmtree(path, ignore_errors=True)
    for path in moved_groups:
        if not any(path.iterdir()):
            path.rmdir()


def main() -> int:
    """Take all steps, remove what was made, and say how it went."""
    settings = json.load(sys.stdin)
    site = Site(settings)
    word = WORD + secrets.token_hex(6)
    made: list[str] = []
    made_group = False
    problem = ""
    # Kept until the process ends.
    fcntl.flock(os.open(LOCK, os.O_WRONLY | os.O_CREAT, 0o600), fcntl.LOCK_EX)
    try:
        site.login()
        step(f"logged in as {settings['user']}")
        if GROUP not in [group["group_name"] for group in site.call("get_repo_groups")]:
            site.call("create_repo_group", group_name=GROUP, description="reserved for kallithea.cluster.verify")
            made_group = True
        with tempfile.TemporaryDirectory(prefix="verify-", dir=settings["folder"]) as folder:
            client = Client(pathlib.Path(folder), settings)
            for kind in ("git", "hg"):
                name = f"{GROUP}/{word}-{kind}"
                made.append(name)
                check(site, client, kind, name, word)
    except (StepFailed, OSError, subprocess.TimeoutExpired, ValueError) as error:
        problem = str(error)
    try:
        existing = {repository["repo_name"] for repository in site.call("get_repos")} if made else set()
        for name in made:
            if name in existing:
                site.call("delete_repo", repoid=name)
        repositories = pathlib.Path(settings["repositories"])
        if made_group and not any(name.startswith(GROUP + "/") for name in existing - set(made)):
            site.call("delete_repo_group", repogroupid=GROUP)
        with acting_as(settings["service_user"]):
            remove_leftovers(repositories)
        step("removed what was made")
    except (StepFailed, OSError) as error:
        problem = problem or f"removing what was made failed: {error}"
    if problem:
        step(f"FAILED: {problem}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
