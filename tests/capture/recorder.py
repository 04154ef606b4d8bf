"""A site on loopback that writes down what its clients send: a Git and a Mercurial repository, and pages."""

from __future__ import annotations

import contextlib
import http.client
import http.server
import os
import pathlib
import re
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

ACCOUNT = "jane"
PASSWORD = "secret"
GIT = "group/project.git"
HG = "group/project-hg"
HG_CONFIG = """[web]
push_ssl = no
allow_push = *
[extensions]
clonebundles =
[experimental]
httppostargs = {postargs}
"""
PAGE = b"""<!DOCTYPE html><html><head><title>Project</title>
<link rel="stylesheet" href="/css/style.css"><link rel="icon" href="/images/favicon.ico"><script src="/js/base.js"></script></head>
<body><img src="/images/logo.png"><form id="login" method="post" action="/_admin/login"><input name="username" value="jane"></form>
<script>
addEventListener("load", async () => {
  await fetch("/group/project/nodelist/tip");
  const request = new XMLHttpRequest();
  request.open("GET", "/group/project/changelog_summary");
  request.setRequestHeader("X-PARTIAL-XHR", "1");
  request.onload = () => document.getElementById("login").submit();
  request.send();
});
</script></body></html>"""
FILES = {
    "/css/style.css": (
        "text/css",
        b"@font-face{font-family:k;src:url(/fontello/font/kallithea.woff2)}body{font-family:k;background:url(/images/background.png)}",
    ),
    "/js/base.js": ("text/javascript", b"var base = 1;"),
}


class Request(NamedTuple):
    """A request as it came, headers in their order."""

    method: str
    path: str
    headers: list[tuple[str, str]]


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Recorder

    def _answer(self) -> None:
        body = self._body()
        self.server.requests.append(Request(self.command, self.path, list(self.headers.items())))
        path = self.path.partition("?")[0]
        if path.startswith((f"/{GIT}", f"/{HG}")) and "Authorization" not in self.headers:
            self._send(401, [("WWW-Authenticate", 'Basic realm="Kallithea"')], b"")
        elif path.startswith(f"/{GIT}/info/lfs"):
            self._send(404, [("Content-Type", "application/vnd.git-lfs+json")], b'{"message":"Not found"}')
        elif path.startswith(f"/{GIT}"):
            self._git(path, body)
        elif path.startswith(f"/{HG}"):
            self._hg(body)
        else:
            kind, text = FILES.get(path, ("text/html" if "image" not in path else "image/png", PAGE if path == "/group/project" else b""))
            self._send(200, [("Content-Type", kind)], text)

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = []
        while size := int(self.rfile.readline().partition(b";")[0], 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _git(self, path: str, body: bytes) -> None:
        environment = {
            **os.environ,
            "GIT_PROJECT_ROOT": str(self.server.folder),
            "GIT_HTTP_EXPORT_ALL": "1",
            "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
            "REMOTE_USER": ACCOUNT,
            "REQUEST_METHOD": self.command,
            "PATH_INFO": path,
            "QUERY_STRING": self.path.partition("?")[2],
            "CONTENT_TYPE": self.headers.get("Content-Type", ""),
            "CONTENT_LENGTH": str(len(body)),
            "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
        }
        output = subprocess.run(["git", "http-backend"], env=environment, input=body, stdout=subprocess.PIPE, check=True).stdout
        head, _, content = output.partition(b"\r\n\r\n")
        headers = [(name, value.strip()) for name, _, value in (line.partition(":") for line in head.decode().splitlines())]
        status = next((int(value.split()[0]) for name, value in headers if name == "Status"), 200)
        self._send(status, [header for header in headers if header[0] != "Status"], content)

    def _hg(self, body: bytes) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self.server.hg_port)
        with contextlib.closing(connection):
            headers = {name: value for name, value in self.headers.items() if name.lower() not in ("transfer-encoding", "content-length")}
            connection.request(self.command, self.path, body or None, {**headers, "Content-Length": str(len(body))})
            answer = connection.getresponse()
            kept = [(name, value) for name, value in answer.getheaders() if name.lower() == "content-type"]
            self._send(answer.status, kept, answer.read())

    def _send(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body if self.command != "HEAD" else b"")

    do_GET = do_POST = do_HEAD = do_PUT = do_OPTIONS = _answer  # noqa: N815

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


class Recorder(http.server.ThreadingHTTPServer):
    """The site and what was asked of it."""

    daemon_threads = True

    def __init__(self, folder: pathlib.Path, hg_port: int) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.folder = folder
        self.hg_port = hg_port
        self.requests: list[Request] = []
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.signed_in = self.url.replace("://", f"://{ACCOUNT}:{PASSWORD}@")
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def taken(self) -> list[Request]:
        """Return what came since the last call, without this machine's own names."""
        taken, self.requests = self.requests, []
        return [Request(method, path, [(name, self._public(value)) for name, value in headers]) for method, path, headers in taken]

    def _public(self, value: str) -> str:
        value = value.replace(self.url, "https://scm.example.org").replace(self.url.removeprefix("http://"), "scm.example.org")
        return re.sub(r"^Basic .*", "Basic {" + ACCOUNT + "}", value, flags=re.IGNORECASE)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: browsers close connections early."""


def _wait_for_port(port: int) -> None:
    for _ in range(100):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
            return
        time.sleep(0.1)
    raise TimeoutError("hg serve did not start")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def recording(folder: pathlib.Path, postargs: bool = False) -> Iterator[Recorder]:
    """Serve folder's two repositories, which are there already; with postargs, hg sends its arguments in bodies."""
    port = _free_port()
    (folder / "web.conf").write_text(f"[paths]\n/{HG} = {folder / HG}\n", encoding="utf-8")
    (folder / "hgrc").write_text(HG_CONFIG.format(postargs=postargs), encoding="utf-8")
    command = ["hg", "serve", "--web-conf", str(folder / "web.conf"), "-a", "127.0.0.1", "-p", str(port)]
    hg = subprocess.Popen(command, cwd=folder, env={**os.environ, "HGRCPATH": str(folder / "hgrc")}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _wait_for_port(port)
        with Recorder(folder, port) as recorder:
            yield recorder
            recorder.shutdown()
    finally:
        hg.kill()
        hg.wait()
