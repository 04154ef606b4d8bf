"""The benchmark's generator against a small site and a real git repository on this machine."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import storm

SOURCE = Path(storm.__file__)
TOKEN = '<input type="hidden" name="_session_csrf_secret_token" value="token"/>'


class Site(BaseHTTPRequestHandler):
    """Pages for whoever has logged in, and repositories by git's own program."""

    protocol_version = "HTTP/1.1"
    repositories: Path
    seen: list[tuple[str, str, str]]

    def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        self.seen.append((path, self.headers.get("Cookie", ""), self.headers.get("User-Agent", "")))
        if path.startswith("/repository"):
            self.git(b"")
        elif path == "/_admin/login":
            self.answer(200, TOKEN.encode(), Set_Cookie="kallithea=before; path=/; secure; HttpOnly")
        elif path == "/broken":
            self.answer(503)
        elif path == "/closes":
            self.answer(200, b"good", Connection="close")
        else:
            self.answer(200 if "kallithea=in" in self.headers.get("Cookie", "") else 302, b"page")

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.path == "/_admin/login":
            good = body == b"username=person&password=right&_session_csrf_secret_token=token"
            self.answer(302 if good else 200, Set_Cookie="kallithea=in; path=/" if good else "kallithea=out")
        else:
            self.git(body)

    def git(self, body: bytes) -> None:
        expected = "Basic " + base64.b64encode(b"robot:secret").decode()
        if self.headers.get("Authorization") != expected:
            self.answer(401, WWW_Authenticate='Basic realm="x"')
            return
        path, _, query = self.path.partition("?")
        environment = {
            "PATH": os.environ["PATH"],
            "GIT_PROJECT_ROOT": str(self.repositories),
            "GIT_HTTP_EXPORT_ALL": "1",
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "REQUEST_METHOD": self.command,
            "CONTENT_TYPE": self.headers.get("Content-Type", ""),
            "CONTENT_LENGTH": str(len(body)),
            "REMOTE_USER": "robot",
            "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
        }
        done = subprocess.run(["git", "http-backend"], input=body, env=environment, capture_output=True, check=True, timeout=30)
        head, _, rest = done.stdout.partition(b"\r\n\r\n")
        headers = dict(line.split(": ", 1) for line in head.decode().split("\r\n"))
        self.answer(int(headers.pop("Status", "200").split()[0]), rest, Content_Type=headers["Content-Type"])

    def log_message(self, format: str, *args: object) -> None:
        """Keep quiet."""


@pytest.fixture
def site(tmp_path: Path) -> Iterator[tuple[str, type[Site]]]:
    """Return the address of a site with one repository, and what it has seen."""
    source = tmp_path / "source"
    who = ("-c", "user.name=a", "-c", "user.email=a@localhost")
    subprocess.run(["git", "init", "-q", str(source)], check=True)
    (source / "file").write_text("content")
    subprocess.run(["git", "-C", str(source), "add", "file"], check=True)
    subprocess.run(["git", "-C", str(source), *who, "commit", "-q", "-m", "a"], check=True)
    subprocess.run(["git", "clone", "-q", "--bare", str(source), str(tmp_path / "repository")], check=True)
    handler = type("Bound", (Site,), {"repositories": tmp_path, "seen": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}", handler
    server.shutdown()
    server.server_close()


def plan(url: str, **changes: Any) -> dict[str, Any]:
    """Return a plan with a person, two build servers, and a phase without these before one with them."""
    return {
        "ways": [{"name": "site", "url": url}],
        "login": {"user": "person", "password": "right"},
        "people": 1,
        "think_seconds": 0.01,
        "pages": [{"name": "login page", "path": "/_admin/login", "stranger": True}, {"name": "repository page", "path": "/page"}],
        "bots": {"ci": {"url": f"{url}/repository", "clients": 2, "user": "robot", "password": "secret"}},
        "phases": [{"name": "idle", "seconds": 0.5, "people": True}, {"name": "storm", "settle_seconds": 0.2, "seconds": 1.5, "people": True, "bots": ["ci"]}],
        **changes,
    }


def run(given: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """Run the generator as the benchmark does; return its report by phase, and what it said."""
    done = subprocess.run([sys.executable, str(SOURCE)], input=json.dumps(given), capture_output=True, text=True, timeout=60, check=False)
    phases = json.loads(done.stdout)["phases"] if done.returncode == 0 else []
    return {phase["name"]: phase for phase in phases}, done.stderr


def test_people_look_while_build_servers_clone(site: tuple[str, type[Site]]) -> None:
    """Each phase has its own pages and clones; nothing fails; the phase's time is the plan's."""
    phases, _ = run(plan(site[0]))
    idle, busy = phases["idle"], phases["storm"]
    assert set(idle["pages"]) == set(busy["pages"]) == {"login page", "repository page"}
    assert idle["clones"] == {} and len(busy["clones"]["ci"]) >= 2
    assert not any(phase[kind] for phase in phases.values() for kind in ("failed_pages", "failed_clones"))
    assert 1.4 < busy["seconds"] < 2 and 0 < busy["generator_share"] <= 1


def test_people_have_a_browsers_name_and_strangers_no_cookie(site: tuple[str, type[Site]]) -> None:
    """The login page is asked for by somebody new, whose cookie nobody keeps."""
    run(plan(site[0], phases=[{"name": "idle", "seconds": 0.3, "people": True}]))
    browsers = [(path, cookie) for path, cookie, agent in site[1].seen if agent.startswith("Mozilla/")]
    assert {cookie for path, cookie in browsers if path == "/page"} == {"kallithea=in"}
    assert {cookie for path, cookie in browsers if path == "/_admin/login"} == {""}


def test_what_fails_is_counted_by_name_and_reason(site: tuple[str, type[Site]]) -> None:
    """Pages with another status, and clones that git gives up."""
    bots = {"ci": {"url": f"{site[0]}/repository", "clients": 1, "user": "robot", "password": "wrong"}}
    pages = [{"name": "file view", "path": "/broken"}]
    phases, _ = run(plan(site[0], bots=bots, pages=pages))
    assert list(phases["storm"]["failed_pages"]) == ["file view: status 503"] and not phases["storm"]["pages"]
    assert next(iter(phases["storm"]["failed_clones"])).startswith("ci: fatal: Authentication failed")


def test_ways_are_taken_in_turns(site: tuple[str, type[Site]]) -> None:
    """Each page is asked for by all ways before the next, with one session."""
    ways = [{"name": "balancer", "url": site[0]}, {"name": "straight", "url": site[0]}]
    pages = [{"name": "page", "path": "/page"}]
    phases, _ = run(plan(site[0], ways=ways, pages=pages, phases=[{"name": "idle", "seconds": 0.4, "people": True}]))
    through, straight = (len(phases["idle"]["pages"][f"page, {way}"]) for way in ("balancer", "straight"))
    assert through > 2 and abs(through - straight) <= 1


def test_a_wrong_password_ends_it_in_a_sentence(site: tuple[str, type[Site]]) -> None:
    """Figures of a login page that was taken for a repository's would be worth nothing."""
    phases, said = run(plan(site[0], login={"user": "person", "password": "wrong"}))
    assert not phases and "person cannot log in" in said


def test_a_connection_that_was_closed_meanwhile_is_opened_anew(site: tuple[str, type[Site]]) -> None:
    """As browsers do; also where the answer says that it closes."""
    session = storm.Session(site[0])
    assert session.ask("/closes")[0] == 200 and session.connection is None
    session.ask("/_admin/login")
    assert session.connection is not None and session.connection.sock is not None
    session.connection.sock.shutdown(2)
    assert session.ask("/_admin/login")[0] == 200


def test_passwords_stand_in_private_files_alone(tmp_path: Path) -> None:
    """Neither the command line nor the environment of git holds one."""
    environment = storm.git_environment(tmp_path / "bot", "robot", "secret-word", "")
    assert "secret-word" not in " ".join(environment.values())
    assert {path.stat().st_mode & 0o077 for path in (tmp_path / "bot").iterdir()} == {0}
    command = storm.clone_command("https://ci.test/name", "192.0.2.1", "target")
    assert "http.curloptResolve=ci.test:443:192.0.2.1" in command and "http.version=HTTP/1.1" in command


def test_a_core_is_busy_also_where_another_system_took_it() -> None:
    """The columns are user, nice, system, idle, iowait, irq, softirq, steal; the others are parts of the first two."""
    stat = "cpu  9 9 9 9 9 9 9 9\ncpu0 1 1 1 1 1 1 1 1 0 0\ncpu1 10 5 5 60 10 2 3 5 7 0\ncpu10 1 1 1 1 1 1 1 1\nintr 5\n"
    assert storm.cores_busy(stat, {1}) == (30, 100)


def test_reasons_of_one_kind_are_one() -> None:
    assert storm.reason("x\nfatal: port 54321 refused\n\n") == storm.reason("fatal: port 12345 refused") == "fatal: port N refused"
    assert storm.reason("") == "no word"
