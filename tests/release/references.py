"""Compare what two trees of Kallithea say of a Git repository's branches and tags, and how often they read them.

references.py STOCK PATCHED: the folders that hold the package kallithea. Ends with 1 where an answer differs, or where the patched one reads the
references again for every changeset. Needs the Python of a release, and git.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import trees

COMMITS = 12
# As many changesets as a page of the changelog has.
PAGE = 100
REFERENCES = 600
IDENTITY = ("-c", "user.name=A", "-c", "user.email=a@example.com")


def git(folder: Path, *arguments: str, stdin: str = "") -> str:
    """Run git there; return what it says."""
    environment = {**os.environ, "GIT_AUTHOR_DATE": "1700000000 +0000", "GIT_COMMITTER_DATE": "1700000000 +0000"}
    return subprocess.run(["git", *IDENTITY, *arguments], cwd=folder, env=environment, input=stdin, check=True, text=True, stdout=subprocess.PIPE).stdout


def make(folder: Path, commits: int = COMMITS, bare: bool = True) -> list[str]:
    """Make a repository with a line of commits on master; return them."""
    folder.mkdir(parents=True)
    git(folder, "init", "-q", "-b", "master", *(["--bare"] if bare else []))
    made: list[str] = []
    tree = git(folder, "hash-object", "-t", "tree", "-w", "--stdin").strip()
    for number in range(commits):
        parent = ["-p", made[-1]] if made else []
        made.append(git(folder, "commit-tree", tree, "-m", f"commit {number}", *parent).strip())
    if made:
        git(folder, "update-ref", "refs/heads/master", made[-1])
    return made


def refer(folder: Path, commits: list[str]) -> None:
    """Make branches, also several on one commit, and tags of every kind."""
    lines = [f"create refs/heads/branch-{number} {commit}\n" for number, commit in enumerate(commits)]
    lines += [f"create refs/heads/deep/er/{number} {commit}\n" for number, commit in enumerate(commits[::2])]
    lines += [f"create refs/tags/light-{number} {commit}\n" for number, commit in enumerate(commits)]
    lines += [f"create refs/heads/ümläut {commits[3]}\n", f"create refs/notes/commits {commits[4]}\n", f"create refs/pull/1/head {commits[5]}\n"]
    git(folder, "update-ref", "--stdin", stdin="".join(lines))
    for number, commit in enumerate(commits[::3]):
        git(folder, "tag", "-a", "-m", "annotated", f"annotated-{number}", commit)
    git(folder, "tag", "-a", "-m", "of a tag", "tag-of-tag", "annotated-1")
    git(folder, "symbolic-ref", "refs/heads/alias", "refs/heads/branch-2")
    git(folder, "symbolic-ref", "refs/heads/dangling", "refs/heads/nowhere")


def prepare(folder: Path) -> None:
    """Make repositories of every kind of reference."""
    make(folder / "nothing", 0)
    make(folder / "nothing-with-files", 0, bare=False)
    make(folder / "only-master")
    commits = make(folder / "loose")
    refer(folder / "loose", commits)
    for name in ("packed", "mixed", "detached", "without-head", "changed"):
        shutil.copytree(folder / "loose", folder / name, symlinks=True)
    git(folder / "packed", "gc", "-q")
    git(folder / "mixed", "pack-refs", "--all")
    git(folder / "mixed", "update-ref", "refs/heads/branch-1", commits[7])
    git(folder / "mixed", "update-ref", "-d", "refs/heads/branch-3")
    git(folder / "mixed", "update-ref", "refs/heads/later", commits[8])
    (folder / "detached/HEAD").write_text(f"{commits[6]}\n")
    git(folder / "without-head", "symbolic-ref", "HEAD", "refs/heads/nowhere")
    git(folder, "clone", "-q", "loose", "cloned")
    git(folder, "clone", "-q", "packed", "bare-clone", "--bare")


def outcome(question: Callable[[], Any]) -> Any:
    """Return the answer, or the name of the error."""
    try:
        return question()
    except Exception as error:
        return type(error).__name__


def text(value: Any) -> Any:
    """Return what JSON can hold."""
    if isinstance(value, dict):
        return {str(text(key)): text(some) for key, some in value.items()}
    if isinstance(value, list):
        return [text(some) for some in value]
    return value.decode() if isinstance(value, bytes) else value


def described(repository: Any) -> dict[str, Any]:
    """Return all that a repository says of its references."""
    names = [*repository.branches, *repository.tags, "tip", "nowhere", "0", "refs/heads/master", "f" * 40, "f" * 12]
    answers = {
        "branches": repository.branches,
        "tags": repository.tags,
        "order": [list(repository.branches), list(repository.tags)],
        "heads": repository._heads(reverse=True),
        "heads by commit": repository._heads(),
        "parsed": repository._parsed_refs,
        "head": repository.head,
        "revisions": repository.revisions,
        "by name": {name: outcome(lambda name=name: repository.get_changeset(name).raw_id) for name in names},
    }
    for revision in repository.revisions:
        changeset = repository.get_changeset(revision)
        answers[revision] = [changeset.branch, changeset.branches, changeset.tags, outcome(lambda changeset=changeset: changeset.next("master").raw_id)]
    return text(answers)


def changed(folder: Path) -> dict[str, Any]:
    """Return what a repository says after each change, by itself and by others."""
    from kallithea.lib.vcs.backends.git import GitRepository
    from kallithea.lib.vcs.nodes import FileNode

    path = folder / "changed"
    first = git(path, "rev-parse", "master").strip()
    one = GitRepository(str(path))
    steps = {"before": described(one)}
    one.tag("new", "A <a@example.com>", first)
    steps["tagged"] = described(one)
    one.remove_tag("new", "A <a@example.com>")
    steps["tag removed"] = described(one)
    memory = one.in_memory_changeset
    memory.add(FileNode("file", content=b"text"))
    memory.commit(message="edited", author="A <a@example.com>", branch="edited", date=1700000000.0)
    steps["edited"] = described(one)
    other = folder / "other"
    commits = make(other)
    git(other, "update-ref", "refs/heads/fetched", commits[5])
    git(other, "update-ref", "-d", "refs/heads/master")
    one.fetch(str(other))
    steps["fetched"] = described(one)
    outcome(lambda: one.fetch(str(folder / "no-such")))
    steps["fetch refused"] = described(one)
    # By a push of somebody else: who asks next sees it, and whoever is asked for its commit in the middle of a request too.
    pushed = git(path, "commit-tree", f"{first}^{{tree}}", "-p", first, "-m", "pushed").strip()
    git(path, "update-ref", "refs/heads/pushed", pushed)
    found = one.get_changeset(pushed)
    steps["pushed, asked for it"] = text({"branch": found.branch, "branches": found.branches, "heads": one._heads(reverse=True)})
    git(path, "update-ref", "-d", "refs/heads/branch-1")
    steps["pushed, asked afterwards"] = described(GitRepository(str(path)))
    working = folder / "working"
    git(folder, "clone", "-q", "only-master", "working")
    pulling = GitRepository(str(working))
    steps["before a pull"] = described(pulling)
    newer = git(folder / "only-master", "commit-tree", "master^{tree}", "-p", "master", "-m", "newer").strip()
    git(folder / "only-master", "update-ref", "refs/heads/master", newer)
    pulling.pull(str(folder / "only-master"))
    # Its list of commits is as old as before, in stock too.
    steps["pulled"] = text({"heads": pulling._heads(reverse=True), "heads by commit": pulling._heads()})
    return steps


def cost(folder: Path) -> dict[str, float]:
    """Return how often files of references are opened for a page of changesets, and the time it takes."""
    from kallithea.lib.vcs.backends.git import GitRepository

    opened: list[str] = []
    counting = False

    def count(event: str, arguments: tuple[Any, ...]) -> None:
        if counting and event == "open" and isinstance(arguments[0], str | bytes):
            path = os.fsdecode(arguments[0])
            opened.extend([path] if "/refs/" in path or path.endswith("packed-refs") else [])

    sys.addaudithook(count)
    path = folder / "many"
    commits = make(path, PAGE)
    lines = [f"create refs/heads/branch-{number} {commits[number % PAGE]}\n" for number in range(REFERENCES)]
    git(path, "update-ref", "--stdin", stdin="".join(lines))
    counting, begin = True, time.process_time()
    for changeset in GitRepository(str(path)).get_changesets():
        assert changeset.branch and changeset.branches
    counting = False
    return {"opened": len(opened), "seconds": round(time.process_time() - begin, 2)}


def answers() -> dict[str, Any]:
    """Return what the tree that is imported says of all repositories."""
    from kallithea.lib.vcs.backends.git import GitRepository

    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        prepare(folder)
        found = {path.name: described(GitRepository(str(path))) for path in sorted(folder.iterdir())}
        return {"kinds": found, "changes": changed(folder), "cost": cost(folder)}


def compare(stock: Path, patched: Path) -> int:
    """Say what differs and what it costs; return the exit status."""
    wanted, given = (trees.ask(tree, __file__, "answers") for tree in (stock, patched))
    costs = {"stock": wanted.pop("cost"), "patched": given.pop("cost")}
    wrong = trees.differences(wanted, given)
    print(f"{len(given['kinds'])} kinds of repositories, {len(given['changes'])} changes: {len(wrong)} answers differ")
    print("\n".join(wrong[:20]), end="\n" if wrong else "")
    print(f"{PAGE} changesets with {REFERENCES} loose references: {costs}")
    # A symbolic reference is opened once more, and each by the search for names.
    return bool(wrong) or costs["patched"]["opened"] > 3 * REFERENCES


def main(arguments: list[str]) -> int:
    """Compare two trees, or answer with the tree that is imported."""
    if arguments == ["answers"]:
        json.dump(answers(), sys.stdout)
        return 0
    return compare(*map(Path, arguments))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
