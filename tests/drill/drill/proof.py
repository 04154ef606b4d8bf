"""What is really in the repositories: in fresh clones through every place, and on the storage itself."""

from __future__ import annotations

import os
import shlex
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from drill.commands import Done, run
from drill.places import Place, Storage
from drill.scm import COPIES, Tools

MARK = "== verify"
# The commits that branches lead to, then the system's own judgement. The repositories belong to the service's user.
GIT = "git -c safe.directory='*' -C {path}"
SCRIPTS = {
    "git": f"{GIT} log --all --format='%H %s'; echo '{MARK}'; {GIT} fsck --full --no-progress",
    "hg": f"hg -R {{path}} log -T '{{{{node}}}} {{{{desc|firstline}}}}\\n'; echo '{MARK}'; hg -R {{path}} verify -q",
}


@dataclass(frozen=True)
class Found:
    """What one place has of one repository: its commits, unless it could not be read, and damage as a sentence."""

    place: str
    repository: str
    commits: Mapping[str, str] | None
    damage: str = ""


def inspect(place: str, kind: str, name: str, path: str, command: Sequence[str], environment: Mapping[str, str], seconds: float) -> Found:
    """Look into a repository where it lies."""
    # Both parts' errors go to the same stream as the verdict, in order.
    script = f"exec 2>&1\n{SCRIPTS[kind].format(path=shlex.quote(path))}\n"
    done = run([*command, "sh", "-s"], environment=environment, seconds=seconds, stdin=script)
    return found_in(place, name, done)


def found_in(place: str, name: str, done: Done) -> Found:
    """Read what the script said."""
    listed, mark, verdict = done.output.partition(f"{MARK}\n")
    lines = [line.partition(" ") for line in listed.splitlines()]
    commits = {commit: word for commit, _, word in lines if len(commit) == 40 and not set(commit) - set("0123456789abcdef")}
    if done.well and mark:
        return Found(place, name, commits)
    how = "took too long" if done.status is None else f"ended with {done.status}"
    said = " ".join(f"{verdict if mark else listed} {done.errors}".split())[-400:]
    return Found(place, name, commits if mark else None, f"the check of {name} at {place} {how}: {said}")


def through(place: Place, repositories: Mapping[str, str], tools: Tools, at_once: int) -> list[Found]:
    """Clone every repository through a place and look into the clones."""

    def one(item: tuple[str, str]) -> Found:
        name, kind = item
        with tempfile.TemporaryDirectory(dir=tools.folder) as folder:
            path = Path(folder) / "clone"
            done = COPIES[kind].clone(tools, f"{place.read}/{name}", path)
            if not done.well:
                said = " ".join(done.errors.split())[-300:]
                return Found(place.name, name, None, f"{name} cannot be cloned through {place.name}: {said or 'its time was over'}")
            return inspect(place.name, kind, name, str(path), (), tools.environment, tools.seconds)

    with ThreadPoolExecutor(at_once) as executor:
        return list(executor.map(one, repositories.items()))


def on(storage: Storage, repositories: Mapping[str, str], seconds: float, at_once: int) -> list[Found]:
    """Look into every repository on the storage itself."""
    # Without a command it is this machine: nothing of the drill's own settings of git and hg.
    environment = {**os.environ, "LC_ALL": "C.UTF-8", "HGPLAIN": "1"}

    def one(item: tuple[str, str]) -> Found:
        name, kind = item
        return inspect("storage", kind, name, str(storage.path / name), storage.command, environment, seconds)

    with ThreadPoolExecutor(at_once) as executor:
        return list(executor.map(one, repositories.items()))
