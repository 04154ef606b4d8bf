"""Compare what two trees of Kallithea leave in the journal of a push that makes branches, and what the hook costs with many of them.

new_branches.py STOCK PATCHED [short]: the folders that hold the package kallithea. Ends with 1 where a journal differs, or where the patched hook does not
cost less. Clocks are wrong by some minutes: where they are wrong by more than git looks back, its own list for one branch has commits of others.
Needs the Python of a release, and git.
"""

from __future__ import annotations

import json
import os
import random
import sys
import tempfile
from pathlib import Path
from typing import Any
from unittest import mock

import trees
from references import git

WORLDS, SHORT_WORLDS = 150, 25
COMMITS = 40
BRANCHES = 150
NOTHING = "0" * 40
COMMITTERS = ("A <a@example.com> 1700000900 +0000", "A <a@example.com> 1700000000", "A <a@example.com>", "A <a>b> 1700000300 +0000", "A <a> -5 +0000", "nobody")
# What a pattern with a star finds, and what it does not.
NAMES = ("one", "two", "three", "four", "five", "six", "deep/one", "deep/er/two", "team/one", "other/two")


def history(folder: Path, chance: random.Random, commits: int) -> list[str]:
    """Make commits with one to three parents or none, of clocks that differ, many of the same second; return them."""
    folder.mkdir(parents=True)
    git(folder, "init", "-q", "--bare", "-b", "master")
    stream = []
    for number in range(commits):
        parents = sorted(chance.sample(range(number), min(number, chance.choice((0, 1, 1, 1, 1, 2, 2, 3)))), reverse=True)
        date = 1_700_000_000 + number // 3 * 60 + chance.choice((0, 0, 0, 90, -90))
        stream.append(f"commit refs/made/{number}\nmark :{number + 1}\ncommitter A <a@example.com> {date} +0000\ndata 0\n")
        stream += [f"{'merge' if order else 'from'} :{parent + 1}\n" for order, parent in enumerate(parents)]
        stream.append(f"M 100644 inline file-{number}\ndata 0\n\n")
    git(folder, "fast-import", "--quiet", stdin="".join(stream))
    made = git(folder, "for-each-ref", "--format=%(refname) %(objectname)", "refs/made").split()
    ids = dict(zip(made[::2], made[1::2], strict=True))
    git(folder, "update-ref", "--stdin", stdin="".join(f"delete {name}\n" for name in ids))
    return [ids[f"refs/made/{number}"] for number in range(commits)]


def malformed(folder: Path, chance: random.Random, commits: list[str]) -> list[str]:
    """Add commits as old and foreign programs have made them: the same parent twice; no date, no time zone or odd names, without parents; return all."""
    tree = git(folder, "rev-parse", f"{commits[0]}^{{tree}}").strip()
    parents = 2 * [chance.choice(commits)]
    for number, committer in enumerate(COMMITTERS):
        lines = [f"tree {tree}", *(f"parent {parent}" for parent in parents), f"author {committer}", f"committer {committer}", "", f"{number}"]
        commits = [*commits, git(folder, "hash-object", "-t", "commit", "-w", "--literally", "--stdin", stdin="\n".join(lines)).strip()]
        parents = []
    return commits


def push(folder: Path, chance: random.Random, commits: list[str]) -> list[str]:
    """Have some branches, then move, make and delete some, as a push does; return what git tells the hook."""
    there = {name: chance.choice(commits) for name in NAMES if chance.random() < 0.3}
    git(folder, "update-ref", "--stdin", stdin="".join(f"create refs/heads/{name} {commit}\n" for name, commit in there.items()))
    if there and chance.random() < 0.3:
        git(folder, "symbolic-ref", "refs/heads/alias", f"refs/heads/{chance.choice(NAMES)}")
    told = []
    for name in chance.sample(NAMES, chance.randint(1, len(NAMES))):
        old, new = there.get(name, NOTHING), chance.choice(commits)
        if old != NOTHING and chance.random() < 0.2:
            new = NOTHING
        git(folder, "update-ref", *(["-d", f"refs/heads/{name}"] if new == NOTHING else [f"refs/heads/{name}", new]))
        told.append(f"{old} {new} refs/heads/{name}\n")
    git(folder, "update-ref", "refs/tags/v1", commits[0])
    told.insert(chance.randrange(len(told)), f"{NOTHING} {commits[0]} refs/tags/v1\n")
    return told


def journal(folder: Path, told: list[str]) -> dict[str, Any]:
    """Return what the hook of the tree that is imported hands to the journal, and where HEAD is then."""
    from kallithea.bin import vcs_hooks
    from kallithea.lib.vcs.backends.git import GitRepository

    repository = mock.Mock()
    repository.scm_instance_no_cache.side_effect = lambda: GitRepository(str(folder))
    with mock.patch.object(vcs_hooks, "_git_hook_environment", return_value=repository), mock.patch.object(vcs_hooks.hooks, "process_pushed_raw_ids") as kept:
        status = vcs_hooks.post_receive(str(folder), told)
    return {"status": status, "journal": kept.call_args.args[0], "head": (folder / "HEAD").read_text()}


def used() -> float:
    """Return the seconds of processor time of this program and of all that it has run."""
    return sum(os.times()[:4])


def cost(folder: Path) -> dict[str, Any]:
    """Return the seconds of processor time that the hook takes for many new branches."""
    commits = history(folder, random.Random(1), 3 * BRANCHES)
    branches = {f"branch-{number}": commits[3 * number] for number in range(BRANCHES)}
    git(folder, "update-ref", "--stdin", stdin="".join(f"create refs/heads/{name} {commit}\n" for name, commit in branches.items()))
    before = used()
    kept = journal(folder, [f"{NOTHING} {commit} refs/heads/{name}\n" for name, commit in branches.items()])
    return {"seconds": round(used() - before, 2), "journal": kept["journal"]}


def answers(worlds: int) -> dict[str, Any]:
    """Return what the tree that is imported keeps of each world's push."""
    with tempfile.TemporaryDirectory() as scratch:
        found = {}
        for world in range(worlds):
            chance, folder = random.Random(world), Path(scratch) / f"world-{world}"
            commits = malformed(folder, chance, history(folder, chance, COMMITS))
            found[str(world)] = journal(folder, push(folder, chance, commits))
        return {"worlds": found, "cost": cost(Path(scratch) / "many")}


def compare(stock: Path, patched: Path, worlds: int) -> int:
    """Say what differs and what it costs; return the exit status."""
    wanted, given = (trees.ask(tree, __file__, "answers", str(worlds)) for tree in (stock, patched))
    seconds = {name: found["cost"].pop("seconds") for name, found in (("stock", wanted), ("patched", given))}
    wrong = trees.differences(wanted, given)
    kept = [entry for found in given["worlds"].values() for entry in found["journal"] if "=>" not in entry]
    print(f"{worlds} pushes, {len(kept)} revisions in the journal: {len(wrong)} differ")
    print("\n".join(wrong[:20]), end="\n" if wrong else "")
    print(f"the hook of a push of {BRANCHES} new branches, seconds of processor time: {seconds}")
    return bool(wrong) or len(kept) < worlds or seconds["patched"] > seconds["stock"] / 3


def main(arguments: list[str]) -> int:
    """Compare two trees, or answer with the tree that is imported."""
    if arguments[0] == "answers":
        json.dump(answers(int(arguments[1])), sys.stdout)
        return 0
    return compare(Path(arguments[0]), Path(arguments[1]), SHORT_WORLDS if arguments[2:] == ["short"] else WORLDS)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
