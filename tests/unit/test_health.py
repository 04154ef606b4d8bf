"""The health service's verdicts."""

from __future__ import annotations

import http.server
import importlib.machinery
import importlib.util
import pathlib
import socket
import threading
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
