"""What a site gets for a benchmark: a repository of each kind, and the accounts that use them."""

from __future__ import annotations

import os
import pathlib
import secrets
import subprocess
import urllib.parse
from collections.abc import Sequence
from typing import Any

from client import BenchFailed, Browser, Git

HG_CHANGES = 200
HG_SECONDS = 120
PERSON, BOTS = "person", ("ci", "large", "small")


class Content:
    """The repositories and accounts of one site."""

    def __init__(self, folder: pathlib.Path, word: str, admin: Browser, ca_file: str, push_url: str) -> None:
        """The administrator has an API key; the folder has the repository source; what is pushed goes to an address that this machine can resolve."""
        self.folder, self.word, self.admin, self.ca_file = folder, word, admin, ca_file
        self.url = push_url
        self.git, self.hg = f"{word}-git", f"{word}-hg"
        self.passwords: dict[str, str] = {}

    def account(self, name: str) -> str:
        """Return the name that an account has on the site."""
        return f"{self.word}-{name}"

    def make(self) -> None:
        """Make and fill the repositories, and let the accounts read them."""
        for name, kind in ((self.git, "git"), (self.hg, "hg")):
            self.admin.create_repository(name, kind)
        git = Git(self.folder, self.admin.user, self.admin.password, self.ca_file)
        git.run("-C", "source", "-c", "http.version=HTTP/1.1", "push", "-q", f"{self.url}/{self.git}", "master")
        self.push_hg()
        for name in (PERSON, *BOTS):
            self.passwords[name] = secrets.token_hex(12)
            account = self.account(name)
            self.admin.call("create_user", username=account, email=f"{account}@localhost.test", password=self.passwords[name], firstname="Bench", lastname=name)
            for repository in (self.git, self.hg):
                self.admin.call("grant_user_permission", repoid=repository, userid=account, perm="repository.read")

    def push_hg(self) -> None:
        """Make a Mercurial repository once, and push it."""
        source, settings = self.folder / "source-hg", self.folder / "hgrc"
        parts = urllib.parse.urlsplit(self.url)
        settings.touch(mode=0o600)
        settings.write_text(
            f"[ui]\nusername = Bench\n[web]\ncacerts = {self.ca_file}\n[auth]\nsite.prefix = {parts.netloc}\nsite.schemes = {parts.scheme}\n"
            f"site.username = {self.admin.user}\nsite.password = {self.admin.password}\n"
        )
        commands: list[Sequence[str]] = [["-R", str(source), "push", "-q", f"{self.url}/{self.hg}"]]
        if not source.exists():
            commands = [["init", str(source)], ["-R", str(source), "debugbuilddag", "--new-file", f"+{HG_CHANGES}"], *commands]
        for command in commands:
            environment = {**self.environment, "HGRCPATH": str(settings)}
            done = subprocess.run(["hg", *command], env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=HG_SECONDS, check=False)
            if done.returncode:
                raise BenchFailed(f"hg {command[-2]} ended with {done.returncode}: {done.stderr.strip()[-400:]}")

    @property
    def environment(self) -> dict[str, str]:
        """What hg needs besides its settings."""
        return {"PATH": os.environ["PATH"], "HOME": str(self.folder), "LC_ALL": "C.UTF-8"}

    def pages(self) -> list[dict[str, Any]]:
        """Return what people look at."""
        return [
            {"name": "login page", "path": "/_admin/login", "stranger": True},
            {"name": "repository page, git", "path": f"/{self.git}"},
            {"name": "repository page, hg", "path": f"/{self.hg}"},
            {"name": "changelog", "path": f"/{self.git}/changelog"},
            {"name": "file view", "path": f"/{self.git}/files/tip/code.py"},
        ]

    def login(self) -> dict[str, str]:
        """Return whom people log in as."""
        return {"user": self.account(PERSON), "password": self.passwords[PERSON]}

    def bot(self, name: str, clients: int, url: str) -> dict[str, Any]:
        """Return a plan's bot that clones the Git repository from a site's address."""
        return {"url": f"{url}/{self.git}", "clients": clients, "user": self.account(name), "password": self.passwords[name]}

    def remove(self) -> None:
        """Remove what is there of it."""
        there = {repository["repo_name"] for repository in self.admin.call("get_repos")}
        for name in (self.git, self.hg):
            if name in there:
                self.admin.call("delete_repo", repoid=name)
        for name in self.passwords:
            self.admin.call("delete_user", userid=self.account(name))
