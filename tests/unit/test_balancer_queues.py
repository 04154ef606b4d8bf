"""Queues, ceilings, warm nodes, keys, explanations and metrics of the balancer, against a real HAProxy."""

from __future__ import annotations

import collections
import concurrent.futures
import contextlib
import functools
import json
import pathlib
import socket
import ssl
import time
from collections.abc import Iterator
from typing import Any

import pytest
from haproxy_rig import CI_HOSTNAME, CLONE, HOSTNAME, PERSON, Rig, basic, in_flight, prove, running, wait_beside_threads

API_KEY = "0123456789abcdef0123456789abcdef01234567"
BOT = {"User-Agent": "git/2.47.3", "Host": CI_HOSTNAME}


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    values: dict[str, Any] = {
        "kallithea_loadbalancer_bot_api_keys": [API_KEY],
        "kallithea_loadbalancer_bot_accounts": ["build-bot", "other-bot"],
        "kallithea_loadbalancer_person_accounts": ["scripter"],
        "kallithea_loadbalancer_bot_networks": ["127.0.0.9"],
        "kallithea_loadbalancer_explain_networks": ["127.0.0.5"],
        "kallithea_loadbalancer_in_flight": {"person": 500, "bot": 12},
    }
    with running(tmp_path_factory.mktemp("haproxy"), ("node1", "node2"), **values) as started:
        yield started


@contextlib.contextmanager
def busy(rig: Rig, pool: str, headers: dict[str, str], count: int = 4) -> Iterator[concurrent.futures.ThreadPoolExecutor]:
    """Hold all processes of a pool until the block ends; its threads send what waits."""
    server = rig.servers[pool]
    server.release.clear()
    first = server.started
    with concurrent.futures.ThreadPoolExecutor(30) as threads:
        sent = [threads.submit(rig.request, "GET", CLONE, headers) for _ in range(count)]
        wait_beside_threads(lambda: server.started == first + count)
        try:
            yield threads
        finally:
            server.release.set()
        assert {entry.result(timeout=15).status for entry in sent} == {200}


def queued(rig: Rig, pool: str) -> int:
    """Return how many wait, those included that wait for one node alone."""
    return sum(rig.counts(f"be_{pool}", "qcur").values())


def test_who_has_little_in_flight_passes_who_has_much(rig: Rig) -> None:
    server = rig.servers["ci"]
    for account in ("build-bot", "other-bot"):
        prove(rig, basic(account) | BOT)
    with busy(rig, "ci", basic("build-bot") | BOT) as threads:
        waiting = [threads.submit(rig.request, "GET", CLONE, basic("build-bot") | BOT) for _ in range(6)]
        wait_beside_threads(lambda: queued(rig, "ci") == 6)
        waiting.append(threads.submit(rig.request, "GET", CLONE, basic("other-bot") | BOT))
        wait_beside_threads(lambda: queued(rig, "ci") == 7)
        server.release.set()
        assert {entry.result(timeout=15).status for entry in waiting} == {200}
    assert "other-bot" in server.accounts[-7:-3], server.accounts[-7:]


def test_nobody_is_moved_back_by_who_names_his_account(rig: Rig) -> None:
    """Requests in flight count for the credential as a whole, and for the address as long as nobody has looked at it."""
    server = rig.servers["ci"]
    prove(rig, basic("build-bot") | BOT)
    prove(rig, basic("other-bot", "right") | BOT)
    with busy(rig, "ci", basic("other-bot", "wrong") | BOT) as threads:
        waiting = [threads.submit(rig.request, "GET", CLONE, basic("other-bot", "wrong") | BOT) for _ in range(4)]
        wait_beside_threads(lambda: queued(rig, "ci") == 4)
        # As many in flight as the guesser has, all of them its own, so that only the account's name is common.
        waiting.append(threads.submit(rig.request, "GET", CLONE, basic("build-bot") | BOT))
        wait_beside_threads(lambda: queued(rig, "ci") == 5)
        waiting.append(threads.submit(rig.request, "GET", CLONE, basic("other-bot", "right") | BOT))
        wait_beside_threads(lambda: queued(rig, "ci") == 6)
        metrics = rig.request("GET", "/metrics/kallithea", tls=False, port=rig.metrics_port).text
        assert 'kallithea_balancer_requests_in_flight{who="bot",pool="ci"} 10\n' in metrics
        table = rig.ask("show table st_in_flight")
        assert sorted(int(line.rpartition("conn_cur=")[2]) for line in table.splitlines() if "key=bot|ci|" in line)[-3:] == [1, 1, 8]
        assert "other-bot" not in table and "secret" not in table
        server.release.set()
        assert {entry.result(timeout=15).status for entry in waiting} == {200}


def test_invented_passwords_count_for_the_address(rig: Rig) -> None:
    with busy(rig, "ci", basic("other-bot", "invented") | BOT) as threads:
        waiting = [threads.submit(rig.request, "GET", CLONE, basic("other-bot", f"invented{number}") | BOT) for number in range(8)]
        wait_beside_threads(lambda: queued(rig, "ci") == 8)
        assert rig.request("GET", CLONE, basic("other-bot", "one more") | BOT).status == 429
        assert rig.request("GET", f"/repo?api_key={'1' * 40}", BOT).status == 429
        rig.servers["ci"].release.set()
        assert {entry.result(timeout=15).status for entry in waiting} == {200}


def test_above_the_ceiling_a_credential_is_refused_and_nobody_else(rig: Rig) -> None:
    prove(rig, basic("build-bot") | BOT)
    with busy(rig, "ci", basic("build-bot") | BOT) as threads:
        waiting = [threads.submit(rig.request, "GET", CLONE, basic("build-bot") | BOT) for _ in range(8)]
        wait_beside_threads(lambda: queued(rig, "ci") == 8)
        refused = rig.request("GET", CLONE, basic("build-bot") | BOT)
        assert (refused.status, refused.headers["Retry-After"]) == (429, "10")
        waiting.append(threads.submit(rig.request, "GET", CLONE, basic("other-bot") | BOT))
        wait_beside_threads(lambda: queued(rig, "ci") == 9)
        rig.servers["ci"].release.set()
        assert {entry.result(timeout=15).status for entry in waiting} == {200}


def test_a_client_that_went_away_leaves_the_queue(rig: Rig) -> None:
    context: ssl.SSLContext = rig.context
    with busy(rig, "ci", basic("build-bot") | BOT):
        with socket.create_connection(("127.0.0.1", rig.https_port)) as plain, context.wrap_socket(plain, server_hostname=HOSTNAME) as client:
            client.sendall(f"GET {CLONE} HTTP/1.1\r\nHost: {CI_HOSTNAME}\r\n\r\n".encode())
            wait_beside_threads(lambda: queued(rig, "ci") == 1)
        wait_beside_threads(lambda: queued(rig, "ci") == 0)


@pytest.mark.parametrize("way", ["body", "query", "bearer"])
def test_a_bot_is_known_by_its_api_key_of_which_the_balancer_has_an_hmac_only(rig: Rig, way: str) -> None:
    def who(key: str) -> str:
        headers = {"Content-Type": "application/json", "User-Agent": "curl/8"}
        if way == "bearer":
            return rig.request("GET", "/repo/feed/atom", headers | {"Authorization": f"Bearer {key}"}).seen("x-kallithea-who")
        if way == "query":
            return rig.request("GET", f"/repo/feed/atom?api_key={key}", headers).seen("x-kallithea-who")
        body = json.dumps({"id": 1, "api_key": key, "method": "get_repos", "args": {}}).encode()
        return rig.request("POST", "/_admin/api", headers, body=body).seen("x-kallithea-who")

    assert who(API_KEY) == "bot"
    assert who(API_KEY[::-1]) == "person"
    for path in rig.folder.iterdir():
        if path.is_file():
            assert API_KEY.encode() not in path.read_bytes(), path


def test_a_slow_line_is_waited_for(rig: Rig) -> None:
    body = json.dumps({"api_key": API_KEY}).encode()
    context: ssl.SSLContext = rig.context
    with socket.create_connection(("127.0.0.1", rig.https_port), 15) as plain, context.wrap_socket(plain, server_hostname=HOSTNAME) as client:
        client.sendall(f"POST /_admin/api HTTP/1.1\r\nHost: {HOSTNAME}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body[:5])
        time.sleep(3)
        client.sendall(body[5:])
        assert client.recv(100).startswith(b"HTTP/1.1 200")


def test_an_account_of_a_person_outweighs_the_program_alone(rig: Rig) -> None:
    program = {"User-Agent": "python-requests/2.32"}
    assert rig.request("GET", "/", program).seen("x-kallithea-who") == "bot"
    assert rig.request("GET", "/", program | basic("scripter")).seen("x-kallithea-who") == "person"
    assert rig.request("GET", "/", program | basic("scripter"), source="127.0.0.9").seen("x-kallithea-who") == "bot"
    assert rig.request("GET", "/", BOT | basic("scripter")).seen("x-kallithea-who") == "bot"
    assert rig.request("GET", f"/?api_key={API_KEY}", PERSON | basic("scripter")).seen("x-kallithea-who") == "bot"


def test_an_operator_sees_why(rig: Rig) -> None:
    answer = rig.request("GET", "/repo", {"User-Agent": "Googlebot/2.1"}, source="127.0.0.5")
    assert answer.headers["X-Kallithea-Verdict"] == "who=bot signal=agent what=ui pool=ci"
    assert rig.request("GET", "/repo", {"User-Agent": "Googlebot/2.1"}).headers["X-Kallithea-Verdict"] is None


def test_crawlers_are_asked_to_stay_away(rig: Rig) -> None:
    answer = rig.request("GET", "/robots.txt", {"User-Agent": "Googlebot/2.1"})
    assert (answer.status, answer.text) == (200, "User-agent: *\nDisallow: /\n")


def test_requests_are_counted_by_who_and_why(rig: Rig) -> None:
    def count(labels: str) -> int:
        lines = rig.request("GET", "/metrics/kallithea", tls=False, port=rig.metrics_port).text.splitlines()
        return sum(int(line.rpartition(" ")[2]) for line in lines if line.startswith("kallithea_balancer_requests_total{" + labels))

    labels = 'who="bot",signal="network",pool="ci"'
    before = count(labels)
    for _ in range(3):
        rig.request("GET", "/repo", PERSON, source="127.0.0.9")
    assert count(labels) == before + 3


def test_pages_are_compressed_and_streams_are_not(rig: Rig) -> None:
    packed = {"Accept-Encoding": "gzip"}
    assert rig.request_raw("GET", "/page", PERSON | packed).headers["Content-Encoding"] == "gzip"
    assert rig.request_raw("GET", "/page", PERSON).headers["Content-Encoding"] is None
    # The same type, so that only the pool decides.
    assert rig.request_raw("GET", "/page/info/refs?service=git-upload-pack", packed | {"User-Agent": "git/2"}).headers["Content-Encoding"] is None


def test_reads_of_a_repository_come_to_one_node_and_spill_over(rig: Rig) -> None:
    git = {"User-Agent": "git/2.47.3"}

    def taken() -> dict[str, int]:
        return {name: number for name, number in rig.counts("be_scm", "stot").items() if name != "BACKEND"}

    warm = set()
    for repository in range(12):
        before = taken()
        for _ in range(3):
            # The last answer is read before its process counts as free: the warm node would be passed over.
            wait_beside_threads(lambda: in_flight(rig, "scm") == 0)
            assert rig.request("GET", f"/repo{repository}/info/refs?service=git-upload-pack", git).status == 200
        (node,) = [name for name, number in taken().items() if number - before[name] == 3]
        warm.add(node)
    assert warm == {"node1", "node2"}, "other repositories, other nodes"
    with busy(rig, "scm", git, count=4):
        assert rig.counts("be_scm", "scur") == {"node1": 2, "node2": 2, "BACKEND": 4}


def test_many_reads_at_the_same_moment_fill_all_nodes(rig: Rig) -> None:
    """None waits for the warm node alone while another one is free."""

    def has_begun(count: int) -> bool:
        return server.started - first >= count

    server = rig.servers["scm"]
    first = server.started
    for number in range(1, 6):
        server.release.clear()
        with concurrent.futures.ThreadPoolExecutor(8) as threads:
            sent = [threads.submit(rig.request, "GET", CLONE, {"User-Agent": "git/2"}) for _ in range(5)]
            wait_beside_threads(functools.partial(has_begun, 5 * number - 1))
            server.release.set()
            assert {entry.result(timeout=15).status for entry in sent} == {200}


def test_reads_leave_a_drained_node(rig: Rig) -> None:
    for repository in range(8):
        rig.ask("set server be_scm/node1 state drain")
        try:
            before = rig.counts("be_scm", "stot")["node1"]
            assert rig.request("GET", f"/repo{repository}/info/refs?service=git-upload-pack", {"User-Agent": "git/2"}).status == 200
            assert rig.counts("be_scm", "stot")["node1"] == before
        finally:
            rig.ask("set server be_scm/node1 state ready")


def test_a_host_that_refuses_draws_nobody(tmp_path: pathlib.Path) -> None:
    """It has the fewest requests in flight, and answers fastest: without a process."""
    rig = Rig(tmp_path, ("node1", "node2"))
    end_node2 = rig.move_node("node2", "127.0.0.2")
    answers: collections.Counter[int] = collections.Counter()

    def look(end: float) -> None:
        while time.monotonic() < end:
            try:
                answers[rig.request("GET", "/slow", PERSON).status] += 1
            except OSError:
                answers[0] += 1

    try:
        rig.start()
        rig.servers["ui"].release.set()
        with concurrent.futures.ThreadPoolExecutor(6) as threads:
            people = [threads.submit(look, time.monotonic() + 3) for _ in range(6)]
            time.sleep(1)
            end_node2()
        for one in people:
            one.result()
    finally:
        rig.stop()
    assert answers.keys() <= {0, 200, 502}
    assert answers[200] > 20
    assert answers[0] + answers[502] <= 6, "at most what each of them asked for at that moment"


def test_pages_of_the_office_are_not_slowed_by_much_in_flight_of_one_address(rig: Rig) -> None:
    """Requests without a credential count for their address; they wait their turn and are all answered."""
    with concurrent.futures.ThreadPoolExecutor(30) as threads:
        sent = [threads.submit(rig.request, "GET", f"/p{number}", PERSON) for number in range(60)]
        assert {entry.result(timeout=15).status for entry in sent} == {200}


def test_the_log_names_the_reason_and_no_key(tmp_path: pathlib.Path) -> None:
    with running(tmp_path, ("node1",), kallithea_loadbalancer_bot_api_keys=[API_KEY]) as rig:
        rig.request("POST", "/_admin/api", {"User-Agent": "curl/8"}, body=json.dumps({"api_key": API_KEY}).encode())
        wait_beside_threads(lambda: "who=bot signal=key what=ui pool=ci" in rig.log.read_text(encoding="utf-8"))
        assert API_KEY not in rig.log.read_text(encoding="utf-8")
