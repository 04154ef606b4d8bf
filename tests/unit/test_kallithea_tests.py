"""The comparison of Kallithea's own tests with our patches and without them."""

from __future__ import annotations

import importlib.util
import sys
import types
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def program() -> types.ModuleType:
    """Return the program as a module."""
    spec = importlib.util.spec_from_file_location("kallithea_tests", ROOT / "scripts/lib/kallithea_tests.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["kallithea_tests"] = module
    spec.loader.exec_module(module)
    return module


REPORT = """<testsuites><testsuite><testcase classname="a.T" name="good"/><testcase classname="a.T" name="bad"><failure>x</failure></testcase>
<testcase classname="a.T" name="broken"><error>x</error></testcase><testcase classname="a.T" name="left"><skipped/></testcase></testsuite></testsuites>"""


def test_what_pytest_reported(program: types.ModuleType) -> None:
    found = program.outcomes(REPORT)
    assert found == {"a.T::good": "passed", "a.T::bad": "failed", "a.T::broken": "failed", "a.T::left": "skipped"}
    assert program.counts(found) == "1 passed, 2 failed, 1 skipped"


@pytest.mark.parametrize(
    ("plain", "patched", "wrong"),
    [
        ("passed", "passed", ""),
        ("failed", "failed", ""),
        ("failed", "passed", ""),
        ("skipped", "skipped", ""),
        ("passed", "failed", "t failed with our patches and passed without."),
        ("skipped", "failed", "t failed with our patches and skipped without."),
        (None, "failed", "t failed with our patches and is not there without."),
        ("passed", "skipped", "t passed without our patches and skipped with them."),
        ("passed", None, "t passed without our patches and is not there with them."),
        ("failed", None, ""),
    ],
)
def test_one_sentence_for_each_test_that_is_worse(program: types.ModuleType, plain: str | None, patched: str | None, wrong: str) -> None:
    found = program.problems({"t": plain} if plain else {}, {"t": patched} if patched else {})
    assert found == ([wrong] if wrong else [])


def test_what_is_meant_to_fail_is_taken_out_once_it_passes(program: types.ModuleType) -> None:
    name = next(iter(program.MEANT))
    assert program.problems({name: "passed"}, {name: "failed"}) == []
    assert program.problems({name: "passed"}, {name: "passed"}) == [f"{name} is in MEANT and passed with our patches: take it out."]
    assert program.problems({}, {}) == [], "it was not asked for"


def test_the_patches_are_those_of_a_release(program: types.ModuleType) -> None:
    compat, every = (program.patches(kind) for kind in program.TREES.values())
    assert compat and every[: len(compat)] == compat and len(every) == len(list((ROOT / "roles/app/files/patches").iterdir()))
    assert all(path.name.startswith("compat-") for path in compat)
