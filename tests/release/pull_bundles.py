"""Clones of Mercurial repositories with bundles ready and without, by real clients: what they get, and what they leave in the journal.

pull_bundles.py WITHOUT WITH: folders that hold the package kallithea. Ends with an error where a clone differs. Needs the Python of a release.
"""

from __future__ import annotations

import base64
import hashlib
import importlib.machinery
import importlib.util
import json
import logging
import os
import random
import resource
import shlex
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from pull_log import Clients
from trees import ask, differences

# Where it is installed, or in the project.
MAINTENANCE = [Path("/usr/local/lib/kallithea/kallithea-maintenance"), Path(__file__).parents[2] / "roles/app/files/kallithea-maintenance"]
LOG = "{node} {phase} {branch} {bookmarks} {tags}\n"


def watch(sent: Callable[[], None]) -> None:
    """Call for each bundle that this process sends."""
    from mercurial import wireprotov1server

    find = wireprotov1server.find_pullbundle

    def counted(*arguments: Any) -> Any:
        bundle = find(*arguments)
        if bundle is not None:
            sent()
        return bundle

    wireprotov1server.find_pullbundle = counted


class World:
    """A tree behind a web server, clients, and the maintenance."""

    def __init__(self, folder: Path) -> None:
        """Serve, with bundles where the tree knows them."""
        self.clients = Clients(folder)
        self.folder = folder
        self.hg = folder / "hg"
        self.hg.write_text(f'#!/bin/sh\nexec {sys.executable} {Path(sys.executable).parent / "hg"} "$@"\n')
        self.hg.chmod(0o755)
        self.answers: dict[str, Any] = {}
        self.bundles: dict[str, list[int]] = {}
        self.count = 0
        watch(self.sent)
        self.ssh = folder / "ssh"
        words = shlex.join([sys.executable, str(Path(__file__).absolute()), "ssh", str(folder)])
        self.ssh.write_text(f'#!/bin/sh\nfor word; do :; done\nPYTHONPATH={shlex.quote(os.environ["PYTHONPATH"])} exec {words} "$word"\n')
        self.ssh.chmod(0o755)
        sys.dont_write_bytecode = True
        loader = importlib.machinery.SourceFileLoader("kallithea_maintenance", str(next(path for path in MAINTENANCE if path.exists())))
        spec = importlib.util.spec_from_loader("kallithea_maintenance", loader)
        assert spec
        self.maintenance: Any = importlib.util.module_from_spec(spec)
        loader.exec_module(self.maintenance)
        self.maintenance.HG = str(self.hg)
        self.name, self.stored = "", folder

    def sent(self) -> None:
        """Count a bundle that is sent."""
        self.count += 1

    def client(self, *words: str, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
        """Run hg as a client does; a failure is an answer, too."""
        command = [str(self.hg), *words]
        return subprocess.run(command, cwd=folder or self.folder, env=self.clients.environment, capture_output=True, text=True, timeout=120, check=False)

    def server(self, *words: str) -> str:
        """Run hg in the stored repository as an administrator does."""
        done = self.client("--config", "extensions.strip=", *words, folder=self.stored)
        assert done.returncode == 0, done
        return done.stdout

    def repository(self, name: str, permission: str = "repository.read") -> None:
        """Go on with a new repository."""
        self.name, self.stored = name, self.clients.app.make_repository("hg", name, permission)

    def commit(self, text: str, *configuration: str, branch: str = "", lines: int = 2000, on: str = "") -> None:
        """Commit in the stored repository what has the same name in each run."""
        if on:
            self.server("update", "-C", on)
        if branch:
            self.server("branch", branch)
        generator = random.Random(text)
        (self.stored / "file").write_text("".join(f"{generator.random()}\n" for _ in range(lines)))
        words = [word for line in ("phases.new-commit=public", *configuration) for word in ("--config", line)]
        self.server(*words, "commit", "-A", "-m", text, "-d", "1700000000 0")

    def bundle(self) -> None:
        """Run the maintenance's part, as its timer does."""
        repository = next(found for found in self.maintenance.find(self.folder, 1000) if found.name == self.name)
        self.maintenance.prepare_clones(repository, time.monotonic() + 60)

    def step(self, name: str, *words: str, bundles: int = 0, configuration: tuple[str, ...] = (), into: Path | None = None, ssh: bool = False) -> Path:
        """Clone or pull, and keep what came of it, and that it is to take so many bundles."""
        from kallithea.model import db, meta

        assert name not in self.answers, name
        target = into or self.folder / "clones" / f"{len(self.answers)}"
        target.parent.mkdir(exist_ok=True)
        url = f"ssh://host/{self.name}" if ssh else self.clients.url(self.name)
        meta.Session.remove()
        before, self.count, calls = db.UserLog.query().count(), 0, self.clients.extension_calls
        sent_by_ssh = self.folder / "sent"
        sent_by_ssh.write_text("")
        options = [word for line in (f"ui.ssh={self.ssh}", *configuration) for word in ("--config", line)]
        done = self.client(*options, "pull", *words, url, folder=target) if into else self.client(*options, "clone", "-U", *words, url, str(target))
        rows = [[row.username, row.action, row.repository_name] for row in db.UserLog.query().order_by(db.UserLog.user_log_id).offset(before)]
        meta.Session.remove()
        self.bundles[name] = [bundles, self.count + len(sent_by_ssh.read_text())]
        has = (target / ".hg").exists()
        self.answers[name] = {
            "status": done.returncode,
            "words": [line for line in done.stderr.splitlines() if line.startswith(("abort", "remote"))],
            "log": sorted(self.client("log", "--hidden", "-T", LOG, folder=target).stdout.splitlines()) if has else [],
            "markers": sorted(self.client("debugobsolete", folder=target).stdout.splitlines()) if has else [],
            "whole": has and self.client("verify", "-q", folder=target).returncode,
            "rows": rows,
            "calls": self.clients.extension_calls - calls,
        }
        return target

    def ask(self, name: str, capabilities: str = "0.1 0.2 comp=zstd,zlib,none,bzip2 partial-pull", bundles: int = 0, **arguments: str) -> None:
        """Ask for changesets as a client would that asks for something of its own; a bundle's bytes are not those that are made for it."""
        can = quote("HG20\nchangegroup=01,02\nlistkeys\nphases=heads\nbookmarks")
        words = urlencode({"bundlecaps": f"HG20,bundle2={can}", "cg": "1", **arguments})
        self.count = 0
        accept = {"HTTP_ACCEPT": "application/mercurial-0.1", "HTTP_X_HGPROTO_1": capabilities}
        status, body = self.clients.app.ask(f"/{self.name}?cmd=getbundle&{words}", user="user", **accept)
        self.bundles[name] = [bundles, self.count]
        self.answers[name] = [status, "" if bundles else hashlib.sha256(body).hexdigest()]

    def node(self, revision: str) -> str:
        """Return a changeset's name."""
        return self.server("log", "--hidden", "-T", "{node}", "-r", revision)

    def configure(self, *lines: str) -> None:
        """Configure the stored repository."""
        (self.stored / ".hg" / "hgrc").write_text("".join(f"{line}\n" for line in lines))

    @property
    def manifest(self) -> Path:
        """Return the manifest's file."""
        return self.stored / ".hg" / "pullbundles" / "manifest"

    @property
    def file(self) -> Path:
        """Return the bundle's file."""
        return self.stored / ".hg" / self.manifest.read_text().split()[0]


def ways_to_clone(world: World) -> None:
    """Clone wholly, in part and more than the bundle has, and with what a bundle does not have."""
    world.repository("a")
    for number in range(4):
        world.commit(f"{number}")
    world.commit("other", branch="other", on="1")
    world.server("tag", "-d", "1700000000 0", "v1")
    world.server("phase", "--public", "-r", "all()")
    world.step("before there is a bundle")
    world.bundle()
    clone = world.step("clone", bundles=1)
    heads = [world.node(branch) for branch in ("default", "other")]
    world.step("clone again", bundles=1)
    world.step("one branch of two", "-r", "other")
    world.step("both branches", "-r", heads[0], "-r", heads[1], bundles=1)
    world.step("an older revision", "-r", world.node("1"))
    world.step("nothing new", into=clone)
    world.step("as a stream", "--stream")
    world.step("bookmarks asked for as in old times", configuration=("devel.legacy.exchange=bookmarks",))
    world.step("phases asked for as in old times", configuration=("devel.legacy.exchange=phases",))
    world.step("the oldest bundles", configuration=("devel.legacy.exchange=bundle1",))
    own = world.folder / "own"
    world.client("init", str(own))
    (own / "own").write_text("own")
    world.client("commit", "-A", "-m", "own", "-d", "0 0", folder=own)
    world.step("into another history", "--force", bundles=1, into=own)
    world.clients.server.base_environ["HTTP_X_KALLITHEA_WHO"] = "bot"
    world.step("a bot's", bundles=1)
    del world.clients.server.base_environ["HTTP_X_KALLITHEA_WHO"]
    by_ssh = world.step("over SSH", bundles=1, ssh=True)
    world.step("nothing new over SSH", into=by_ssh, ssh=True)
    world.step("one branch of two over SSH", "-r", "other", ssh=True)
    world.ask("by hand", bundles=1, heads=" ".join(heads))
    world.ask("without zstd", "0.1 0.2 comp=zlib,none partial-pull", heads=" ".join(heads))
    world.ask("a client of one part", "0.1 0.2 comp=zstd,zlib,none", heads=" ".join(heads))
    world.ask("without changesets", heads=" ".join(heads), cg="0")
    world.ask("what is not there", heads="1" * 40)
    world.ask("what is not there in common", heads=" ".join(heads), common="1" * 40)
    world.commit("newer", on="default")
    world.step("more than the bundle", bundles=1)
    world.step("pull of the newer", into=clone)
    world.step("more than the bundle over SSH", bundles=1, ssh=True)
    world.step("pull of the newer over SSH", into=by_ssh, ssh=True)
    world.commit("draft", "phases.new-commit=draft")
    world.step("a draft more, which is public for clients", bundles=1)
    world.configure("[phases]", "publish = False")
    world.step("a draft more", bundles=1)
    world.server("phase", "--force", "--draft", "-r", heads[0])
    world.step("what was public is a draft")
    world.configure()
    world.server("phase", "--force", "--secret", "-r", heads[0])
    world.step("what was public is secret")
    world.ask("the secret by name", heads=" ".join(heads))
    world.ask("the secret as known", heads=heads[1], common=heads[0])
    world.server("phase", "--public", "-r", "all()")
    world.step("public again", bundles=1)
    world.configure("[experimental]", "evolution = all")
    world.step("by who wants markers", bundles=1, configuration=("experimental.evolution=all",))
    world.server("debugobsolete", "1" * 40, world.node("tip"), "-d", "0 0")
    world.step("with markers", configuration=("experimental.evolution=all",))
    world.step("by who wants no markers", bundles=1)
    world.configure()
    world.server("bookmark", "-r", "1", "mark")
    world.step("with a bookmark")
    world.step("with a bookmark over SSH", ssh=True)


def rewritten(world: World) -> None:
    """Clone what is not any more what it was when the bundle was made."""
    world.repository("b")
    for number in range(4):
        world.commit(f"{number}")
    world.bundle()
    world.step("b", bundles=1)
    world.server("strip", "--no-backup", "tip")
    world.step("stripped")
    world.commit("another")
    world.step("rewritten")
    good = world.manifest.read_text()
    world.bundle()
    world.step("made anew", bundles=1)
    whole = world.manifest.read_text()
    world.manifest.write_text(good + whole)
    world.step("the second of two entries", bundles=1)
    for number, text in enumerate(
        ("nonsense\n", "pullbundles/x heads=zz\n", "\0\n", whole.replace("heads=", "heads=zz;"), whole.replace("size=", "size=x"), whole[:-20])
    ):
        world.manifest.write_text(text)
        world.step(f"broken manifest {number}")
    world.manifest.write_text(whole)
    content = world.file.read_bytes()
    world.file.write_bytes(content[:-1])
    world.step("bundle cut off")
    world.file.unlink()
    world.step("bundle away")
    world.file.write_bytes(content)
    world.step("bundle back", bundles=1)
    from kallithea.model import db, meta
    from kallithea.model.repo import RepoModel

    RepoModel().grant_user_permission(db.Repository.get_by_repo_name("b"), "default", "repository.none")
    meta.Session().commit()
    world.step("permission withdrawn")
    RepoModel().delete(db.Repository.get_by_repo_name("b"))
    meta.Session().commit()
    world.repository("b")
    world.step("deleted and made again")
    world.commit("new")
    world.step("another of the same name")
    world.bundle()
    world.step("its own bundle", bundles=1)
    world.configure("[server]", "pullbundle = False")
    world.step("turned off by Mercurial's own switch")


def measured(world: World, big: Path) -> dict[str, list[float]]:
    """Return what clones of a large repository cost the server, and the making of the bundle, in seconds of processor time."""

    def spent(whose: int) -> float:
        usage = resource.getrusage(whose)
        return usage.ru_utime + usage.ru_stime

    def clone(name: str, bundles: int) -> float:
        target = world.folder / name
        world.count, before = 0, spent(resource.RUSAGE_SELF)
        assert world.client("clone", "-U", world.clients.url("big"), str(target)).returncode == 0
        cost = spent(resource.RUSAGE_SELF) - before
        world.bundles[name] = [bundles, world.count]
        world.answers[name] = world.client("log", "-T", LOG, folder=target).stdout
        shutil.rmtree(target)
        return cost

    # As on a host: who has just given a password is known for some seconds.
    world.clients.config["verified_password_seconds"] = "30"
    world.repository("big")
    shutil.rmtree(world.stored)
    shutil.copytree(big, world.stored)
    first = [clone(f"big {number}", 0) for number in range(2)]
    before = spent(resource.RUSAGE_CHILDREN)
    world.bundle()
    making = spent(resource.RUSAGE_CHILDREN) - before
    return {"first": first, "making": [making], "again": [clone(f"big again {number}", 1) for number in range(3)]}


def make_big(path: Path, changesets: int = 5000) -> None:
    """Make a repository of some 15 MB: changes of a few lines in a thousand files."""
    from mercurial import context, hg, node, ui

    generator = random.Random(1)
    words = [f"{generator.getrandbits(36):x}" for _ in range(5000)]
    made = hg.repository(ui.ui.load(), os.fsencode(path), create=True)
    files: dict[bytes, list[str]] = {}
    parent = node.nullid

    def content(repo: Any, change: Any, name: bytes) -> Any:
        return context.memfilectx(repo, change, name, "\n".join(files[name]).encode())

    made.ui.setconfig(b"phases", b"new-commit", b"public")
    with made.lock(), made.transaction(b"make"):
        for number in range(changesets):
            names = sorted({b"%d/%d" % (generator.randrange(40), generator.randrange(25)) for _ in range(4)})
            for name in names:
                lines = files.setdefault(name, [])
                new = [" ".join(generator.choices(words, k=30)) for _ in range(6)]
                files[name] = [*lines, *new] if len(lines) < 40 else [*new[:1], *lines[1:]]
            change = context.memctx(made, (parent, node.nullid), b"change %d" % number, names, content, b"t", b"%d 0" % (1600000000 + number))
            parent = made.commitctx(change)


def serve_ssh(folder: Path, command: str) -> None:
    """Be what a client's key starts on the server, for the user of the first key; a letter for each bundle that is sent."""
    import application

    logging.disable(logging.CRITICAL)
    application.load(folder)
    from kallithea.lib.vcs.ssh.hg import MercurialSshHandler
    from kallithea.model import db

    def sent() -> None:
        with (folder / "sent").open("a") as stream:
            stream.write("b")

    watch(sent)
    handler = MercurialSshHandler.make(shlex.split(command))
    assert handler, command
    key = db.UserSshKeys.query().first()
    handler.serve(key.user_id, key.user_ssh_key_id, "192.0.2.2")


def make_key() -> None:
    """Write down a key of the user's."""
    from kallithea.model import db, meta

    key = db.UserSshKeys()
    key.user_id, key.description = db.User.get_by_username("user").user_id, ""
    key.public_key = "ssh-ed25519 " + base64.b64encode(b"\0\0\0\x0bssh-ed25519\0\0\0\x20" + bytes(32)).decode()
    meta.Session().add(key)
    meta.Session().commit()


def run(folder: Path, big: Path) -> dict[str, Any]:
    """Go through the steps with the tree that Python finds."""
    logging.disable(logging.CRITICAL)
    world = World(folder)
    make_key()
    ways_to_clone(world)
    rewritten(world)
    seconds = measured(world, big)
    return {"answers": world.answers, "bundles": world.bundles, "seconds": seconds}


def main() -> None:
    """Compare two trees, or go through the steps with one."""
    if sys.argv[1] == "ssh":
        serve_ssh(Path(sys.argv[2]), sys.argv[3])
        return
    if len(sys.argv) == 2:
        # Where the program is, since nothing in /tmp may be executable.
        with tempfile.TemporaryDirectory(dir=Path(__file__).parent) as folder:
            print(json.dumps(run(Path(folder), Path(sys.argv[1]))))
        return
    # Nobody's own settings.
    os.environ["HGRCPATH"] = ""
    with tempfile.TemporaryDirectory() as folder:
        make_big(Path(folder, "big"))
        without, patched = (ask(Path(tree), __file__, f"{folder}/big") for tree in sys.argv[1:3])
    for step, answer in without["answers"].items():
        print(f"{step}: bundles {patched['bundles'][step][1]}, rows {answer['rows'] if isinstance(answer, dict) else ''}")
        assert patched["answers"][step] == answer, f"{step}: {differences(answer, patched['answers'][step])}"
        wanted, sent = patched["bundles"][step]
        assert sent == wanted, f"{step}: {sent} bundles in place of {wanted}"
        assert without["bundles"][step][1] == 0, step
    for name, tree in (("without", without), ("with", patched)):
        print(f"{name} the patch: {tree['seconds']}")
    plain, again = statistics.median(without["seconds"]["again"]), statistics.median(patched["seconds"]["again"])
    print(f"a clone of the large repository: {plain:.2f} s of the server's processor time, with its bundle {again:.2f} s")
    assert again * 7 < plain


if __name__ == "__main__":
    main()
