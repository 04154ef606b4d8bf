"""The package cache keeps what never changes, and is no open proxy."""

from __future__ import annotations

import http.client
import importlib.util
import pathlib
import socket
import subprocess
import sys
import threading
import time
import types
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

SOURCE = pathlib.Path(__file__).parents[2] / "scripts" / "lib" / "package_cache.py"


def _load() -> types.ModuleType:
    spec = importlib.util.spec_from_file_location("package_cache", SOURCE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["package_cache"] = module
    spec.loader.exec_module(module)
    return module


package_cache = _load()
asked: list[str] = []


class Mirror(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        asked.append(self.path)
        body = b"body of " + self.path.encode()
        if "missing" in self.path:
            self.send_error(404)
            return
        if self.headers.get("If-Modified-Since"):
            self.send_response(304)
            self.end_headers()
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


def _serve(server: ThreadingHTTPServer) -> None:
    threading.Thread(target=server.serve_forever, daemon=True).start()


@pytest.fixture
def ports(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[int, int]]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    asked.clear()
    mirror = ThreadingHTTPServer(("127.0.0.1", 0), Mirror)
    proxy = package_cache.server(tmp_path / "cache", "127.0.0.1", 0)
    _serve(mirror)
    _serve(proxy)
    yield mirror.server_port, proxy.server_port
    for server in (mirror, proxy):
        server.shutdown()
        server.server_close()


def _get(ports: tuple[int, int], path: str, **headers: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", ports[1], timeout=10)
    connection.request("GET", f"http://127.0.0.1:{ports[0]}{path}", headers=headers)
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    return answer.status, body


def test_a_package_is_fetched_once(ports: tuple[int, int]) -> None:
    path = "/debian/pool/main/g/git/git_1_amd64.deb"
    assert _get(ports, path) == (200, b"body of " + path.encode())
    assert _get(ports, path) == (200, b"body of " + path.encode())
    assert asked == [path]


def test_an_index_is_asked_for_again(ports: tuple[int, int]) -> None:
    path = "/debian/dists/trixie/InRelease"
    assert _get(ports, path)[0] == 200
    assert _get(ports, path, **{"If-Modified-Since": "Tue, 24 Nov 2026 00:00:00 GMT"})[0] == 304
    assert asked == [path, path]


def test_a_missing_package_is_not_kept(ports: tuple[int, int]) -> None:
    path = "/debian/pool/main/m/missing_1_amd64.deb"
    assert [_get(ports, path)[0], _get(ports, path)[0]] == [404, 404]
    assert asked == [path, path]


def test_other_paths_are_refused(ports: tuple[int, int]) -> None:
    assert _get(ports, "/secret")[0] == 403
    assert asked == []


def test_other_schemes_are_refused() -> None:
    assert package_cache.refusal("file:///pool/etc/passwd") is not None
    assert package_cache.refusal("/pool/x.deb") is not None


def test_it_ends_with_its_parent(tmp_path: pathlib.Path) -> None:
    """However the parent ended, killed too."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = f"{sys.executable} {SOURCE} --directory {tmp_path} --address 127.0.0.1 --port {port} --parent $$ & echo $!; exec sleep 60"
    with subprocess.Popen(["bash", "-c", command], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        cache = int(parent.stdout.readline())
        assert pathlib.Path(f"/proc/{cache}").exists()
        parent.kill()
    deadline = time.monotonic() + 10
    while pathlib.Path(f"/proc/{cache}").exists():
        assert time.monotonic() < deadline, "the cache outlives its parent"
        time.sleep(0.1)
