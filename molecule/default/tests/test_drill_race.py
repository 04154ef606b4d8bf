"""Two pushes to one branch at the same moment, by every way there is: exactly one wins, and no history goes back."""

from __future__ import annotations

from typing import Any

import pytest
from drills import Drills
from settings import Settings

ROUNDS = 5
DRILL_SECONDS = 400.0
# Through the balancer, straight to two nodes (around the balancer's hash), by the address that stays when a repository is
# renamed (which the hash takes for another repository), and an edit in the browser (which is no push for the balancer).
WAYS = ("balancer/balancer", "{0}/{1}", "id/balancer", "web/balancer")


def ways_of(settings: Settings) -> list[str]:
    """Return the ways with the first two nodes' names."""
    return [way.format(*settings.groups["app"]) for way in WAYS]


@pytest.fixture(scope="module")
def report(drills: Drills, settings: Settings) -> dict[str, Any]:
    """Race on repositories of git and hg in turns."""
    ways = (f"--way={way}" for way in ways_of(settings))
    return drills.run("race", *ways, f"--rounds={ROUNDS}", "--kinds=git,hg", "--within=240", seconds=DRILL_SECONDS)


@pytest.mark.parametrize("number", range(len(WAYS)), ids=WAYS)
def test_exactly_one_wins(report: dict[str, Any], settings: Settings, number: int) -> None:
    """The other gets its system's ordinary refusal, and all nodes agree on the newest commit."""
    way = ways_of(settings)[number]
    count = report["races"][way]
    assert [fault for fault in report["faults"] if fault.startswith(f"{way}, ")] == []
    assert (count["rounds"], count["decided"]) == (ROUNDS, ROUNDS), report["reasons"]


def test_nothing_is_lost(report: dict[str, Any]) -> None:
    """Whatever was acknowledged in any round is in clones through every node and on the storage, and nothing is damaged."""
    assert report["lost"] == []
    assert report["damage"] == []
