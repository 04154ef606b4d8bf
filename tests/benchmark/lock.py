"""Runs on an application host: times a write of git's as Kallithea does it, with the repository's lock, and the same without it, in turns."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import statistics
import subprocess
import sys
import time

PLAIN, LOCKED = "/usr/bin/git", "/usr/local/lib/kallithea/kallithea-git"
CALLS = 100


def milliseconds(git: str, repository: str, commit: str) -> float:
    """Return how long git takes to write a reference that stays what it is."""
    begin = time.perf_counter()
    subprocess.run([git, "update-ref", "refs/heads/bench", commit], cwd=repository, check=True)
    return (time.perf_counter() - begin) * 1000


def main(storage: str, name: str, runs: int) -> None:
    """Make a repository that Kallithea does not know, measure in it, remove it."""
    user = pwd.getpwnam("kallithea")
    os.setgroups([])
    os.setgid(user.pw_gid)
    os.setuid(user.pw_uid)
    os.environ["HOME"] = "/nonexistent"
    repository, locks = f"{storage}/repositories/{name}", f"{storage}/locks/{name}"
    medians: dict[str, list[float]] = {PLAIN: [], LOCKED: []}
    try:
        subprocess.run([PLAIN, "init", "--quiet", "--bare", repository], check=True)

        def made(*command: str) -> str:
            who = ("-c", "user.name=bench", "-c", "user.email=bench@localhost")
            return subprocess.run([PLAIN, *who, *command], cwd=repository, stdin=subprocess.DEVNULL, check=True, capture_output=True, text=True).stdout.strip()

        commit = made("commit-tree", "-m", "bench", made("hash-object", "-t", "tree", "-w", "/dev/null"))
        # The first run warms up.
        for run in range(runs + 1):
            times: dict[str, list[float]] = {PLAIN: [], LOCKED: []}
            for _ in range(CALLS):
                for git, found in times.items():
                    found.append(milliseconds(git, repository, commit))
            if run:
                for git, found in times.items():
                    medians[git].append(statistics.median(found))
    finally:
        for folder in (repository, locks):
            shutil.rmtree(folder, ignore_errors=True)
    print("BENCH " + json.dumps({"plain": medians[PLAIN], "locked": medians[LOCKED]}))


main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
