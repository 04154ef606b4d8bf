"""What a site gets for a benchmark: a repository of each kind, and the accounts that use them."""

from __future__ import annotations

import pathlib
import secrets
from typing import Any

from client import Browser, Git, Hg

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
        source = self.folder / "source-hg"
        self.mercurial = Hg(self.folder, self.url, self.admin.user, self.admin.password, self.ca_file)
        if not source.exists():
            self.mercurial.run("init", str(source))
            self.mercurial.run("-R", str(source), "debugbuilddag", "--new-file", f"+{HG_CHANGES}", seconds=HG_SECONDS)
        self.mercurial.run("-R", str(source), "push", "-q", f"{self.url}/{self.hg}", seconds=HG_SECONDS)

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
