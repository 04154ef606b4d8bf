"""Two pushes to one branch at the same moment, by every way there is: exactly one wins, and no history goes back."""

from __future__ import annotations

from typing import Any

import pytest
from drills import IS_LONG, ON_CONTAINERS, WAYS, Drills, size
from machines import Machine

SIZE = size(ON_CONTAINERS)


@pytest.fixture(scope="module")
def report(drills: Drills) -> dict[str, Any]:
    """Race on repositories of git and hg in turns."""
    return drills.race(drills.ways(), SIZE.rounds)


@pytest.mark.parametrize("number", range(len(WAYS)), ids=WAYS)
def test_exactly_one_wins(report: dict[str, Any], drills: Drills, number: int) -> None:
    """The other gets its system's ordinary refusal, and all nodes agree on the newest commit."""
    way = drills.ways()[number]
    count = report["races"][way]
    assert [fault for fault in report["faults"] if fault.startswith(f"{way}, ")] == []
    assert (count["rounds"], count["decided"]) == (SIZE.rounds, SIZE.rounds), report["reasons"]


def test_nothing_is_lost(report: dict[str, Any]) -> None:
    """Whatever was acknowledged in any round is in clones through every node and on the storage, and nothing is damaged."""
    assert report["lost"] == []
    assert report["damage"] == []


def test_exactly_one_wins_while_the_repository_is_maintained(drills: Drills, machines: dict[str, Machine]) -> None:
    """The same while a host packs the racing repositories again and again; who comes while another one waits for that may read so instead."""
    node = machines[drills.settings.groups["app"][1]]
    ways, rounds, kinds = (drills.ways(), SIZE.rounds, "git,hg") if IS_LONG else (drills.ways()[1:2], 2, "git")
    drills.check_race_while_maintained(node, ways, rounds, kinds)
