"""Jobs that one node of the cluster does in a period."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import pathlib
import sys
import types
from typing import Any

import pytest

PATH = pathlib.Path(__file__).parents[2] / "roles" / "app" / "files" / "kallithea-once"
PERIOD = 1000


class Cluster:
    """A database with its clock, that all nodes use; and what they run."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.created = True
        self.busy = False
        self.now = 0.0
        self.stamp: tuple[str, float] | None = None
        self.host = ""
        self.runs: list[tuple[str, float]] = []
        self.status = 0
        self.seconds = 0
        self.monkeypatch = monkeypatch
        database = types.ModuleType("kallithea_database")
        monkeypatch.setattr(database, "connect", lambda: self, raising=False)
        monkeypatch.setattr(database, "try_lock", lambda _connection, name: name == "job/index" and not self.busy, raising=False)
        monkeypatch.setattr(database, "value", self.value, raising=False)
        monkeypatch.setitem(sys.modules, "kallithea_database", database)
        loader = importlib.machinery.SourceFileLoader("kallithea_once", str(PATH))
        spec = importlib.util.spec_from_loader("kallithea_once", loader)
        assert spec is not None
        self.once = importlib.util.module_from_spec(spec)
        loader.exec_module(self.once)
        monkeypatch.setattr(self.once.subprocess, "call", self.call)
        monkeypatch.setattr(self.once.socket, "gethostname", lambda: self.host)

    def value(self, _connection: Any, statement: str, parameters: tuple[Any, ...] = ()) -> Any:
        if "to_regclass" in statement:
            return "kallithea_cluster" if self.created else None
        if "changed > now()" in statement:
            return self.stamp[0] if self.stamp and self.stamp[1] > self.now - parameters[1] else None
        return self.now if statement == "SELECT now()" else None

    def cursor(self) -> Cluster:
        return self

    def __enter__(self) -> Cluster:
        return self

    def __exit__(self, *_error: object) -> None:
        """Close nothing."""

    def execute(self, statement: str, parameters: list[Any]) -> None:
        assert statement.startswith("INSERT INTO kallithea_cluster")
        self.stamp = (parameters[1], parameters[2])

    def call(self, command: list[str]) -> int:
        assert command == ["job", "argument"]
        self.runs.append((self.host, self.now))
        self.now += self.seconds
        return self.status

    def fire(self, host: str, now: float) -> int:
        """Let a host's timer fire."""
        self.host, self.now = host, now
        self.monkeypatch.setattr(sys, "argv", ["kallithea-once", "index", str(PERIOD), "--", "job", "argument"])
        status: int = self.once.main()
        return status


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Cluster:
    return Cluster(monkeypatch)


def test_one_node_does_it_in_a_period_whatever_their_number(cluster: Cluster) -> None:
    # Timers fire after a whole period and up to a fifth of it.
    for host, phase in (("app1", 0.0), ("app2", 300.0), ("app3", 600.0), ("ci1", 850.0)):
        assert cluster.fire(host, phase) == 0
    assert cluster.runs == [("app1", 0.0)]
    for host, phase in (("app1", 1150.0), ("app2", 1310.0), ("app3", 1790.0), ("ci1", 1950.0)):
        cluster.fire(host, phase)
    assert cluster.runs == [("app1", 0.0), ("app1", 1150.0)]


def test_another_node_does_it_when_the_last_one_is_off(cluster: Cluster) -> None:
    cluster.fire("app1", 0)
    cluster.fire("app2", 500)
    cluster.fire("app2", 1650)
    assert cluster.runs == [("app1", 0), ("app2", 1650)]


def test_a_lone_node_never_misses_a_period_although_its_starts_take_shorter_or_longer(cluster: Cluster) -> None:
    cluster.seconds = 700
    for number, late in enumerate((0, 60, 2, 80, 0)):
        cluster.fire("app1", number * PERIOD + late)
    assert len(cluster.runs) == 5


def test_a_failed_job_leaves_no_stamp_so_the_next_node_tries(cluster: Cluster) -> None:
    cluster.status = 3
    assert cluster.fire("app1", 0) == 1
    cluster.status = 0
    assert cluster.fire("app2", 10) == 0
    assert cluster.runs == [("app1", 0), ("app2", 10)]


def test_nobody_runs_it_beside_another_or_before_the_database_is_there(cluster: Cluster) -> None:
    cluster.busy = True
    assert cluster.fire("app1", 0) == 0
    cluster.busy, cluster.created = False, False
    assert cluster.fire("app1", 0) == 0
    assert cluster.runs == []
