"""The site as a person's browser and the API see it, over one connection that is kept."""

from __future__ import annotations

import http.client
import http.cookies
import json
import re
import ssl
import time
import urllib.parse
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from drill.commands import DrillFailed
from drill.journal import ACKNOWLEDGED, FAILED, REFUSED, UNKNOWN, Outcome

# Programs' own names are those of bots.
BROWSER = "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0"
TOKEN = re.compile(r'name="_session_csrf_secret_token"[^>]*value="([^"]+)"|_session_csrf_secret_token = "([^"]+)"')
API_KEY = re.compile(r'<div class="truncate autoexpand">([0-9A-Za-z]+)</div>')
FORM = {"Content-Type": "application/x-www-form-urlencoded"}
MADE_SECONDS = 120.0
LOST = (OSError, http.client.HTTPException)


class Person(Protocol):
    """What the drill needs of the site."""

    def look(self, path: str) -> bool:
        """Look at a page; tell whether it came."""

    def edit(self, repository: str, commit: str, path: str, content: str, message: str) -> Outcome:
        """Change a file in the browser, on top of a commit that has to be a branch's newest."""

    def create(self, names: dict[str, str]) -> None:
        """Make repositories by name and kind, and wait for them."""

    def remove(self, names: Sequence[str]) -> None:
        """Remove them."""

    def number(self, name: str) -> int:
        """Return the number of the address that stays when a repository is renamed."""


@dataclass(frozen=True)
class Answer:
    """An HTTP answer."""

    status: int
    location: str
    text: str


class Site:
    """One client: keeps its cookies and its connection, follows no redirect by itself."""

    def __init__(self, url: str, user: str, password: str, ca_file: str, seconds: float) -> None:
        """Connect to nothing yet."""
        parts = urllib.parse.urlsplit(url)
        self.user, self.password = user, password
        self.prefix = parts.path.rstrip("/")
        host, port = parts.hostname or "", parts.port
        self.connection = (
            http.client.HTTPSConnection(host, port, timeout=seconds, context=ssl.create_default_context(cafile=ca_file or None))
            if parts.scheme == "https"
            else http.client.HTTPConnection(host, port, timeout=seconds)
        )
        self.cookies: dict[str, str] = {}
        self.token = ""
        self.api_key = ""

    def close(self) -> None:
        """Give the connection up."""
        self.connection.close()

    def request(self, method: str, path: str, body: str | None = None, headers: dict[str, str] | None = None) -> Answer:
        """Send one request and read the whole answer."""
        sent = {"User-Agent": BROWSER, **(headers or {})}
        if self.cookies:
            sent["Cookie"] = "; ".join(f"{key}={value}" for key, value in self.cookies.items())
        # The other end may close a kept connection at any time. Browsers ask again then, but nothing is sent twice that changes something.
        if method != "GET":
            self.close()
        kept = self.connection.sock is not None
        try:
            try:
                return self._ask(method, path, body, sent)
            except LOST:
                self.close()
                if not kept:
                    raise
                return self._ask(method, path, body, sent)
        except LOST:
            self.close()
            raise

    def _ask(self, method: str, path: str, body: str | None, headers: dict[str, str]) -> Answer:
        self.connection.request(method, self.prefix + path, body, headers)
        answer = self.connection.getresponse()
        text = answer.read().decode("utf-8", "replace")
        for line in answer.headers.get_all("Set-Cookie") or []:
            self.cookies.update({key: morsel.value for key, morsel in http.cookies.SimpleCookie(line).items()})
        return Answer(answer.status, answer.headers.get("Location") or "", text)

    def login(self) -> None:
        """Log in as people do, and read the account's API key from its page."""
        try:
            self._find_token("/_admin/login")
            form = {"username": self.user, "password": self.password, "_session_csrf_secret_token": self.token}
            answer = self.request("POST", "/_admin/login", urllib.parse.urlencode(form), FORM)
            if answer.status != 302:
                raise DrillFailed(f"{self.user} cannot log in: the answer was {answer.status}.")
            # The session is another one now.
            self._find_token("/_admin/my_account")
            key = API_KEY.search(self.request("GET", "/_admin/my_account/api_keys").text)
        except LOST as error:
            raise DrillFailed(f"{self.user} cannot log in: {error!r}.") from error
        if not key:
            raise DrillFailed(f"the account's page of {self.user} shows no API key, so no repository can be made.")
        self.api_key = key.group(1)

    def _find_token(self, path: str) -> None:
        match = TOKEN.search(self.request("GET", path).text)
        self.token = (match.group(1) or match.group(2)) if match else ""

    def look(self, path: str) -> bool:
        """Look at a page; tell whether it came."""
        try:
            return self.request("GET", path).status == 200
        except LOST:
            return False

    def edit(self, repository: str, commit: str, path: str, content: str, message: str) -> Outcome:
        """Change a file in the browser, on top of a commit that has to be a branch's newest."""
        form = urllib.parse.urlencode({"content": content, "message": message, "_session_csrf_secret_token": self.token})
        try:
            answer = self.request("POST", f"/{repository}/edit/{commit}/{path}", form, FORM)
            # What became of it stands on the page that follows.
            said = self.request("GET", urllib.parse.urlsplit(answer.location).path).text if answer.status == 302 else answer.text
        except ConnectionRefusedError as error:
            return Outcome(FAILED, str(error))
        except LOST as error:
            return Outcome(UNKNOWN, repr(error))
        return edited(answer.status, said)

    def call(self, method: str, **arguments: Any) -> Any:
        """Call a method of the API and return its result."""
        body = json.dumps({"id": 1, "api_key": self.api_key, "method": method, "args": arguments})
        try:
            answer = self.request("POST", "/_admin/api", body, {"Content-Type": "application/json"})
        except LOST as error:
            raise DrillFailed(f"the API's {method} was not answered: {error!r}") from error
        if answer.status != 200:
            raise DrillFailed(f"the API's {method} was answered {answer.status}: {answer.text[:200]}")
        result = json.loads(answer.text)
        if result["error"]:
            raise DrillFailed(f"the API's {method} said: {result['error']}")
        return result["result"]

    def create(self, names: dict[str, str]) -> None:
        """Queue all repositories, then wait for them: the API only queues them."""
        for name, kind in names.items():
            self.call("create_repo", repo_name=name, repo_type=kind, description="made by the drill", private=True)
        end = time.monotonic() + MADE_SECONDS
        for name in names:
            while True:
                try:
                    self.call("get_repo", repoid=name)
                    break
                except DrillFailed as error:
                    if time.monotonic() > end:
                        raise DrillFailed(f"{name} was queued but not made within {MADE_SECONDS:.0f} s: {error}") from error
                time.sleep(0.3)

    def remove(self, names: Sequence[str]) -> None:
        """Remove repositories; one that is gone already is no problem."""
        for name in names:
            try:
                self.call("delete_repo", repoid=name)
            except DrillFailed as error:
                if "does not exist" not in str(error):
                    raise

    def number(self, name: str) -> int:
        """Return a repository's number."""
        return int(self.call("get_repo", repoid=name)["repo_id"])


def edited(status: int, said: str) -> Outcome:
    """Tell what became of a web edit by the status and by what stands on the page that follows."""
    if status == 302 and "Successfully committed to" in said:
        return Outcome(ACKNOWLEDGED)
    for sentence in ("You can only edit files with revision being a valid branch", "Error occurred during commit"):
        if status == 302 and sentence in said:
            return Outcome(REFUSED, sentence)
    words = " ".join(said.split())[:200]
    # What the application itself refuses in words, or the balancer before it asked anybody.
    return Outcome(FAILED if 400 <= status < 500 or status == 503 else UNKNOWN, f"answered {status}: {words}")
