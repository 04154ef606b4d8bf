"""Who logged in on one node is logged in on all of them, and who logged out on none."""

from __future__ import annotations

import time

import pytest
from balancer import Balancer
from settings import Settings
from traffic import lines_of
from web import Answer, Site

REQUESTS = 100
ACCOUNT = "/_admin/my_account"


@pytest.fixture
def browser(settings: Settings) -> Site:
    """Return a browser with a session of its own."""
    browser = Site(settings)
    browser.login()
    return browser


def account(browser: Site, settings: Settings, node: str) -> Answer:
    """Ask for the account's page, past the balancer where a node is named."""
    return browser.get(ACCOUNT, node=node, port=settings.host_pools[node]["ui"]["port"]) if node else browser.get(ACCOUNT)


def test_login_counts_on_every_node(browser: Site, settings: Settings, balancer: Balancer) -> None:
    """One login is enough for a hundred pages, from the balancer and from each node itself."""
    places = ["", *settings.groups["app"]]
    begin = time.time()
    answers = [account(browser, settings, places[number % len(places)]).status for number in range(REQUESTS)]
    assert answers == [200] * REQUESTS
    served = {line["server"] for line in lines_of(balancer, settings, begin, ACCOUNT)}
    assert served == set(settings.groups["app"]), "the balancer did not use all nodes, so this proved little"


def test_logout_counts_on_every_node(browser: Site, settings: Settings) -> None:
    """A cookie that somebody kept opens nothing any more, on whatever node."""
    kept = dict(browser.cookies)
    assert browser.get("/_admin/logout").status == 302
    for node in ["", *settings.groups["app"]]:
        thief = Site(settings)
        thief.cookies = dict(kept)
        answer = account(thief, settings, node)
        assert answer.status == 302 and "/login" in answer.header("Location"), f"{node or 'the balancer'} answered {answer.status}"
