"""A real HAProxy on loopback ports, with the role's real configuration and tiny backends that say which pool they are."""

from __future__ import annotations

import base64
import contextlib
import csv
import datetime
import http.client
import http.server
import itertools
import json
import os
import pathlib
import re
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from render import ROOT, render, variable

HAPROXY = shutil.which("haproxy") or "/usr/sbin/haproxy"
HOSTNAME = "scm.example.org"
CI_HOSTNAME = "ci.scm.example.org"
BALANCER_KEY = "thekeyofthebalancer0thekeyofthe"
POOLS = ("static", "ui", "scm", "write", "ci")
# Answered to a name and password alone, which are looked at.
PRIVATE = "/private/info/refs?service=git-upload-pack"
CLONE = "/slow/info/refs?service=git-upload-pack"
PERSON = {"User-Agent": "Mozilla/5.0"}


# Below those that the kernel gives away by itself, and a row for each of pytest's workers: nobody takes a port between its choice and its use.
_ROW = 10000 + 1000 * (int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % 20)
_PORTS = itertools.cycle(range(_ROW, _ROW + 1000))


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def free_ports(count: int) -> list[int]:
    """Return ports that nobody listens on."""
    return list(itertools.islice(filter(_is_free, _PORTS), count))


def make_certificate(names: list[str], days: int = 30, authority: tuple[str, str] | None = None) -> tuple[str, str]:
    """Return a certificate and its key, PEM; signed by the authority's certificate and key, else by itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, names[0])])
    issuer, signer = name, key
    if authority:
        issuer = x509.load_pem_x509_certificate(authority[0].encode()).subject
        loaded = serialization.load_pem_private_key(authority[1].encode(), password=None)
        assert isinstance(loaded, ec.EllipticCurvePrivateKey)
        signer = loaded
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=60))
        .not_valid_after(now + datetime.timedelta(days=days))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(entry) for entry in names]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
        .sign(signer, hashes.SHA256())
    )
    private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return certificate.public_bytes(serialization.Encoding.PEM).decode(), private.decode()


def _account(header: str) -> str:
    scheme, _, value = header.partition(" ")
    return base64.b64decode(value).decode().partition(":")[0] if scheme == "Basic" else ""


class _Echo(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def _answer(self) -> None:
        server: Any = self.server
        if server.pool == "health":
            status, text = server.health[0 if self.path == "/ready" else 1]
            self._send(status, text.encode())
            return
        length = int(self.headers.get("Content-Length") or 0)
        begin = self.rfile.read(min(length, 65536))
        length -= len(begin)
        while length > 0:
            length -= len(self.rfile.read(min(length, 65536)) or b"x" * length)
        if "/refuse" in self.path or ("/private" in self.path and "Authorization" not in self.headers):
            self._send(401, b"no")
            return
        if "/forbid" in self.path:
            self._send(403, b"no")
            return
        if self.path.startswith("/_admin/login") and "X-Changed" not in self.headers and (b"password=right" in begin or b"password=unread" in begin):
            self._send(302, b"", verified=b"right" in begin)
            return
        if self.path.startswith("/page"):
            self._send(200, b"<p>a line of a page</p>\n" * 1000, "text/html")
            return
        with server.lock:
            server.started += 1
            server.accounts.append(_account(self.headers.get("Authorization", "")))
        if self.path.startswith("/slow"):
            server.release.wait(20)
            # Long enough that the order in which requests come is the queue's.
            time.sleep(0.1)
        headers: dict[str, list[str]] = {}
        for name, value in self.headers.items():
            headers.setdefault(name.lower(), []).append(value)
        self._send(200, json.dumps({"pool": server.pool, "path": self.path, "headers": headers}).encode())

    def _send(self, status: int, body: bytes, kind: str = "text/plain", verified: bool = False) -> None:
        self.send_response(status)
        # What not everybody may read is answered after a look at the password.
        if verified or ("/private" in self.path and status < 400):
            self.send_header("X-Kallithea-Verified", "1")
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_GET = do_POST = do_HEAD = do_PUT = _answer  # noqa: N815

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def __init__(self, pool: str, address: str = "127.0.0.1", port: int = 0) -> None:
        super().__init__((address, port), _Echo)
        self.pool = pool
        self.lock = threading.Lock()
        self.started = 0
        self.accounts: list[str] = []
        self.release = threading.Event()
        self.health = [(200, "ready"), (200, "writable")]
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: a health check closes its connection early."""


class Answer:
    """An answer, read to its end."""

    def __init__(self, response: http.client.HTTPResponse) -> None:
        self.status = response.status
        self.headers = response.headers
        self.text = response.read().decode()

    @property
    def echo(self) -> dict[str, Any]:
        """Return what the backend saw."""
        result: dict[str, Any] = json.loads(self.text)
        return result

    def seen(self, header: str) -> str:
        """Return a header as the backend saw it."""
        return ",".join(self.echo["headers"].get(header, []))


class Head:
    """The status and the headers of an answer."""

    def __init__(self, response: http.client.HTTPResponse) -> None:
        self.status = response.status
        self.headers = response.headers
        response.read()


class Rig:
    """HAProxy, its backends, and requests to it."""

    def __init__(self, folder: pathlib.Path, nodes: tuple[str, ...] = ("node1",), **values: Any) -> None:
        # By their names, so that a test gives one list.
        ci_nodes = [name for name in nodes if name.startswith("ci")]
        self.expected_servers = len(POOLS) * (len(nodes) - len(ci_nodes)) + len(ci_nodes)
        self.folder = folder
        self.http_port, self.https_port, self.metrics_port = free_ports(3)
        self.socket = f"{folder}/admin.sock"
        self.servers = {pool: _Server(pool) for pool in (*POOLS, "health")}
        port = {pool: server.server_address[1] for pool, server in self.servers.items()}
        pools = {pool: {"processes": 2, "port": port[pool]} for pool in POOLS[1:]}
        self.values: dict[str, Any] = {
            "inventory_hostname": "lb1",
            "kallithea_hostname": HOSTNAME,
            "kallithea_ci_hostname": CI_HOSTNAME,
            "kallithea_loadbalancer_nodes": [{"name": "lb1", "address": "127.0.0.1"}],
            "kallithea_loadbalancer_app_nodes": [
                {"name": name, "address": "127.0.0.1", "ci": name in ci_nodes, "pools": {"ci": pools["ci"]} if name in ci_nodes else pools} for name in nodes
            ],
            "kallithea_loadbalancer_static_port": port["static"],
            "kallithea_loadbalancer_health_port": port["health"],
            "kallithea_loadbalancer_bind_addresses": ["127.0.0.1"],
            "kallithea_loadbalancer_http_port": self.http_port,
            "kallithea_loadbalancer_https_port": self.https_port,
            "kallithea_loadbalancer_metrics_bind": f"127.0.0.1:{self.metrics_port}",
            "kallithea_loadbalancer_bot_networks": ["127.0.0.8/30"],
            "kallithea_loadbalancer_bot_accounts": ["build-bot"],
            "__kallithea_loadbalancer_config_dir": str(folder),
            "__kallithea_loadbalancer_state_dir": str(folder),
            "__kallithea_loadbalancer_socket": self.socket,
            "__kallithea_loadbalancer_look": {"files": []},
            "kallithea_secrets": {"balancer_key": BALANCER_KEY},
            **values,
        }
        self.context = ssl.create_default_context()
        self.context.check_hostname = False
        self.context.verify_mode = ssl.CERT_NONE
        self.process: subprocess.Popen[bytes] | None = None
        self.replaced: list[subprocess.Popen[bytes]] = []
        self.log = folder / "log"

    def write(self) -> pathlib.Path:
        """Write the configuration as the role would; only what needs root is left away."""
        certificate, key = make_certificate([HOSTNAME, CI_HOSTNAME])
        text = render("loadbalancer", "haproxy.cfg.j2", self.values)
        text = re.sub(r"(?m)^  (user|group|chroot) .*\n", "", text).replace(" group haproxy level", " level")
        files = {
            "site.pem": certificate + key,
            "haproxy.cfg": text,
            "kallithea.lua": render("loadbalancer", "kallithea.lua.j2", self.values),
            "kallithea-metrics.lua": (ROOT / "roles/loadbalancer/files/kallithea-metrics.lua").read_text(encoding="utf-8"),
            "robots.txt": variable("loadbalancer", "kallithea_loadbalancer_robots", self.values),
            "hmac.key": base64.b64encode(BALANCER_KEY.encode()).decode(),
            "kallithea-hold.map": "",
            "kallithea-server-state": "1\n",
        }
        lists = variable("loadbalancer", "__kallithea_loadbalancer_lists", self.values)
        for name, content in (files | {f"{name}.lst": content for name, content in lists.items()}).items():
            (self.folder / name).write_text(content, encoding="utf-8")
        return self.folder / "haproxy.cfg"

    def start(self) -> None:
        """Check the configuration and start HAProxy."""
        config = self.write()
        check = subprocess.run([HAPROXY, "-c", "-f", str(config)], capture_output=True, text=True, check=False)
        assert check.returncode == 0, check.stdout + check.stderr
        assert "WARNING" not in check.stderr, check.stderr
        self.process = subprocess.Popen([HAPROXY, "-db", "-f", str(config)], stdout=self.log.open("wb"), stderr=subprocess.STDOUT)
        end = time.monotonic() + 10
        while time.monotonic() < end:
            with contextlib.suppress(OSError):
                if self.servers_up():
                    return
            time.sleep(0.05)
        raise AssertionError(f"HAProxy did not start: {self.log.read_text()}")

    def reload(self) -> None:
        """Let a new process take over, as a reload does; the old one ends with its last request."""
        assert self.process
        old = self.process
        self.replaced.append(old)
        command = [HAPROXY, "-db", "-f", str(self.folder / "haproxy.cfg"), "-x", self.socket, "-sf", str(old.pid)]
        self.process = subprocess.Popen(command, stdout=self.log.open("ab"), stderr=subprocess.STDOUT)
        end = time.monotonic() + 10
        while f"\nPid: {self.process.pid}\n" not in self.ask("show info"):
            assert time.monotonic() < end, self.log.read_text()
            time.sleep(0.05)

    def move_node(self, name: str, address: str) -> Callable[[], None]:
        """Give a node an address of its own, before the start; return what makes it refuse every connection."""
        nodes = self.values["kallithea_loadbalancer_app_nodes"]
        self.values["kallithea_loadbalancer_app_nodes"] = [node | {"address": address} if node["name"] == name else node for node in nodes]
        servers = [_Server(pool, address, server.server_address[1]) for pool, server in self.servers.items()]
        for server in servers:
            server.release.set()

        def stop() -> None:
            for server in servers:
                server.shutdown()
                server.server_close()

        return stop

    def stop(self) -> None:
        """End HAProxy and the backends."""
        for server in self.servers.values():
            server.release.set()
        for process in (*self.replaced, *filter(None, (self.process,))):
            process.kill()
            process.wait()
        for server in self.servers.values():
            server.shutdown()
            server.server_close()

    def ask(self, command: str) -> str:
        """Return the answer of HAProxy's socket."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(self.socket)
            connection.sendall(command.encode() + b"\n")
            return b"".join(iter(lambda: connection.recv(65536), b"")).decode()

    def servers_up(self) -> bool:
        """Tell whether every server is up."""
        lines = [line.split(",") for line in self.ask("show stat -1 4 -1").splitlines() if line.startswith("be_")]
        return len(lines) == self.expected_servers and all(line[17] == "UP" for line in lines)

    def counts(self, backend: str, column: str) -> dict[str, int]:
        """Return a number of each server of a backend, and of the BACKEND itself, from HAProxy's statistics."""
        rows = csv.DictReader(self.ask("show stat").lstrip("# ").splitlines())
        return {row["svname"]: int(row[column] or 0) for row in rows if row["pxname"] == backend}

    def request_raw(self, method: str, path: str, headers: dict[str, str]) -> Head:
        """Send one request and return the head of its answer, whose body is as the headers say."""
        connection = http.client.HTTPSConnection("127.0.0.1", self.https_port, timeout=15, context=self.context)
        with contextlib.closing(connection):
            connection.request(method, path, headers={"Host": HOSTNAME, **headers})
            return Head(connection.getresponse())

    def request(
        self,
        method: str,
        path: str,
        headers: dict[str, str] | None = None,
        *,
        body: bytes | None = None,
        source: str = "127.0.0.1",
        port: int = 0,
        tls: bool = True,
        seconds: float = 15,
    ) -> Answer:
        """Send one request and return its answer."""
        target = port or (self.https_port if tls else self.http_port)
        connection: http.client.HTTPConnection
        if tls:
            connection = http.client.HTTPSConnection("127.0.0.1", target, timeout=seconds, source_address=(source, 0), context=self.context)
        else:
            connection = http.client.HTTPConnection("127.0.0.1", target, timeout=seconds, source_address=(source, 0))
        with contextlib.closing(connection):
            sent = {"Host": HOSTNAME, **(headers or {})}
            connection.request(method, path, body=body, headers=sent)
            return Answer(connection.getresponse())


@contextlib.contextmanager
def running(folder: pathlib.Path, nodes: tuple[str, ...] = ("node1",), **values: Any) -> Iterator[Rig]:
    """Run HAProxy for the block's time."""
    os.makedirs(folder, exist_ok=True)
    rig = Rig(folder, nodes, **values)
    try:
        rig.start()
        yield rig
    finally:
        rig.stop()


def wait_for(condition: Callable[[], object], seconds: float = 8) -> None:
    """Wait until something is true."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "did not happen in time"
        time.sleep(0.05)


def wait_beside_threads(condition: Callable[[], object]) -> None:
    """Wait longer: all threads of a test compete for the processors with what they measure."""
    wait_for(condition, seconds=20)


def basic(account: str, password: str = "secret") -> dict[str, str]:
    """Return the header of a name and a password."""
    return {"Authorization": "Basic " + base64.b64encode(f"{account}:{password}".encode()).decode()}


def prove(rig: Rig, headers: dict[str, str], source: str = "127.0.0.1") -> None:
    """Have a credential taken, as git does it: first without a name."""
    anonymous = {name: value for name, value in headers.items() if name != "Authorization"}
    assert rig.request("GET", PRIVATE, anonymous, source=source).status == 401
    answer = rig.request("GET", PRIVATE, headers, source=source)
    assert (answer.status, answer.headers["X-Kallithea-Verified"]) == (200, None)


def in_flight(rig: Rig, pool: str) -> int:
    """Return how many requests of a pool wait or run."""
    return rig.counts(f"be_{pool}", "scur")["BACKEND"]
