"""What HAProxy would read otherwise than Python does, and refuses for that: forms, keys, names and passwords, paths; against a real HAProxy."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator

import pytest
from haproxy_rig import HOSTNAME, PERSON, Rig, basic, running


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    with running(tmp_path_factory.mktemp("haproxy"), ("node1", "node2")) as started:
        yield started


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (b"username=invented&password=x&username=nina", {}),
        (b"username=nina&password=x&password=y", {}),
        (b"x=;username=invented&username=nina", {}),
        (b"username=nina&password=%zz", {}),
        (b"username=nina%00&password=x", {}),
        (b"username=nina\x00&password=x", {}),
        (b"username=nina&password=x&x=" + b"x" * 3000 + b"\x00", {}),
        (b"username=invented&user%6eame=nina", {}),
        (b"username=invented&x=\n&username=nina", {}),
        (b"username=invented&x=" + b"x" * 5000 + b"&username=nina", {}),
        (b"1c\r\nusername=invented&password=x\r\n0\r\n\r\n", {"Transfer-Encoding": "chunked"}),
        (b'--b\r\nContent-Disposition: form-data; name="username"\r\n\r\nnina\r\n--b--\r\n', {"Content-Type": "multipart/form-data; boundary=b"}),
    ],
    ids=["twice", "password twice", "semicolon", "malformed code", "encoded NUL", "NUL", "a late NUL", "encoded", "newline", "padded", "chunked", "multipart"],
)
def test_a_form_in_which_another_name_may_be_read_is_refused(rig: Rig, body: bytes, headers: dict[str, str]) -> None:
    """HAProxy would count one, and Kallithea look at the other."""
    answer = rig.request("POST", "/_admin/login", PERSON | {"Content-Type": "application/x-www-form-urlencoded"} | headers, body=body)
    assert (answer.status, answer.text) == (400, "The form is malformed.\n")


def test_a_form_of_which_a_part_does_not_fit_into_the_buffer_is_refused(rig: Rig) -> None:
    """Beside headers as large as they may be; HAProxy would see the first name, and Kallithea take the last."""
    body = b"username=nina&password=guess&x=" + b"x" * 3000 + b"&username=mallory&password=right"
    form = PERSON | {"Content-Type": "application/x-www-form-urlencoded"}
    for size in range(5100, 5240, 2):
        padding = {f"X-Padding-{number:02}": "x" * size for number in range(50)}
        assert rig.request("POST", "/_admin/login", form | padding, body=body).status == 400, size


def test_http_2_is_not_spoken_to_who_does_not_ask(rig: Rig) -> None:
    """There a body comes without a length."""
    context: ssl.SSLContext = rig.context
    with socket.create_connection(("127.0.0.1", rig.https_port), 15) as plain, context.wrap_socket(plain, server_hostname=HOSTNAME) as client:
        client.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0")
        assert client.recv(100).startswith(b"HTTP/1.1 400")


@pytest.mark.parametrize("between", ["&x=y&", "&x=;", "&x=%0A&"])
def test_a_key_that_is_given_twice_is_refused(rig: Rig, between: str) -> None:
    answer = rig.request("GET", f"/repo/feed/atom?api_key={'1' * 40}{between}api%5Fkey={'2' * 40}", PERSON)
    assert (answer.status, answer.text) == (400, "A key is given twice.\n")


@pytest.mark.parametrize(
    "value",
    [
        *("Basic amFu*ZTp4", "Basic", "Basic !", "basic amFuZQ=="),
        # To HAProxy these are names with an empty password, and to Python passwords.
        *("Basic YWRtaW46,Z3Vlc3M=", "Basic YWRtaW46, Z3Vlc3M=", "basic YWRtaW46==,Z3Vlc3M=", "Basic  YWRtaW46", "Basic\tYWRtaW46", "Basic YWRtaW46 Z3Vlc3M="),
        *(basic(*account)["Authorization"] for account in (("admin", "\0guess"), ("admin", "guess\0"), ("ad\0min", "guess"))),
    ],
)
def test_a_malformed_name_and_password_is_refused(rig: Rig, value: str) -> None:
    """Python would take some of them, and HAProxy none, or another."""
    answer = rig.request("GET", "/repo/info/refs?service=git-upload-pack", {"Authorization": value})
    assert (answer.status, answer.text) == (400, "The header Authorization is malformed.\n")


@pytest.mark.parametrize("value", ["Bearer AAAA", "Token YWRtaW46,", "Bearer a, b", "Negotiate AAECAwQ="])
def test_other_schemes_are_their_own(rig: Rig, value: str) -> None:
    assert rig.request("GET", "/repo/info/refs?service=git-upload-pack", {"Authorization": value}).status == 200


@pytest.mark.parametrize(
    "path", ["/x/../_admin/login", "/_admin/./login", "/x/%2e%2e/_admin/login", "/css/../_admin/login", "/repo/..", "/_admin/login%0A", "/a%0D", "/a%09b"]
)
def test_a_path_that_others_read_otherwise_is_refused(rig: Rig, path: str) -> None:
    assert rig.request("GET", path).status == 400
