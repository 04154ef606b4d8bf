"""Who may only read a repository of Mercurial cannot write to it, whatever his request looks like; his password was looked at, and the balancer learns it."""

from __future__ import annotations

import base64
import re
import secrets
from collections.abc import Iterator

import pytest
from balancer import Balancer
from machines import Machine
from repositories import Make
from settings import Settings
from web import Answer, Site

API_KEY = re.compile(r'autoexpand">\s*([0-9A-Za-z]{40})\s*<')
# All of them are writes to hgweb: method, query, headers, body.
WRITES = {
    "a push": ("POST", "cmd=unbundle&heads=666f726365", {}, ""),
    "the last command counts": ("POST", "cmd=heads&cmd=unbundle&heads=666f726365", {}, ""),
    "an encoded name": ("POST", "cmd=heads&c%6dd=unbundle&heads=666f726365", {}, ""),
    "a batch in the body": ("POST", "cmd=batch", {"X-HgArg-1": "cmds=heads+", "X-HgArgs-Post": "13"}, "cmds=pushkey+"),
    "an encoded semicolon": ("GET", "cmd=batch", {"X-HgArg-1": "cmds=heads+%3Bpushkey+"}, ""),
}


@pytest.fixture
def credentials(site: Site) -> Iterator[dict[str, str]]:
    """Make an account; return its name, its password and their header."""
    name, password = f"reader{secrets.token_hex(4)}", secrets.token_hex(12)
    site.call("create_user", username=name, email=f"{name}@localhost.test", password=password, firstname="Only", lastname="Reader")
    yield {
        "name": name,
        "password": password,
        "header": "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode(),
    }
    site.call("delete_user", userid=name)


@pytest.fixture
def repository(site: Site, credentials: dict[str, str], make_repository: Make) -> str:
    """Make a repository that the account may read."""
    name = make_repository("hg", credentials["name"])
    site.call("grant_user_permission", repoid=name, userid=credentials["name"], perm="repository.read")
    return name


def taken(node: Machine) -> int:
    """Return how many credentials the balancer believes to be right."""
    return Balancer(node).ask("show table st_taken").count("gpt0=1")


def ask(settings: Settings, credentials: dict[str, str], repository: str, method: str, query: str, headers: dict[str, str], body: str) -> Answer:
    """Send a request of Mercurial's as the reader."""
    own = {"Accept": "application/mercurial-0.1", "User-Agent": "mercurial/proto-1.0", "Authorization": credentials["header"]}
    return Site(settings).request(method, f"/{repository}?{query}", own | headers, body)


def test_a_reader_cannot_write(settings: Settings, credentials: dict[str, str], repository: str) -> None:
    """Neither as Mercurial would ask, nor in a way that Kallithea and hgweb read differently."""
    for headers in ({}, {"X-HgArg-1": "cmds=heads+%3Bknown+nodes%3D"}):
        query = "cmd=batch" if headers else "cmd=heads"
        assert ask(settings, credentials, repository, "GET", query, headers, "").status == 200, "he cannot read, so this shows nothing"
    answers = {name: ask(settings, credentials, repository, *write).status for name, write in WRITES.items()}
    assert answers == dict.fromkeys(WRITES, 403)


def test_the_balancer_learns_which_password_was_looked_at(node: Machine, settings: Settings, credentials: dict[str, str], repository: str) -> None:
    """And nobody else does."""
    before = taken(node)
    answer = ask(settings, credentials, repository, "GET", "cmd=heads", {}, "")
    assert answer.status == 200
    assert not answer.header("X-Kallithea-Verified")
    assert taken(node) == before + 1
    wrong = credentials | {"header": "Basic " + base64.b64encode(f"{credentials['name']}:wrong".encode()).decode()}
    assert ask(settings, wrong, repository, "GET", "cmd=heads", {}, "").status == 401
    assert taken(node) == before + 1


def test_the_balancer_learns_which_log_in_form_was_looked_at(node: Machine, settings: Settings, credentials: dict[str, str]) -> None:
    """Not one that failed, nor what somebody sends who is logged in already."""
    visitor, before = Site(settings), taken(node)
    form = {"username": credentials["name"], "password": credentials["password"]}
    assert visitor.post("/_admin/login", form | {"password": "wrong"}).status == 200
    assert taken(node) == before
    answer = visitor.post("/_admin/login", form)
    assert (answer.status, answer.header("X-Kallithea-Verified"), taken(node)) == (302, "", before + 1)
    # The key makes him somebody who is logged in, and needs no token; Kallithea does not look at a text.
    key = API_KEY.search(visitor.get("/_admin/my_account/api_keys").text)
    assert key, "no API key on his page"
    other = Site(settings).request("POST", f"/_admin/login?api_key={key[1]}", {"Content-Type": "text/plain"}, f"username={credentials['name']}&password=guess")
    assert (other.status, taken(node)) == (302, before + 1)
