# Copyright: The kallithea.cluster maintainers
# GPL-3.0-or-later (see LICENSE)
"""What one host tries on a shared storage: how long its writes take, who wins a race or has a lock, what it sees of the others, and whose the files are."""

from __future__ import annotations

import errno
import fcntl
import os
import random
import time
from collections.abc import Callable, Mapping
from typing import Any

from ansible_collections.kallithea.cluster.plugins.module_utils.text_files import text_of

ROUNDS = 200
RACE_SECONDS = 5.0
# Who wins all rounds alone waits for the others; who races with them leaves them just enough time to be first.
ALONE_SECONDS, TOGETHER_SECONDS, TOGETHER_ROUNDS = 0.015, 0.003, 5
SIGHT_SECONDS = 1.0
LISTED_SECONDS = 0.5
TIMES = 20
TIMES_SECONDS = 1.5


def said(error: OSError) -> str:
    """Return an error with its name."""
    return f"{errno.errorcode.get(error.errno or 0, 'error')}: {error.strerror}"


def write(path: str, text: str) -> None:
    """Write a file that is made where it is missing, and changed in place where it is there."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o640), "w", encoding="utf-8") as stream:
        stream.write(text)


def first_word(text: str) -> str:
    """Return the word that a probe's file holds."""
    return text.split("\n", 1)[0]


def opens(path: str) -> bool:
    """Tell whether a file can be opened, as git and Mercurial look for one."""
    try:
        os.close(os.open(path, os.O_RDONLY))
    except FileNotFoundError:
        return False
    return True


def times(folder: str, number: int) -> dict[str, list[float]]:
    """Return the milliseconds of small creations, synchronous writes and renames."""
    taken: dict[str, list[float]] = {"create": [], "fsync": [], "rename": []}
    own = os.path.join(folder, "times", str(number))
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


def remember(folder: str) -> None:
    """Look at everything once, so that this process's client remembers what there is and what is missing."""
    for name in ("new/file", "renamed/after"):
        opens(os.path.join(folder, name))
    for name in ("renamed/before", "removed/file", "rewritten/file"):
        text_of(os.path.join(folder, name))


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
