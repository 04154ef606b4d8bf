"""kallithea-bots against a real HAProxy: what it changes counts at once, over a reload, and is remembered for the next run of the playbook."""

from __future__ import annotations

import importlib.machinery
import io
import pathlib
import types
from collections.abc import Iterator
from typing import Any

import pytest
from ansible_collections.kallithea.cluster.plugins.filter.haproxy import BROWSER, LISTS
from haproxy_rig import Rig, running

ROOT = pathlib.Path(__file__).parents[2]
API_KEY = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    folder = tmp_path_factory.mktemp("haproxy")
    with running(folder, ("node1",), kallithea_loadbalancer_bot_networks=[], kallithea_loadbalancer_bot_accounts=["#odd", "build-bot"]) as started:
        (folder / "by_command").write_text("")
        yield started


@pytest.fixture
def command(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> Any:
    path = ROOT / "roles/loadbalancer/files/kallithea-bots"
    loader = importlib.machinery.SourceFileLoader("kallithea_bots", str(path))
    monkeypatch.setattr("sys.dont_write_bytecode", True)
    module = types.ModuleType(loader.name)
    loader.exec_module(module)
    module.__dict__.update(FOLDER=rig.folder, SOCKET=rig.socket, SCRIPT="/bin/true")
    return module


def who(rig: Rig, agent: str = "Mozilla/5.0", source: str = "127.0.0.1", **headers: str) -> str:
    return rig.request("GET", "/repo", {"User-Agent": agent, **headers}, source=source).seen("x-kallithea-who")


def test_lists_have_the_names_of_the_variables(command: Any) -> None:
    assert sorted(command.LISTS.values()) == sorted(LISTS)


@pytest.mark.parametrize(
    ("kind", "entry", "request_of"),
    [
        ("network", "127.0.0.40/30", {"source": "127.0.0.41"}),
        ("account", "night'ly", {"Authorization": "Basic bmlnaHQnbHk6eA=="}),
        ("agent", "^my (tool|script);? #[0-9]+$", {"agent": "my tool #12"}),
    ],
)
def test_what_is_added_counts_at_once_and_after_a_reload(command: Any, rig: Rig, kind: str, entry: str, request_of: dict[str, str]) -> None:
    assert who(rig, **request_of) == "person"
    assert command.main(["add", kind, entry]) == 0
    assert who(rig, **request_of) == "bot"
    rig.reload()
    assert who(rig, **request_of) == "bot"
    assert (rig.folder / "by_command").read_text().endswith(f"add {command.LISTS[kind]} {entry}\n")
    assert command.main(["remove", kind, entry]) == 0
    assert who(rig, **request_of) == "person"
    rig.reload()
    assert who(rig, **request_of) == "person"


def test_a_key_comes_by_standard_input_and_stays_an_hmac(command: Any, rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(API_KEY + "\n"))
    assert command.main(["add", "key", "-"]) == 0
    assert rig.request("GET", f"/repo/feed/atom?api_key={API_KEY}", {"User-Agent": "x"}).seen("x-kallithea-who") == "bot"
    assert not [path for path in rig.folder.iterdir() if path.is_file() and API_KEY.encode() in path.read_bytes()]
    assert command.main(["add", "key", API_KEY]) == 1, "a command line is seen by everybody"


def test_a_browser_is_the_same_as_for_the_playbook(command: Any) -> None:
    assert command.BROWSER == BROWSER


def test_list_shows_all(command: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["list"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert "account #odd" in said and "account build-bot" in said


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["add", "network", "192.0.2.0/33"], "neither an address nor a network"),
        (["add", "network", "0.0.0.0/0"], "'0.0.0.0/0' would make everybody a bot: name the build servers' networks."),
        (["add", "agent", "mozilla"], "'mozilla' would make everybody a bot"),
        (["add", "agent", ".*"], "'.*' would make everybody a bot: name the build servers' programs."),
        (["add", "account", "a b"], "cannot be an account's name"),
        (["add", "agent", ""], "not empty"),
        (["add", "agent", "(unbalanced"], "HAProxy refuses '(unbalanced'"),
        (["add", "person", "build-bot"], "on the list of the other side: kallithea-bots remove account build-bot first"),
    ],
)
def test_what_cannot_be_is_refused_and_changes_nothing(command: Any, rig: Rig, capsys: pytest.CaptureFixture[str], arguments: list[str], words: str) -> None:
    before = {path.name: path.read_bytes() for path in rig.folder.iterdir() if path.suffix == ".lst" or path.name == "by_command"}
    assert command.main(arguments) == 1
    assert words in capsys.readouterr().err
    assert before == {path.name: path.read_bytes() for path in rig.folder.iterdir() if path.suffix == ".lst" or path.name == "by_command"}


def test_what_is_there_already_is_said(command: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["add", "account", "build-bot"]) == 0
    assert "is on the list already" in capsys.readouterr().out
    assert command.main(["move", "account", "x"]) == 2
