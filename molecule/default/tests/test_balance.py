"""The three ways to balance people's pages, as the balancer's log shows them, and reloads that cut nothing."""

from __future__ import annotations

import itertools
import time
from collections import Counter
from collections.abc import Callable, Iterator

import playbook_runs
import pytest
from balancer import Balancer
from machines import wait_until
from scm import Client
from settings import Settings
from traffic import at_work, fresh_path, lines_of, unfinished
from web import Site

pytest_plugins = ["big_repository"]

PAGES = 20
# A page's request may still be counted when the next one comes: so many may go elsewhere than the rule says.
STRAY = 4
CLONE_RATE = 300_000
CLONE_SECONDS = 420.0
CONFIGURATION = "cat /etc/haproxy/haproxy.cfg"

Configure = Callable[[dict[str, str]], str]


@pytest.fixture(scope="module")
def configure(balancer: Balancer, settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Configure]:
    """Return a function that sets up the balancer with other variables and returns its configuration; put it back at the end."""
    folder = tmp_path_factory.mktemp("balance")
    first = balancer.machine.run(CONFIGURATION)

    def configure(variables: dict[str, str]) -> str:
        playbook_runs.run("loadbalancer", variables=variables, folder=folder).check_success(settings.groups["loadbalancer"][0])
        return balancer.machine.run(CONFIGURATION)

    yield configure
    if balancer.machine.run(CONFIGURATION) != first:
        assert configure({}) == first, "the balancer's configuration is not what it was"


@pytest.fixture(scope="module", autouse=True)
def slow_clone(client: Client, balancer: Balancer, big_repository: str) -> Iterator[None]:
    """Begin a clone that is under way through all changes of this module."""
    client.clear_slow_clones(1)
    client.slow_clone(0, big_repository, CLONE_RATE, CLONE_SECONDS)
    wait_until("the clone at work", lambda: sum(at_work(balancer, "scm")[0].values()) == 1)
    yield
    client.clear_slow_clones(1)


def servers_of_pages(site: Site, balancer: Balancer) -> list[str]:
    """Ask for pages, one after the other; return which server had each."""
    path, begin = fresh_path(), time.time()
    assert [site.get(path).status for _ in range(PAGES)] == [404] * PAGES
    return [line["server"] for line in lines_of(balancer, site.settings, begin, path)]


def test_fewest_connections(site: Site, balancer: Balancer, settings: Settings) -> None:
    """The rule that nobody has to ask for: pages go to all nodes, and past the one that has a slow request."""
    assert set(servers_of_pages(site, balancer)) == set(settings.groups["app"])
    # The balancer itself waits for the bodies of log-ins and of calls of the API.
    with unfinished(Site(settings), "/_admin/password_reset", {"Content-Type": "application/x-www-form-urlencoded"}, b"email="):
        wait_until("the slow request at work", lambda: sum(at_work(balancer, "ui")[0].values()) == 1)
        busy = next(server for server, requests in at_work(balancer, "ui")[0].items() if requests)
        assert Counter(servers_of_pages(site, balancer))[busy] <= STRAY
    wait_until("the slow request gone", lambda: not sum(at_work(balancer, "ui")[0].values()))


def test_round_robin(site: Site, balancer: Balancer, settings: Settings, configure: Configure) -> None:
    """The nodes take turns."""
    assert "balance roundrobin" in configure({"kallithea_loadbalancer_balance": "roundrobin"})
    servers = servers_of_pages(site, balancer)
    assert set(servers) == set(settings.groups["app"])
    same = sum(server == after for server, after in itertools.pairwise(servers))
    assert same <= STRAY, servers


def test_hash_of_the_source(site: Site, client: Client, balancer: Balancer, configure: Configure) -> None:
    """An address always comes to the same node."""
    assert "balance source" in configure({"kallithea_loadbalancer_balance": "source"})
    assert len(set(servers_of_pages(site, balancer))) == 1
    path, begin = fresh_path(), time.time()
    client.run(f"for number in $(seq {PAGES}); do curl -s -o /dev/null {client.url(path[1:])}; done")
    assert len({line["server"] for line in lines_of(balancer, site.settings, begin, path)}) == 1


def test_reloads_cut_no_clone(client: Client, configure: Configure) -> None:
    """The clone that began before the first change goes on through all of them, the one back included, and is whole."""
    configure({})
    assert client.machine.is_running("slow-clone-0"), f"the clone ended early: {client.run('cat slow-0.log')}"
    client.free_clones()
    wait_until("the clone whole", lambda: client.cloned(0), 90, 1.0)
