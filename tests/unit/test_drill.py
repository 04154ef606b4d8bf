"""The drill proves itself: what is lost, rolled back, damaged or won twice behind its back is reported, with real git and hg."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from drill import cli, journal
from drill.journal import ACKNOWLEDGED, UNKNOWN
from drill_world import FOLDER, World, drill, git, hook

ROOT = Path(__file__).parents[2]

Run = Callable[..., tuple[int, dict[str, Any]]]


@pytest.fixture
def world(tmp_path: Path) -> World:
    """Return an empty site."""
    folder = tmp_path / "site"
    folder.mkdir()
    return World(folder)


@pytest.fixture
def run(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Return a function that runs the drill and returns its status and its report."""
    (tmp_path / "password").write_text("secret\n")
    monkeypatch.setenv("KALLITHEA_ADMIN_PASSWORD_FILE", str(tmp_path / "password"))

    def run(*arguments: str) -> tuple[int, dict[str, Any]]:
        report = tmp_path / "report.json"
        report.unlink(missing_ok=True)
        status = drill(world, *arguments, "--log", str(tmp_path / "log"), "--json", str(report), patch=monkeypatch.setattr)
        return status, json.loads(report.read_text()) if report.exists() else {}

    return run


def story(tmp_path: Path) -> journal.Story:
    """Return what the log tells."""
    return journal.read(tmp_path / "log")


def repository(world: World, tmp_path: Path, kind: str) -> Path:
    """Return the first repository of a kind."""
    return world.folder / next(name for name, its in story(tmp_path).repositories.items() if its == kind)


def test_all_is_well(run: Run, world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Pushes of git and hg are read back at once and found at the end, through each node and on the storage; pages are looked at."""
    node = f"file://{world.folder}"
    status, report = run("push", "--pushes", "10", "--pushers", "2", "--repositories", "2", "--kinds", "git,hg", "--browsers", "1",
                         "--node", f"app1={node}", "--storage", str(world.folder))  # fmt: skip
    assert status == 0, capsys.readouterr()
    assert (report["acknowledged"], report["lost"], report["unknown"], report["failed"], report["refused"]) == (10, [], 0, 0, 0)
    assert report["places"] == ["balancer", "app1", "storage"]
    assert report["questions_failed"] == report["pages_failed"] == 0
    assert report["pages"] == len(world.looked) > 0
    assert report["longest_gap"]["push"] > 0
    assert sorted(world.removed) == sorted(story(tmp_path).repositories)
    assert "acknowledged 10, lost 0, unknown 0 (0 of them are there), refused 0, failed 0" in capsys.readouterr().out


@pytest.mark.parametrize("kind", ["git", "hg"])
def test_push_removed_behind_its_back_is_lost(
    run: Run, world: World, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What was acknowledged and is not there any more is found on a later look, also by one who reaches nothing but the storage."""
    status, _ = run("push", "--pushes", "2", "--pushers", "1", "--repositories", "1", "--kinds", kind, "--browsers", "0", "--keep")
    assert status == 0 and not world.removed
    path = repository(world, tmp_path, kind)
    if kind == "git":
        git(path, "update-ref", "refs/heads/master", "master~1")
    else:
        subprocess.run(["hg", "-R", path, "--config", "extensions.strip=", "strip", "-q", "--no-backup", "tip"], check=True, timeout=20)
    status, report = run("check", "--storage", str(world.folder))
    last = story(tmp_path).pushes[2]
    assert status == 1
    assert report["lost"] == [f"push 2, {last.commit} to {path.name} through balancer, is not at balancer, storage"]
    assert not report["damage"]
    monkeypatch.delenv("KALLITHEA_ADMIN_PASSWORD_FILE")
    assert cli.main(["check", "--url", "", "--log", str(tmp_path / "log"), "--storage", str(world.folder), "--storage-command", "env"]) == 1
    assert "is not at storage" in capsys.readouterr().out


def test_push_that_one_node_does_not_show_is_lost_there(run: Run, world: World, tmp_path: Path) -> None:
    """Every node is asked, not only the balancer."""
    run("push", "--pushes", "2", "--pushers", "1", "--repositories", "1", "--kinds", "git", "--browsers", "0", "--keep")
    other, path = tmp_path / "other", repository(world, tmp_path, "git")
    subprocess.run(["git", "clone", "-q", "--mirror", path, other / path.name], check=True, timeout=20)
    git(other / path.name, "update-ref", "refs/heads/master", "master~1")
    status, report = run("check", "--node", f"app2=file://{other}")
    assert status == 1
    assert [sentence.rpartition(" ")[2] for sentence in report["lost"]] == ["app2"]


def test_miss_at_once_and_history_that_goes_back(run: Run, world: World) -> None:
    """A server that takes the third push back is caught when it is read at once, and again before the next push, which must not heal it."""
    world.prepare = lambda path: hook(path, "post-update", '[ "$(git rev-list --count master)" != 3 ] || git update-ref refs/heads/master master~1')
    status, report = run("push", "--pushes", "3", "--pushers", "1", "--repositories", "1", "--kinds", "git", "--browsers", "0")
    assert status == 1
    assert len([fault for fault in report["faults"] if fault.startswith("miss: ")]) == 1
    assert len(report["lost"]) == 1
    assert not world.removed, "what was lost is left there to be looked at"


def test_history_that_goes_back_is_not_healed_by_the_next_push(run: Run, world: World) -> None:
    """Under load nobody reads back at once, but everybody begins where the server is."""
    world.prepare = lambda path: hook(path, "post-update", '[ "$(git rev-list --count master)" != 3 ] || git update-ref refs/heads/master master~1')
    status, report = run("run", "--for", "20", "--pushes", "4", "--pushers", "1", "--repositories", "1", "--kinds", "git", "--browsers", "0")
    assert status == 1
    assert len([fault for fault in report["faults"] if " went back: " in fault]) == 1
    assert len(report["lost"]) == 2, "the fourth push was taken back as well"


def test_damage_on_the_storage(run: Run, world: World, tmp_path: Path) -> None:
    """An object that is not what its name says is damage."""
    run("push", "--pushes", "1", "--pushers", "1", "--repositories", "1", "--kinds", "git", "--browsers", "0", "--keep")
    path = repository(world, tmp_path, "git")
    blob = git(path, "rev-parse", "master:word")
    loose = path / "objects" / blob[:2] / blob[2:]
    loose.chmod(0o600)
    loose.write_bytes(b"nothing of the kind")
    status, report = run("check", "--storage", str(world.folder))
    assert status == 1
    assert any(sentence.startswith(f"the check of {path.name} at storage ended with") for sentence in report["damage"]), report["damage"]


def test_killed_push_is_unknown_and_not_lost(run: Run, world: World) -> None:
    """A push that is killed has no answer; whether it is there does not matter."""
    world.prepare = lambda path: hook(path, "pre-receive", "sleep 30")
    status, report = run("run", "--for", "0.8", "--pushers", "1", "--repositories", "1", "--kinds", "git", "--browsers", "0", "--timeout", "1")
    assert status == 0
    assert (report["acknowledged"], report["lost"], report["unknown"], report["unknown_there"], report["failed"]) == (0, [], 1, 0, 0)


def test_refused_push_is_neither_lost_nor_unknown(run: Run, world: World) -> None:
    """A server that says no has answered."""
    world.prepare = lambda path: hook(path, "pre-receive", "echo no space; exit 1")
    status, report = run("run", "--for", "20", "--pushes", "1", "--pushers", "1", "--repositories", "1", "--kinds", "git", "--browsers", "0")
    assert status == 0
    assert (report["acknowledged"], report["unknown"], report["failed"]) == (0, 0, 1)
    assert "no space" in next(iter(report["reasons"]))


def test_log_of_a_killed_drill_can_be_checked(run: Run, world: World, tmp_path: Path) -> None:
    """Every acknowledged push stands in the log before the next begins, so a drill that is killed has forgotten nothing."""
    log = tmp_path / "log"
    command = [sys.executable, str(ROOT / "tests/unit/drill_world.py"), "run", "--for", "30", "--pushers", "1", "--repositories", "1", "--kinds", "git",
               "--browsers", "0", "--log", str(log)]  # fmt: skip
    environment = {**os.environ, FOLDER: str(world.folder), "PYTHONPATH": str(ROOT / "tests/drill"), "TMPDIR": str(tmp_path)}
    with subprocess.Popen(command, env=environment, start_new_session=True) as process:
        end = time.monotonic() + 20
        while time.monotonic() < end and not (log.exists() and log.read_text().count(f'"{ACKNOWLEDGED}"') >= 3):
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGKILL)
    # As a power failure leaves it.
    with log.open("a") as file:
        file.write('{"event": "end", "push": 1, "resu')
    status, report = run("check", "--storage", str(world.folder))
    assert status == 0
    assert report["acknowledged"] >= 3 and report["lost"] == []
    path = repository(world, tmp_path, "git")
    git(path, "update-ref", "-d", "refs/heads/master")
    status, after = run("check", "--storage", str(world.folder))
    assert status == 1 and len(after["lost"]) == report["acknowledged"]


def test_races_of_pushes(run: Run, world: World) -> None:
    """Of two real pushes at the same moment one wins, for git and for hg, straight to a node and by the address that stays."""
    status, report = run("race", "--way", "app1/id", "--rounds", "2", "--kinds", "git,hg", "--node", f"app1=file://{world.folder}")
    assert status == 0, report
    count = report["races"]["app1/id"]
    assert (count["rounds"], count["decided"], count["faults"], count["won by app1"] + count["won by id"]) == (2, 2, 0, 2)
    # Each of the two repositories has had a first push.
    assert (report["acknowledged"], report["refused"], report["failed"], report["unknown"]) == (4, 2, 0, 0), report


def test_web_edit_that_overwrites_a_push_is_caught(run: Run) -> None:
    """Both were told that they won, and the push is gone."""
    status, report = run("race", "--way", "web/balancer", "--rounds", "1", "--kinds", "git")
    assert status == 1
    assert report["races"]["web/balancer"]["faults"] == 1
    said = ("both pushes were acknowledged", "an acknowledged push is not in the history")
    assert {*report["faults"]} == {f"web/balancer, round 1 of git: {what}" for what in said}
    assert len(report["lost"]) == 1


def test_mark_of_a_fault(run: Run, tmp_path: Path) -> None:
    """Whoever breaks the cluster says so in the log; the report tells how long it took from there."""
    run("push", "--pushes", "1", "--pushers", "1", "--repositories", "1", "--kinds", "git", "--browsers", "0", "--keep")
    subprocess.run(
        [sys.executable, "-m", "drill", "mark", "--log", tmp_path / "log", "storage cut off"],
        env={**os.environ, "PYTHONPATH": str(ROOT / "tests/drill")},
        check=True,
        timeout=20,
    )
    status, report = run("check")
    assert status == 0
    assert report["recovery"] == [{"mark": "storage cut off", "push": None, "page": None, "next": {"push": None, "page": None}}]


def test_remove(run: Run, world: World, tmp_path: Path) -> None:
    """Whoever kept the repositories finds their names in the log."""
    run("push", "--pushes", "1", "--pushers", "1", "--repositories", "1", "--kinds", "git", "--browsers", "0", "--keep")
    assert not world.removed
    assert drill(world, "remove", "--log", str(tmp_path / "log")) == 0
    assert world.removed == list(story(tmp_path).repositories)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["race", "--way", "balancer/nobody"], "names 'nobody'"),
        (["check"], "there is no log"),
    ],
)
def test_bad_input(run: Run, capsys: pytest.CaptureFixture[str], arguments: list[str], sentence: str) -> None:
    """Is said in a sentence."""
    assert run(*arguments)[0] == 2
    assert sentence in capsys.readouterr().err


def test_log_of_another_drill_is_not_mixed(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two drills in one log could not be told apart."""
    (tmp_path / "log").write_text('{"event": "start", "at": 1, "mode": "push"}\n')
    assert run("run", "--for", "1")[0] == 2
    assert "is another drill's log" in capsys.readouterr().err


def test_unfinished_push_in_a_log_is_unknown(tmp_path: Path) -> None:
    """Its beginning is there and its end is not."""
    with journal.Journal(tmp_path / "log") as log:
        log.begin("one", "c" * 40, "word", "balancer")
    assert [push.result for push in story(tmp_path).pushes.values()] == [UNKNOWN]
