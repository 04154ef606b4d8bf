"""What kallithea-web's start and its processes leave for the health service: a mark for each process that has not loaded."""

from __future__ import annotations

import logging.config
import pathlib
import re
import sys
import types
from collections.abc import Callable
from typing import Any

import pytest
from test_nodes import APP1, CI1, POOLS, rendered


def test_a_mark_for_each_process_until_it_has_loaded() -> None:
    marks = re.findall(r"/run/kallithea-web/loading/(\S+)", rendered("kallithea-web.service.j2", APP1, [APP1, CI1]))
    assert marks == [f"{pool}.{settings['port']}.{number}" for pool, settings in POOLS.items() for number in range(settings["processes"])]
    assert all(mark.startswith("ci.") for mark in re.findall(r"loading/(\S+)", rendered("kallithea-web.service.j2", CI1, [APP1, CI1])))


class Answer:
    """What the application answers to its first request."""

    status = "200 OK"

    @classmethod
    def blank(cls, path: str) -> type[Answer]:
        assert path == "/_admin/api"
        return cls

    @classmethod
    def get_response(cls, application: str) -> type[Answer]:
        assert application == "the application"
        return cls


@pytest.fixture
def load(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], set[str]]:
    """Return a function that loads the application into a process of a pool and returns the marks left."""
    config = types.SimpleNamespace(global_conf={}, local_conf={})
    modules: dict[str, dict[str, Any]] = {
        "paste": {},
        "paste.deploy": {"appconfig": lambda _uri: config},
        "kallithea": {},
        "kallithea.config": {},
        "kallithea.config.application": {"make_app": lambda _global, **_local: "the application"},
        "webob": {"Request": Answer},
        "mod_wsgi": {"process_group": ""},
    }
    for name, content in modules.items():
        module = types.ModuleType(name)
        vars(module).update(content)
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(sys.modules["paste"], "deploy", sys.modules["paste.deploy"], raising=False)
    monkeypatch.setattr(logging.config, "fileConfig", lambda *_arguments: None)
    script = rendered("dispatch.wsgi.j2", APP1, [APP1]).replace("/run/kallithea-web/loading", str(tmp_path))

    namespace: dict[str, Any] = {}

    def run(pool: str) -> set[str]:
        monkeypatch.setattr(sys.modules["mod_wsgi"], "process_group", f"kallithea-{pool}")
        exec(compile(script, "dispatch.wsgi", "exec"), namespace)
        return {path.name for path in tmp_path.iterdir()}

    run.namespace = namespace  # type: ignore[attr-defined]
    return run


def test_a_process_that_has_loaded_takes_a_mark_of_its_pool_away(tmp_path: pathlib.Path, load: Callable[[str], set[str]]) -> None:
    for name in ("ui.8081.0", "ui.8081.1", "scm.8082.0"):
        (tmp_path / name).touch()
    assert len(load("ui")) == 2
    assert load("ui") == {"scm.8082.0"}
    assert load("ui") == {"scm.8082.0"}, "a process that is replaced later has nothing to take away"
    assert load("scm") == set()


def test_a_process_that_cannot_answer_has_not_loaded(tmp_path: pathlib.Path, load: Callable[[str], set[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ui.8081.0").touch()
    monkeypatch.setattr(Answer, "status", "500 Internal Server Error")
    with pytest.raises(RuntimeError, match="500 Internal Server Error"):
        load("ui")
    assert [path.name for path in tmp_path.iterdir()] == ["ui.8081.0"], "its next request loads it again"


def test_nothing_is_answered_from_the_empty_folder_of_a_storage_that_is_gone(tmp_path: pathlib.Path, load: Callable[[str], set[str]]) -> None:
    load("ui")
    application = load.namespace["application"]  # type: ignore[attr-defined]
    load.namespace.update(MARKER=str(tmp_path / "marker"), kallithea=lambda environ, start: [b"a page"])  # type: ignore[attr-defined]
    begun: list[tuple[str, list[tuple[str, str]]]] = []
    (said,) = application({}, lambda status, headers: begun.append((status, headers)))
    assert begun[0][0].startswith("503 ") and ("Content-Type", "text/plain") in begun[0][1]
    assert said == b"The storage is not mounted on the host that was asked. Please try again.\n"
    (tmp_path / "marker").touch()
    assert application({}, None) == [b"a page"]


@pytest.mark.parametrize(
    ("environ", "status", "told"),
    [
        ({"AUTH_TYPE": "basic"}, "200 OK", True),
        ({}, "200 OK", False),
        ({"REQUEST_METHOD": "POST", "PATH_INFO": "/_admin/login", "form": {"username": "jane"}}, "302 Found", True),
        # The form again; who is logged in already and sent no form; another page.
        ({"REQUEST_METHOD": "POST", "PATH_INFO": "/_admin/login", "form": {"username": "jane"}}, "200 OK", False),
        ({"REQUEST_METHOD": "POST", "PATH_INFO": "/_admin/login", "form": {}}, "302 Found", False),
        ({"REQUEST_METHOD": "POST", "PATH_INFO": "/_admin/register", "form": {"username": "jane"}}, "302 Found", False),
    ],
)
def test_the_balancer_learns_which_passwords_were_looked_at(
    tmp_path: pathlib.Path, load: Callable[[str], set[str]], environ: dict[str, Any], status: str, told: bool
) -> None:
    load("ui")

    def kallithea(_environ: dict[str, Any], start: Callable[..., None]) -> list[bytes]:
        start(status, [("Content-Type", "text/plain")])
        return []

    request = types.SimpleNamespace(Request=lambda environ: types.SimpleNamespace(POST=environ["form"]))
    load.namespace.update(MARKER=str(tmp_path), kallithea=kallithea, webob=request)  # type: ignore[attr-defined]
    begun: list[list[tuple[str, str]]] = []
    load.namespace["application"](environ, lambda _status, headers: begun.append(headers))  # type: ignore[attr-defined]
    assert (("X-Kallithea-Verified", "1") in begun[0]) is told
