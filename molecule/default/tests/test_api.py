"""Repositories made, forked and deleted by the API while the workers of several nodes share the tasks."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from machines import Machine, wait_until
from repositories import Make
from scm import Client
from settings import Settings
from web import ApiError, Site

# Half of them are deleted again, for each of the others the source is forked.
MADE = 20
THREADS = 4
TASK_SECONDS = 90.0
KINDS = ("git", "hg")
SHORT = 12
RECEIVED = re.compile(r"Task (create_repo|create_repo_fork)\[[0-9a-f-]+\] received")


class Maker:
    """Makes, forks and deletes repositories, and looks at them on every node."""

    def __init__(self, site: Site, sources: dict[str, str]) -> None:
        """Remember the session and what is forked."""
        self.site = site
        self.settings = site.settings
        self.sources = sources

    def status(self, name: str, node: str) -> int:
        """Return how a node answers for a repository's page, by the session but past the balancer."""
        return self.browser().get(f"/{name}", node=node, port=self.settings.host_pools[node]["ui"]["port"]).status

    def browser(self) -> Site:
        """Return a browser of this thread's own."""
        browser = Site(self.settings)
        browser.cookies = dict(self.site.cookies)
        return browser

    def see(self, name: str, first: int) -> None:
        """Wait for a repository on one node; then it has to be on all others at once."""
        nodes = self.settings.groups["app"]
        one = nodes[first % len(nodes)]
        wait_until(f"repository {name} whole on {one}", lambda: self.status(name, one) == 200, TASK_SECONDS)
        assert {node: self.status(name, node) for node in nodes} == dict.fromkeys(nodes, 200), name
        self.browser().call("get_repo", repoid=name)

    def work(self, number: int) -> list[str]:
        """Make a repository, and delete it or fork the source; return what has to be there afterwards."""
        kind = KINDS[number % 2]
        made, fork = f"{self.sources[kind]}-made-{number}", f"{self.sources[kind]}-fork-{number}"
        self.browser().call("create_repo", repo_name=made, repo_type=kind, private=True)
        if number // 2 % 2:
            self.browser().call("fork_repo", repoid=self.sources[kind], fork_name=fork, private=True)
            self.see(made, number)
            self.see(fork, number + 1)
            return [made, fork]
        self.see(made, number)
        self.browser().call("delete_repo", repoid=made)
        nodes = self.settings.groups["app"]
        assert {node: self.status(made, node) for node in nodes} == dict.fromkeys(nodes, 404), made
        with pytest.raises(ApiError, match="does not exist"):
            self.browser().call("get_repo", repoid=made)
        return []


@pytest.fixture
def heads(client: Client, make_repository: Make) -> dict[str, str]:
    """Make a repository of each kind with a commit in it; return the repositories with what a client sees as their head."""
    heads = {}
    for kind in KINDS:
        name = make_repository(kind, f"source-{kind}")
        heads[name] = client.commit(kind, f"source-{kind}", "source")
        client.push(kind, f"source-{kind}", client.url(name))
    return heads


@pytest.fixture
def maker(site: Site, heads: dict[str, str]) -> Iterator[Maker]:
    """Return who makes repositories; remove all of them."""
    maker = Maker(site, dict(zip(KINDS, heads, strict=True)))
    yield maker
    for kind, source in maker.sources.items():
        for number in range(KINDS.index(kind), MADE, 2):
            if site.repository_is_there(f"{source}-made-{number}"):
                site.call("delete_repo", repoid=f"{source}-made-{number}")
        site.call("delete_repo", repoid=source, forks="delete")


def head(client: Client, name: str, node: str) -> str:
    """Return the short id of what a client reads on a node as the head of a repository, or nothing where it is empty."""
    url = client.url(name, node=node, pool="scm")
    command = f"git ls-remote {url} refs/heads/master" if "-git-" in name else f"hg identify --id -r tip {url}"
    return client.run(command)[:SHORT].replace("0" * SHORT, "")


def received(machine: Machine, since: float) -> Counter[str]:
    """Count the tasks that a node's worker took."""
    text = machine.run(f"journalctl --sync; journalctl --quiet --no-pager --output=cat --identifier=kallithea-celery --since=@{since:.3f}")
    return Counter(RECEIVED.findall(text))


def test_repositories_made_by_many_at_once(maker: Maker, heads: dict[str, str], client: Client, machines: dict[str, Machine], settings: Settings) -> None:
    """None is lost, none is half-made, a fork has its source's commits, each task was taken once, and every node did its share."""
    begin = time.time()
    with ThreadPoolExecutor(THREADS) as executor:
        names = [name for names in executor.map(maker.work, range(MADE)) for name in names]
        assert len(set(names)) == MADE
        places = [(name, node) for name in names for node in settings.groups["app"]]
        seen = dict(zip(places, executor.map(lambda place: head(client, *place), places), strict=True))
    forked = {f"{source}-fork": commit[:SHORT] for source, commit in heads.items()}
    assert seen == {(name, node): forked.get(name.rpartition("-")[0], "") for name, node in places}
    taken = {node: received(machines[node], begin) for node in settings.host_pools}
    assert sum(taken.values(), Counter()) == Counter(create_repo=MADE, create_repo_fork=MADE // 2), taken
    assert all(taken[node] for node in settings.groups["app"]), f"not every node took a task: {taken}"
