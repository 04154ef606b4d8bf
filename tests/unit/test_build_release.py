"""What the build of a release says of a patch that does not apply, with the real patch(1)."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import json
import pathlib
import sys
from typing import Any

import pytest
import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
APP = ROOT / "roles" / "app"
SOURCE = {"kallithea/one.py": "a\nb\nc\n", "kallithea/two.py": "d\ne\nf\n"}
GOOD = "Reason: x\n\n--- a/kallithea/one.py\n+++ b/kallithea/one.py\n@@ -1,3 +1,3 @@\n a\n-b\n+B\n c\n"
OTHER_LINES = GOOD + "--- a/kallithea/two.py\n+++ b/kallithea/two.py\n@@ -1,3 +1,3 @@\n d\n-other\n+E\n f\n"
NO_SUCH_FILE = GOOD.replace("one.py", "none.py")
THERE_ALREADY = "--- /dev/null\n+++ b/kallithea/two.py\n@@ -0,0 +1,1 @@\n+new\n"
APPLIED_ALREADY = GOOD.replace("-b\n+B", "-B\n+b")
CUT_OFF = GOOD.removesuffix("+B\n c\n")
MENDED = "write it anew for that source in roles/app/files/patches of the collection"


@pytest.fixture
def program(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return the program as a module."""
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    loader = importlib.machinery.SourceFileLoader("build_release", str(APP / "files" / "build_release"))
    spec = importlib.util.spec_from_loader("build_release", loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


def build(program: Any, folder: pathlib.Path, monkeypatch: pytest.MonkeyPatch, patches: dict[str, str]) -> int:
    """Build from a source of two files, without what needs a network; return the exit status."""
    (folder / "release").mkdir()
    (folder / "inputs.json").write_text(json.dumps({"kallithea": "0.7.0", "patches": patches}))
    (folder / "environment.json").write_text("{}")

    def get_source(self: Any) -> None:
        for name, content in SOURCE.items():
            (folder / "tree" / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / "tree" / name).write_text(content)
        for name, content in patches.items():
            self.patch(folder / "tree", name, content)
        raise program.BuildError("The source is complete.")

    for name in ("check_host", "make_environment"):
        monkeypatch.setattr(program.Build, name, lambda self: None)
    monkeypatch.setattr(program.Build, "get_source", get_source)
    monkeypatch.setattr(sys, "argv", ["build_release", str(folder), str(folder / "release")])
    status: int = program.main()
    return status


def test_a_patch_that_applies(program: Any, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert build(program, tmp_path, monkeypatch, {"speed-01-a.patch": GOOD}) == 1
    assert (tmp_path / "tree/kallithea/one.py").read_text() == "a\nB\nc\n"
    assert capsys.readouterr().err.splitlines()[-1] == "The source is complete."


@pytest.mark.parametrize(
    ("content", "file"),
    [
        (OTHER_LINES, "kallithea/two.py"),
        (NO_SUCH_FILE, "kallithea/none.py"),
        (THERE_ALREADY, "kallithea/two.py"),
        (APPLIED_ALREADY, "kallithea/one.py"),
        (CUT_OFF, "the source"),
    ],
)
def test_a_patch_that_does_not_apply_is_named_with_its_file(
    program: Any, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], content: str, file: str
) -> None:
    assert build(program, tmp_path, monkeypatch, {"compat-01-b.patch": content}) == 4
    said = capsys.readouterr().err.splitlines()
    assert said[-1] == f"The patch compat-01-b.patch does not apply to {file} of Kallithea 0.7.0: {MENDED}."
    assert "Traceback" not in "\n".join(said)


@pytest.mark.parametrize(
    ("kind", "end"), [("speed", ", or do without patches of its kind (kallithea_app_patches: no_speed)."), ("safety", "."), ("compat", ".")]
)
def test_what_can_be_left_out_is_said(program: Any, kind: str, end: str) -> None:
    assert program.misfit(f"{kind}-01-b.patch", "0.7.0", "").endswith(MENDED + end)


def test_the_role_says_the_sentence_of_each_status(program: Any) -> None:
    text = (APP / "tasks" / "release_build.yml").read_text()
    (block,) = (task for task in yaml.safe_load(text)[0]["block"] if "always" in task)
    tasks = {task["name"]: task for task in block["block"]}
    statuses = [program.FetchError.status, program.PatchError.status]
    assert tasks["Run the build"]["failed_when"] == f"__kallithea_app_release_build.rc not in {[0, *statuses]}"
    said = [tasks[name] for name in ("Say how to reach packages", "Say which patch does not apply")]
    assert [task["when"] for task in said] == [f"__kallithea_app_release_build.rc == {status}" for status in statuses]
    assert all("stderr_lines | last" in task["ansible.builtin.fail"]["msg"] for task in said)
