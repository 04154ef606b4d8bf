# Copyright: The kallithea.cluster maintainers
# GPL-3.0-or-later (see LICENSE)
"""The steps in which several hosts try a shared storage together: each host does its part of a step, and says what it saw.

The hosts are held in lockstep by whoever calls them, never by the storage that they try. Each probe has a folder of its own: what a host does
in one of them must not renew what its client remembers of another.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import random
import secrets
import shutil
import socket
import time
from collections.abc import Callable, Mapping
from typing import Any

FOLDER = ".kallithea-acceptance"
PROBES = ("new", "renamed", "removed", "rewritten", "replaced", "made", "race")
OLD, NEW = "old\n", "new\n"
ROUNDS = 200
RACE_SECONDS = 5.0
# Who wins all rounds alone waits for the others; who races with them leaves them just enough time to be first.
ALONE_SECONDS, TOGETHER_SECONDS, TOGETHER_ROUNDS = 0.015, 0.003, 5
SIGHT_SECONDS = 1.0
LISTED_SECONDS = 0.5
RELEASE_SECONDS = 3.0
HOLD_SECONDS = 30.0
TIMES = 20
TIMES_SECONDS = 1.5


def said(error: OSError) -> str:
    """Return an error with its name."""
    return f"{errno.errorcode.get(error.errno or 0, 'error')}: {error.strerror}"


def text_of(path: str) -> str:
    """Return a file's text."""
    with open(path, encoding="utf-8", errors="replace") as stream:
        return stream.read()


def write(path: str, text: str) -> None:
    """Write a file that is made where it is missing, and changed in place where it is there."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o640), "w", encoding="utf-8") as stream:
        stream.write(text)


def opens(path: str) -> bool:
    """Tell whether a file can be opened, as git and Mercurial look for one."""
    try:
        os.close(os.open(path, os.O_RDONLY))
    except FileNotFoundError:
        return False
    return True


def become(uid: int, gid: int) -> None:
    """Be the service user from now on: a file server may take nothing from root."""
    os.setgroups([])
    os.setgid(gid)
    os.setuid(uid)
    os.umask(0o027)


def begin(folder: str) -> dict[str, Any]:
    """Make what the hosts will look at; what a killed run left goes first. The first host does it alone."""
    with contextlib.suppress(OSError):
        ask_holder(text_of(os.path.join(folder, "run")), 0)
    clean(folder)
    os.mkdir(folder, 0o750)
    for probe in PROBES:
        os.mkdir(os.path.join(folder, probe), 0o750)
    for name in ("renamed/before", "removed/file", "rewritten/file", "replaced/file", "lock"):
        write(os.path.join(folder, name), OLD)
    run = secrets.token_hex(8)
    write(os.path.join(folder, "run"), run)
    return {"run": run}


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
    """Look at everything once, so that the client remembers what there is and what is missing; hold open what will be replaced."""
    end = time.monotonic() + SIGHT_SECONDS
    while not is_run(folder, run):
        if time.monotonic() > end:
            return {"shared": False}
        time.sleep(0.02)
    for name in ("new/file", "renamed/after"):
        with contextlib.suppress(FileNotFoundError):
            os.stat(os.path.join(folder, name))
    for name in ("renamed/before", "removed/file", "rewritten/file"):
        text_of(os.path.join(folder, name))
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
        return text_of(os.path.join(folder, "run")) == run
    except FileNotFoundError:
        return False


def times(folder: str, number: int) -> dict[str, list[float]]:
    """Return the milliseconds of small creations, synchronous writes and renames."""
    taken: dict[str, list[float]] = {"create": [], "fsync": [], "rename": []}
    own = os.path.join(folder, f"times{number}")
    os.mkdir(own, 0o750)
    path, target = os.path.join(own, "file"), os.path.join(own, "target")
    end = time.monotonic() + TIMES_SECONDS
    while len(taken["rename"]) < TIMES and (time.monotonic() < end or not taken["rename"]):
        moments = [time.perf_counter()]
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o640)
        moments.append(time.perf_counter())
        os.write(descriptor, b"\0" * 4096)
        os.fsync(descriptor)
        moments.append(time.perf_counter())
        os.close(descriptor)
        closed = time.perf_counter()
        os.rename(path, target)
        renamed = time.perf_counter()
        os.unlink(target)
        for name, seconds in zip(taken, (moments[1] - moments[0], moments[2] - moments[1], renamed - closed), strict=True):
            taken[name].append(round(seconds * 1000, 2))
    return taken


def address(run: str, number: int) -> bytes:
    """Return where this host's holder is asked: a name in memory, which leaves no file behind."""
    return f"\0kallithea-acceptance-{run}-{number}".encode()


def start_holder(folder: str, run: str, number: int) -> None:
    """Start a process that holds a file open until it is asked what it reads there, or for a bounded time; the first host's also holds the lock."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            # Twice, so that it is nobody's child.
            if os.fork() == 0:
                os.setsid()
                hold(folder, run, number, writer)
        finally:
            os._exit(0)
    os.close(writer)
    os.waitpid(child, 0)
    with os.fdopen(reader, encoding="utf-8") as pipe:
        answer = pipe.read()
    if answer != "held":
        raise OSError(int(answer or errno.EIO), os.strerror(int(answer or errno.EIO)))


def hold(folder: str, run: str, number: int, ready: int) -> None:
    """Hold what has to be held, say so, and wait."""
    # The caller's pipes are not this process's matter.
    for descriptor in os.listdir("/proc/self/fd"):
        if int(descriptor) > 2 and int(descriptor) != ready:
            with contextlib.suppress(OSError):
                os.close(int(descriptor))
    try:
        held = os.open(os.path.join(folder, "replaced", "file"), os.O_RDONLY)
        read_again(held)
        if number == 0:
            fcntl.flock(os.open(os.path.join(folder, "lock"), os.O_RDWR), fcntl.LOCK_EX | fcntl.LOCK_NB)
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
            listener.bind(address(run, number))
            listener.listen(1)
            listener.settimeout(HOLD_SECONDS)
            os.write(ready, b"held")
            os.close(ready)
            answer_once(listener, held)
    except OSError as error:
        with contextlib.suppress(OSError):
            os.write(ready, str(error.errno or errno.EIO).encode())


def answer_once(listener: socket.socket, held: int) -> None:
    """Answer with what the held file reads now."""
    with listener.accept()[0] as connection:
        try:
            word = read_again(held)
        except OSError as error:
            word = said(error)
        connection.sendall(word.encode())


def read_again(descriptor: int) -> str:
    """Return the first word of an open file, from its server and not from memory."""
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    return first_word(os.pread(descriptor, 16, 0).decode(errors="replace"))


def first_word(text: str) -> str:
    """Return the word that a probe's file holds."""
    return text.split("\n", 1)[0]


def ask_holder(run: str, number: int) -> str:
    """Return what this host's holder reads, which ends it; nothing where it is gone."""
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(2.0)
        connection.connect(address(run, number))
        return connection.recv(200).decode(errors="replace")
    return ""


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


def try_lock(path: str, seconds: float = 0.0) -> str:
    """Return whether a lock was granted or refused, tried again for some seconds, or the error."""
    end = time.monotonic() + seconds
    descriptor = os.open(path, os.O_RDWR)
    try:
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return "granted"
            except BlockingIOError:
                if time.monotonic() >= end:
                    return "refused"
            except OSError as error:
                return said(error)
            # The others try too.
            time.sleep(random.uniform(0.01, 0.05))
    finally:
        os.close(descriptor)


def race(folder: str, attempts: Mapping[str, Callable[[str], None]], rounds: int = ROUNDS, seconds: float = RACE_SECONDS) -> dict[str, Any]:
    """Try in each round to be the first at a name, in each way; say how many rounds there were, and which were won."""
    found: dict[str, dict[str, Any]] = {way: {"tried": 0, "won": [], "error": ""} for way in attempts}
    lost = -TOGETHER_ROUNDS
    end = time.monotonic() + seconds
    for number in range(rounds):
        if time.monotonic() > end:
            break
        for way, attempt in attempts.items():
            try:
                attempt(os.path.join(folder, "race", f"{way}{number}"))
                found[way]["won"].append(number)
            except FileExistsError:
                lost = number
            except OSError as error:
                found[way]["error"] = said(error)
                return found
            found[way]["tried"] = number + 1
        if any(number in way["won"] for way in found.values()):
            time.sleep(random.uniform(0, TOGETHER_SECONDS) if number - lost < TOGETHER_ROUNDS else ALONE_SECONDS)
    return found


def see(folder: str, run: str, number: int) -> dict[str, Any]:
    """Say what this host sees of the first host's changes, what it reads in the file that it holds, and whose the files are."""
    found: dict[str, Any] = {}
    if number != 0:
        found["sights"] = sights(folder)
    found["held"] = ask_holder(run, number)
    found["owners"] = owners(os.path.join(folder, "made"))
    if number != 0:
        found["released"] = try_lock(os.path.join(folder, "lock"), RELEASE_SECONDS)
    return found


def sights(folder: str) -> dict[str, dict[str, Any]]:
    """Return for each change whether it is seen by opening the file, or only after a look into its folder, and after how many milliseconds."""

    def within(name: str) -> str:
        return os.path.join(folder, name)

    changes: dict[str, tuple[str, Callable[[], bool]]] = {
        "new": ("new", lambda: opens(within("new/file"))),
        "renamed": ("renamed", lambda: opens(within("renamed/after"))),
        "rewritten": ("rewritten", lambda: first_word(text_of(within("rewritten/file"))) == "new"),
        "replaced": ("replaced", lambda: first_word(text_of(within("replaced/file"))) == "new"),
        "removed": ("removed", lambda: not opens(within("removed/file"))),
        "renamed away": ("renamed", lambda: not opens(within("renamed/before"))),
    }
    found: dict[str, dict[str, Any]] = {name: {"how": "", "ms": 0.0, "error": ""} for name in changes}
    begun = time.monotonic()

    def try_all(how: str) -> bool:
        for name, (probe, check) in changes.items():
            if not found[name]["how"]:
                try:
                    if how == "listed":
                        os.listdir(within(probe))
                    if check():
                        found[name].update(how=how, ms=round((time.monotonic() - begun) * 1000, 1))
                except OSError as error:
                    found[name]["error"] = said(error)
        return all(sight["how"] for sight in found.values())

    for how, seconds in (("opened", SIGHT_SECONDS), ("listed", SIGHT_SECONDS + LISTED_SECONDS)):
        while not try_all(how) and time.monotonic() < begun + seconds:
            time.sleep(0.02)
    return found


def owners(folder: str) -> dict[str, list[Any]]:
    """Return owner, group and mode of each host's file."""
    found = {}
    for name in os.listdir(folder):
        status = os.stat(os.path.join(folder, name))
        found[name] = [status.st_uid, status.st_gid, f"{status.st_mode & 0o7777:04o}"]
    return found


def end(folder: str, run: str, number: int) -> dict[str, Any]:
    """End this host's holder; the first host removes everything."""
    ask_holder(run, number)
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
