"""People and bots in one cluster: each has processes of its own, whatever the other does and whatever a client claims to be."""

from __future__ import annotations

import base64
import json
import secrets
import statistics
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest
from balancer import Balancer
from machines import Machine, wait_until
from pools import Pools
from repositories import Make
from scm import HOME, Client
from settings import Settings
from traffic import Line, at_work, fresh_path, lines_of, unfinished
from web import Site

pytest_plugins = ["big_repository"]

# A build server's account that people's name serves; the inventory calls it a bot's.
ACCOUNT = "robot-account"
NOBODY = "<NOSRV>"
PAGES = 30
PAGE_SECONDS = 5.0
FORGED = "192.0.2.99"
CLAIMS_OF_ADDRESS = {"X-Forwarded-For": "{}", "X-Real-IP": "{}", "X-Client-IP": "{}", "X-Original-Forwarded-For": "{}", "Forwarded": "for={}"}
CLAIMS_OF_CLASS = ("X-Kallithea-Who", "X-Kallithea-What", "X-Kallithea-Pool", "X-Kallithea-Class")
CLAIMS_OF_NAME = ("Remote-User", "X-Remote-User", "X-Forwarded-User", "X-Kallithea-User", "Remote_User")
RECEIVE_PACK = "application/x-git-receive-pack-request"


@pytest.fixture(scope="module")
def small(client: Client, make_repository: Make) -> dict[str, str]:
    """Return a repository of each kind with a commit in it, pushed by a person."""
    names = {kind: make_repository(kind, f"small-{kind}") for kind in ("git", "hg")}
    client.commit_git("small-git", "word")
    client.commit_hg("small-hg", "word")
    client.run(f"git -C small-git push -q {client.url(names['git'])} master && hg -R small-hg push -q {client.url(names['hg'])}")
    return names


def use_all(user: Client, repository: dict[str, str], name: str = "") -> None:
    """Clone, push and look at a page, with git and hg, as a user of one of the site's names."""
    git, hg = (user.url(repository[kind], name) for kind in ("git", "hg"))
    user.run("rm -rf all-git all-hg")
    user.run(f"git clone -q {git} all-git && hg clone -q {hg} all-hg", seconds=120)
    user.commit_git("all-git", secrets.token_hex(4))
    user.commit_hg("all-hg", secrets.token_hex(4))
    user.run(f"git -C all-git push -q {git} HEAD:refs/heads/{secrets.token_hex(4)} && hg -R all-hg push -q {hg} && curl -s -o /dev/null {git}", seconds=120)


def paths(repository: dict[str, str]) -> list[str]:
    """Return the repositories' paths."""
    return [f"/{name}" for name in repository.values()]


def check_bots(lines: list[Line], signal: str, settings: Settings) -> None:
    """Fail unless all reads went to the CI node, and all pushes to the pool for them, both as a bot's."""
    assert {(line["who"], line["signal"]) for line in lines} == {("bot", signal)}
    reads = [line for line in lines if line["what"] != "write"]
    assert {line["what"] for line in reads} >= {"scm"}
    assert {(line["pool"], line["server"]) for line in reads} <= {("ci", node) for node in settings.groups["ci"]}
    pushes = [line for line in lines if line["what"] == "write"]
    # Whoever pushes without a name is answered by the balancer itself.
    assert {line["pool"] for line in pushes} == {"write"} and {line["server"] for line in pushes} <= {*settings.groups["app"], NOBODY}
    assert [line for line in pushes if line["status"] == "200"]


def test_people_never_reach_the_ci_node(client: Client, balancer: Balancer, settings: Settings, small: dict[str, str]) -> None:
    """Pages, clones and pushes of people stay on the application nodes; so did all requests of people that the balancer remembers."""
    begin = time.time()
    use_all(client, small)
    lines = lines_of(balancer, settings, begin, *paths(small))
    assert {line["who"] for line in lines} == {"person"}
    assert {line["pool"] for line in lines} == {"ui", "scm", "write"}
    assert not [line for line in balancer.log(0) if line["who"] == "person" and (line["pool"] == "ci" or line["server"] in settings.groups["ci"])]


def test_bots_known_by_host_name(client: Client, balancer: Balancer, settings: Settings, small: dict[str, str]) -> None:
    """Whoever uses the bots' name is one, also from a person's machine."""
    begin = time.time()
    use_all(client, small, settings.ci_hostname)
    lines = lines_of(balancer, settings, begin, *paths(small))
    check_bots(lines, "host", settings)
    assert "ui" in {line["what"] for line in lines}


def test_bots_known_by_network(robot: Client, balancer: Balancer, settings: Settings, small: dict[str, str]) -> None:
    """Whoever comes from a network of bots is one, also by people's name."""
    begin = time.time()
    use_all(robot, small)
    lines = lines_of(balancer, settings, begin, *paths(small))
    check_bots(lines, "network", settings)
    assert "ui" in {line["what"] for line in lines}


@pytest.fixture
def account(client: Client, site: Site, small: dict[str, str]) -> Iterator[str]:
    """Make the account of a build server, which may push; return what lets git and hg be it."""
    password = secrets.token_hex(16)
    site.call("create_user", username=ACCOUNT, email=f"{ACCOUNT}@localhost.test", password=password, firstname="Build", lastname="Server")
    for name in small.values():
        site.call("grant_user_permission", repoid=name, userid=ACCOUNT, perm="repository.write")
    client.machine.write(f"{HOME}/account-password", password)
    client.machine.write(f"{HOME}/account-askpass", f'#!/bin/sh\ncase "$1" in Username*) echo {ACCOUNT};; *) cat {HOME}/account-password;; esac\n', "0700")
    login = {"prefix": client.settings.hostname, "schemes": "https", "username": ACCOUNT, "password": password}
    auth = "".join(f"account.{key} = {value}\n" for key, value in login.items())
    client.machine.write(f"{HOME}/account-hgrc", f"[ui]\nusername = Builder\n[auth]\n{auth}[web]\ncacerts = {HOME}/ca.crt\n")
    yield f"export GIT_ASKPASS={HOME}/account-askpass HGRCPATH={HOME}/account-hgrc; "
    client.run("rm -rf account-*")
    site.call("delete_user", userid=ACCOUNT)


def test_bots_known_by_account(client: Client, balancer: Balancer, settings: Settings, small: dict[str, str], account: str) -> None:
    """An account counts from the first request that names it on: programs name it once they are asked."""
    git, hg = client.url(small["git"]), client.url(small["hg"])
    begin = time.time()
    client.run(f"{account} git clone -q {git} account-git && hg clone -q {hg} account-hg", seconds=120)
    client.run(f"{account} cd account-git && git push -q {git} HEAD:refs/heads/account", seconds=120)
    lines = lines_of(balancer, settings, begin, *paths(small))
    assert {line["who"] for line in lines if line["status"] == "401"} == {"person"}
    check_bots([line for line in lines if line["status"] != "401"], "account", settings)


def test_pushes_of_bots_wait_for_those_of_people(balancer: Balancer, settings: Settings, small: dict[str, str]) -> None:
    """Where both wait for a process, the person is served first although the bot was there before."""
    name = small["git"]
    login = base64.b64encode(f"admin:{settings.secrets['admin_password']}".encode()).decode()
    headers = {"Authorization": f"Basic {login}", "User-Agent": "git/2.47.0"}
    ref = f"{'0' * 40} {'1' * 40} refs/heads/stays\0 report-status".encode()
    begin = f"{len(ref) + 4:04x}".encode() + ref + b"0000" + b"PACK\0\0\0\2\0\0\0\1"
    processes = settings.pools["write"]["processes"]

    def push(site: Site) -> tuple[int, float]:
        answer = site.get(f"/{name}/info/refs?service=git-receive-pack", headers, seconds=120)
        return answer.status, time.monotonic()

    with ThreadPoolExecutor() as executor, ExitStack() as held, ExitStack() as first:
        for number in range(processes):
            stack = held if number else first
            stack.enter_context(unfinished(Site(settings), f"/{name}/git-receive-pack", {**headers, "Content-Type": RECEIVE_PACK}, begin))
        wait_until("all processes of a node at pushes", lambda: max(at_work(balancer, "write")[0].values()) == processes)
        bot = executor.submit(push, Site(settings, settings.ci_hostname))
        wait_until("the bot waiting", lambda: at_work(balancer, "write")[1] == 1)
        person = executor.submit(push, Site(settings))
        wait_until("both waiting", lambda: at_work(balancer, "write")[1] == 2)
        first.close()
        answers = person.result(120), bot.result(120)
    assert [status for status, _ in answers] == [200, 200]
    assert answers[0][1] < answers[1][1], "the bot was served first"
    wait_until("no push at work", lambda: not sum(at_work(balancer, "write")[0].values()))


def test_bots_spill_over_where_the_ci_node_is_full(
    robot: Client, balancer: Balancer, machines: dict[str, Machine], settings: Settings, small: dict[str, str], big_repository: str
) -> None:
    """With every process of the CI node at a slow clone, bots go to the application nodes' processes for them; afterwards they come back."""
    ci = settings.groups["ci"][0]
    full = settings.host_pools[ci]["ci"]["processes"]
    url, path = robot.url(small["git"]), f"/{small['git']}"
    with robot.slow_clones(big_repository, full):
        wait_until(f"all processes of {ci} at work", lambda: Pools(machines[ci], settings).are_at_work("ci", full))
        begin = time.time()
        robot.run(f"git ls-remote {url}")
        lines = lines_of(balancer, settings, begin, path)
        assert {line["pool"] for line in lines} == {"ci"} and {line["server"] for line in lines} <= set(settings.groups["app"]), lines
        assert Pools(machines[ci], settings).are_at_work("ci", full), "the clones ended too early to prove anything"
    wait_until(f"{ci} free again", lambda: not at_work(balancer, "ci")[0][ci])
    begin = time.time()
    robot.run(f"git ls-remote {url}")
    assert {line["server"] for line in lines_of(balancer, settings, begin, path)} == {ci}


def test_clones_on_all_nodes_take_no_page(
    client: Client, site: Site, machines: dict[str, Machine], settings: Settings, big_repository: str, small: dict[str, str]
) -> None:
    """While people's clones hold every process that they may have on all nodes, pages come as fast as ever."""
    nodes = {node: settings.host_pools[node]["scm"]["processes"] for node in settings.groups["app"]}

    def busy() -> bool:
        return all(Pools(machines[node], settings).are_at_work("scm", processes) for node, processes in nodes.items())

    seconds = []
    with client.slow_clones(big_repository, sum(nodes.values())):
        wait_until("all processes for clones at work", busy, 60)
        for number in range(PAGES):
            asked = time.monotonic()
            answer = site.get("/_admin/my_account" if number % 2 else f"/{small['git']}")
            seconds.append(time.monotonic() - asked)
            assert answer.status == 200, answer.text[:200]
        assert busy(), "the clones ended too early to prove anything"
    assert max(seconds) < PAGE_SECONDS and statistics.median(seconds) < PAGE_SECONDS / 2, seconds


@pytest.fixture
def stranger(settings: Settings) -> Site:
    """Return a browser that nobody has logged in with."""
    return Site(settings)


def test_claimed_address_changes_nothing(stranger: Site, balancer: Balancer, settings: Settings) -> None:
    """Neither the class nor the address that Kallithea sees comes from a header, even where it names a bot's address."""
    body = json.dumps({"id": 1, "api_key": settings.secrets["admin_api_key"], "method": "get_ip", "args": {}})
    path, begin = fresh_path(), time.time()
    seen = set()
    for address in (FORGED, settings.addresses["robot"]):
        for header, value in CLAIMS_OF_ADDRESS.items():
            claim = {header: value.format(address)}
            stranger.get(path, claim)
            answer = stranger.request("POST", "/_admin/api", {"Content-Type": "application/json", **claim}, body)
            seen.add(json.loads(answer.text)["result"]["server_ip_addr"])
    lines = lines_of(balancer, settings, begin, path)
    assert len(lines) == 2 * len(CLAIMS_OF_ADDRESS)
    assert {(line["who"], line["signal"], line["pool"]) for line in lines} == {("person", "none", "ui")}
    assert {line["client"].rpartition(":")[0] for line in lines} == seen, "Kallithea and the balancer see different addresses"
    assert len(seen) == 1 and not seen & {FORGED, settings.addresses["robot"]}


def test_claimed_class_changes_nothing(settings: Settings, balancer: Balancer) -> None:
    """Nobody says himself who he is or what he wants: a person becomes no bot, and a bot no person."""
    verdicts = {settings.hostname: ("person", "ui", "ui"), settings.ci_hostname: ("bot", "ui", "ci")}
    path = {name: fresh_path() for name in verdicts}
    begin = time.time()
    for name in verdicts:
        for claim in ("person", "bot", "scm", "ci"):
            Site(settings, name).get(path[name], dict.fromkeys(CLAIMS_OF_CLASS, claim))
    for name, verdict in verdicts.items():
        lines = lines_of(balancer, settings, begin, path[name])
        assert lines and {(line["who"], line["what"], line["pool"]) for line in lines} == {verdict}, f"a claim to {name} was believed"


def test_claimed_name_logs_nobody_in(stranger: Site, settings: Settings) -> None:
    """Through the balancer and past it, only Kallithea says who somebody is."""
    for header in CLAIMS_OF_NAME:
        assert stranger.get("/_admin/my_account", {header: "admin"}).status == 302, header
        for node in settings.groups["app"]:
            answer = stranger.get("/_admin/my_account", {header: "admin"}, node=node, port=settings.host_pools[node]["ui"]["port"])
            assert answer.status == 302, f"{header} on {node}"
