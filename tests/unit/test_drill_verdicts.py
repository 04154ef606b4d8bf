"""What the drill makes of a client's words, of an edit's page, of moments and of races."""

from __future__ import annotations

import http.server
import stat
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from drill import report, site
from drill.commands import Done
from drill.journal import ACKNOWLEDGED, FAILED, REFUSED, UNKNOWN, Push, Story
from drill.places import place_of
from drill.proof import Found
from drill.scm import Tools, outcome_of

NON_FAST_FORWARD = "To https://kallithea.example/one\n ! [rejected]        1f -> master (fetch first)\nerror: failed to push some refs"
REF_LOCKED = "To https://kallithea.example/one\n ! [remote rejected] 1f -> master (failed to update ref)\nerror: failed to push some refs"
NO_SPACE = "To https://kallithea.example/one\n ! [remote rejected] 1f -> master (unpacker error)\nerror: failed to push some refs"
DIED = "error: RPC failed; curl 52 Empty reply from server\nsend-pack: unexpected disconnect while reading sideband packet\nfatal: the remote end hung up"


@pytest.mark.parametrize(
    ("status", "said", "result"),
    [
        (0, "", ACKNOWLEDGED),
        (None, "", UNKNOWN),
        (None, NON_FAST_FORWARD, UNKNOWN),
        (1, NON_FAST_FORWARD, REFUSED),
        (1, REF_LOCKED, REFUSED),
        (1, "remote: error: cannot lock ref 'refs/heads/master': is at 1f but expected 2e", REFUSED),
        (1, NO_SPACE, FAILED),
        (1, "remote: Please try again in a minute.\nerror: remote unpack failed: Please try again in a minute.", FAILED),
        (128, DIED, UNKNOWN),
        (128, "fatal: unable to access 'https://kallithea.example/one/': The requested URL returned error: 503", FAILED),
        (128, "fatal: unable to access 'https://kallithea.example/one/': Failed to connect to kallithea.example port 443", FAILED),
        (128, "error: RPC failed; HTTP 503 curl 22 The requested URL returned error: 503", FAILED),
        (128, "error: RPC failed; HTTP 502 curl 22 The requested URL returned error: 502", UNKNOWN),
        (128, "error: RPC failed; HTTP 504 curl 22 The requested URL returned error: 504", UNKNOWN),
        (255, "abort: push creates new remote head 1f (merge or see 'hg help push' for details)", REFUSED),
        (255, "abort: push failed:\n'repository changed while pushing - please try again'", REFUSED),
        (255, "remote: waiting for lock on repository one held by 'app1:1'\nabort: HTTP Error 502: Bad Gateway", UNKNOWN),
        (255, "abort: repository one: timed out waiting for lock held by 'app1:1'", REFUSED),
        (255, "abort: HTTP Error 503: Service Unavailable", FAILED),
        (255, "abort: HTTP Error 500: Internal Server Error", UNKNOWN),
        (255, "abort: remote error:\nnobody can write now", FAILED),
        (255, "abort: error: Connection refused", FAILED),
        (255, "abort: error: Connection reset by peer", UNKNOWN),
        (255, "", UNKNOWN),
    ],
)
def test_outcome_of_a_push(status: int | None, said: str, result: str) -> None:
    """An ordinary refusal, an answer that says no, and everything that is not sure."""
    assert outcome_of(Done(status, "", said, 0.1)).result == result


@pytest.mark.parametrize(
    ("status", "said", "result"),
    [
        (302, "<div>Successfully committed to word</div>", ACKNOWLEDGED),
        (302, "<div>You can only edit files with revision being a valid branch</div>", REFUSED),
        (302, "<div>Error occurred during commit</div>", REFUSED),
        (302, "<title>Log In</title>", UNKNOWN),
        (403, "", FAILED),
        (503, "Nobody can write now.", FAILED),
        (500, "", UNKNOWN),
        (502, "", UNKNOWN),
    ],
)
def test_outcome_of_an_edit(status: int, said: str, result: str) -> None:
    """The status alone says nothing."""
    assert site.edited(status, said).result == result


A, R, F, U = ACKNOWLEDGED, REFUSED, FAILED, UNKNOWN


@pytest.mark.parametrize(
    ("results", "present", "missing", "tips", "decided", "faults"),
    [
        ([A, R], [True, False], [], ["x", "x"], True, []),
        ([R, A], [False, True], [], ["x"], True, []),
        ([A, A], [True, True], [], ["x"], True, ["both pushes were acknowledged"]),
        ([A, A], [True, False], [], ["x"], True, ["both pushes were acknowledged", "an acknowledged push is not in the history"]),
        ([R, R], [False, False], [], ["x"], True, ["both pushes were refused"]),
        ([A, R], [True, True], [], ["x"], True, ["a refused push is in the history"]),
        ([A, R], [False, False], [], ["x"], True, ["an acknowledged push is not in the history"]),
        ([A, R], [True, False], ["c1"], ["x"], True, ["c1 was acknowledged in an earlier round and is no longer in the history"]),
        ([A, R], [True, False], [], ["x", "y"], True, ["the places do not agree on the newest commit: x, y"]),
        ([A, U], [True, False], [], ["x"], False, []),
        ([U, U], [True, False], [], ["x"], False, []),
        ([F, R], [False, False], [], ["x"], False, []),
    ],
)
def test_judgement_of_a_race(results: list[str], present: list[bool], missing: list[str], tips: list[str], decided: bool, faults: list[str]) -> None:
    """Exactly one wins, the loser is not in the history, nothing earlier disappears, all places agree."""
    assert report.judge_round(results, present, missing, tips) == (decided, faults)


def test_longest_gap() -> None:
    """From the first beginning over all successes to the last end."""
    assert report.gap([]) is None
    assert report.gap([(0, 1, True), (1, 2, True), (2, 9, False), (9, 10, True), (10, 11, True)]) == 8
    assert report.gap([(0, 5, False), (5, 6, True)]) == 6
    assert report.gap([(0, 1, True), (1, 8, False)]) == 7


def test_recovery() -> None:
    """Is counted to the success that no failure follows; one that began before the fault proves nothing."""
    work = [(0.0, 1.0, True), (9.0, 11.0, True), (11.0, 12.0, True), (12.0, 20.0, False), (20.5, 21.0, True), (21.0, 22.0, True)]
    assert report.next_success(work, 10) == 2
    assert report.recovery(work, 10, 100) == 11
    assert report.recovery(work, 0, 10) == 1
    assert report.recovery([(0.0, 1.0, True), (1.0, 30.0, False)], 10, 100) is None
    # The second one fails by what began at 20.
    assert report.recovery([(11.0, 12.0, True), (19.0, 25.0, False)], 10, 20) == 2


def test_places_that_cannot_be_read_prove_no_loss() -> None:
    """They are damage; only what was read and lacks a push counts as lost."""
    story = Story(mode="check", repositories={"one": "git"}, pushes={1: Push(1, "one", "c" * 40, "word", "balancer", 0.0, 1.0, ACKNOWLEDGED)})
    said = report.summary(story, [Found("app1", "one", None, "one cannot be cloned through app1"), Found("app2", "one", {"c" * 40: "word"})])
    assert (said["lost"], said["damage"]) == ([], ["one cannot be cloned through app1"])
    assert report.is_bad(said)
    assert "DAMAGE: one cannot be cloned through app1" in report.as_text(said)


def test_place() -> None:
    """A node has one address, or one to read and one to write."""
    assert place_of("app1=http://192.0.2.1:8082/,http://192.0.2.1:8083").write == "http://192.0.2.1:8083"
    assert place_of("app1=http://192.0.2.1:8082").write == "http://192.0.2.1:8082"
    with pytest.raises(ValueError, match="is not NAME=URL"):
        place_of("http://192.0.2.1:8082")


def test_password_is_in_private_files_alone(tmp_path: Path) -> None:
    """Neither in the environment nor in what others may read."""
    tools = Tools(tmp_path, 10, "/ca.crt")
    tools.prepare("admin", "verysecret")
    assert "verysecret" not in str(tools.environment)
    holders = [path for path in tmp_path.iterdir() if "verysecret" in path.read_text()]
    assert {path.name for path in holders} == {"password", "hgrc"}
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in holders)
    assert tools.run(["sh", str(tmp_path / "credential"), "get"]).output == "username=admin\npassword=verysecret\n"


class Handler(http.server.BaseHTTPRequestHandler):
    """As much of the site as a login and an edit need; closes a kept connection after each third answer, without saying so."""

    protocol_version = "HTTP/1.1"
    connections: set[int] = set()  # noqa: RUF012
    answers = 0

    def _answer(self, status: int, text: str = "", **headers: str) -> None:
        self.connections.add(self.client_address[1])
        self.send_response(status)
        for name, value in {"Content-Length": str(len(text)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(text.encode())
        self.answers += 1
        self.close_connection = self.answers % 3 == 0

    def do_GET(self) -> None:
        pages = {
            "/_admin/login": '<input name="_session_csrf_secret_token" type="hidden" value="t1" />',
            "/_admin/my_account": 'var _session_csrf_secret_token = "t2";',
            "/_admin/my_account/api_keys": '<div class="truncate autoexpand">key1</div>',
            "/one/changeset/tip": "Successfully committed to word",
            "/one": "summary",
        }
        here = self.headers["Cookie"] == "session=s1" or self.path == "/_admin/login"
        self._answer(200 if here and self.path in pages else 404, pages.get(self.path, ""), Set_Cookie="session=s1; Path=/")

    def do_POST(self) -> None:
        form = self.rfile.read(int(self.headers["Content-Length"])).decode()
        if self.path == "/_admin/login":
            self._answer(302 if "password=secret" in form and "_token=t1" in form else 200, Location="/")
        elif self.path == "/one/edit/c1/word" and "_token=t2" in form:
            self._answer(302, Location="http://127.0.0.1/one/changeset/tip")
        elif self.path == "/_admin/api" and '"api_key": "key1"' in form:
            self._answer(200, '{"id": 1, "error": null, "result": {"repo_id": 7}}')
        else:
            self._answer(403)

    def log_message(self, format: str, *arguments: Any) -> None:
        """Say nothing."""


@pytest.fixture
def address() -> Iterator[str]:
    """Serve until the test ends."""
    Handler.connections.clear()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def test_person_on_one_connection(address: str) -> None:
    """Logs in, looks, edits and calls the API; a connection that the server closes is made anew without a failure."""
    person = site.Site(address, "admin", "secret", "", 5)
    person.login()
    assert all(person.look("/one") for _ in range(10))
    assert not person.look("/nothing")
    assert person.edit("one", "c1", "word", "text", "message").result == ACKNOWLEDGED
    person.look("/one")
    assert person.number("one") == 7
    assert 4 < len(Handler.connections) < 12
    person.close()
