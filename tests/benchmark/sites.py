"""The sites that the benchmarks of large ones hold against each other: the demo and plain Kallithea, each with somebody who asks it."""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import pathlib
import secrets
import shutil
import time
import urllib.parse
from collections.abc import Iterator, Sequence

import figures
from client import BenchFailed, Browser, Git, Hg
from hosts import Hosts

HERE = pathlib.Path(__file__).resolve().parent
# Plain Kallithea takes a minute for the home page of 20,000 repositories, and a push of 200 MB is long on any.
PAGE_SECONDS, PUSH_SECONDS, MAINTENANCE_SECONDS, DOWNLOAD_SECONDS = 300, 900, 900, 300
# hg takes 10 ms for each changeset.
CONVERT_SECONDS = 600
# The roles' defaults.
STORAGE, PULL_BUNDLE_BYTES = "/srv/kallithea", 10_485_760
BLOCK = 1 << 20


class Site:
    """A site and an ordinary account with a password."""

    def __init__(self, name: str, hosts: Hosts, url: str, straight: str, git: str, admin: Browser, ca_file: str, folder: pathlib.Path, word: str) -> None:
        """Remember it: `straight` leads past a balancer, `git` is what runs git on its application host."""
        self.name, self.hosts, self.url, self.straight, self.git_path = name, hosts, url, straight, git
        self.admin, self.ca_file, self.folder, self.word = admin, ca_file, folder / name, word
        self.app = hosts.of("app")[0]
        self.account, self.password = f"{word}-visitor", secrets.token_hex(12)
        self.made: list[str] = []
        self.has_account = False

    def open(self) -> None:
        """Make the account and log in."""
        self.folder.mkdir(mode=0o700)
        names = {"username": self.account, "email": f"{self.account}@localhost.test", "firstname": "Bench", "lastname": "Visitor"}
        self.admin.call("create_user", password=self.password, **names)
        self.has_account = True
        self.visitor = Browser(self.url, self.account, self.password, self.ca_file)
        self.visitor.login()
        self.git = Git(self.folder, self.account, self.password, self.ca_file)
        self.hg = Hg(self.folder, self.url, self.account, self.password, self.ca_file)

    def close(self) -> None:
        """Remove what is there of ours."""
        there = {repository["repo_name"] for repository in self.admin.call("get_repos")} if self.made else set()
        for name in self.made:
            if name in there:
                self.admin.call("delete_repo", repoid=name)
        if self.has_account:
            self.admin.call("delete_user", userid=self.account)

    def create(self, name: str, kind: str = "git") -> str:
        """Make an empty repository that the account may write to; return its name."""
        repository = f"{self.word}-{name}"
        self.made.append(repository)
        self.admin.create_repository(repository, kind)
        self.admin.call("grant_user_permission", repoid=repository, userid=self.account, perm="repository.write")
        return repository

    def filled(self, name: str, source: pathlib.Path) -> str:
        """Make a repository with all that the source has, as a push leaves it; return its name."""
        kind = "hg" if (source / ".hg").exists() else "git"
        repository = self.create(name, kind)
        if kind == "hg":
            self.hg.run("-R", str(source), "push", "-q", f"{self.url}/{repository}", seconds=PUSH_SECONDS)
        else:
            # Over HTTP/2 the git of Debian 12 may never send the end of a large push.
            push = ("-c", "http.version=HTTP/1.1", "push", "-q", f"{self.url}/{repository}", "refs/heads/*:refs/heads/*", "refs/tags/*:refs/tags/*")
            self.git.run("-C", str(source), *push, seconds=PUSH_SECONDS)
        return repository

    def maintain(self, repository: str) -> None:
        """Do what the maintenance's timer does, for one repository."""
        command = ("/usr/local/lib/kallithea/kallithea-maintenance", "--storage", STORAGE, "--bundle-bytes", str(PULL_BUNDLE_BYTES), repository)
        said = self.hosts.as_service(self.app, *command, seconds=MAINTENANCE_SECONDS)
        if "): done, " not in said:
            raise BenchFailed(f"{self.name}: {repository} was not maintained: {said.strip()[-300:]}")

    def page(self, path: str) -> float:
        """Look at a page and return its seconds."""
        begin = time.monotonic()
        self.visitor.page(path, seconds=PAGE_SECONDS)
        return time.monotonic() - begin

    def api(self, repository: str) -> float:
        """Ask the API for a repository and return the seconds."""
        begin = time.monotonic()
        self.visitor.call("get_repo", repoid=repository)
        return time.monotonic() - begin

    @contextlib.contextmanager
    def copy(self) -> Iterator[str]:
        """Have a folder's name for a copy, and remove what comes to stand there."""
        folder = self.folder / "copy"
        try:
            yield str(folder)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def clone(self, repository: str) -> float:
        """Clone without a working copy and return the seconds; all references of a Git repository."""
        with self.copy() as folder:
            return self.git.run("clone", "-q", "--bare", f"{self.url}/{repository}", folder, seconds=PUSH_SECONDS)

    def hg_clone(self, repository: str) -> float:
        """Clone without a working copy and return the seconds."""
        with self.copy() as folder:
            return self.hg.run("clone", "-q", "--noupdate", f"{self.url}/{repository}", folder, seconds=PUSH_SECONDS)

    def download(self, repository: str, request: bytes) -> tuple[float, int]:
        """Ask past the balancer for a pack, as git does but without a client's work on it; return seconds and bytes."""
        parts = urllib.parse.urlsplit(self.straight)
        password = base64.b64encode(f"{self.account}:{self.password}".encode()).decode()
        headers = {"Authorization": f"Basic {password}", "Content-Type": "application/x-git-upload-pack-request", "User-Agent": "git/2"}
        begin, size = time.monotonic(), 0
        with contextlib.closing(http.client.HTTPConnection(str(parts.hostname), parts.port, timeout=DOWNLOAD_SECONDS)) as connection:
            connection.request("POST", f"/{repository}/git-upload-pack", request, headers)
            answer = connection.getresponse()
            while block := answer.read(BLOCK):
                size += len(block)
        if answer.status != 200:
            raise BenchFailed(f"{self.name}: {repository}/git-upload-pack answered {answer.status}.")
        return time.monotonic() - begin, size

    def upload(self, git: str, repository: str, requests: Sequence[bytes]) -> dict[str, list[float]]:
        """Have git answer on the application host itself, straight through a pipe; return seconds, processor time and bytes of each request."""
        given = {"git": git, "repository": f"{STORAGE}/repositories/{repository}", "requests": [request.hex() for request in requests]}
        program = (HERE / "straight.py").read_text()
        said = self.hosts.as_service(self.app, "/usr/bin/python3", "-c", program, text=json.dumps(given), seconds=DOWNLOAD_SECONDS * len(requests))
        return figures.marked(said)


class Sources:
    """The repositories that are pushed to the sites, made once each, the same each time."""

    def __init__(self, folder: pathlib.Path) -> None:
        """Remember where they are to stand."""
        self.folder = folder
        folder.mkdir(mode=0o700, parents=True)
        self.git = Git(folder, "", "", "")
        self.hg = Hg(folder, "", "", "", "")

    def ids(self, source: pathlib.Path, *revisions: str) -> list[str]:
        """Return the commits that Git finds by these."""
        return self.git.says("-C", str(source), "rev-list", *revisions).splitlines()

    def git_source(self, name: str, commits: int, size: int, references: int) -> pathlib.Path:
        """Return a Git repository of so many commits: with a size of incompressible bytes, without one of small changes to some modules."""
        source = self.folder / name
        if source.exists():
            return source
        self.git.run("init", "-q", "--bare", "-b", "master", name)
        stream = figures.fast_import(commits, size) if size else figures.history(commits)
        self.git.says("-C", name, "fast-import", "--quiet", pieces=stream)
        if references:
            self.git.says("-C", name, "update-ref", "--stdin", pieces=figures.references(self.ids(source, "--reverse", "master"), references))
        return source

    def hg_source(self, source: pathlib.Path) -> pathlib.Path:
        """Return the Mercurial repository that has a Git repository's history: the same changesets each time, its tags in one more, which is of today."""
        name = f"{source.name}-hg"
        if not (self.folder / name).exists():
            self.hg.run("convert", "-q", "--config", "extensions.convert=", source.name, name, seconds=CONVERT_SECONDS)
        return self.folder / name
