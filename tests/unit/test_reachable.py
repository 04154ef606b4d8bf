"""Module reachable: a PostgreSQL and a RabbitMQ of the test's own, which refuse, freeze, or are something else."""

from __future__ import annotations

import contextlib
import pathlib
import socket
import ssl
import struct
import subprocess
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from ansible_collections.kallithea.cluster.plugins.module_utils import reachable

Connection = socket.socket
NEW_KEY = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]


def openssl(*arguments: str) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """Make two CAs, and two certificates of the first: good (localhost) and other (for another name)."""
    path = tmp_path_factory.mktemp("tls")
    for name in ("ca", "stranger"):
        openssl("req", "-x509", *NEW_KEY, "-subj", f"/CN={name}", "-days", "2", "-keyout", f"{path}/{name}.key", "-out", f"{path}/{name}.crt")
    for name, host in (("good", "localhost"), ("other", "other.example.org")):
        (path / "extension").write_text(f"subjectAltName=DNS:{host}", encoding="utf-8")
        openssl("req", *NEW_KEY, "-subj", f"/CN={name}", "-keyout", f"{path}/{name}.key", "-out", f"{path}/{name}.csr")
        openssl(
            *("x509", "-req", "-in", f"{path}/{name}.csr", "-CA", f"{path}/ca.crt", "-CAkey", f"{path}/ca.key", "-CAcreateserial", "-days", "2"),
            *("-extfile", f"{path}/extension", "-out", f"{path}/{name}.crt"),
        )
    return path


@contextlib.contextmanager
def server(answer: Callable[[Connection], None]) -> Iterator[int]:
    """Serve connections in threads until the test is done."""
    listener = socket.create_server(("127.0.0.1", 0))

    def talk(connection: Connection) -> None:
        with contextlib.suppress(OSError, EOFError, reachable.Stranger), connection:
            answer(connection)

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=talk, args=(listener.accept()[0],), daemon=True).start()

    acceptor = threading.Thread(target=serve, daemon=True)
    acceptor.start()
    try:
        yield listener.getsockname()[1]
    finally:
        # Else the thread would accept what comes to the next test's socket of the same number.
        listener.shutdown(socket.SHUT_RDWR)
        acceptor.join()
        listener.close()


def server_tls(connection: Connection, path: pathlib.Path, name: str) -> Connection:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path / f"{name}.crt", path / f"{name}.key")
    return context.wrap_socket(connection, server_side=True)


def postgresql(path: pathlib.Path, certificate: str = "good", refusal: str = "", left: str = "97") -> Callable[[Connection], None]:
    """Return a PostgreSQL that speaks TLS unless it has no certificate, and lets everybody in unless it refuses."""

    def talk(connection: Connection) -> None:
        assert reachable.Stream(connection).read(8) == struct.pack(">II", 8, reachable.SSL_REQUEST)
        if not certificate:
            connection.sendall(b"N")
            return
        connection.sendall(b"S")
        connection = server_tls(connection, path, certificate)
        stream = reachable.Stream(connection)
        (length,) = struct.unpack(">I", stream.read(4))
        assert b"user\0u\0database\0d\0" in stream.read(length - 4)
        if refusal:
            connection.sendall(reachable.postgresql_message(b"E", f"SFATAL\0M{refusal}\0\0".encode()))
            return
        ready = reachable.postgresql_message(b"Z", b"I")
        connection.sendall(reachable.postgresql_message(b"R", struct.pack(">I", 0)) + ready)
        assert stream.read(1) == b"Q"
        row = struct.pack(">HI", 1, len(left)) + left.encode()
        connection.sendall(reachable.postgresql_message(b"T", b"\0\0") + reachable.postgresql_message(b"D", row) + ready)
        connection.recv(1)

    return talk


def rabbitmq(path: pathlib.Path, certificate: str = "", refusal: str = "") -> Callable[[Connection], None]:
    """Return a RabbitMQ."""

    def talk(connection: Connection) -> None:
        if certificate:
            connection = server_tls(connection, path, certificate)
        stream = reachable.Stream(connection)
        if stream.read(8) != b"AMQP\0\0\x09\x01":
            connection.sendall(b"AMQP\0\0\x09\x01")
            return
        connection.sendall(reachable.amqp_method(0, (10, 10), b"\0\x09" + b"\0\0\0\0" + b"\0\0\0\x05PLAIN" + b"\0\0\0\x05en_US"))
        numbers, arguments = reachable.read_amqp(stream)
        assert numbers == (10, 11) and b"PLAIN\0\0\0\x0a\0u\0secret1" in arguments and b"authentication_failure_close" in arguments
        if refusal:
            connection.sendall(reachable.amqp_method(0, (10, 50), struct.pack(">H", 403) + bytes([len(refusal)]) + refusal.encode() + b"\0\0\0\0"))
            return
        connection.sendall(reachable.amqp_method(0, (10, 30), struct.pack(">HIH", 2047, 131072, 60)))
        assert reachable.read_amqp(stream) == ((10, 31), struct.pack(">HIH", 2047, 131072, 0))
        assert reachable.read_amqp(stream) == ((10, 40), b"\x01k\0\0")
        connection.sendall(reachable.amqp_method(0, (10, 41), b"\0"))
        connection.recv(1)

    return talk


def login(**more: Any) -> dict[str, Any]:
    return {"user": "u", "password": "secret1", "secret": "database_password", "connections": 0, **more}


def ask_database(port: int, ca: str = "", sslmode: str = "require", hosts: tuple[str, ...] = ("localhost",), **more: Any) -> list[str]:
    wanted = {"hosts": hosts, "port": port, "sslmode": sslmode, "ca": ca, "name": "d", "logins": [login(**more)]}
    found: list[str] = reachable.problems(reachable.ask_postgresql, wanted)
    return found


def ask_broker(port: int, ca: str = "", tls: bool = False) -> list[str]:
    wanted = {"hosts": ["localhost"], "port": port, "tls": tls, "ca": ca, "vhost": "k", "logins": [login(secret="broker_password")]}
    found: list[str] = reachable.problems(reachable.ask_broker, wanted)
    return found


def test_scram_as_the_rfc_has_it() -> None:
    first, server_first = "n=user,r=rOprNGfwEbeRWgbNEkqO", "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
    assert reachable.scram_proof("pencil", first, server_first).endswith(",p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=")


@pytest.mark.parametrize(
    ("certificate", "ca", "sslmode", "words"),
    [
        ("good", "", "require", None),
        ("other", "", "require", None),
        ("good", "ca", "verify-full", None),
        ("other", "ca", "verify-ca", None),
        ("other", "ca", "verify-full", "is not for this name; give kallithea_database_hosts a name that is in it"),
        ("good", "stranger", "verify-ca", "kallithea_database_ca has not signed it"),
        ("good", "stranger", "require", "kallithea_database_ca has not signed it"),
        ("", "ca", "verify-full", "speaks no TLS, but kallithea_database_sslmode is verify-full; turn ssl on there"),
    ],
)
def test_database_certificates(certificates: pathlib.Path, certificate: str, ca: str, sslmode: str, words: str | None) -> None:
    pem = (certificates / f"{ca}.crt").read_text(encoding="utf-8") if ca else ""
    with server(postgresql(certificates, certificate)) as port:
        problems = ask_database(port, pem, sslmode)
    assert len(problems) == (0 if words is None else 1)
    assert all((words or "") in problem and f"localhost:{port}" in problem for problem in problems)


def test_database_that_refuses_or_is_too_small(certificates: pathlib.Path) -> None:
    with server(postgresql(certificates, refusal='password authentication failed for user "u"')) as port:
        (problem,) = ask_database(port)
    assert "does not let u use the database d (password authentication failed" in problem and "database_password" in problem
    assert "secret1" not in problem
    with server(postgresql(certificates, left="20")) as port:
        (problem,) = ask_database(port, connections=21)
        assert "has 20 connections for u, but the cluster's processes take up to 21" in problem
        assert ask_database(port, connections=20) == []


def test_broker(certificates: pathlib.Path) -> None:
    ca, stranger = ((certificates / f"{name}.crt").read_text(encoding="utf-8") for name in ("ca", "stranger"))
    with server(rabbitmq(certificates)) as port:
        assert ask_broker(port) == []
        assert "speaks no TLS" in ask_broker(port, ca, tls=True)[0]
    with server(rabbitmq(certificates, "good")) as port:
        assert ask_broker(port, ca, tls=True) == []
        assert "kallithea_broker_ca has not signed it" in ask_broker(port, stranger, tls=True)[0]
        assert "signed by nobody whom the app hosts trust" in ask_broker(port, tls=True)[0]
        assert "is no RabbitMQ that is spoken to so" in ask_broker(port)[0]
    with server(rabbitmq(certificates, "other")) as port:
        assert "give kallithea_broker_hosts a name that is in it" in ask_broker(port, ca, tls=True)[0]
    with server(rabbitmq(certificates, refusal="ACCESS_REFUSED - Login was refused")) as port:
        (problem,) = ask_broker(port)
        assert "(ACCESS_REFUSED - Login was refused)" in problem and "broker_password" in problem


def test_something_else_answers(certificates: pathlib.Path) -> None:
    with server(lambda connection: connection.sendall(b"SSH-2.0-OpenSSH_9.2p1\r\n")) as port:
        assert "is no RabbitMQ" in ask_broker(port)[0]
    with server(lambda connection: connection.sendall(b"HTTP/1.1 400 Bad request\r\n\r\n")) as port:
        assert "is no PostgreSQL" in ask_database(port)[0]


def test_nobody_answers(monkeypatch: pytest.MonkeyPatch, certificates: pathlib.Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        monkeypatch.setattr(reachable, "SECONDS", 0.3)
        assert "look whether it is frozen" in ask_database(port)[0]
        assert "look whether it is frozen" in ask_broker(port)[0]
    assert "cannot be reached: Connection refused" in ask_database(port)[0]
    assert "the name is not known" in ask_database(port, hosts=("no-such-host.invalid",))[0]
    with server(postgresql(certificates)) as port:
        assert ask_database(port, hosts=("no-such-host.invalid", "localhost")) == []
