"""What the scenarios' hosts keep of Ansible's modules: the code is that of the files, whatever was kept before."""

from __future__ import annotations

import importlib.util
import os
import pathlib
import sys
import zipimport
from collections.abc import Iterator
from types import ModuleType

import pytest

FILE = pathlib.Path(__file__).resolve().parents[2] / "molecule/shared/files/python/sitecustomize.py"


@pytest.fixture
def keeper(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """Return the file as a module that keeps what it compiles in a folder of the test's."""
    monkeypatch.setattr(zipimport, "_compile_source", zipimport._compile_source)  # type: ignore[attr-defined]
    monkeypatch.setattr(sys, "path", [str(FILE.parent), *sys.path])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.setenv("PYTHONPATH", f"{FILE.parent}:/given")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    spec = importlib.util.spec_from_file_location("hosts_python", FILE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "FOLDER", str(tmp_path / "kept"))
    yield module


def value(keeper: ModuleType, path: str, source: bytes) -> int:
    """Return what a file that sets x sets it to."""
    names: dict[str, int] = {}
    exec(keeper.kept(path, source), names)
    return names["x"]


def test_what_was_compiled_is_not_compiled_again(keeper: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    assert value(keeper, "/tmp/one.zip/a.py", b"x = 1") == 1
    monkeypatch.delattr(keeper, "compile_source")
    assert value(keeper, "/tmp/another.zip/a.py", b"x = 1") == 1


def test_another_content_of_a_file_is_compiled(keeper: ModuleType) -> None:
    assert [value(keeper, "/tmp/one.zip/a.py", source) for source in (b"x = 1", b"x = 2", b"x = 1")] == [1, 2, 1]


def test_what_cannot_be_read_is_compiled_and_what_cannot_be_kept_too(keeper: ModuleType) -> None:
    assert value(keeper, "/tmp/one.zip/a.py", b"x = 1") == 1
    (kept,) = pathlib.Path(keeper.FOLDER).iterdir()
    kept.write_bytes(b"")
    assert value(keeper, "/tmp/one.zip/a.py", b"x = 1") == 1
    keeper.FOLDER = "/dev/null"  # type: ignore[attr-defined]
    assert value(keeper, "/tmp/one.zip/a.py", b"x = 1") == 1


def test_who_may_not_keep_it_compiles(keeper: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1)
    assert [value(keeper, "/tmp/one.zip/a.py", b"x = 1") for _ in range(2)] == [1, 1]
    assert not pathlib.Path(keeper.FOLDER).exists()


def test_programs_that_a_module_starts_have_none_of_it(keeper: ModuleType) -> None:
    assert os.environ["PYTHONPATH"] == "/given" and str(FILE.parent) not in sys.path
    assert zipimport._compile_source is keeper.kept  # type: ignore[attr-defined]
