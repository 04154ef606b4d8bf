"""The health service's verdicts."""

from __future__ import annotations

import http.client
import http.server
import importlib.machinery
import importlib.util
import json
import os
import pathlib
import socket
import threading
import time
import urllib.error
import urllib.request
from typing import Any

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


class Files(http.server.BaseHTTPRequestHandler):
    """Serves the one file that the probe asks for."""

    def do_HEAD(self) -> None:
        self.send_response(200 if self.path == "/css/style.css" and self.headers["Host"] else 404)
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


def static(port: int) -> dict[str, Any]:
    return {"static_host": "127.0.0.1", "static_port": port}


def test_static_files_are_served() -> None:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Files) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        assert health.probe_static(static(server.server_address[1])) == ""
        server.RequestHandlerClass = http.server.BaseHTTPRequestHandler
        assert health.probe_static(static(server.server_address[1])) == "Apache answered 501"
        server.shutdown()


def test_a_frozen_apache_is_found_although_the_kernel_takes_connections() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, pytest.raises(TimeoutError):
        health.probe_static(static(listener.getsockname()[1]))


class Pool(http.server.BaseHTTPRequestHandler):
    """A pool of one process, which loads with its first request."""

    marks: pathlib.Path
    asked: list[str]

    def do_GET(self) -> None:
        self.asked.append(self.path)
        for mark in self.marks.glob(f"*.{self.connection.getsockname()[1]}.*"):
            mark.unlink()
        self.send_response(200)
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


def test_marks_say_what_has_not_loaded(tmp_path: pathlib.Path) -> None:
    assert health.still_loading(tmp_path / "none") == [], "the web processes do not run, or run since before there were marks"
    for name in ("ui.8081.0", "ui.8081.1", "ci.8084.0"):
        (tmp_path / name).touch()
    marks = health.still_loading(tmp_path)
    assert marks == ["ci.8084.0", "ui.8081.0", "ui.8081.1"]
    assert health.loading_problems(marks) == ["pool ci: 1 of its processes not loaded yet", "pool ui: 2 of its processes not loaded yet"]
    assert health.loading_problems([]) == []


def test_a_pool_that_has_not_loaded_is_asked_and_no_other(tmp_path: pathlib.Path) -> None:
    Pool.marks, Pool.asked = tmp_path, []
    with socket.create_server(("127.0.0.1", 0)) as closed:
        refused = closed.getsockname()[1]
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Pool) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        (tmp_path / f"ui.{server.server_address[1]}.0").touch()
        (tmp_path / f"ci.{refused}.0").touch()
        assert health.wake("127.0.0.1", health.still_loading(tmp_path)) == ""
        assert health.wake("127.0.0.1", health.still_loading(tmp_path)) == ""
        server.shutdown()
    assert Pool.asked == ["/_admin/api"], "the pool that has loaded is left alone"
    assert health.still_loading(tmp_path) == [f"ci.{refused}.0"], "a pool that does not answer keeps its mark"


@pytest.mark.parametrize(("path", "loading", "status"), [("/live", 200, 200), ("/ready", 503, 200), ("/writable", 503, 200)])
def test_ready_when_the_last_process_has_loaded(path: str, loading: int, status: int, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "LOADING", tmp_path)
    (tmp_path / "ui.8081.0").touch()
    with health.Server("127.0.0.1", 0) as server:
        server.results = {name: health.Result(health.time.monotonic() + 60, "") for name in health.WRITABLE}
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

        def ask() -> tuple[int, str]:
            connection = http.client.HTTPConnection("127.0.0.1", server.server_address[1], timeout=5)
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()

        said = ask()
        assert said == (loading, "ok\n" if loading == 200 else "pool ui: 1 of its processes not loaded yet\n")
        (tmp_path / "ui.8081.0").unlink()
        assert ask() == (status, "ok\n"), "at once, and not with the next probe"
        server.shutdown()


def marked(folder: pathlib.Path, cluster_id: str) -> dict[str, Any]:
    """Return the settings of a storage with a cluster's marker."""
    (folder / ".kallithea-cluster").write_text(json.dumps({"cluster_id": cluster_id}), encoding="utf-8")
    return {"storage": str(folder), "cluster_id": "ours", "space_margin": 0.0}


def test_the_storage_is_this_clusters(tmp_path: pathlib.Path) -> None:
    assert health.probe_storage(marked(tmp_path, "ours")) == ""
    assert health.probe_storage(marked(tmp_path, "theirs")) == "the marker is another cluster's"
    with pytest.raises(FileNotFoundError):
        health.probe_storage({"storage": str(tmp_path / "missing"), "cluster_id": "ours"})


def test_the_server_is_asked_although_the_marker_may_be_remembered(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(path: str) -> None:
        raise OSError(f"no answer for {path}")

    monkeypatch.setattr(os, "statvfs", gone)
    with pytest.raises(OSError, match="no answer for"):
        health.probe_storage(marked(tmp_path, "ours"))


def test_an_answer_comes_in_time_while_the_storage_hangs(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A probe that never comes back, as on a hard mount whose server is gone: its own thread waits, the answer does not and names it."""
    over = threading.Event()
    monkeypatch.setattr(os, "statvfs", lambda _: over.wait(30))
    settings = marked(tmp_path, "ours")
    found = {"storage": lambda: health.probe_storage(settings), "database": lambda: "", "static": lambda: ""}
    with health.Server("127.0.0.1", 0) as server:
        server.results = {"storage": health.Result(time.monotonic() - health.STALE_SECONDS - 1, "")}
        for name, probe in found.items():
            threading.Thread(target=health.keep_probing, args=(name, probe, server.results), daemon=True).start()
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        time.sleep(0.2)
        begin = time.monotonic()
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(f"http://127.0.0.1:{server.server_address[1]}/ready", timeout=5)
        assert time.monotonic() - begin < 1
        assert refused.value.code == 503
        assert refused.value.read().decode() == "storage: no answer for 4 s\n"
        over.set()
        server.shutdown()
