"""The clean-up: what it takes from disk and database, and what it leaves."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import os
import pathlib
import sys
import time
import types
from typing import Any

import pytest

PATH = pathlib.Path(__file__).parents[2] / "roles" / "app" / "files" / "kallithea-cleanup"


class Database:
    """Remembers what it is asked; each statement removes three rows."""

    rowcount = 3

    def __init__(self) -> None:
        self.asked: list[tuple[str, list[int]]] = []

    def cursor(self) -> Database:
        return self

    def __enter__(self) -> Database:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def execute(self, statement: str, parameters: list[int]) -> None:
        self.asked.append((statement, parameters))


@pytest.fixture
def database(monkeypatch: pytest.MonkeyPatch) -> Database:
    """Return the database that the script connects to."""
    made = Database()
    module = types.ModuleType("kallithea_database")
    monkeypatch.setattr(module, "connect", lambda: made, raising=False)
    monkeypatch.setattr(module, "value", lambda *_: "db_session", raising=False)
    monkeypatch.setitem(sys.modules, "kallithea_database", module)
    return made


def clean(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    """Run the script."""
    loader = importlib.machinery.SourceFileLoader("kallithea_cleanup", str(PATH))
    spec = importlib.util.spec_from_loader("kallithea_cleanup", loader)
    assert spec is not None
    module: Any = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    monkeypatch.setattr(sys, "argv", ["kallithea-cleanup", *arguments])
    module.main()


def test_pulls_go_and_no_other_rows(monkeypatch: pytest.MonkeyPatch, database: Database, capsys: pytest.CaptureFixture[str]) -> None:
    clean(monkeypatch, "pulls", "--days", "90")
    ((statement, parameters),) = database.asked
    assert statement.startswith("DELETE FROM user_logs WHERE action = 'pull' AND action_date < ") and parameters == [91]
    assert capsys.readouterr().out == "Removed 0 files and 3 rows.\n"


def test_sessions_go_from_their_table(monkeypatch: pytest.MonkeyPatch, database: Database) -> None:
    clean(monkeypatch, "sessions", "--days", "30")
    ((statement, parameters),) = database.asked
    assert "db_session" in statement and "user_logs" not in statement and parameters == [31]


def test_files_that_are_old_go(monkeypatch: pytest.MonkeyPatch, database: Database, tmp_path: pathlib.Path) -> None:
    for name, days in (("old", 3), ("young", 1)):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (0, time.time() - days * 86400))
    clean(monkeypatch, "files", "--days", "2", "--path", str(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["young"] and database.asked == []


@pytest.mark.parametrize("kind", ["pulls", "sessions", "files"])
def test_no_days_are_refused(monkeypatch: pytest.MonkeyPatch, database: Database, kind: str) -> None:
    with pytest.raises(SystemExit):
        clean(monkeypatch, kind, "--days", "0")
    assert database.asked == []
