#!/usr/bin/env python3
"""A caching HTTP proxy for Debian's packages, for test hosts that start bare.

Answers GET for archive paths only (``/dists/`` and ``/pool/``). Files that never change (packages, by-hash
indexes) are kept; everything else is passed through. Knows no TLS: hosts use it for http mirrors only.
"""

from __future__ import annotations

import argparse
import hashlib
import http.client
import os
import re
import shutil
import sys
import tempfile
import threading
import urllib.error
import urllib.parse
import urllib.request
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import IO

ARCHIVE_PATH = re.compile(r"/(dists|pool)/")
IMMUTABLE_PATH = re.compile(r"\.deb$|/by-hash/[A-Za-z0-9]+/[0-9a-f]+$")
ASKED_HEADERS = ("If-Modified-Since", "If-None-Match", "Range", "If-Range", "User-Agent")
PASSED_HEADERS = ("Content-Length", "Content-Type", "Content-Range", "Last-Modified", "ETag")
CHUNK = 256 * 1024


def refusal(url: str) -> str | None:
    """Say why a request is not answered; None where it is."""
    parts = urllib.parse.urlsplit(url)
    if parts.scheme != "http" or not parts.netloc:
        return "only http URLs"
    if not ARCHIVE_PATH.search(parts.path):
        return "only Debian archives"
    return None


def cache_file(directory: Path, url: str) -> Path | None:
    """Return where a file is kept, or None for what may change."""
    path = urllib.parse.urlsplit(url).path
    if not IMMUTABLE_PATH.search(path):
        return None
    return directory / (hashlib.sha256(url.encode()).hexdigest() + "-" + path.rsplit("/", 1)[1][-80:])


class Locks:
    """One lock a file, so that two hosts fetch it once."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._locks: dict[Path, threading.Lock] = {}

    def of(self, path: Path) -> threading.Lock:
        with self._guard:
            return self._locks.setdefault(path, threading.Lock())


class Handler(BaseHTTPRequestHandler):
    """One request of apt's."""

    protocol_version = "HTTP/1.1"
    directory: Path
    locks: Locks

    def do_GET(self) -> None:
        """Answer from the cache or from the mirror."""
        why_not = refusal(self.path)
        if why_not is not None:
            self.send_error(403, why_not)
            return
        kept = cache_file(self.directory, self.path)
        try:
            if kept is None:
                self._pass_through()
            else:
                self._from_cache(kept)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True
        except (OSError, http.client.HTTPException) as error:
            # Nothing has been sent yet unless the connection is closed anyway.
            self.close_connection = True
            self.send_error(502, str(error)[:200].replace("\n", " "))

    def _open(self, *names: str) -> http.client.HTTPResponse:
        headers = {name: self.headers[name] for name in names if name in self.headers}
        request = urllib.request.Request(self.path, headers=headers)
        return urllib.request.urlopen(request, timeout=120)  # type: ignore[no-any-return]

    def _pass_through(self) -> None:
        try:
            with self._open(*ASKED_HEADERS) as answer:
                self._relay(answer.status, answer.headers, answer)
        except urllib.error.HTTPError as error:
            with error:
                self._relay(error.code, error.headers, error)

    def _relay(self, status: int, headers: Message, body: IO[bytes]) -> None:
        self.send_response(status)
        for name in PASSED_HEADERS:
            if name in headers:
                self.send_header(name, headers[name])
        if "Content-Length" not in headers and status != 304:
            self.send_header("Connection", "close")
            self.close_connection = True
        self.end_headers()
        shutil.copyfileobj(body, self.wfile, CHUNK)

    def _from_cache(self, kept: Path) -> None:
        with self.locks.of(kept):
            if not kept.exists():
                try:
                    self._fetch(kept)
                except urllib.error.HTTPError as error:
                    with error:
                        self._relay(error.code, error.headers, error)
                    return
        with kept.open("rb") as body:
            self.send_response(200)
            self.send_header("Content-Length", str(os.fstat(body.fileno()).st_size))
            self.send_header("Content-Type", "application/octet-stream")
            self.end_headers()
            shutil.copyfileobj(body, self.wfile, CHUNK)

    def _fetch(self, kept: Path) -> None:
        with self._open() as answer, tempfile.NamedTemporaryFile(dir=self.directory, delete=False) as part:
            try:
                shutil.copyfileobj(answer, part, CHUNK)
                part.flush()
                expected = answer.headers.get("Content-Length")
                if expected is not None and int(expected) != part.tell():
                    raise http.client.IncompleteRead(b"", int(expected) - part.tell())
                os.replace(part.name, kept)
            except BaseException:
                os.unlink(part.name)
                raise

    def log_message(self, format: str, *args: object) -> None:
        """Keep quiet: apt reports what fails."""


class Server(ThreadingHTTPServer):
    """The proxy; where it has to end with its parent, it looks twice a second whether that lives."""

    daemon_threads = True
    parent = 0

    def service_actions(self) -> None:
        """End where the parent is gone, however it ended."""
        if self.parent and os.getppid() != self.parent:
            raise SystemExit(0)


def server(directory: Path, address: str, port: int) -> Server:
    """Make the proxy, listening."""
    directory.mkdir(parents=True, exist_ok=True)
    handler = type("BoundHandler", (Handler,), {"directory": directory, "locks": Locks()})
    return Server((address, port), handler)


def main() -> int:
    """Serve until killed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--directory", type=Path, required=True)
    parser.add_argument("--address", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--parent", type=int, default=0, help="process id of the parent, with which it ends")
    options = parser.parse_args()
    try:
        proxy = server(options.directory, options.address, options.port)
    except OSError as error:
        print(f"{options.address}:{options.port}: {error}", file=sys.stderr)
        return 1
    proxy.parent = options.parent
    proxy.serve_forever()
    return 0


if __name__ == "__main__":
    sys.exit(main())
