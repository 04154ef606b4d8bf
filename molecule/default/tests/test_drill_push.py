"""What is pushed is read at once through the balancer and through every node, and lies on the storage at the end."""

from __future__ import annotations

from typing import Any

import pytest
from drills import ON_CONTAINERS, Drills, size

SIZE = size(ON_CONTAINERS)


@pytest.fixture(scope="module")
def report(drills: Drills) -> dict[str, Any]:
    """Push through the balancer, which gives each repository to one node, while two people look at pages."""
    return drills.push(SIZE)


def test_push_is_read_at_once(report: dict[str, Any]) -> None:
    """However often, there is no miss: a build server that is told of a push finds it, whichever node it asks."""
    assert report["faults"] == []
    assert (report["acknowledged"], report["unknown"], report["refused"], report["failed"]) == (SIZE.pushes, 0, 0, 0), report["reasons"]
    assert report["questions_failed"] == 0


def test_push_is_everywhere_at_the_end(report: dict[str, Any], drills: Drills) -> None:
    """In clones through the balancer and through every node, and on the storage; git fsck and hg verify have nothing to say."""
    assert report["places"] == ["balancer", *drills.settings.groups["app"], "storage"]
    assert report["lost"] == []
    assert report["damage"] == []


def test_pages_come_meanwhile(report: dict[str, Any]) -> None:
    """Pushes keep nobody from looking."""
    assert report["pages"] > 0
    assert report["pages_failed"] == 0
