"""What real clients send, word for word, and what a real HAProxy makes of it."""

from __future__ import annotations

import base64
import contextlib
import http.client
import pathlib
import re
import time
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from haproxy_rig import Answer, Rig, running

FILE = pathlib.Path(__file__).parent / "captured.yml"
ROWS: list[dict[str, Any]] = yaml.load(FILE.read_text(encoding="utf-8"), Loader=yaml.CSafeLoader)
IDS = [f"{row['client']} {row['version']}: {row['name']}" for row in ROWS]
KEYS = {"client", "version", "name", "source", "request", "expected"}


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    with running(tmp_path_factory.mktemp("haproxy")) as started:
        yield started


def with_password(value: str) -> str:
    """Return a header in which an account's name in braces became its credentials."""
    return re.sub(r"\{(\w+)\}", lambda found: base64.b64encode(f"{found[1]}:secret-of-{found[1]}".encode()).decode(), value)


def body_of(headers: dict[str, str]) -> bytes:
    """Return a body such as the headers announce."""
    if headers.get("transfer-encoding") == "chunked":
        return b"4\r\n0000\r\n0\r\n\r\n"
    return b"0" * int(headers.get("content-length", 0))


def send(rig: Rig, request: dict[str, Any]) -> Answer:
    """Send a request with these headers in this order and no other."""
    connection = http.client.HTTPSConnection("127.0.0.1", rig.https_port, timeout=15, context=rig.context)
    with contextlib.closing(connection):
        connection.putrequest(request["method"], request["path"], skip_host=True, skip_accept_encoding=True)
        for name, value in request["headers"].items():
            connection.putheader(name, with_password(value))
        connection.endheaders(body_of({name.lower(): value for name, value in request["headers"].items()}))
        return Answer(connection.getresponse())


def logged(rig: Rig, begin: int) -> dict[str, str]:
    """Return the log's words of the one request since begin."""
    end = time.monotonic() + 8
    while not (line := rig.log.read_bytes()[begin:]).endswith(b"\n"):
        assert time.monotonic() < end, "no line in the log"
        time.sleep(0.01)
    return dict(re.findall(r"(\w+)=(\S+)", line.decode()))


def test_the_table_is_whole() -> None:
    assert sum(row["source"] == "captured" for row in ROWS) >= 100
    assert len(set(IDS)) == len(ROWS)
    for row in ROWS:
        assert set(row) == KEYS
        assert row["source"] == "captured" or row["source"].startswith("https://")
        assert row["request"]["headers"].get("Host", row["request"]["headers"].get("host")) == "scm.example.org"
    # Only the site's own name and placeholders.
    assert not re.search(r"127\.0\.0\.1|localhost|Basic (?!\{)", FILE.read_text(encoding="utf-8"))


@pytest.mark.parametrize("row", ROWS, ids=IDS)
def test_captured(rig: Rig, row: dict[str, Any]) -> None:
    begin = rig.log.stat().st_size
    answer = send(rig, row["request"])
    if row["expected"]["what"] == "static":
        assert (answer.seen("x-kallithea-who"), answer.seen("x-kallithea-what"), answer.echo["pool"]) == ("", "", row["expected"]["pool"])
        return
    line = logged(rig, begin)
    # The pool is the backend's own word, or the balancer's 401.
    pool = "-" if answer.status == 401 else answer.echo["pool"]
    assert {"who": line["who"], "what": line["what"], "pool": pool} == row["expected"], line
    if pool != "-":
        assert (answer.seen("x-kallithea-who"), answer.seen("x-kallithea-what")) == (line["who"], line["what"])
