"""What is pushed through one node is read through the other at once: no node has a view of its own."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from scm import Client
from settings import Settings
from traffic import Make

PUSHES = 100
LOOP_SECONDS = 420.0
# Every push goes to the other node than the one before, and is read on the node that did not take it.
GIT_LOOP = """
rm -rf read-git && git init -q read-git && cd read-git
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
rm -rf read-hg && hg init read-hg && cd read-hg && hg debugbuilddag -q "+$pushes"
for pushed in $(hg log -r "sort(all(), rev)" -T "{node|short} "); do
  number=$((number + 1)) writer=${writers[$((number % 2))]} reader=${readers[$((number % 2))]}
  hg push -q -r "$pushed" "$writer"
  read=$(hg identify --id -r tip "$reader")
  [ "$read" = "$pushed" ] || echo "push $number to $writer: $reader still had $read"
done
echo "$number pushes"
"""
LOOPS = {"git": GIT_LOOP, "hg": HG_LOOP}


@pytest.fixture(scope="module")
def said(client: Client, settings: Settings, make_repository: Make) -> dict[str, list[str]]:
    """Run both loops at the same time, past the balancer; return what each said."""
    one, other = settings.groups["app"][:2]
    repositories = {kind: make_repository(kind, f"read-{kind}") for kind in LOOPS}

    def run(kind: str) -> list[str]:
        name = repositories[kind]
        writers = " ".join(client.url(name, node=node, pool="write") for node in (one, other))
        readers = " ".join(client.url(name, node=node, pool="scm") for node in (other, one))
        return client.run(f"set -eo pipefail; pushes={PUSHES} writers=({writers}) readers=({readers}); {LOOPS[kind]}", seconds=LOOP_SECONDS).splitlines()

    with ThreadPoolExecutor() as executor:
        return dict(zip(LOOPS, executor.map(run, LOOPS), strict=True))


@pytest.mark.parametrize("kind", LOOPS)
def test_push_through_one_node_is_read_through_the_other_at_once(said: dict[str, list[str]], kind: str) -> None:
    """A hundred times there is no miss: a build server that is told of a push finds it, whichever node it asks."""
    assert said[kind] == [f"{PUSHES} pushes"]
