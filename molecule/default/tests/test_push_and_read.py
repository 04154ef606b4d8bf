"""What is pushed through one node is read through the other at once: no node has a view of its own."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from repositories import Make
from scm import Client
from settings import Settings

PUSHES = 100
LOOP_SECONDS = 420.0
# Every push goes to the other node than the one before, and is read on the node that did not take it.
GIT_LOOP = """
rm -rf "$folder" && git init -q "$folder" && cd "$folder"
for number in $(seq "$pushes"); do
  writer=${writers[$((number % 2))]} reader=${readers[$((number % 2))]}
  git commit -q --allow-empty -m "$number"
  git push -q "$writer" HEAD:refs/heads/master
  pushed=$(git rev-parse HEAD)
  read=$(git ls-remote "$reader" refs/heads/master | cut -f 1)
  [ "$read" = "$pushed" ] || echo "push $number to $writer: $reader still had ${read:-nothing}"
done
echo "$number pushes"
"""
# All changesets are there before the first push: each start of Mercurial counts.
HG_LOOP = """
rm -rf "$folder" && hg init "$folder" && cd "$folder" && hg debugbuilddag -q "+$pushes"
for pushed in $(hg log -r "sort(all(), rev)" -T "{node|short} "); do
  number=$((number + 1)) writer=${writers[$((number % 2))]} reader=${readers[$((number % 2))]}
  hg push -q -r "$pushed" "$writer"
  read=$(hg identify --id -r tip "$reader")
  [ "$read" = "$pushed" ] || echo "push $number to $writer: $reader still had $read"
done
echo "$number pushes"
"""
LOOPS = {"git": GIT_LOOP, "hg": HG_LOOP}
# So many loops share the pushes of a kind, each in a repository of its own: hg takes twice as long as git.
SHARES = {"git": 1, "hg": 2}


@pytest.fixture(scope="module")
def said(client: Client, settings: Settings, make_repository: Make) -> dict[str, list[list[str]]]:
    """Run all loops at the same time, past the balancer; return what each of a kind said."""
    one, other = settings.groups["app"][:2]
    repositories = {(kind, number): make_repository(kind, f"read-{kind}-{number}") for kind, share in SHARES.items() for number in range(share)}

    def run(kind: str, number: int) -> list[str]:
        name = repositories[kind, number]
        writers = " ".join(client.url(name, node=node, pool="write") for node in (one, other))
        readers = " ".join(client.url(name, node=node, pool="scm") for node in (other, one))
        values = f"folder=read-{kind}-{number} pushes={PUSHES // SHARES[kind]} writers=({writers}) readers=({readers})"
        return client.run(f"set -eo pipefail; {values}; {LOOPS[kind]}", seconds=LOOP_SECONDS).splitlines()

    with ThreadPoolExecutor(len(repositories)) as executor:
        started = {loop: executor.submit(run, *loop) for loop in repositories}
        return {kind: [started[kind, number].result() for number in range(share)] for kind, share in SHARES.items()}


@pytest.mark.parametrize("kind", LOOPS)
def test_push_through_one_node_is_read_through_the_other_at_once(said: dict[str, list[list[str]]], kind: str) -> None:
    """A hundred times there is no miss: a build server that is told of a push finds it, whichever node it asks."""
    assert said[kind] == [[f"{PUSHES // SHARES[kind]} pushes"]] * SHARES[kind]
