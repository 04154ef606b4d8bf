"""The guard refuses every kind of false green that Molecule lets pass."""

from __future__ import annotations

import base64
import importlib.util
import pathlib
import sys
import types

import pytest

SOURCE = pathlib.Path(__file__).parents[2] / "scripts" / "lib" / "molecule_guard.py"


def _load() -> types.ModuleType:
    spec = importlib.util.spec_from_file_location("molecule_guard", SOURCE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["molecule_guard"] = module
    spec.loader.exec_module(module)
    return module


guard = _load()
SECRETS = {"admin_password": "Zq8vB3nM5kL7pXwT", "broker_password": "a1b2c3d4e5f6g7h8i9"}
SETTINGS = guard.Settings(minimum_tests=3)


def recap(changed: int, ignored: int = 0) -> str:
    return f"node1                      : ok=9    changed={changed}    unreachable=0    failed=0    skipped=0    rescued=0    ignored={ignored}"


def action(name: str, *lines: str, result: str = "Successful") -> str:
    return "\n".join([f"INFO     [single > {name}] Executing", *lines, f"INFO     [single > {name}] Executed: {result}"])


def green(**changes: str) -> str:
    parts = {
        "bare": action("check", recap(7)),
        "converge": action("converge", recap(90)),
        "idempotence": action("idempotence", recap(0)),
        "check": action("check", recap(0)),
        "verify": action("verify", "============ 3 passed in 12.70s ============"),
        "end": "single   : actions=10  successful=7  disabled=0  skipped=0  missing=0  failed=0",
    }
    assert set(changes) <= set(parts)
    return "\n".join({**parts, **changes}.values())


def problems(text: str) -> list[str]:
    found: list[str] = guard.problems(text, SETTINGS, SECRETS)
    return found


def test_a_run_that_tested_passes() -> None:
    assert problems(green()) == []


def test_a_closing_line_with_minutes_is_read() -> None:
    assert problems(green(verify=action("verify", "====== 4 passed, 2 warnings in 132.70s (0:02:12) ======"))) == []


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"end": "single : actions=10 successful=7 missing=1 failed=0"}, "missing"),
        ({"verify": action("verify", "WARNING  [single > verify] Skipping, no tests found.")}, "no tests"),
        ({"verify": action("verify", "===== no tests ran in 0.01s =====")}, "0 tests passed"),
        ({"verify": action("verify", "===== 2 passed in 0.70s =====")}, "2 tests passed, the scenario promises 3"),
        ({"verify": action("verify", "===== 5 passed, 1 skipped in 0.70s =====")}, "1 tests were skipped"),
        ({"verify": ""}, "expected the actions"),
        ({"bare": ""}, "expected the actions"),
        ({"converge": action("converge", recap(9), result="Failed")}, "expected the actions"),
        ({"idempotence": action("idempotence", recap(1))}, "idempotence after converge: node1 reports changed=1"),
        ({"check": action("check", recap(2))}, "check after converge: node1 reports changed=2"),
        ({"check": action("check")}, "check reached no host"),
        ({"converge": action("converge", recap(9, ignored=1))}, "ignored 1 errors"),
        ({"converge": action("converge", "[DEPRECATION WARNING]: old thing", recap(9))}, "deprecation"),
        ({"converge": action("converge", '"cmd": "psql Zq8vB3nM5kL7pXwT"', recap(9))}, "secret admin_password"),
        ({"converge": action("converge", "[ERROR]: Zq8vB3nM\n5kL7pXwT", recap(9))}, "secret admin_password"),
    ],
)
def test_a_false_green_is_refused(change: dict[str, str], sentence: str) -> None:
    found = problems(green(**change))
    assert any(sentence in problem for problem in found), found


def test_changes_of_the_check_on_the_bare_host_are_no_problem() -> None:
    assert problems(green(bare=action("check", recap(99)))) == []


@pytest.mark.parametrize("before", ["", "admin:", "x", "xy", "xyz"])
def test_a_secret_inside_base64_is_found(before: str) -> None:
    header = base64.b64encode(f"{before}{SECRETS['admin_password']}tail".encode()).decode()
    assert guard.leaks(f"Authorization: Basic {header}", SECRETS) == ["admin_password"]


def test_the_clusters_name_is_no_secret(tmp_path: pathlib.Path) -> None:
    file = tmp_path / "secrets.yml"
    file.write_text("cluster_id: abcdefghijkl\nadmin_password: Zq8vB3nM5kL7pXwT\nshort: abc\n")
    assert guard.read_secrets(file) == {"admin_password": "Zq8vB3nM5kL7pXwT"}


def test_secrets_that_somebody_else_has_made_are_searched_for_too(tmp_path: pathlib.Path) -> None:
    (tmp_path / "secrets").mkdir()
    (tmp_path / guard.SECRET_FILE).write_text("kallithea_secrets: {admin_password: Zq8vB3nM5kL7pXwT}", encoding="utf-8")
    assert set(guard.scenario_secrets(tmp_path)) == {"admin_password"}
    (tmp_path / guard.GIVEN_FILE).write_text("broker_password: a1b2c3d4e5f6g7h8i9", encoding="utf-8")
    assert set(guard.scenario_secrets(tmp_path)) == {"admin_password", "broker_password"}


@pytest.mark.parametrize("text", [None, "$ANSIBLE_VAULT;1.1;AES256\n6162\n", "- a\n", "cluster_id: abcdefghijkl\n"])
def test_secrets_that_cannot_be_searched_for_are_an_error(tmp_path: pathlib.Path, text: str | None) -> None:
    file = tmp_path / "secrets.yml"
    if text is not None:
        file.write_text(text)
    with pytest.raises(guard.GuardError):
        guard.read_secrets(file)


@pytest.mark.parametrize("text", [None, "minimum_tests: 0\n", "minimum_test: 3\n", "minimum_tests: 3\nmore: 1\n"])
def test_a_scenario_has_to_promise_tests(tmp_path: pathlib.Path, text: str | None) -> None:
    file = tmp_path / "guard.yml"
    if text is not None:
        file.write_text(text)
    with pytest.raises(guard.GuardError):
        guard.Settings.load(file)


def test_every_scenario_promises_tests() -> None:
    root = SOURCE.parents[2] / "molecule"
    scenarios = sorted(path.parent for path in root.glob("*/molecule.yml"))
    assert scenarios
    for scenario in scenarios:
        guard.Settings.load(scenario / "guard.yml")
