"""What the tests of this scenario need to send traffic and to see where it went."""

from __future__ import annotations

import csv
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from balancer import Balancer
from machines import wait_until
from settings import Settings
from web import BROWSER, REQUEST_SECONDS, Site, TlsConnection

Line = dict[str, str]


def fresh_path() -> str:
    """Return a path that nobody has asked for, so that its lines in the log are this test's own."""
    return f"/nothing-{secrets.token_hex(6)}"


def lines_of(balancer: Balancer, settings: Settings, since: float, *paths: str) -> list[Line]:
    """Return the balancer's lines of all requests that have ended by now for these paths and what is under them."""
    # A line may come a moment after its answer: once the last request's stands there, all of them do.
    last = f"/images/{secrets.token_hex(6)}"
    Site(settings).get(last)

    def found() -> list[Line]:
        lines = balancer.log(since)
        return lines if last in {line["path"] for line in lines} else []

    lines: list[Line] = wait_until("the last request in the balancer's log", found)
    return [line for line in lines if line["path"].startswith(tuple(f"{path}/" for path in paths)) or line["path"] in paths]


def at_work(balancer: Balancer, pool: str) -> tuple[dict[str, int], int]:
    """Return how many requests each server of a pool works on, and how many wait for one."""
    rows = {row["svname"]: row for row in csv.DictReader(balancer.ask("show stat").lstrip("# ").splitlines()) if row["pxname"] == f"be_{pool}"}
    waiting = int(rows.pop("BACKEND")["qcur"])
    return {name: int(row["scur"]) for name, row in rows.items()}, max(waiting, sum(int(row["qcur"]) for row in rows.values()))


@contextmanager
def unfinished(site: Site, path: str, headers: Mapping[str, str], begin: bytes) -> Iterator[None]:
    """Begin a request whose body does not end, which keeps one process waiting for it; go away at the end."""
    connection = TlsConnection(site.settings.address, site.name, str(site.settings.ca_file), REQUEST_SECONDS)
    try:
        connection.putrequest("POST", path, skip_host=True)
        for name, value in {"Host": site.name, "User-Agent": BROWSER, "Content-Length": "1000000", **headers}.items():
            connection.putheader(name, value)
        connection.endheaders(begin)
        yield
    finally:
        connection.close()
