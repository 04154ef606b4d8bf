"""A site for the drill that is a folder: repositories by file://, pages always there, web edits without any lock.

Run as a program it is the drill on such a site, for tests that have to kill it.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from drill import cli
from drill.journal import ACKNOWLEDGED, Outcome

FOLDER = "DRILL_WORLD"


def git(repository: Path, *arguments: str, stdin: str = "") -> str:
    """Run git in a repository behind the drill's back."""
    return subprocess.run(["git", "-C", repository, *arguments], input=stdin, capture_output=True, text=True, check=True, timeout=20).stdout.strip()


def hook(repository: Path, name: str, script: str) -> None:
    """Let a repository do something at each push."""
    file = repository / "hooks" / name
    file.write_text(f"#!/bin/sh\n{script}\n")
    file.chmod(0o755)


class World:
    """Stands for the site; prepare is called with each new repository."""

    def __init__(self, folder: Path, prepare: Callable[[Path], None] = lambda repository: None) -> None:
        """Begin with nothing."""
        self.folder = folder
        self.prepare = prepare
        self.looked: list[str] = []
        self.removed: list[str] = []

    def create(self, names: dict[str, str]) -> None:
        """Make repositories, and the addresses that have their numbers."""
        for number, (name, kind) in enumerate(names.items()):
            path = self.folder / name
            subprocess.run(["git", "init", "-q", "--bare", path] if kind == "git" else ["hg", "init", path], check=True, timeout=20)
            (self.folder / f"_{number}").symlink_to(name)
            self.prepare(path)

    def remove(self, names: Sequence[str]) -> None:
        """Keep in mind what was to be removed."""
        self.removed += names

    def number(self, name: str) -> int:
        """Find the address."""
        return next(int(path.name[1:]) for path in self.folder.glob("_*") if path.readlink().name == name)

    def look(self, path: str) -> bool:
        """Every page is there."""
        self.looked.append(path)
        return True

    def edit(self, repository: str, commit: str, path: str, content: str, message: str) -> Outcome:
        """Commit on top of what was the newest commit, and overwrite the branch whatever it is by now."""
        bare = self.folder / repository
        blob = git(bare, "hash-object", "-w", "--stdin", stdin=content)
        tree = git(bare, "mktree", stdin=f"100644 blob {blob}\t{path}\n")
        made = git(bare, "-c", "user.name=web", "-c", "user.email=web@localhost", "commit-tree", tree, "-p", commit, "-m", message)
        # The push that this races with has won by then.
        for _ in range(200):
            if git(bare, "rev-parse", "refs/heads/master") != commit:
                break
        git(bare, "update-ref", "refs/heads/master", made)
        return Outcome(ACKNOWLEDGED)


def drill(world: World, *arguments: str, patch: Callable[[Any, str, Any], None] = setattr) -> int:
    """Run the drill's command line on a world."""
    patch(cli.Drill, "site", lambda self: world)
    url = [] if arguments[0] == "mark" else ["--url", f"file://{world.folder}"]
    return cli.main([arguments[0], *url, *arguments[1:]])


if __name__ == "__main__":
    sys.exit(drill(World(Path(os.environ[FOLDER])), *sys.argv[1:]))
