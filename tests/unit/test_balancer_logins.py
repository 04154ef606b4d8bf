"""Failed log-ins: whom they slow down, and what does not get around the count, against a real HAProxy."""

from __future__ import annotations

import concurrent.futures
import contextlib
import pathlib
import time
from collections.abc import Iterator

import pytest
from haproxy_rig import CLONE, PERSON, PRIVATE, Answer, Rig, basic, in_flight, prove, running, wait_beside_threads


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    with running(tmp_path_factory.mktemp("haproxy"), ("node1", "node2")) as started:
        yield started


def login(rig: Rig, account: str, source: str, password: str = "wrong", repository: str = "refuse", seconds: float = 15) -> tuple[Answer, float]:
    begin = time.monotonic()
    answer = rig.request(
        "GET", f"/{repository}/info/refs?service=git-upload-pack", basic(account, password) | {"User-Agent": "git/2"}, source=source, seconds=seconds
    )
    return answer, time.monotonic() - begin


def post_form(rig: Rig, body: str, source: str, path: str = "/_admin/login", headers: dict[str, str] | None = None, status: int = 200) -> float:
    begin = time.monotonic()
    sent = {"Content-Type": "application/x-www-form-urlencoded", **PERSON, **(headers or {})}
    assert rig.request("POST", path, sent, body=body.encode(), source=source).status == status
    return time.monotonic() - begin


def test_failed_log_ins_are_slowed_down_for_the_address_alone(rig: Rig) -> None:
    for number in range(8):
        answer, _ = login(rig, "jane", "127.0.0.21", f"guess{number}")
        assert answer.status == 401
    assert login(rig, "jane", "127.0.0.21")[1] > 1.2, "the guesser waits"
    assert login(rig, "jane", "127.0.0.22")[1] < 0.5, "the account's owner elsewhere does not"
    assert login(rig, "joe", "127.0.0.21")[1] < 0.5, "nor her colleague at the same address"


def test_the_owner_behind_the_guesser_s_address_is_not_slowed_down_once_his_password_was_taken(rig: Rig) -> None:
    git = basic("otto", "right") | {"User-Agent": "git/2"}

    def fetch() -> float:
        begin = time.monotonic()
        assert rig.request("GET", PRIVATE, git, source="127.0.0.27").status == 200
        return time.monotonic() - begin

    prove(rig, git, "127.0.0.27")
    for number in range(8):
        login(rig, "otto", "127.0.0.27", f"guess{number}")
    assert login(rig, "otto", "127.0.0.27")[1] > 1.2
    assert fetch() < 0.5


@pytest.mark.parametrize("first", ["form", "git"])
def test_the_owner_logs_in_by_the_form_at_once_after_his_password_was_taken(rig: Rig, first: str) -> None:
    """By the form or by git, whatever stands in it; what a neighbour guesses meanwhile waits."""
    source = f"127.0.0.{200 + len(first)}"
    git, form = basic(f"olga-{first}", "right &=+x"), f"username=Olga-{first}&password=right+%26%3D%2Bx"
    if first == "git":
        prove(rig, git, source)
    else:
        post_form(rig, form, source, status=302)
    for number in range(9):
        post_form(rig, f"username=olga-{first}&password=guess{number}", source)
    assert post_form(rig, f"username=olga-{first}&password=guess", source) > 1.2
    assert post_form(rig, form, source, status=302) < 0.5
    begin = time.monotonic()
    assert rig.request("GET", PRIVATE, git, source=source).status == 200
    assert time.monotonic() - begin < 0.5


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [("", "unread", 302), ("?api_key=" + "1" * 40, "unread", 302), ("", "guess", 200)],
    ids=["sent on", "sent on with a key", "wrong"],
)
def test_a_form_that_nobody_looked_at_is_not_taken_for_a_right_one(rig: Rig, path: str, body: str, status: int) -> None:
    """Who is logged in already is sent on without a look at what else he sent."""
    source = f"127.0.0.{210 + ['unread', 'guess'].index(body) + 2 * bool(path)}"
    for number in range(9):
        login(rig, "paul", source, f"guess{number}")
    post_form(rig, f"username=paul&password={body}", source, path=f"/_admin/login{path}", status=status)
    assert post_form(rig, f"username=paul&password={body}", source, path=f"/_admin/login{path}", status=status) > 1.2
    assert login(rig, "paul", source, body)[1] > 1.2


def test_a_password_that_nobody_looked_at_is_not_taken_for_a_right_one(rig: Rig) -> None:
    """What everybody may read, and pages, are answered whatever the password."""
    for number in range(8):
        login(rig, "petra", "127.0.0.28", f"guess{number}")
    next_one = basic("petra", "next")
    for path, more in (
        ("/repo/info/refs?service=git-upload-pack", {}),
        ("/repo/git-upload-pack?service=git-receive-pack", {}),
        ("/repo?cmd=unbundle", {"Accept": "application/mercurial-0.1"}),
        ("/repo", {}),
    ):
        assert rig.request("GET", path, next_one | more, source="127.0.0.28").status == 200
    assert login(rig, "petra", "127.0.0.28", "next")[1] > 1.2


@pytest.mark.parametrize(
    ("path", "kind", "body", "headers"),
    [
        ("/_admin/login", "application/x-www-form-urlencoded", "username=nina&password=x", {"Authorization": "Token x"}),
        ("/_admin/login", "application/x-www-form-urlencoded", "username=nina&password=x", basic("mallory", "right")),
        ("//_admin//login", "application/x-www-form-urlencoded", "username=Nina&password=x", {}),
    ],
    ids=["a header beside it", "an own password beside it", "slashes"],
)
def test_no_form_of_a_log_in_goes_around_the_count(rig: Rig, path: str, kind: str, body: str, headers: dict[str, str], request: pytest.FixtureRequest) -> None:
    source = f"127.0.0.{31 + sum(request.node.name.encode()) % 60}"

    if "Authorization" in headers:
        prove(rig, headers, source)

    def post() -> float:
        return post_form(rig, body, source, path=path, headers={"Content-Type": kind, **headers})

    for _ in range(8):
        post()
    assert post() > 1.2


@pytest.mark.parametrize("name", ["%6eina", "NINA+", "+%C2%A0nina%0A"])
def test_a_name_is_one_however_the_form_writes_it(rig: Rig, name: str) -> None:
    """Kallithea decodes it, and strips it of blanks."""
    source = f"127.0.0.{220 + len(name)}"
    for _ in range(9):
        post_form(rig, f"username={name}&password=x", source)
    assert login(rig, "nina", source)[1] > 1.2


def test_a_password_taken_elsewhere_is_not_told_from_a_wrong_one(rig: Rig) -> None:
    """By its speed: whoever has failed enough would try one after the other, and not stay for an answer."""
    right = basic("ruth", "right") | {"User-Agent": "git/2"}
    prove(rig, right, "127.0.0.95")
    for number in range(9):
        login(rig, "ruth", "127.0.0.96", f"guess{number}")
    begin = time.monotonic()
    assert rig.request("GET", PRIVATE, right, source="127.0.0.96").status == 200
    assert time.monotonic() - begin > 1.2


@pytest.fixture
def strict(tmp_path: pathlib.Path) -> Iterator[Rig]:
    """Run one that takes an address for a guesser's after few log-ins, and few requests at once."""
    values = {"__kallithea_loadbalancer_guessed_failures": 20, "kallithea_loadbalancer_in_flight": {"person": 3, "bot": 3}}
    with running(tmp_path, ("node1", "node2"), **values) as started:
        yield started


def test_guesses_that_do_not_stay_for_an_answer_end_the_advantage_of_a_right_one(strict: Rig) -> None:
    """Else a neighbour would learn that it is right, since it alone does not wait."""
    source, right = "127.0.0.97", basic("sara", "right") | {"User-Agent": "git/2"}

    def fetch() -> float:
        begin = time.monotonic()
        assert strict.request("GET", PRIVATE, right, source=source).status == 200
        return time.monotonic() - begin

    prove(strict, right, source)
    for number in range(9):
        login(strict, "sara", source, f"guess{number}")
    # What is answered does not count, whoever asked: here one who is not looked at.
    for _ in range(25):
        strict.request("GET", "/repo/info/refs?service=git-upload-pack", basic("flux") | {"User-Agent": "git/2"}, source=source)
    assert fetch() < 0.5
    for number in range(15):
        with contextlib.suppress(TimeoutError):
            login(strict, "sara", source, f"dropped{number}", seconds=0.1)
    assert fetch() > 1.2


def test_guesses_that_are_refused_end_it_too(strict: Rig) -> None:
    source, right = "127.0.0.98", basic("sven", "right") | {"User-Agent": "git/2"}
    prove(strict, right, source)
    server = strict.servers["scm"]
    server.release.clear()
    with concurrent.futures.ThreadPoolExecutor(3) as threads:
        clones = [threads.submit(strict.request, "GET", CLONE, {"User-Agent": "git/2"}, source=source) for _ in range(3)]
        wait_beside_threads(lambda: in_flight(strict, "scm") == 3)
        assert strict.request("GET", PRIVATE, right, source=source).status == 200
        for number in range(25):
            assert login(strict, "sven", source, f"guess{number}")[0].status == 429
        assert strict.request("GET", PRIVATE, right, source=source).status == 429
        server.release.set()
        assert {entry.result(timeout=15).status for entry in clones} == {200}


def test_who_waits_and_is_answered_has_not_failed(rig: Rig) -> None:
    """Else a few programs that send a name with each question would keep their address slow for ever."""
    source = "127.0.0.100"
    for number in range(32):
        login(rig, f"name{number}", source)
    flux = basic("flux") | {"User-Agent": "git/2"}
    for _ in range(30):
        begin = time.monotonic()
        assert rig.request("GET", "/repo/info/refs?service=git-upload-pack", flux, source=source).status == 200
    assert time.monotonic() - begin < 1


def test_a_page_does_not_tell_a_right_password(rig: Rig) -> None:
    """Kallithea does not look at it there."""
    source = "127.0.0.119"
    right = basic("olaf", "right") | {"User-Agent": "git/2"}
    prove(rig, right, source)
    for number in range(9):
        login(rig, "olaf", source, f"guess{number}")
    for headers in (right, basic("olaf", "guess")):
        begin = time.monotonic()
        assert rig.request("GET", "/repo", PERSON | headers, source=source).status == 200
        assert time.monotonic() - begin > 1.2


def test_a_form_that_fails_takes_its_proof_back(rig: Rig) -> None:
    source, form = "127.0.0.99", "username=vera&password=right"
    post_form(rig, form, source, status=302)
    for number in range(9):
        post_form(rig, f"username=vera&password=guess{number}", source)
    # It is wrong now: the password has been changed.
    post_form(rig, form, source, headers={"X-Changed": "1"})
    assert post_form(rig, form, source, status=302) > 1.2


def test_a_form_of_a_browser_is_taken(rig: Rig) -> None:
    """With whatever in its values."""
    body = "username=j%C3%A4ne+doe%40example.org&password=%26username%3D%3Bx%2B%25&remember=true&_session_csrf_secret_token=1"
    post_form(rig, body, "127.0.0.94", path="/_admin/login?came_from=%2Frepo%3Fa%3Db%26api_key%3D1")


def test_a_name_and_password_are_one_however_they_are_written(rig: Rig) -> None:
    source = "127.0.0.92"
    prove(rig, basic("uwe", "right"), source)
    for number in range(8):
        login(rig, "uwe", source, f"guess{number}")
    for header in (basic("Uwe", "right"), {"Authorization": basic("uwe", "right")["Authorization"].replace("Basic ", "basic ")}):
        begin = time.monotonic()
        assert rig.request("GET", PRIVATE, header, source=source).status == 200
        assert time.monotonic() - begin < 0.5
    assert login(rig, "uwe", source)[1] > 1.2


@pytest.mark.parametrize("repository", ["refuse", "forbid"])
def test_a_name_without_a_password_is_no_guess(rig: Rig, repository: str) -> None:
    """git sends it first wherever its address has a name; it neither counts, nor waits for what others guess, nor makes them be forgotten."""
    source = f"127.0.0.{240 + ['refuse', 'forbid'].index(repository)}"

    def ask() -> float:
        answer, seconds = login(rig, "nora", source, "", repository)
        assert answer.status == {"refuse": 401, "forbid": 403}[repository]
        return seconds

    for _ in range(45):
        assert ask() < 0.5
    assert login(rig, "nora", source)[1] < 0.5, "nothing was counted for the name"
    assert login(rig, "somebody-else", source)[1] < 0.5, "nor for the address"
    for number in range(8):
        login(rig, "nora", source, f"guess{number}")
    assert ask() < 0.5
    assert login(rig, "nora", source)[1] > 1.2


def test_a_push_with_a_name_and_no_password_is_answered_at_once(rig: Rig) -> None:
    answer = rig.request("GET", "/repo/info/refs?service=git-receive-pack", basic("nora", "") | {"User-Agent": "git/2"})
    assert (answer.status, answer.text) == (401, "A push needs a user name and a password.\n")


def test_failed_log_ins_may_be_answered_403(rig: Rig) -> None:
    """The ini's auth_ret_code says so."""
    for number in range(8):
        assert login(rig, "vera", "127.0.0.93", f"guess{number}", "forbid")[0].status == 403
    assert login(rig, "vera", "127.0.0.93", repository="forbid")[1] > 1.2


def test_a_page_that_the_owner_of_a_key_may_not_see_is_no_failed_log_in(rig: Rig) -> None:
    """A feed reader asks for it again and again."""
    key = {"Authorization": f"Bearer {'3' * 40}", "User-Agent": "reader/1"}
    for _ in range(38):
        assert rig.request("GET", "/forbid/feed/atom", key, source="127.0.0.95").status == 403
    assert login(rig, "wilma", "127.0.0.95")[1] < 0.5


@pytest.mark.parametrize("scheme", ["B", "Bas"])
def test_another_scheme_is_no_name_alone(rig: Rig, scheme: str) -> None:
    """HAProxy takes the beginning of a scheme's name for all of it."""
    value = basic("nora", "")["Authorization"].replace("Basic", scheme)
    source = f"127.0.0.{250 + len(scheme)}"
    for _ in range(8):
        rig.request("GET", "/refuse/info/refs?service=git-upload-pack", {"Authorization": value, "User-Agent": "git/2"}, source=source)
    assert login(rig, "nora", source)[1] > 1.2


def test_a_guess_with_a_password_that_was_taken_elsewhere_counts_for_the_address(rig: Rig) -> None:
    for number in range(38):
        prove(rig, basic("rita", f"guess{number}"), "127.0.0.91")
        login(rig, "rita", "127.0.0.91", f"guess{number}")
    assert login(rig, "somebody-else", "127.0.0.91")[1] > 0.5


def test_an_account_is_one_in_any_case(rig: Rig) -> None:
    for number in range(8):
        login(rig, "Karl" if number % 2 else "karl", "127.0.0.29", f"guess{number}")
    assert login(rig, "KARL", "127.0.0.29")[1] > 1.2
    assert rig.request("GET", "/", PERSON | basic("Build-Bot")).seen("x-kallithea-who") == "bot"


def test_clones_of_proven_accounts_are_no_log_ins(rig: Rig) -> None:
    """Who cannot log in since somebody at the same address guesses would be locked out by his colleagues' clones."""
    git = basic("erna", "right") | {"User-Agent": "git/2"}
    source = "127.0.0.30"
    prove(rig, git, source)
    for number in range(31):
        login(rig, f"name{number}", source)
    server = rig.servers["scm"]
    server.release.clear()
    with concurrent.futures.ThreadPoolExecutor(30) as threads:
        clones = [threads.submit(rig.request, "GET", CLONE, git, source=source) for _ in range(25)]
        wait_beside_threads(lambda: in_flight(rig, "scm") == 25)
        assert rig.request("GET", "/refuse", basic("anna") | PERSON, source=source).status == 401, "no 429"
        server.release.set()
        assert {entry.result(timeout=15).status for entry in clones} == {200}


def test_guesses_of_many_accounts_slow_down_the_address(rig: Rig) -> None:
    for number in range(38):
        login(rig, f"account{number}", "127.0.0.23")
    assert login(rig, "one-more", "127.0.0.23")[1] > 0.5
    assert login(rig, "one-more", "127.0.0.24")[1] < 0.5


def test_the_form_counts_as_well(rig: Rig) -> None:
    """Kallithea answers a failed one with the form again."""

    def post(account: str, source: str) -> float:
        return post_form(rig, f"username={account}&password=x", source)

    for _ in range(8):
        post("mary", "127.0.0.25")
    assert post("mary", "127.0.0.25") > 1.2
    assert post("mary", "127.0.0.26") < 0.5
