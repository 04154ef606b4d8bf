# Copyright: The kallithea.cluster maintainers
# GPL-3.0-or-later (see LICENSE)
"""The steps in which several hosts try a shared storage together: each host does its part of a step, and says what it saw.

The hosts are held in lockstep by whoever calls them, never by the storage that they try. Each probe has a folder of its own, and nothing is made beside these
later: what a host does in one of them must not renew what its client remembers of another, as a change of the folder above does.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import socket
import time
from collections.abc import Callable, Mapping
from typing import Any

from ansible_collections.kallithea.cluster.plugins.module_utils.storage_holder import ask_holder, end_holder, start_holder
from ansible_collections.kallithea.cluster.plugins.module_utils.storage_probes import (
    SIGHT_SECONDS,
    owners,
    race,
    times,
    try_lock,
    write,
)
from ansible_collections.kallithea.cluster.plugins.module_utils.text_files import text_of

FOLDER = ".kallithea-acceptance"
PROBES = ("new", "renamed", "removed", "rewritten", "replaced", "made", "race", "times")
OLD, NEW = "old\n", "new\n"
RELEASE_SECONDS = 3.0
# More than another run takes from here to its end.
OTHER_RUN_SECONDS = 30.0


def become(uid: int, gid: int) -> None:
    """Be the service user from now on: a file server may take nothing from root."""
    os.setgroups([])
    os.setgid(gid)
    os.setuid(uid)
    os.umask(0o027)


def begin(folder: str) -> dict[str, Any]:
    """Make what the hosts will look at; another run comes to its end before, and what a killed one left goes. The first host does it alone."""
    wait_for_another(folder)
    with contextlib.suppress(OSError):
        end_holder(text_of(os.path.join(folder, "run")), 0)
    clean(folder)
    os.mkdir(folder, 0o750)
    for probe in PROBES:
        os.mkdir(os.path.join(folder, probe), 0o750)
    for name in ("renamed/before", "removed/file", "rewritten/file", "replaced/file", "lock"):
        write(os.path.join(folder, name), OLD)
    run = secrets.token_hex(8)
    write(os.path.join(folder, "run"), run)
    return {"run": run}


def wait_for_another(folder: str) -> None:
    """Wait until a run that tries the storage at this moment has ended; it removes the folder, and what a killed run left stays as it is."""
    end = time.monotonic() + OTHER_RUN_SECONDS
    with contextlib.suppress(FileNotFoundError):
        run = text_of(os.path.join(folder, "run"))
        while is_run(folder, run) and time.monotonic() < end:
            time.sleep(0.5)


def clean(folder: str, seconds: float = 2.0) -> None:
    """Remove the folder; a file that was open a moment ago may keep an NFS client's own name for a little while."""
    end = time.monotonic() + seconds
    while True:
        try:
            shutil.rmtree(folder)
        except FileNotFoundError:
            return
        except OSError:
            if time.monotonic() > end:
                raise
        time.sleep(0.1)


def look(folder: str, run: str, number: int) -> dict[str, Any]:
    """Wait for what the first host has made, measure, and leave a process that looks at everything and holds open what will be replaced."""
    end = time.monotonic() + SIGHT_SECONDS
    while not is_run(folder, run):
        if time.monotonic() > end:
            return {"shared": False}
        time.sleep(0.02)
    write(os.path.join(folder, "made", str(number)), "")
    space = os.statvfs(folder)
    found = {
        "shared": True,
        "times": times(folder, number),
        "space": {"free": space.f_bavail, "all": space.f_blocks, "free_inodes": space.f_favail, "inodes": space.f_files},
    }
    start_holder(folder, run, number)
    return found


def is_run(folder: str, run: str) -> bool:
    """Tell whether the folder is the one that the first host made in this run."""
    try:
        return bool(text_of(os.path.join(folder, "run")) == run)
    except FileNotFoundError:
        return False


def change(folder: str, number: int, hosts: int) -> dict[str, Any]:
    """Let the first host change what the others look at, and these try the lock that it holds; then all of them race."""
    found: dict[str, Any] = {}
    if number == 0:
        make_changes(folder)
    else:
        found["lock"] = try_lock(os.path.join(folder, "lock"))
    if hosts < 2:
        return found
    owner = f"{socket.gethostname()}:{os.getpid()}"
    # As git takes the lock of a branch, and Mercurial that of a repository.
    attempts: dict[str, Callable[[str], None]] = {
        "exclusive": lambda path: os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o640)),
        "symlink": lambda path: os.symlink(owner, path),
    }
    found["races"] = race(folder, attempts)
    return found


def make_changes(folder: str) -> None:
    """Make, rename, remove, rewrite and replace a file."""
    write(os.path.join(folder, "new", "file"), NEW)
    os.rename(os.path.join(folder, "renamed", "before"), os.path.join(folder, "renamed", "after"))
    os.unlink(os.path.join(folder, "removed", "file"))
    write(os.path.join(folder, "rewritten", "file"), NEW)
    write(os.path.join(folder, "replaced", "file.new"), NEW)
    os.rename(os.path.join(folder, "replaced", "file.new"), os.path.join(folder, "replaced", "file"))


def see(folder: str, run: str, number: int) -> dict[str, Any]:
    """Say what this host's holder sees of the changes, what it reads in the file that it holds, and whose the files are."""
    found: dict[str, Any] = ask_holder(run, number)
    found["owners"] = owners(os.path.join(folder, "made"))
    if number != 0:
        found["released"] = try_lock(os.path.join(folder, "lock"), RELEASE_SECONDS)
    return found


def end(folder: str, run: str, number: int) -> dict[str, Any]:
    """End this host's holder; the first host removes everything."""
    end_holder(run, number)
    if number == 0:
        clean(folder)
    return {}


def export_options(table: str, path: str) -> list[list[str]]:
    """Return the options of each export of a path, from the table of NFS exports (/var/lib/nfs/etab)."""
    found = []
    for line in table.splitlines():
        exported, _, client = line.partition("\t")
        if exported == path and client.endswith(")"):
            found.append(client[client.index("(") + 1 : -1].split(","))
    return found


def step(name: str, folder: str, run: str, number: int, hosts: int, earlier: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the earlier steps of this host and this one found; a host that can not go on does nothing more."""
    if name == "begin":
        return begin(folder)
    if name == "end":
        return end(folder, run, number)
    if earlier.get("error") or not earlier.get("shared", name == "look"):
        return dict(earlier)
    if name == "look":
        return look(folder, run, number)
    return {**earlier, **(change(folder, number, hosts) if name == "change" else see(folder, run, number))}
