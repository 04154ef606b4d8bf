"""The module files: several files and folders in one call."""

from __future__ import annotations

import getpass
import grp
import hashlib
import json
import os
import pathlib
from collections.abc import Callable

import pytest
from ansible.module_utils import basic
from ansible_collections.kallithea.cluster.plugins.modules import files

Run = Callable[..., dict]
USER, GROUP = getpass.getuser(), grp.getgrgid(os.getgid()).gr_name


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, tmp_path: pathlib.Path) -> Run:
    """Return a function that runs the module."""

    def call(*entries: dict, check: bool = False) -> dict:
        wanted = [{"owner": USER, "group": GROUP, "mode": "0640", **entry, "path": str(tmp_path / entry["path"])} for entry in entries]
        arguments = {"files": wanted, "_ansible_check_mode": check, "_ansible_diff": True, "_ansible_remote_tmp": str(tmp_path)}
        monkeypatch.setattr(basic, "_ANSIBLE_ARGS", json.dumps({"ANSIBLE_MODULE_ARGS": arguments}).encode())
        monkeypatch.setattr(basic, "_ANSIBLE_PROFILE", "legacy", raising=False)
        with pytest.raises(SystemExit):
            files.main()
        answer: dict = json.loads(capsys.readouterr().out)
        return answer

    return call


def test_folder_and_file_are_made_once(run: Run, tmp_path: pathlib.Path) -> None:
    entries = ({"path": "a/b", "mode": "0750"}, {"path": "a/b/c", "content": "text\n"})
    first = run(*entries)
    assert first["changed_paths"] == [str(tmp_path / "a/b"), str(tmp_path / "a/b/c")]
    assert (tmp_path / "a/b/c").read_text() == "text\n"
    assert (tmp_path / "a/b/c").stat().st_mode & 0o777 == 0o640
    assert (tmp_path / "a/b").stat().st_mode & 0o777 == 0o750
    again = run(*entries)
    assert again["changed"] is False
    assert list(again["modified"]) == [str(tmp_path / "a/b/c")]
    assert again["checksums"] == {str(tmp_path / "a/b/c"): hashlib.sha256(b"text\n").hexdigest()}


def test_check_mode_changes_nothing(run: Run, tmp_path: pathlib.Path) -> None:
    assert run({"path": "c", "content": "x"}, check=True)["changed"] is True
    assert run({"path": "c", "content": "x", "owner": "no-such-user"}, check=True)["changed"] is True
    assert not (tmp_path / "c").exists()


def test_mode_is_repaired_and_the_old_content_kept(run: Run, tmp_path: pathlib.Path) -> None:
    (tmp_path / "c").write_text("old")
    answer = run({"path": "c", "content": "new", "backup": True})
    assert pathlib.Path(answer["backups"][str(tmp_path / "c")]).read_text() == "old"
    (tmp_path / "c").chmod(0o666)
    assert run({"path": "c", "content": "new"})["changed"] is True
    assert (tmp_path / "c").stat().st_mode & 0o777 == 0o640


def test_a_secret_is_in_no_part_of_the_answer(run: Run) -> None:
    shown = run({"path": "open", "content": "openword"}, {"path": "closed", "content": "secretword", "secret": True})
    assert "secretword" not in json.dumps(shown)
    assert "openword" in json.dumps(shown["diff"])
    assert "openword" not in json.dumps(shown.get("invocation", {}))


def test_a_folder_in_a_files_place_is_one_sentence(run: Run, tmp_path: pathlib.Path) -> None:
    (tmp_path / "d").mkdir()
    assert "is a folder, where a file has to be" in run({"path": "d", "content": "x"})["msg"]
    (tmp_path / "e").write_text("")
    assert "is there and no folder" in run({"path": "e", "mode": "0750"})["msg"]
