"""The site as browsers and programs on the controller see it: raw requests, pages with a session, the API."""

from __future__ import annotations

import base64
import http.client
import http.cookies
import json
import re
import socket
import ssl
import time
import urllib.parse
from dataclasses import dataclass
from typing import Any

from machines import wait_until
from settings import Settings

REQUEST_SECONDS = 30.0
# Programs' own names are those of bots.
BROWSER = "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0"
CSRF = re.compile(r'name="_session_csrf_secret_token"[^>]*value="([^"]+)"|_session_csrf_secret_token = "([^"]+)"')


class ApiError(AssertionError):
    """The API refused."""


@dataclass(frozen=True)
class Answer:
    """An HTTP answer."""

    status: int
    headers: http.client.HTTPMessage
    text: str

    def header(self, name: str) -> str:
        """Return a header, or nothing."""
        return self.headers.get(name) or ""


class TlsConnection(http.client.HTTPSConnection):
    """HTTPS to an address, with the certificate checked for a name that need not resolve here."""

    def __init__(self, address: str, name: str, ca_file: str, timeout: float) -> None:
        """Remember whom to reach and as whom to know it."""
        super().__init__(address, 443, timeout=timeout)
        self.name = name
        self.tls = ssl.create_default_context(cafile=ca_file)

    def connect(self) -> None:
        """Connect, and check the certificate."""
        plain = socket.create_connection((self.host, self.port), self.timeout)
        self.sock = self.tls.wrap_socket(plain, server_hostname=self.name)


class Site:
    """One client of the site: keeps its cookies, follows no redirect by itself."""

    def __init__(self, settings: Settings, name: str = "") -> None:
        """Take the people's name unless another one is given."""
        self.settings = settings
        self.name = name or settings.hostname
        self.cookies: dict[str, str] = {}

    def request(
        self,
        method: str,
        path: str,
        headers: dict[str, str] | None = None,
        body: bytes | str | None = None,
        *,
        port: int = 443,
        node: str = "",
        seconds: float = REQUEST_SECONDS,
    ) -> Answer:
        """Send one request: TLS to the balancer, or plain to another port of it or of a node."""
        connection: http.client.HTTPConnection
        if port == 443:
            connection = TlsConnection(self.settings.address, self.name, str(self.settings.ca_file), seconds)
        else:
            connection = http.client.HTTPConnection(self.settings.addresses[node] if node else self.settings.address, port, timeout=seconds)
        sent = {"Host": self.name, "User-Agent": BROWSER, **(headers or {})}
        if self.cookies and "Cookie" not in sent:
            sent["Cookie"] = "; ".join(f"{key}={value}" for key, value in self.cookies.items())
        try:
            connection.request(method, path, body, sent)
            answer = connection.getresponse()
            text = answer.read().decode("utf-8", "replace")
        finally:
            connection.close()
        for line in answer.headers.get_all("Set-Cookie") or []:
            for key, morsel in http.cookies.SimpleCookie(line).items():
                self.cookies[key] = morsel.value
        return Answer(answer.status, answer.headers, text)

    def get(self, path: str, headers: dict[str, str] | None = None, **options: Any) -> Answer:
        """Get a page."""
        return self.request("GET", path, headers, **options)

    def post(self, path: str, form: dict[str, str], headers: dict[str, str] | None = None) -> Answer:
        """Post a form with the session's token."""
        match = CSRF.search(self.get("/_admin/login").text) or CSRF.search(self.get("/_admin/my_account").text)
        token = {"_session_csrf_secret_token": match.group(1) or match.group(2)} if match else {}
        sent = {"Content-Type": "application/x-www-form-urlencoded", **(headers or {})}
        return self.request("POST", path, sent, urllib.parse.urlencode({**form, **token}))

    def push_and_die(self, repository: str) -> None:
        """Begin a push with a file of objects, send a part of it, and go away."""
        ref = f"{'0' * 40} {'1' * 40} refs/heads/dies\0 report-status".encode()
        body = f"{len(ref) + 4:04x}".encode() + ref + b"0000" + b"PACK\0\0\0\2\0\0\0\1"
        account = base64.b64encode(f"admin:{self.settings.secrets['admin_password']}".encode()).decode()
        connection = TlsConnection(self.settings.address, self.name, str(self.settings.ca_file), REQUEST_SECONDS)
        connection.putrequest("POST", f"/{repository}/git-receive-pack", skip_host=True)
        for name, value in (
            ("Host", self.name),
            ("User-Agent", "git/2.47.0"),
            ("Authorization", f"Basic {account}"),
            ("Content-Type", "application/x-git-receive-pack-request"),
            ("Content-Length", "1000000"),
        ):
            connection.putheader(name, value)
        connection.endheaders(body)
        time.sleep(1)
        connection.close()

    def login(self) -> None:
        """Log in as the administrator."""
        answer = self.post("/_admin/login", {"username": "admin", "password": self.settings.secrets["admin_password"]})
        assert answer.status == 302, f"logging in was answered {answer.status}"
        page = self.get("/_admin/my_account")
        assert page.status == 200, f"the account's page was answered {page.status} after logging in"

    def call(self, method: str, **arguments: Any) -> Any:
        """Call a method of the API and return its result."""
        body = json.dumps({"id": 1, "api_key": self.settings.secrets["admin_api_key"], "method": method, "args": arguments})
        answer = self.request("POST", "/_admin/api", {"Content-Type": "application/json"}, body)
        assert answer.status == 200, f"the API's {method} was answered {answer.status}: {answer.text[:200]}"
        result = json.loads(answer.text)
        if result["error"]:
            raise ApiError(f"the API's {method} said: {result['error']}")
        return result["result"]

    def repository_is_there(self, name: str) -> bool:
        """Tell whether a repository that was asked for has been made."""
        try:
            self.call("get_repo", repoid=name)
        except ApiError:
            return False
        return True

    def create_repository(self, name: str, kind: str, seconds: float = 30.0) -> None:
        """Create a repository and wait for it: the API only queues it."""
        self.call("create_repo", repo_name=name, repo_type=kind, private=True)
        wait_until(f"repository {name} made by Celery", lambda: self.repository_is_there(name), seconds)
