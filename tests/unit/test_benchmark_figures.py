"""What the benchmark computes from what it measured."""

from __future__ import annotations

import pathlib
import subprocess
from typing import Any

import figures
import pytest


def test_a_value_is_the_median_and_the_spread_is_relative_to_it() -> None:
    figure = figures.Figure("push", "s", [4.0, 2.0, 5.0])
    assert (figure.value, figure.spread, figure.note) == (4.0, 0.75, "")


def test_a_figure_with_errors_has_no_value() -> None:
    figure = figures.Figure("page", "pages/s", [900.0], errors=7, goal=1)
    assert (figure.value, figure.spread, figure.note) == (None, None, "no result: 7 errors")


def test_one_run_has_no_spread_and_none_is_said() -> None:
    assert figures.Figure("page", "pages/s", [3.0]).spread is None
    assert figures.Figure("page", "pages/s").note == "not measured"


@pytest.mark.parametrize(("through", "note"), [(50.0, "goal at least 0.5: met"), (49.0, "goal at least 0.5: missed by 0.01")])
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
        ["static", "0.44", "ratio", "1", "-", "goal", "at", "least", "0.5:", "missed", "by", "0.06"],
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


def phase(share: float = 0.5, seconds: float = 10.0, **pages: list[float]) -> dict[str, Any]:
    """Return a phase of the generator's report."""
    return {
        "name": "idle",
        "seconds": seconds,
        "generator_share": share,
        "pages": pages,
        "failed_pages": {},
        "clones": {"ci": [1.0, 3.0]},
        "failed_clones": {},
    }


def test_percentiles_lie_between_values_in_proportion() -> None:
    assert figures.percentile([4.0, 1.0, 3.0, 2.0], 50) == 2.5
    assert figures.percentile([1.0, 2.0], 95) == pytest.approx(1.95)
    assert figures.percentile([7.0], 99) == 7.0


def test_a_rise_is_that_of_each_run_against_its_own_idle_phase() -> None:
    figure = figures.rises("people", [phase(a=[0.1]), phase(a=[0.2])], [phase(a=[0.12]), phase(a=[0.3])], 1.25)
    assert figure.runs == pytest.approx([1.2, 1.5])
    assert figure.note == "goal at most 1.25: missed by 0.10"


def test_a_goal_from_above_is_met_at_the_goal_itself() -> None:
    assert figures.Figure("a", "x", [1.25], goal=1.25, at_most=True).note == "goal at most 1.25: met"


def test_a_run_in_which_the_generator_was_too_busy_is_void() -> None:
    assert not figures.is_void(phase(0.9)) and figures.is_void(phase(0.2), phase(0.91))
    figure = figures.rises("people", [phase(a=[0.1]), phase(a=[0.1])], [phase(0.95, a=[0.9]), phase(a=[0.1])], 1.25)
    assert (figure.value, figure.void, figure.note) == (1.0, 1, "goal at most 1.25: met, 1 runs void")
    gone = figures.rises("people", [phase(0.95, a=[0.1])], [phase(a=[0.9])], 1.25)
    assert (gone.value, gone.note) == (None, "no result: all 1 runs void")


def test_pages_are_counted_together_and_each() -> None:
    found = figures.page_figures("idle", [phase(a=[0.1] * 3, b=[0.3])])
    assert [(figure.name, figure.unit) for figure in found] == [
        ("idle: all pages, p50", "ms"),
        ("idle: all pages, p95", "ms"),
        ("idle: all pages, p99", "ms"),
        ("idle: a, p95", "ms"),
        ("idle: b, p95", "ms"),
    ]
    assert [figure.value for figure in found] == pytest.approx([100, 270, 294, 100, 300])


def test_failures_are_named_and_none_may_be() -> None:
    bad = phase(a=[0.1]) | {"failed_pages": {"login page: status 503": 2}}
    figure = figures.failure_figure("failed pages", [phase(), bad, phase()], "pages")
    assert (figure.value, figure.note) == (2.0, "goal at most 0: missed by 2.00")
    assert figures.failures([bad, phase(), bad], "pages") == {"login page: status 503": 4}


def test_rates_are_those_of_the_measured_time() -> None:
    assert figures.clone_rate("clones", [phase(), phase(0.99)], "ci").runs == [0.2]
    assert figures.clone_rate("clones", [phase()], "other").runs == [0.0]
    assert figures.page_rate("pages", [phase(a=[0.1], b=[0.1])]).runs == [0.2]
    assert figures.clone_seconds("clone", [phase()], "ci").runs == [2.0]


def test_two_figures_compare_run_by_run() -> None:
    one, four = figures.Figure("1", "1/s", [1.0, 2.0]), figures.Figure("4", "1/s", [3.8, 7.0])
    figure = figures.pair_ratio("4 nodes", four, one, 0.9 * 4, at_most=False)
    assert figure.runs == [3.8, 3.5] and figure.note == "goal at least 3.6: met"
    four.void, four.runs = 1, [3.0]
    assert figures.pair_ratio("4 nodes", four, one).runs == [2.0]


def test_what_a_way_adds_is_the_difference_at_a_percentile() -> None:
    report = phase() | {"pages": {"page, balancer": [0.012, 0.014], "page, straight": [0.011, 0.012]}}
    assert figures.added("p50", [report], "page", ("balancer", "straight"), 50).runs == pytest.approx([1.5])


def test_a_figure_survives_its_json() -> None:
    figure = figures.Figure("a", "x", [1.0], goal=2, at_most=True, void=1, part="separation")
    assert figures.Figure.from_json(figure.as_json()) == figure


def test_a_curve_has_a_point_for_each_percentile() -> None:
    points = figures.curve([phase(a=[0.1, 0.2]), phase(0.99, a=[9.0])])
    assert (len(points), points[0], points[50]) == (100, (0, 100.0), (50, 150.0))
    assert figures.curve([]) == []
