"""The health service's verdicts."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import pathlib

import pytest

PATH = pathlib.Path(__file__).parents[2] / "roles" / "app" / "files" / "kallithea-health"
LOADER = importlib.machinery.SourceFileLoader("kallithea_health", str(PATH))
SPEC = importlib.util.spec_from_loader("kallithea_health", LOADER)
assert SPEC is not None
health = importlib.util.module_from_spec(SPEC)
LOADER.exec_module(health)

GOOD = {name: health.Result(10.0, "") for name in health.WRITABLE}


def test_all_well() -> None:
    assert health.verdict(GOOD, health.READY, 10.5) == []
    assert health.verdict({}, (), 10.5) == []


def test_a_failed_probe_is_named() -> None:
    results = {**GOOD, "database": health.Result(10.0, "connection refused")}
    assert health.verdict(results, health.READY, 10.5) == ["database: connection refused"]


def test_a_hanging_probe_is_a_result_that_grew_old() -> None:
    results = {**GOOD, "storage": health.Result(4.0, "")}
    assert health.verdict(results, health.READY, 10.0) == ["storage: no answer for 6 s"]


def test_not_probed_yet_is_not_ready() -> None:
    assert len(health.verdict({}, health.READY, 1.0)) == len(health.READY)


def test_writable_asks_more_than_ready() -> None:
    results = {**GOOD, "storage is writable": health.Result(10.0, "read-only file system")}
    assert health.verdict(results, health.READY, 10.0) == []
    assert health.verdict(results, health.WRITABLE, 10.0) == ["storage is writable: read-only file system"]


@pytest.mark.parametrize(
    ("free", "blocks", "inodes_free", "inodes", "bad"),
    [(5, 100, 5, 100, False), (4, 100, 50, 100, True), (50, 100, 4, 100, True), (50, 100, 0, 0, False)],
)
def test_space(free: int, blocks: int, inodes_free: int, inodes: int, bad: bool) -> None:
    assert bool(health.space_problem(free, blocks, inodes_free, inodes, 0.05)) is bad
