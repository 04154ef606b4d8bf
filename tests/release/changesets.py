"""Compare which changesets two trees of Kallithea find in a long Git history, and what a page of them costs.

changesets.py STOCK PATCHED [short]: the folders that hold the package kallithea. Ends with 1 where an answer differs, or where the patched one does not
cost less. Needs the Python of a release, and git.
"""

from __future__ import annotations

import json
import random
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import trees
from references import git, outcome

COMMITS, SHORT_COMMITS = 100_000, 8_000
# As many as a page of the changelog has.
PAGE = 100
FIRST = 1_700_000_000


def history(folder: Path, commits: int) -> None:
    """Make a history with merges, clocks that differ, and branches; always the same for a number of commits."""
    chance = random.Random(commits)
    folder.mkdir()
    git(folder, "init", "-q", "--bare", "-b", "master")
    stream = []
    for number in range(commits):
        date = FIRST + number // 3 * 60 + chance.choice((0, 0, 0, 90, -90))
        stream.append(f"commit refs/heads/master\nmark :{number + 1}\ncommitter A <a@example.com> {date} +0000\ndata 0\n")
        if number:
            stream.append(f"from :{number}\n")
        if number > PAGE and chance.random() < 0.1:
            stream.append(f"merge :{number - chance.randint(2, PAGE)}\n")
        stream.append(f"M 100644 inline file-{number % 50}\ndata {len(str(number))}\n{number}\n\n")
    for name, mark in (("old", commits // 10), ("side", commits // 2)):
        stream.append(f"reset refs/heads/{name}\nfrom :{mark}\n\n")
    git(folder, "fast-import", "--quiet", stdin="".join(stream))


def described(changeset: Any) -> list[Any]:
    """Return what says which changeset it is, and its neighbours."""
    around = [outcome(lambda way=way: way().raw_id) for way in (changeset.next, changeset.prev)]
    return [changeset.raw_id, changeset.revision, changeset.branch, [parent.revision for parent in changeset.parents], *around]


def page(repository: Any, begin: int, branch: str | None = None) -> dict[str, Any]:
    """Return what the changelog shows of the changesets from there on: each, and the graph beside them."""
    from kallithea.lib.graphmod import graph_data

    collection = repository.get_changesets(start=0, branch_name=branch, reverse=True)
    changesets = list(collection[begin : begin + PAGE])
    return {"changesets": [described(changeset) for changeset in changesets], "graph": graph_data(repository, [found.revision for found in changesets])}


def edited(folder: Path) -> dict[str, Any]:
    """Return what is found after an edit by Kallithea itself, and after a push of somebody else."""
    from kallithea.lib.vcs.backends.git import GitRepository
    from kallithea.lib.vcs.nodes import FileNode

    repository = GitRepository(str(folder))
    before = len(repository.revisions)
    memory = repository.in_memory_changeset
    memory.change(FileNode("file-0", content=b"edited"))
    made = memory.commit(message="edited", author="A <a@example.com>", branch="master", date=float(2 * FIRST))
    found = {"edited": described(made), "more": len(repository.revisions) - before, "there": made.raw_id in repository.revisions}
    pushed = git(folder, "commit-tree", "side^{tree}", "-p", "side", "-m", "pushed").strip()
    git(folder, "update-ref", "refs/heads/side", pushed)
    found["pushed"] = described(repository.get_changeset(pushed))
    found["afterwards"] = page(GitRepository(str(folder)), 0)
    return found


def answers(commits: int) -> dict[str, Any]:
    """Return what the tree that is imported finds, and the seconds of its own processor time for the newest page."""
    from kallithea.lib.vcs.backends.git import GitRepository

    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "long"
        history(folder, commits)
        begin = time.process_time()
        newest = page(GitRepository(str(folder)), 0)
        seconds = round(time.process_time() - begin, 2)
        repository = GitRepository(str(folder))
        names = ("tip", "0", "7", str(commits - 1), str(commits), "-1", "f" * 40, "f" * 12, "old", "side")
        return {
            "seconds": seconds,
            "newest": newest,
            "oldest": page(repository, commits - PAGE),
            "middle": page(repository, commits // 2),
            "of a branch": page(repository, PAGE, "side"),
            "by name": {name: outcome(lambda name=name: described(repository.get_changeset(name))) for name in names},
            "by number": [outcome(lambda number=number: repository[number].raw_id) for number in (0, 5, commits - 1, commits, -1)],
            "nowhere": outcome(lambda: repository.revisions.index("f" * 40)),
            "changes": edited(folder),
        }


def compare(stock: Path, patched: Path, commits: int) -> int:
    """Say what differs and what it costs; return the exit status."""
    wanted, given = (trees.ask(tree, __file__, "answers", str(commits)) for tree in (stock, patched))
    seconds = {name: found.pop("seconds") for name, found in (("stock", wanted), ("patched", given))}
    wrong = trees.differences(wanted, given)
    asked = sum(len(given[name]["changesets"]) for name in ("newest", "oldest", "middle", "of a branch"))
    print(f"{asked} changesets of {commits} on pages: {len(wrong)} answers differ")
    print("\n".join(wrong[:20]), end="\n" if wrong else "")
    print(f"a page of {PAGE} changesets, seconds of Kallithea's own processor time: {seconds}")
    return bool(wrong) or asked != 4 * PAGE or seconds["patched"] > seconds["stock"] / 1.5


def main(arguments: list[str]) -> int:
    """Compare two trees, or answer with the tree that is imported."""
    if arguments[0] == "answers":
        json.dump(answers(int(arguments[1])), sys.stdout)
        return 0
    return compare(Path(arguments[0]), Path(arguments[1]), SHORT_COMMITS if arguments[2:] == ["short"] else COMMITS)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
