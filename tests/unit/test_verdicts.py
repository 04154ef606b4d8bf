"""The verdict table and the balancer's other promises, against a real HAProxy."""

from __future__ import annotations

import base64
import concurrent.futures
import functools
import http.client
import json
import os
import pathlib
import re
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from ansible_collections.kallithea.cluster.plugins.filter import haproxy as filters
from ansible_collections.kallithea.cluster.plugins.module_utils import balancer
from haproxy_rig import CI_HOSTNAME, HOSTNAME, POOLS, Rig, running, wait_beside_threads, wait_for

TABLE: dict[str, list[dict[str, Any]]] = yaml.safe_load((pathlib.Path(__file__).parent / "verdicts.yml").read_text(encoding="utf-8"))
ROWS = [(f"{kind}: {row['name']}", row) for kind, rows in TABLE.items() for row in rows]


def basic(account: str) -> dict[str, str]:
    """Return the header of an account."""
    return {"Authorization": "Basic " + base64.b64encode(f"{account}:secret-of-{account}".encode()).decode()}


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    with running(tmp_path_factory.mktemp("haproxy")) as started:
        yield started


def test_the_table_is_long_enough() -> None:
    assert len(ROWS) >= 40
    assert len({name for name, _ in ROWS}) == len(ROWS)


@pytest.mark.parametrize("row", [row for _, row in ROWS], ids=[name for name, _ in ROWS])
def test_verdict(rig: Rig, row: dict[str, Any]) -> None:
    headers = {"Host": CI_HOSTNAME if row.get("host") == "ci" else HOSTNAME, "User-Agent": row["agent"]}
    if "accept" in row:
        headers["Accept"] = row["accept"]
    if "auth" in row:
        headers.update(basic(row["auth"]))
    headers.update(row.get("headers", {}))
    method = row.get("method", "GET")
    begin = rig.log.stat().st_size
    answer = rig.request(method, row["path"], headers, body=b"0000" if method == "POST" else None, source=row.get("source", "127.0.0.1"))
    assert answer.status == row.get("status", 200), answer.text
    if row["pool"] == "-":
        assert answer.headers["WWW-Authenticate"] == 'Basic realm="Kallithea"'
    else:
        said = ("", "") if row["what"] == "static" else (row["who"], row["what"])
        assert (answer.seen("x-kallithea-who"), answer.seen("x-kallithea-what"), answer.echo["pool"]) == (*said, row["pool"])
        # The test's backend shortens a first //.
        assert answer.echo["path"] == re.sub("^/+", "/", row["path"])
    if row["what"] == "static":
        return
    wait_for(lambda: rig.log.read_bytes()[begin:].endswith(b"\n"))
    line = rig.log.read_bytes()[begin:].decode()
    assert f"who={row['who']} signal={row.get('signal', 'none')} what={row['what']}" in line


def test_static_files_leave_a_line_only_where_they_fail(rig: Rig) -> None:
    begin = rig.log.stat().st_size
    assert rig.request("GET", "/css/style.css").status == 200
    assert rig.request("GET", "/css/refused.css").status == 401
    wait_for(lambda: b"path=/css/refused.css" in rig.log.read_bytes()[begin:])
    assert b"path=/css/style.css" not in rig.log.read_bytes()[begin:]


def test_headers_of_identity_are_dropped(rig: Rig) -> None:
    forged = {
        "X-Forwarded-For": "198.51.100.1",
        "X-Forwarded-Proto": "http",
        "X-Forwarded-User": "admin",
        "X-Forwarded-Host": "evil.example",
        "Forwarded": "for=198.51.100.1",
        "X-Real-IP": "198.51.100.1",
        "Remote-User": "admin",
        "Remote_User": "admin",
        "X-Remote-User": "admin",
        "X-Remote-Email": "a@b",
        "Proxy": "http://evil.example",
        "X-Kallithea-Who": "person",
        "X-Kallithea-What": "static",
        "X-Kallithea-Other": "x",
        "X-Original-URL": "/_admin",
    }
    seen = rig.request("GET", "/", {**forged, "User-Agent": "Mozilla/5.0"}).echo["headers"]
    for name in forged:
        if name in ("X-Forwarded-For", "X-Forwarded-Proto", "X-Kallithea-Who", "X-Kallithea-What"):
            continue
        assert name.lower() not in seen
    assert seen["x-forwarded-for"] == ["127.0.0.1"]
    assert seen["x-forwarded-proto"] == ["https"]
    assert seen["x-kallithea-what"] == ["ui"]


def test_cookies_and_credentials_pass(rig: Rig) -> None:
    answer = rig.request("GET", "/", {**basic("jane"), "Cookie": "kallithea=abc"})
    assert answer.seen("cookie") == "kallithea=abc"
    assert answer.seen("authorization").startswith("Basic ")


def test_http_goes_to_https(rig: Rig) -> None:
    answer = rig.request("GET", "/repo?x=1", tls=False)
    assert (answer.status, answer.headers["Location"]) == (301, f"https://{HOSTNAME}:{rig.https_port}/repo?x=1")
    assert rig.request("GET", "//evil.example/", tls=False).headers["Location"].startswith(f"https://{HOSTNAME}:")
    answer = rig.request("GET", "/repo", {"Host": CI_HOSTNAME.upper() + ":80"}, tls=False)
    assert answer.headers["Location"] == f"https://{CI_HOSTNAME}:{rig.https_port}/repo"
    assert rig.request("POST", "/_admin/login", body=b"password=x", tls=False).status == 403


@pytest.mark.parametrize("host", ["evil.example", f"{HOSTNAME}.evil.example", f"evil.example/{HOSTNAME}", "", "127.0.0.1", f"{HOSTNAME}@evil.example"])
@pytest.mark.parametrize("tls", [False, True])
def test_a_forged_host_gets_no_redirect(rig: Rig, host: str, tls: bool) -> None:
    answer = rig.request("GET", "/", {"Host": host, "X-Forwarded-Host": host}, tls=tls)
    assert answer.status in (400, 421)
    assert answer.headers["Location"] is None


@pytest.mark.parametrize("tls", [False, True])
def test_trace_is_refused(rig: Rig, tls: bool) -> None:
    assert rig.request("TRACE", "/", tls=tls).status == 405


def test_hsts(rig: Rig) -> None:
    assert rig.request("GET", "/").headers["Strict-Transport-Security"] == "max-age=63072000"


def test_tls_is_modern(rig: Rig) -> None:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["h2", "http/1.1"])
    with socket.create_connection(("127.0.0.1", rig.https_port)) as plain, context.wrap_socket(plain, server_hostname=HOSTNAME) as secure:
        assert secure.selected_alpn_protocol() == "http/1.1"
        assert secure.version() == "TLSv1.3"


def test_a_push_without_a_name_is_answered_before_its_body(rig: Rig) -> None:
    context = rig.context
    with socket.create_connection(("127.0.0.1", rig.https_port), timeout=5) as plain, context.wrap_socket(plain, server_hostname=HOSTNAME) as secure:
        secure.sendall(f"POST /repo/git-receive-pack HTTP/1.1\r\nHost: {HOSTNAME}\r\nContent-Length: 2000000000\r\n\r\n".encode())
        assert secure.recv(4096).startswith(b"HTTP/1.1 401")


def test_many_heads_of_mercurial_pass(rig: Rig) -> None:
    nodes = "+".join(f"{number:040x}" for number in range(4000))
    argument = "cmds=known+nodes%3D" + nodes
    headers = {f"X-HgArg-{number + 1}": argument[start : start + 1000] for number, start in enumerate(range(0, len(argument), 1000))}
    assert len(headers) > 100
    # Python's own server takes 100 headers, so the balancer's log says where it went.
    rig.request("GET", "/heads?cmd=batch", {"Accept": "application/mercurial-0.1", **headers})
    wait_for(lambda: "what=scm pool=scm backend=be_scm server=node1 method=GET path=/heads" in rig.log.read_text(encoding="utf-8"))


def test_the_log_holds_no_secret(rig: Rig) -> None:
    rig.request(
        "GET", "/repo/feed/atom?api_key=verysecretkey", {**basic("jane"), "Cookie": "kallithea=secretcookie", "Referer": "https://x/?token=secrettoken"}
    )
    rig.request("GET", "/repo/?api_key=verysecretkey", {"Host": "secrethost"}, tls=False)
    wait_for(lambda: "path=/repo/feed/atom" in rig.log.read_text(encoding="utf-8") and "status=421" in rig.log.read_text(encoding="utf-8"))
    log = rig.log.read_text(encoding="utf-8")
    for secret in ("verysecretkey", "secretcookie", "secrettoken", "secret-of", base64.b64encode(b"jane:").decode()[:6], "Basic"):
        assert secret not in log


def test_metrics_and_statistics(rig: Rig) -> None:
    answer = rig.request("GET", "/metrics", tls=False, port=rig.metrics_port)
    assert 'haproxy_backend_current_queue{proxy="be_ci"}' in answer.text
    assert rig.request("GET", "/stats;csv", tls=False, port=rig.metrics_port).text.startswith("# pxname")


def test_people_pass_bots_in_the_write_queue_and_the_queue_stands_in_the_balancer(rig: Rig) -> None:
    server = rig.servers["write"]
    server.release.clear()
    first = server.started
    with concurrent.futures.ThreadPoolExecutor(10) as threads:
        busy = [threads.submit(rig.request, "POST", "/slow/git-receive-pack", basic("jane"), body=b"x") for _ in range(2)]
        wait_for(lambda: server.started == first + 2)

        def push(account: str) -> None:
            rig.request("POST", "/slow/git-receive-pack", basic(account), body=b"x")

        def queued(count: int) -> bool:
            sessions = balancer.parse_sessions(rig.ask("show stat"))
            return bool(sessions["be_write", "BACKEND"] + sessions["be_write", "node1"] >= count)

        waiting = [threads.submit(push, "build-bot") for _ in range(3)]
        wait_for(lambda: queued(2 + 3))
        waiting += [threads.submit(push, "jane") for _ in range(2)]
        wait_for(lambda: queued(2 + 5))
        assert server.started == first + 2, "no more at work than there are processes"
        assert rig.request("GET", "/", {"User-Agent": "Mozilla/5.0"}).status == 200
        server.release.set()
        for entry in busy + waiting:
            entry.result(timeout=10)
    assert server.accounts[-5:] == ["jane", "jane", "build-bot", "build-bot", "build-bot"]


def node(rig: Rig) -> balancer.Balancer:
    """Return the balancer as the module sees it."""
    return balancer.Balancer(balancer.ask_socket(rig.socket), f"{rig.folder}/kallithea-hold.map")


def test_a_drain_of_the_only_node_holds_requests_until_it_is_back(rig: Rig) -> None:
    server = rig.servers["scm"]
    server.release.clear()
    first = server.started
    with concurrent.futures.ThreadPoolExecutor(10) as threads:
        clone = threads.submit(rig.request, "GET", "/slow/info/refs?service=git-upload-pack")
        wait_for(lambda: server.started == first + 1)
        drain = threads.submit(node(rig).drain, "node1", 20, 20)
        wait_for(lambda: "scm" in node(rig).held())
        assert rig.request("GET", "/").status == 200, "pages go on while streams end"
        held = threads.submit(rig.request, "GET", "/repo/info/refs?service=git-upload-pack")
        time.sleep(0.4)
        assert not held.done()
        assert not drain.done()
        server.release.set()
        assert clone.result(timeout=5).status == 200
        result = drain.result(timeout=5)
        assert result == {"changed": True, "drained": [], "held": ["static", "ui", "scm", "write", "ci"], "cut": 0}
        page = threads.submit(rig.request, "GET", "/")
        push = threads.submit(rig.request, "POST", "/repo/git-receive-pack", basic("jane"), body=b"x" * 100000)
        time.sleep(0.4)
        assert not held.done()
        assert not page.done()
        assert not push.done()
        assert node(rig).drain("node1", 5, 20)["changed"] is False
        assert node(rig).undrain("node1", 10)["changed"] is True
        assert {entry.result(timeout=5).status for entry in (held, page, push)} == {200}
    assert node(rig).undrain("node1", 10)["changed"] is False
    assert node(rig).held() == {}


def test_a_request_that_is_held_over_a_reload_goes_on(tmp_path: pathlib.Path) -> None:
    saved = tmp_path / "kallithea-hold.map"
    with running(tmp_path) as rig, concurrent.futures.ThreadPoolExecutor(1) as threads:
        until = int(time.time()) + 20
        rig.ask(f"add map {saved} ui {until}")
        held = threads.submit(rig.request, "GET", "/")
        time.sleep(0.5)
        saved.write_text(f"ui {until}\n", encoding="utf-8")
        rig.reload()
        time.sleep(1)
        assert not held.done()
        # What the unit's script does after the new process was told.
        saved.write_text("", encoding="utf-8")
        assert held.result(timeout=15).status == 200


def test_what_does_not_end_in_time_is_cut_so_that_the_client_sees_it(rig: Rig) -> None:
    server = rig.servers["ci"]
    server.release.clear()
    first = server.started
    with concurrent.futures.ThreadPoolExecutor(2) as threads:
        clone = threads.submit(rig.request, "GET", "/slow/info/refs?service=git-upload-pack", {"Host": CI_HOSTNAME})
        wait_for(lambda: server.started == first + 1)
        assert node(rig).drain("node1", 0, 20)["cut"] == 1
        assert clone.result(timeout=5).status in (502, 503)
        server.release.set()
    node(rig).undrain("node1", 10)


def test_a_node_that_is_not_ready_is_taken_out_and_the_reason_is_said(rig: Rig) -> None:
    health = rig.servers["health"]
    health.health = [(200, "ready"), (503, "storage is read-only")]
    try:
        begin = time.monotonic()
        wait_for(lambda: rig.request("POST", "/repo/git-receive-pack", basic("jane"), body=b"").status == 503)
        assert time.monotonic() - begin < 6
        answer = rig.request("POST", "/repo/git-receive-pack", basic("jane"), body=b"")
        assert "storage is read-only" in answer.text
        assert int(answer.headers["Retry-After"]) > 0
        assert rig.request("GET", "/").status == 200
    finally:
        health.health = [(200, "ready"), (200, "writable")]
    said, end = [], time.monotonic() + 10
    while not rig.servers_up():
        assert time.monotonic() < end
        said.append(rig.request("POST", "/repo/git-receive-pack", basic("jane"), body=b"").text)
    assert any("a node is coming back" in text for text in said), said
    assert not [text for text in said if "check passed" in text]


LONG = "storage: " + "x" * 130


@pytest.mark.parametrize(
    ("answers", "words"),
    [
        (("database: not probed yet; pool ui: 2 of its processes not loaded yet",), "a node is starting"),
        (("storage is not mounted; database: not probed yet",), "storage is not mounted"),
        ((f"database: no answer; {LONG}",), "database: no answer"),
        ((LONG,), LONG[:90]),
    ],
)
def test_the_reason_is_said_once_whole_and_in_peoples_words(rig: Rig, answers: tuple[str, ...], words: str) -> None:
    health = rig.servers["health"]
    health.health = [(200, "ready"), (503, "\n".join(answers))]
    try:
        wait_for(lambda: rig.request("POST", "/repo/git-receive-pack", basic("jane"), body=b"").status == 503)
        text = rig.request("POST", "/repo/git-receive-pack", basic("jane"), body=b"").text
        assert text.startswith(f"No node can serve this now: {words}"), text
        assert "not probed" not in text and "not loaded" not in text
        assert len(words) > 80 or text == f"No node can serve this now: {words}\n", text
    finally:
        health.health = [(200, "ready"), (200, "writable")]
    wait_for(rig.servers_up)


HG = shutil.which("hg")
CLIENT = {**os.environ, "GIT_SSL_NO_VERIFY": "1", "GIT_CONFIG_GLOBAL": "/dev/null", "HGRCPATH": "", "HGPLAIN": "1", "no_proxy": "localhost", "LC_ALL": "C"}


def test_who_pushes_while_nobody_can_write_reads_why(tmp_path: pathlib.Path) -> None:
    """git's users and Mercurial's, by their own programs."""
    with running(tmp_path / "haproxy", ("node1",), kallithea_hostname="localhost") as rig:
        rig.servers["health"].health = [(503, "storage is not mounted"), (503, "storage is read-only")]
        site = f"https://jane:secret@localhost:{rig.https_port}/repo"
        # Not by asking: whoever is being answered by a server when it is marked down is cut off.
        wait_for(lambda: rig.counts("be_ui", "act")["BACKEND"] == 0)
        assert rig.request("GET", "/repo?cmd=capabilities", {"Host": "localhost"}).status == 503
        wait_for(lambda: rig.request("POST", "/repo/git-receive-pack", {"Host": "localhost", **basic("jane")}, body=b"").status == 503)
        work = tmp_path / "work"
        for words in (["init", "-q", str(work)], ["-C", str(work), "-c", "user.name=a", "-c", "user.email=a@b", "commit", "-q", "--allow-empty", "-m", "1"]):
            subprocess.run(["git", *words], env=CLIENT, check=True, timeout=20)
        pushed = subprocess.run(["git", "-C", str(work), "push", site, "HEAD:main"], env=CLIENT, capture_output=True, text=True, check=False, timeout=20)
        assert pushed.returncode != 0
        assert "remote: No node can serve this now: storage is read-only" in pushed.stderr, pushed.stderr
        mercurial = {"Host": "localhost", "Accept": "application/mercurial-0.1", **basic("jane")}
        answer = rig.request("POST", "/repo?cmd=unbundle", mercurial, body=b"x")
        assert (answer.status, answer.headers["Content-Type"]) == (200, "application/hg-error")
        assert answer.text.startswith("No node can serve this now: storage is read-only")
        if HG:
            asked = subprocess.run([HG, "id", "--insecure", site], env=CLIENT, capture_output=True, text=True, check=False, timeout=20)
            assert asked.returncode != 0
            assert "No node can serve this now: storage is not mounted" in asked.stderr, asked.stderr


def test_behind_another_proxy_address_and_scheme_come_from_it_alone(tmp_path: pathlib.Path) -> None:
    values = {
        "kallithea_loadbalancer_tls": "off",
        "kallithea_loadbalancer_trusted_proxies": ["127.0.0.1"],
        "kallithea_loadbalancer_bot_networks": ["192.0.2.0/24"],
    }
    with running(tmp_path, ("node1",), **values) as rig:
        proxied = {"X-Forwarded-For": "192.0.2.7, 203.0.113.5", "X-Forwarded-Proto": "https"}
        answer = rig.request("GET", "/", proxied, tls=False)
        assert answer.seen("x-forwarded-for") == "203.0.113.5"
        assert answer.seen("x-kallithea-who") == "person"
        assert rig.request("GET", "/", {**proxied, "X-Forwarded-For": "203.0.113.5, 192.0.2.7"}, tls=False).seen("x-kallithea-who") == "bot"
        answer = rig.request("GET", "/", {"X-Forwarded-For": "203.0.113.5"}, tls=False)
        assert (answer.status, answer.headers["Location"]) == (301, f"https://{HOSTNAME}/")
        answer = rig.request("GET", "/", proxied, tls=False, source="127.0.0.2")
        assert answer.status == 301, "a stranger's headers count for nothing"
        # Two clients on one connection of the proxy.
        connection = http.client.HTTPConnection("127.0.0.1", rig.http_port)
        for address in ("203.0.113.8", "203.0.113.9"):
            connection.request("GET", "/", headers={"Host": HOSTNAME, "X-Forwarded-For": address, "X-Forwarded-Proto": "https"})
            assert f'"x-forwarded-for": ["{address}"]' in connection.getresponse().read().decode()
        connection.close()


def test_with_two_nodes_one_writes_a_repository_and_a_drain_moves_it(tmp_path: pathlib.Path) -> None:
    with running(tmp_path, nodes=("node1", "node2")) as rig:

        def writers() -> list[str]:
            hg = {**basic("jane"), "Accept": "application/mercurial-0.1"}
            begin = len(rig.log.read_text(encoding="utf-8"))
            for repository in range(8):
                rig.request("GET", f"/group/repo{repository}/info/refs?service=git-receive-pack", basic("jane"))
                rig.request("POST", f"//group/repo{repository}//git-receive-pack", basic("jane"), body=b"x")
                rig.request("POST", f"/group/%72epo{repository}/?cmd=unbundle", hg, body=b"x")

            def found() -> list[str]:
                return re.findall(r"backend=be_write server=(\S+) .*\n", rig.log.read_text(encoding="utf-8")[begin:])

            wait_for(lambda: len(found()) == 24)
            return found()

        before = writers()
        assert len(before) == 24
        assert all(len(set(before[start : start + 3])) == 1 for start in range(0, 24, 3))
        assert set(before) == {"node1", "node2"}
        result = node(rig).drain("node1", 5, 5)
        assert result["held"] == []
        assert result["drained"] == [f"be_{pool}" for pool in POOLS]
        assert set(writers()) == {"node2"}
        assert node(rig).drain("node1", 5, 5)["changed"] is False
        assert node(rig).undrain("node1", 10)["changed"] is True
        assert writers() == before


BOT = {"User-Agent": "jenkins"}


def test_bots_fill_the_ci_nodes_then_the_application_nodes_then_wait(tmp_path: pathlib.Path) -> None:
    with running(tmp_path, ("node1", "node2", "ci1")) as rig, concurrent.futures.ThreadPoolExecutor(20) as threads:
        server = rig.servers["ci"]

        def clones(count: int, running: dict[str, int], waiting: int = 0) -> list[concurrent.futures.Future[Any]]:
            """Send slow clones and see where they run."""
            sent = [threads.submit(rig.request, "GET", "/slow/info/refs?service=git-upload-pack", BOT) for _ in range(count)]
            wait_beside_threads(lambda: {name: number for name, number in rig.counts("be_ci", "scur").items() if name != "BACKEND"} == running)
            wait_beside_threads(lambda: rig.counts("be_ci", "qcur")["BACKEND"] == waiting)
            return sent

        sent = clones(2, {"ci1": 2, "node1": 0, "node2": 0})
        sent += clones(2, {"ci1": 2, "node1": 2, "node2": 0})
        sent += clones(2, {"ci1": 2, "node1": 2, "node2": 2})
        sent += clones(4, {"ci1": 2, "node1": 2, "node2": 2}, waiting=4)
        assert rig.request("GET", "/repo/info/refs?service=git-upload-pack", {"User-Agent": "git/2.39.5"}).status == 200, "people's clones do not wait"
        server.release.set()
        assert {entry.result(timeout=10).status for entry in sent} == {200}

        # Free again, the CI node is asked first.
        before = rig.counts("be_ci", "stot")
        for _ in range(4):
            assert rig.request("GET", "/", BOT).status == 200
        after = rig.counts("be_ci", "stot")
        assert {name: after[name] - before[name] for name in after} == {"ci1": 4, "node1": 0, "node2": 0, "BACKEND": 4}

        # Away, it is missed by nobody.
        rig.ask("disable health be_ci/ci1")
        rig.ask("set server be_ci/ci1 health down")
        server.release.clear()
        sent = clones(5, {"ci1": 0, "node1": 2, "node2": 2}, waiting=1)
        server.release.set()
        assert {entry.result(timeout=10).status for entry in sent} == {200}

        # A drain of the CI node holds nothing.
        rig.ask("set server be_ci/ci1 health up")
        result = node(rig).drain("ci1", 5, 5)
        assert (result["drained"], result["held"]) == (["be_ci"], [])
        before = rig.counts("be_ci", "stot")
        assert rig.request("GET", "/", BOT).status == 200
        assert rig.counts("be_ci", "stot")["ci1"] == before["ci1"]


def test_a_bot_known_by_its_account_goes_to_the_ci_pool_from_its_first_authenticated_request_on(rig: Rig) -> None:
    connection = http.client.HTTPSConnection("127.0.0.1", rig.https_port, timeout=15, context=rig.context)

    def pool(path: str, headers: dict[str, str]) -> str:
        connection.request("GET", path, headers={"Host": HOSTNAME, **headers})
        return str(json.loads(connection.getresponse().read())["pool"])

    for path, headers in (
        ("/repo/info/refs?service=git-upload-pack", {"User-Agent": "git/2.39.5"}),
        ("/repo/?cmd=capabilities", {"User-Agent": "mercurial/proto-1.0", "Accept": "application/mercurial-0.1"}),
    ):
        # Without a name at first, as git and hg ask; then with it, over the same connection.
        accounts: tuple[dict[str, str], ...] = ({}, basic("build-bot"), basic("build-bot"), basic("jane"))
        assert [pool(path, {**headers, **account}) for account in accounts] == ["scm", "ci", "ci", "scm"]
    connection.close()


@pytest.mark.parametrize("balance", filters.BALANCES)
def test_pages_are_spread_as_the_manual_names_it(tmp_path: pathlib.Path, balance: str) -> None:
    with running(tmp_path, ("node1", "node2"), kallithea_loadbalancer_balance=balance) as rig:
        assert f"balance {balance}\n" in (tmp_path / "haproxy.cfg").read_text(encoding="utf-8")

        def spread(sources: list[str]) -> list[int]:
            before = rig.counts("be_ui", "stot")
            for source in sources:
                assert rig.request("GET", "/", {"User-Agent": "Mozilla/5.0"}, source=source).status == 200
            after = rig.counts("be_ui", "stot")
            return sorted(after[name] - before[name] for name in ("node1", "node2"))

        def running_pages(number: int) -> bool:
            return rig.counts("be_ui", "scur")["BACKEND"] == number

        if balance == "roundrobin":
            assert spread(["127.0.0.1"] * 10) == [5, 5]
        elif balance == "source":
            assert spread(["127.0.0.1"] * 10) == [0, 10]
            assert min(spread([f"127.0.1.{number}" for number in range(1, 21)])) > 0, "other people, other nodes"
        else:
            server = rig.servers["ui"]
            server.release.clear()
            with concurrent.futures.ThreadPoolExecutor(4) as threads:
                busy = []
                for number in range(1, 5):
                    busy.append(threads.submit(rig.request, "GET", "/slow"))
                    wait_for(functools.partial(running_pages, number))
                assert rig.counts("be_ui", "scur") == {"node1": 2, "node2": 2, "BACKEND": 4}
                server.release.set()
                assert {entry.result(timeout=5).status for entry in busy} == {200}


def test_a_drain_outlives_a_ci_node_that_is_added(tmp_path: pathlib.Path) -> None:
    with running(tmp_path, ("node1", "node2")) as rig:
        node(rig).drain("node1", 5, 5)
        state = rig.ask("show servers state")
        nodes = rig.values["kallithea_loadbalancer_app_nodes"]
        nodes.append({"name": "ci1", "address": "127.0.0.1", "ci": True, "pools": {"ci": nodes[0]["pools"]["ci"]}})
        rig.write()
        (tmp_path / "kallithea-server-state").write_text(state, encoding="utf-8")
        rig.reload()
        drained = {(server.backend, server.name) for server in node(rig).servers() if server.drained}
        assert drained == {(f"be_{pool}", "node1") for pool in POOLS}


NASTY_AGENTS = {
    """it's "quoted" #[0-9]+$""": """build it's "quoted" #12""",
    r"back\\slash \d+$": "back\\slash 7",
    "-i minus": "some -i minus sign",
    r"\$\{HOME\} %\[src\]": "${HOME} %[src]",
    "-- two": "x -- two",
    "{ braces } \\|\\|": "a { braces } || b",
    "-f": "tool -f",
    "!important if": "an !important if",
    "(a{1000}|" + "b" * 1800 + ")": "b" * 1800,
}
NASTY_ACCOUNTS = ["o'neil", 'a"b', "back\\slash", "#hash", "-i", "-f", "--", "${HOME}", "!not", "{x}", "||", "j\u00f6rg", "42"]


def test_no_entry_of_a_list_has_a_meaning_for_haproxy(tmp_path: pathlib.Path) -> None:
    values = {
        "kallithea_loadbalancer_bot_user_agents": list(NASTY_AGENTS),
        "kallithea_loadbalancer_bot_accounts": NASTY_ACCOUNTS,
        "kallithea_loadbalancer_bot_networks": ["2001:db8::/32", "::ffff:192.0.2.0/120", "127.0.0.9", "198.51.100.77/24"],
        "kallithea_loadbalancer_metrics_networks": [f"203.0.113.{number}" for number in range(200)],
    }
    problems = filters.balancer_problems(
        {
            **dict.fromkeys(("nodes", "hostname", "certificate", "certificate_key", "trusted_proxies", "proxy_protocol"), "x"),
            **{name.removeprefix("kallithea_loadbalancer_"): value for name, value in values.items()},
            "trusted_proxies": [],
            "proxy_protocol": False,
            "app_nodes": [{"name": "node1", "pools": {pool: {"processes": 2} for pool in POOLS}}],
            "tls": "private_ca",
            "balance": "leastconn",
            "queue_seconds": dict.fromkeys(POOLS, 1),
            "bot_api_keys": [],
            "person_accounts": [],
            "explain_networks": [],
            "robots": "",
            "metrics_bind": "127.0.0.1:8405",
            "in_flight": {"person": 1, "bot": 1},
            "maxconn": 4000,
            "threads": 2,
        }
    )
    assert problems == []
    with running(tmp_path, ("node1",), **values) as rig:
        for agent in NASTY_AGENTS.values():
            assert rig.request("GET", "/", {"User-Agent": agent}).seen("x-kallithea-who") == "bot", agent
        for account in NASTY_ACCOUNTS:
            assert rig.request("GET", "/", {**basic(account), "User-Agent": "x"}).seen("x-kallithea-who") == "bot", account
        assert rig.request("GET", "/", {"User-Agent": "x"}, source="127.0.0.9").seen("x-kallithea-who") == "bot"
        assert rig.request("GET", "/", {**basic("jane"), "User-Agent": "Mozilla/5.0"}).seen("x-kallithea-who") == "person"


def test_empty_lists(tmp_path: pathlib.Path) -> None:
    lists = ("bot_user_agents", "bot_accounts", "bot_networks")
    with running(tmp_path, ("node1",), **{f"kallithea_loadbalancer_{name}": [] for name in lists}) as rig:
        assert rig.request("GET", "/", {"User-Agent": "jenkins"}).seen("x-kallithea-who") == "person"


def test_two_balancers_share_the_processes(tmp_path: pathlib.Path) -> None:
    balancers = [{"name": "lb1", "address": "192.0.2.1"}, {"name": "lb2", "address": "192.0.2.2"}]
    rig = Rig(tmp_path, ("node1", "ci1"), kallithea_loadbalancer_nodes=balancers)
    try:
        config = rig.write().read_text(encoding="utf-8")
    finally:
        rig.stop()
    assert set(re.findall(r"maxconn (\d+)$", config, re.MULTILINE)) == {"4000", "1"}
