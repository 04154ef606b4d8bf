"""The generator: people who look at pages and build servers that clone, in phases of fixed length.

A plan comes as JSON on standard input (so that no password is on a command line), what was measured leaves as JSON on standard
output. It needs Python and git alone, so that it runs on a test host as well.
"""

from __future__ import annotations

import contextlib
import gzip
import http.client
import http.cookies
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse
from collections import Counter, defaultdict
from collections.abc import Mapping
from typing import Any

PAGE_SECONDS = 60
CLONE_SECONDS = 600
# Ends a loop that no phase ends.
MAXIMUM_TURNS = 100_000
# After a failure, so that a site that refuses is not asked all the time.
PAUSE_SECONDS = 1.0
REASON_CHARACTERS = 160
BROWSER = {
    "User-Agent": "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0",
    "Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
    "Accept-Language": "en-US,en;q=0.5",
    "Accept-Encoding": "gzip, deflate",
}
TOKEN = re.compile(r'name="_session_csrf_secret_token"[^>]*value="([^"]+)"|_session_csrf_secret_token = "([^"]+)"')
# No program of its own: the folder may lie where nothing can be executed.
GITCONFIG = """[credential]
  helper = "!f() { [ \\"$1\\" != get ] || printf 'username=%s\\\\npassword=%s\\\\n' \\"$(cat ~/user)\\" \\"$(cat ~/password)\\"; }; f"
"""


class StormFailed(Exception):
    """The storm cannot begin; the message is for the user."""


class Session:
    """A browser: one connection that is kept open, and the cookies, which several ways to one site may share."""

    def __init__(self, url: str, ca_file: str = "", address: str = "", cookies: dict[str, str] | None = None) -> None:
        """Remember the site; the address is where its name does not lead here."""
        parts = urllib.parse.urlsplit(url)
        self.name = str(parts.hostname)
        self.host = parts.netloc
        self.tls = ssl.create_default_context(cafile=ca_file or None) if parts.scheme == "https" else None
        self.port = parts.port or (443 if self.tls else 80)
        self.address = address or self.name
        self.cookies = {} if cookies is None else cookies
        self.connection: http.client.HTTPConnection | None = None

    def connect(self) -> http.client.HTTPConnection:
        """Open the connection; the certificate is checked for the site's name."""
        connection = http.client.HTTPConnection(self.address, self.port, timeout=PAGE_SECONDS)
        if self.tls:
            plain = socket.create_connection((self.address, self.port), PAGE_SECONDS)
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.sock = self.tls.wrap_socket(plain, server_hostname=self.name)
        else:
            connection.connect()
        return connection

    def close(self) -> None:
        """Close the connection."""
        if self.connection:
            self.connection.close()
        self.connection = None

    def ask(self, path: str, form: Mapping[str, str] | None = None, stranger: bool = False) -> tuple[int, str]:
        """Return status and text of a page; a stranger neither shows nor takes cookies. A kept connection that was closed meanwhile is opened anew."""
        kept = self.connection is not None
        try:
            return self.once(path, form, stranger)
        except (http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError):
            self.close()
            if not kept:
                raise
            return self.once(path, form, stranger)
        except (OSError, http.client.HTTPException):
            self.close()
            raise

    def once(self, path: str, form: Mapping[str, str] | None, stranger: bool) -> tuple[int, str]:
        """Ask once."""
        self.connection = self.connection or self.connect()
        headers = {"Host": self.host, **BROWSER}
        if self.cookies and not stranger:
            headers["Cookie"] = "; ".join(f"{key}={value}" for key, value in self.cookies.items())
        body = None
        if form is not None:
            body = urllib.parse.urlencode(form)
            headers["Content-Type"] = "application/x-www-form-urlencoded"
        self.connection.request("GET" if form is None else "POST", path, body, headers)
        answer = self.connection.getresponse()
        content = answer.read()
        if not stranger:
            for line in answer.headers.get_all("Set-Cookie") or []:
                self.cookies.update({key: morsel.value for key, morsel in http.cookies.SimpleCookie(line).items()})
        if answer.will_close:
            self.close()
        if answer.headers.get("Content-Encoding") == "gzip" and not stranger and path.startswith("/_admin/login"):
            content = gzip.decompress(content)
        return answer.status, content.decode("utf-8", "replace")

    def login(self, user: str, password: str) -> None:
        """Log in as people do."""
        token = TOKEN.search(self.ask("/_admin/login")[1])
        form = {"username": user, "password": password}
        if token:
            form["_session_csrf_secret_token"] = token[1] or token[2]
        status, _ = self.ask("/_admin/login", form)
        if status != 302:
            raise StormFailed(f"{user} cannot log in at {self.host}: the answer has the status {status}.")


def git_environment(folder: pathlib.Path, user: str, password: str, ca_file: str) -> dict[str, str]:
    """Write the private files that git reads the credentials from, and return the environment that names them."""
    folder.mkdir(mode=0o700, exist_ok=True)
    for name, content in (("user", user), ("password", password), (".gitconfig", GITCONFIG)):
        (folder / name).touch(mode=0o600)
        (folder / name).write_text(content)
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "LC_ALL": "C.UTF-8",
        "GIT_TERMINAL_PROMPT": "0",
    } | ({"GIT_SSL_CAINFO": ca_file} if ca_file else {})


def clone_command(url: str, address: str, target: str) -> list[str]:
    """Return what clones as a build server does, by the version of HTTP that all have; the clients' own work comes after the people's on their core."""
    parts = urllib.parse.urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    settings = ["http.version=HTTP/1.1", "core.fsync=none"] + ([f"http.curloptResolve={parts.hostname}:{port}:{address}"] if address else [])
    return ["nice", "-n", "10", "git", *[word for setting in settings for word in ("-c", setting)], "clone", "-q", "--bare", url, target]


def reason(said: str) -> str:
    """Return the last line that a program said, without what differs from one failure to the next."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    return re.sub(r"\d{4,}", "N", lines[-1])[:REASON_CHARACTERS] if lines else "no word"


def cores_busy(stat: str, cores: set[int]) -> tuple[int, int]:
    """Return from /proc/stat the ticks that the cores were busy, and all their ticks; what another system took of them counts as busy."""
    busy = total = 0
    for line in stat.splitlines():
        name, *fields = line.split()
        if name.startswith("cpu") and name[3:].isdigit() and int(name[3:]) in cores:
            ticks = [int(field) for field in fields[:8]]
            total += sum(ticks)
            busy += sum(ticks) - ticks[3] - ticks[4]
    return busy, total


def own_cores() -> tuple[int, int]:
    """Return the same of the cores that this process may use, now."""
    return cores_busy(pathlib.Path("/proc/stat").read_text(), os.sched_getaffinity(0))


class Phase:
    """Some seconds with certain people and bots, and what was measured in them."""

    def __init__(self, plan: Mapping[str, Any]) -> None:
        """Not begun."""
        self.plan = plan
        self.lock = threading.Lock()
        # The measuring is over; the bots go on until the last page that was asked for has come.
        self.people_over, self.bots_over = threading.Event(), threading.Event()
        self.begin = self.end = float("inf")
        self.share = 0.0
        self.pages: dict[str, list[float]] = defaultdict(list)
        self.failed_pages: Counter[str] = Counter()
        self.clones: dict[str, list[float]] = defaultdict(list)
        self.failed_clones: Counter[str] = Counter()
        self.running: set[subprocess.Popen[str]] = set()

    def page(self, name: str, asked: float, failure: str = "") -> None:
        """Count a page that was asked for in the measured time, however late it came."""
        with self.lock:
            if not self.begin <= asked < self.end:
                return
            if failure:
                self.failed_pages[f"{name}: {failure}"] += 1
            else:
                self.pages[name].append(time.monotonic() - asked)

    def clone(self, bot: str, begun: float, failure: str = "") -> None:
        """Count a clone that ended in the measured time."""
        now = time.monotonic()
        with self.lock:
            if not self.begin <= now < self.end:
                return
            if failure:
                self.failed_clones[f"{bot}: {failure}"] += 1
            else:
                self.clones[bot].append(now - begun)

    def measure(self) -> None:
        """Let it settle, then measure for the phase's seconds."""
        time.sleep(self.plan.get("settle_seconds", 0))
        busy, total = own_cores()
        self.begin = time.monotonic()
        time.sleep(self.plan["seconds"])
        self.end = time.monotonic()
        now_busy, now_total = own_cores()
        self.share = (now_busy - busy) / max(1, now_total - total)

    def kill(self) -> None:
        """End the clones that still run."""
        with self.lock:
            for process in self.running:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)

    def as_json(self) -> dict[str, Any]:
        """Return what was measured."""
        return {
            "name": self.plan["name"],
            "seconds": self.end - self.begin,
            "generator_share": self.share,
            "pages": dict(self.pages),
            "failed_pages": dict(self.failed_pages),
            "clones": dict(self.clones),
            "failed_clones": dict(self.failed_clones),
        }


class Storm:
    """All people and bots of a plan."""

    def __init__(self, plan: Mapping[str, Any], folder: pathlib.Path) -> None:
        """Log the people in; each has a session, on a connection of its own for each way to the site."""
        self.plan = plan
        self.folder = folder
        self.people: list[list[Session]] = []
        for _ in range(plan.get("people", 0)):
            cookies: dict[str, str] = {}
            ways = [Session(way["url"], plan.get("ca_file", ""), way.get("address", ""), cookies) for way in plan["ways"]]
            ways[0].login(plan["login"]["user"], plan["login"]["password"])
            self.people.append(ways)
        self.environments = {
            name: git_environment(folder / name, bot["user"], bot["password"], plan.get("ca_file", "")) for name, bot in plan.get("bots", {}).items()
        }

    def look(self, person: int, phase: Phase) -> None:
        """One person's clicks: the pages in turns, each by all the ways before the next; nobody begins with the same page."""
        pages, ways = self.plan["pages"], self.people[person]
        for turn in range(person * len(ways), MAXIMUM_TURNS):
            if phase.people_over.is_set():
                return
            page, way = pages[turn // len(ways) % len(pages)], turn % len(ways)
            name = page["name"] if len(ways) == 1 else f"{page['name']}, {self.plan['ways'][way]['name']}"
            asked = time.monotonic()
            try:
                status, _ = ways[way].ask(page["path"], stranger=page.get("stranger", False))
            except (OSError, http.client.HTTPException) as error:
                phase.page(name, asked, type(error).__name__)
                phase.people_over.wait(PAUSE_SECONDS)
                continue
            phase.page(name, asked, "" if status == 200 else f"status {status}")
            phase.people_over.wait(self.plan["think_seconds"])

    def clone(self, name: str, number: int, phase: Phase) -> None:
        """One build server: clones without pause."""
        bot, target = self.plan["bots"][name], self.folder / f"{name}-{number}"
        command = clone_command(bot["url"], bot.get("address", ""), str(target))
        for _ in range(MAXIMUM_TURNS):
            if phase.bots_over.is_set():
                return
            begun = time.monotonic()
            process = subprocess.Popen(
                command,
                env=self.environments[name],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
                start_new_session=True,
            )
            with phase.lock:
                phase.running.add(process)
            failure = ""
            try:
                _, said = process.communicate(timeout=CLONE_SECONDS)
                failure = reason(said) if process.returncode else ""
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.communicate()
                failure = f"longer than {CLONE_SECONDS} s"
            with phase.lock:
                phase.running.discard(process)
            phase.clone(name, begun, failure)
            shutil.rmtree(target, ignore_errors=True)
            if failure:
                phase.bots_over.wait(PAUSE_SECONDS)

    def run(self, plan: Mapping[str, Any]) -> dict[str, Any]:
        """Run one phase."""
        phase = Phase(plan)
        people = [threading.Thread(target=self.look, args=(person, phase), daemon=True) for person in range(len(self.people) if plan.get("people") else 0)]
        bots = [
            threading.Thread(target=self.clone, args=(name, number, phase), daemon=True)
            for name in plan.get("bots", [])
            for number in range(self.plan["bots"][name]["clients"])
        ]
        try:
            for thread in people + bots:
                thread.start()
            phase.measure()
            phase.people_over.set()
            for thread in people:
                thread.join(PAGE_SECONDS * 3)
        finally:
            phase.people_over.set()
            phase.bots_over.set()
            end = time.monotonic() + 30
            while any(thread.is_alive() for thread in bots) and time.monotonic() < end:
                phase.kill()
                time.sleep(0.1)
        return phase.as_json()


def main() -> int:
    """Read the plan, run its phases, write what was measured."""
    plan = json.load(sys.stdin)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    phases = []
    try:
        with tempfile.TemporaryDirectory(prefix="kallithea-storm-") as folder:
            storm = Storm(plan, pathlib.Path(folder))
            for phase in plan["phases"]:
                print(f"        {phase['name']}: {phase.get('settle_seconds', 0)} + {phase['seconds']} s", file=sys.stderr, flush=True)
                phases.append(storm.run(phase))
    except (OSError, http.client.HTTPException, StormFailed) as error:
        print(f"ERROR: the storm cannot begin: {error}", file=sys.stderr)
        return 1
    print(json.dumps({"phases": phases}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
