"""What the benchmark computes from what it measured."""

from __future__ import annotations

import importlib.util
import pathlib
import subprocess
import sys
import types

import pytest

SOURCE = pathlib.Path(__file__).parents[1] / "benchmark" / "figures.py"


def _load() -> types.ModuleType:
    spec = importlib.util.spec_from_file_location("figures", SOURCE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["figures"] = module
    spec.loader.exec_module(module)
    return module


figures = _load()


def test_a_value_is_the_median_and_the_spread_is_relative_to_it() -> None:
    figure = figures.Figure("push", "s", [4.0, 2.0, 5.0])
    assert (figure.value, figure.spread, figure.note) == (4.0, 0.75, "")


def test_a_figure_with_errors_has_no_value() -> None:
    figure = figures.Figure("page", "pages/s", [900.0], errors=7, goal=1)
    assert (figure.value, figure.spread, figure.note) == (None, None, "no result: 7 errors")


def test_one_run_has_no_spread_and_none_is_said() -> None:
    assert figures.Figure("page", "pages/s", [3.0]).spread is None
    assert figures.Figure("page", "pages/s").note == "not measured"


@pytest.mark.parametrize(("through", "note"), [(50.0, "goal 0.5: met"), (49.0, "goal 0.5: missed")])
def test_a_ratio_is_held_against_its_goal(through: float, note: str) -> None:
    figure = figures.ratio("static", figures.Figure("a", "1/s", [through]), figures.Figure("b", "1/s", [100.0]), 0.5)
    assert (figure.value, figure.note) == (through / 100, note)


def test_a_ratio_of_something_that_failed_is_none() -> None:
    figure = figures.ratio("static", figures.Figure("a", "1/s", [50.0], errors=2), figures.Figure("b", "1/s", [100.0]))
    assert (figure.value, figure.note) == (None, "no result: 2 errors")
    assert figures.ratio("static", figures.Figure("a", "1/s"), figures.Figure("b", "1/s", [1.0])).note == "not measured"


def test_the_table_has_a_line_for_each_figure() -> None:
    lines = figures.table([figures.Figure("static", "ratio", [0.444], goal=0.5), figures.Figure("pages", "pages/s", [1234.5, 1234.5])]).splitlines()
    assert [line.split() for line in lines] == [
        ["name", "value", "unit", "runs", "spread"],
        ["static", "0.44", "ratio", "1", "-", "goal", "0.5:", "missed"],
        ["pages", "1234", "pages/s", "2", "0%"],
    ]


def test_all_errors_of_wrk_are_counted() -> None:
    output = 'Running 1s test\nBENCH {"requests": 10, "bytes": 99, "errors_read": 1, "errors_status": 2}\n'
    report, errors = figures.parse_wrk(output)
    assert (report["requests"], errors) == (10, 3)


def test_wrk_without_a_report_is_an_error_that_shows_its_words() -> None:
    with pytest.raises(ValueError, match="unable to connect"):
        figures.parse_wrk("unable to connect to scm.example.org:https Connection refused")


def test_the_file_of_the_nearest_size_is_chosen_among_the_folders() -> None:
    output = "node1 | CHANGED | rc=0 >>\n4100 css/b.css\n3900 css/a.css\n4000 robots.txt\n200000 js/c.js\n"
    sizes = figures.parse_sizes(output, ("css/", "js/"))
    assert sizes == {"css/b.css": 4100, "css/a.css": 3900, "js/c.js": 200000}
    assert figures.nearest(sizes, 4000) == "css/a.css"
    assert figures.nearest(sizes, 235_000) == "js/c.js"


def test_the_repository_is_the_same_each_time_and_git_takes_it(tmp_path: pathlib.Path) -> None:
    stream = b"".join(figures.fast_import(3, 3000))
    assert stream == b"".join(figures.fast_import(3, 3000))
    git = ["git", "-C", str(tmp_path)]
    subprocess.run([*git, "init", "-q", "--bare"], check=True)
    subprocess.run([*git, "fast-import", "--quiet"], input=stream, check=True)
    log = subprocess.run([*git, "log", "--format=%s", "master"], check=True, capture_output=True, text=True).stdout.splitlines()
    assert log == ["Change 3 of 3", "Change 2 of 3", "Change 1 of 3"]
    subprocess.run([*git, "fsck", "--strict"], check=True)


def test_what_ansible_printed_of_the_lock() -> None:
    said = r'app1 | CHANGED => {"changed": true, "stdout": "BENCH {\\"plain\\": [2.0, 3.0], \\"locked\\": [4.5, 5.5]}\\n"}'
    assert figures.parse_lock(said.replace("\\\\", "\\")) == ([2.0, 3.0], [4.5, 5.5])
    assert figures.parse_lock('BENCH {"plain": [1.0], "locked": [2.0]}') == ([1.0], [2.0])
    with pytest.raises(ValueError, match="said no figures: nothing"):
        figures.parse_lock("nothing")
    cost = figures.difference("lock", figures.Figure("a", "ms", [5.0]), figures.Figure("b", "ms", [2.5]))
    assert (cost.value, cost.unit) == (2.5, "ms")
    assert figures.difference("lock", figures.Figure("a", "ms", [5.0], errors=1), figures.Figure("b", "ms", [2.5])).value is None
