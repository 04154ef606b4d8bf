# Copyright: The kallithea.cluster maintainers
# GPL-3.0-or-later (see LICENSE)
"""Whether an external PostgreSQL or RabbitMQ can be reached, trusted and logged in to: asked with the standard library alone, on a bare host."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import secrets
import socket
import ssl
import struct
from collections.abc import Callable, Iterator, Mapping
from typing import Any

SECONDS = 5.0
SSL_REQUEST = 80877103
PROTOCOL_3 = 196608
# What is left for ordinary users, by the server's settings and the limits of account and database; a missing limit is null and passed over.
CONNECTIONS = (
    "SELECT least(current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int"
    " - coalesce(current_setting('reserved_connections', true), '0')::int,"
    " (SELECT nullif(rolconnlimit, -1) FROM pg_roles WHERE rolname = session_user),"
    " (SELECT nullif(datconnlimit, -1) FROM pg_database WHERE datname = current_database()))"
)


class Problem(Exception):
    """What is wrong, as one sentence."""


class Unreachable(Problem):
    """Nobody answers there."""


class Stranger(Exception):
    """What answers speaks another protocol."""


class Stream:
    """A connection of which exact numbers of bytes are read."""

    def __init__(self, connection: socket.socket) -> None:
        """Take the connection over."""
        self.connection = connection

    def read(self, count: int) -> bytes:
        """Return exactly so many bytes; no more are read, since a TLS handshake may come next."""
        data = b""
        while len(data) < count:
            block = self.connection.recv(min(count - len(data), 65536))
            if not block:
                raise Stranger
            data += block
        return data

    def write(self, data: bytes) -> None:
        """Send bytes."""
        self.connection.sendall(data)


def open_stream(what: str, variables: str, host: str, port: int) -> Stream:
    """Connect, or say why not."""
    try:
        return Stream(socket.create_connection((host, port), timeout=SECONDS))
    except socket.gaierror as error:
        reason = f"the name is not known to the app hosts ({error.strerror})"
    except TimeoutError:
        reason = f"no answer within {SECONDS:.0f} s"
    except OSError as error:
        reason = str(error.strerror or error)
    raise Unreachable(f"The {what} {host}:{port} cannot be reached: {reason}; start it, let firewalls pass the app hosts, or correct {variables}.")


@contextlib.contextmanager
def conversation(what: str, variables: str, host: str, port: int, stranger: str) -> Iterator[Stream]:
    """Connect and hang up; what answers not at all or as somebody else becomes a sentence."""
    stream = open_stream(what, variables, host, port)
    try:
        yield stream
    except TimeoutError as error:
        raise Unreachable(f"The {what} {host}:{port} takes connections but does not answer within {SECONDS:.0f} s; look whether it is frozen.") from error
    except (Stranger, OSError) as error:
        raise Problem(f"What answers at {host}:{port} is {stranger}; correct {variables}.") from error
    finally:
        stream.connection.close()


def start_tls(stream: Stream, what: str, host: str, port: int, checks: Mapping[str, Any]) -> None:
    """Shake hands; checks say whether the certificate and its name are looked at, by which CA (PEM), and which variables to mend."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = checks["name"]
    if not checks["certificate"]:
        context.verify_mode = ssl.CERT_NONE
    elif checks["ca"]:
        context.load_verify_locations(cadata=checks["ca"])
    else:
        context.load_default_certs()
    where = f"The certificate of the {what} {host}:{port}"
    try:
        stream.connection = context.wrap_socket(stream.connection, server_hostname=host)
    except ssl.SSLCertVerificationError as error:
        if error.verify_code in (62, 64):
            raise Problem(f"{where} is not for this name; give {checks['hosts_variable']} a name that is in it.") from error
        signed = f"{checks['ca_variable']} has not signed it" if checks["ca"] else "it is signed by nobody whom the app hosts trust"
        raise Problem(f"{where} does not fit: {signed} ({error.verify_message}); give {checks['ca_variable']} the file of the CA that signs it.") from error
    except TimeoutError as error:
        raise Unreachable(f"The {what} {host}:{port} takes connections but does not answer within {SECONDS:.0f} s; look whether it is frozen.") from error
    except (ssl.SSLError, OSError) as error:
        raise Problem(f"The {what} {host}:{port} speaks no TLS; {checks['tls_mend']}.") from error


def scram_proof(password: str, first_bare: str, server_first: str) -> str:
    """Return the client's last message of SCRAM-SHA-256 (RFC 5802, 7677)."""
    fields = dict(part.split("=", 1) for part in server_first.split(","))
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), base64.b64decode(fields["s"]), int(fields["i"]))
    client = hmac.digest(salted, b"Client Key", "sha256")
    without = f"c=biws,r={fields['r']}"
    signature = hmac.digest(hashlib.sha256(client).digest(), f"{first_bare},{server_first},{without}".encode(), "sha256")
    proof = bytes(one ^ other for one, other in zip(client, signature, strict=True))
    return f"{without},p={base64.b64encode(proof).decode()}"


def postgresql_message(kind: bytes, body: bytes) -> bytes:
    """Return a message of PostgreSQL's protocol; the first one has no kind."""
    return kind + struct.pack(">I", len(body) + 4) + body


def read_postgresql(stream: Stream) -> tuple[bytes, bytes]:
    """Return kind and body of the next message; what is none comes from a stranger."""
    kind, length = struct.unpack(">cI", stream.read(5))
    if not kind.isalpha() or not 4 <= length < 1_000_000:
        raise Stranger
    return kind, stream.read(length - 4)


def postgresql_error(body: bytes) -> str:
    """Return the message of an ErrorResponse."""
    fields = [field for field in body.split(b"\0") if field]
    return next((field[1:].decode(errors="replace") for field in fields if field[:1] == b"M"), "no reason given")


def postgresql_login(stream: Stream, name: str, user: str, password: str) -> str:
    """Log in and ask for the connections left; return that number as text, or raise a ValueError with the server's words."""
    stream.write(postgresql_message(b"", struct.pack(">I", PROTOCOL_3) + f"user\0{user}\0database\0{name}\0\0".encode()))
    first_bare, asked, found = f"n=,r={secrets.token_urlsafe(18)}", False, ""
    while True:
        kind, body = read_postgresql(stream)
        if kind == b"E":
            raise ValueError(postgresql_error(body))
        if kind == b"R":
            (method,) = struct.unpack(">I", body[:4])
            if method == 10:
                first = f"n,,{first_bare}".encode()
                stream.write(postgresql_message(b"p", b"SCRAM-SHA-256\0" + struct.pack(">I", len(first)) + first))
            elif method == 11:
                stream.write(postgresql_message(b"p", scram_proof(password, first_bare, body[4:].decode()).encode()))
            elif method not in (0, 12):
                # Another way to prove oneself is left to the application's driver.
                return ""
        elif kind == b"D":
            found = body[6:].decode(errors="replace")
        elif kind == b"Z" and asked:
            return found
        elif kind == b"Z":
            asked = True
            stream.write(postgresql_message(b"Q", CONNECTIONS.encode() + b"\0"))


def ask_postgresql(host: str, wanted: Mapping[str, Any], login: Mapping[str, str]) -> None:
    """Raise the sentence that says why this account cannot use the database."""
    what, port, mode = "PostgreSQL", int(wanted["port"]), wanted["sslmode"]
    hosts, variables = "kallithea_database_hosts", "kallithea_database_hosts and kallithea_database_port"
    with conversation(what, variables, host, port, "no PostgreSQL") as stream:
        try:
            stream.write(postgresql_message(b"", struct.pack(">I", SSL_REQUEST)))
            answer = stream.read(1)
            if answer == b"S":
                checks = {
                    # As libpq does it: with a CA at hand, require looks at the certificate too.
                    "certificate": mode.startswith("verify") or bool(wanted["ca"]),
                    "name": mode == "verify-full",
                    "ca": wanted["ca"],
                    "ca_variable": "kallithea_database_ca",
                    "hosts_variable": hosts,
                    "tls_mend": "turn ssl on there",
                }
                start_tls(stream, what, host, port, checks)
            elif answer == b"N":
                raise Problem(f"The {what} {host}:{port} speaks no TLS, but kallithea_database_sslmode is {mode}; turn ssl on there.")
            else:
                raise Stranger
            left = postgresql_login(stream, wanted["name"], login["user"], login["password"])
        except ValueError as error:
            raise Problem(
                f"The {what} {host}:{port} does not let {login['user']} use the database {wanted['name']} ({error}); "
                f"make account and database there, let pg_hba.conf take the app hosts, and give the password as {login['secret']} in kallithea_given_secrets."
            ) from error
    if left.isdigit() and int(left) < int(login.get("connections", 0)):
        raise Problem(
            f"The {what} {host}:{port} has {left} connections for {login['user']}, but the cluster's processes take up to {login['connections']}; "
            "raise max_connections (or the limit of account or database) there, or lower kallithea_app_pools."
        )


def amqp_method(channel: int, numbers: tuple[int, int], arguments: bytes) -> bytes:
    """Return a method's frame of AMQP 0-9-1."""
    payload = struct.pack(">HH", *numbers) + arguments
    return struct.pack(">BHI", 1, channel, len(payload)) + payload + b"\xce"


def read_amqp(stream: Stream) -> tuple[tuple[int, int], bytes]:
    """Return numbers and arguments of the next method; what is none comes from a stranger."""
    kind, _channel, length = struct.unpack(">BHI", stream.read(7))
    if kind != 1 or not 4 <= length < 1_000_000:
        raise Stranger
    payload = stream.read(length)
    stream.read(1)
    return struct.unpack(">HH", payload[:4]), payload[4:]


def amqp_login(stream: Stream, vhost: str, user: str, password: str) -> None:
    """Log in and open the virtual host, or raise a ValueError with the broker's words."""

    def short(text: bytes) -> bytes:
        return bytes([len(text)]) + text

    def long(text: bytes) -> bytes:
        return struct.pack(">I", len(text)) + text

    def expect(numbers: tuple[int, int]) -> bytes:
        found, arguments = read_amqp(stream)
        if found == (10, 50):
            raise ValueError(arguments[3 : 3 + arguments[2]].decode(errors="replace").rstrip("."))
        if found != numbers:
            raise Stranger
        return arguments

    stream.write(b"AMQP\0\0\x09\x01")
    expect((10, 10))
    # Without this capability the broker would hang up on a wrong password without a word.
    capability = short(b"capabilities") + b"F" + long(short(b"authentication_failure_close") + b"t\x01")
    stream.write(amqp_method(0, (10, 11), long(capability) + short(b"PLAIN") + long(f"\0{user}\0{password}".encode()) + short(b"en_US")))
    tune = expect((10, 30))
    stream.write(amqp_method(0, (10, 31), tune[:6] + b"\0\0"))
    stream.write(amqp_method(0, (10, 40), short(vhost.encode()) + b"\0\0"))
    expect((10, 41))
    stream.write(amqp_method(0, (10, 50), struct.pack(">H", 200) + short(b"") + struct.pack(">HH", 0, 0)))


def ask_broker(host: str, wanted: Mapping[str, Any], login: Mapping[str, str]) -> None:
    """Raise the sentence that says why this account cannot use the broker."""
    what, port = "RabbitMQ", int(wanted["port"])
    variables = "kallithea_broker_hosts, kallithea_broker_port and kallithea_broker_tls"
    with conversation(what, variables, host, port, "no RabbitMQ that is spoken to so") as stream:
        try:
            if wanted["tls"]:
                checks = {
                    "certificate": True,
                    "name": True,
                    "ca": wanted["ca"],
                    "ca_variable": "kallithea_broker_ca",
                    "hosts_variable": "kallithea_broker_hosts",
                    "tls_mend": "correct kallithea_broker_port, or set kallithea_broker_tls: false",
                }
                start_tls(stream, what, host, port, checks)
            amqp_login(stream, wanted["vhost"], login["user"], login["password"])
        except ValueError as error:
            raise Problem(
                f"The {what} {host}:{port} does not let {login['user']} use the virtual host {wanted['vhost']} ({error}); "
                f"make account and virtual host there, and give the password as {login['secret']} in kallithea_given_secrets."
            ) from error


def problems(ask: Callable[[str, Mapping[str, Any], Mapping[str, str]], None], wanted: Mapping[str, Any]) -> list[str]:
    """Return a sentence for each thing that is wrong; a server that is down is none while another one answers."""
    wrong: list[str] = []
    down: list[str] = []
    answered = False
    for host in wanted["hosts"]:
        for login in wanted["logins"]:
            try:
                ask(host, wanted, login)
                answered = True
            except Unreachable as problem:
                down.append(str(problem))
                break
            except Problem as problem:
                wrong.append(str(problem))
    return list(dict.fromkeys(wrong + ([] if answered else down)))
