"""What the benchmarks of people and build servers plan, the hosts' shares, and the reports."""

from __future__ import annotations

import json
import re
import time
import xml.etree.ElementTree
from pathlib import Path
from typing import Any

import content
import costs
import figures
import hosts
import pytest
import report
import storms
import yaml

ROOT = Path(__file__).resolve().parents[2]


def phase(name: str, milliseconds: float, share: float = 0.5) -> dict[str, Any]:
    """Return a phase of the generator's report."""
    pages = {"login page": [milliseconds / 1000] * 20, "changelog": [2 * milliseconds / 1000] * 20}
    clones = {"ci": [1.0] * 30} if name == "storm" else {}
    return {"name": name, "seconds": 60.0, "generator_share": share, "pages": pages, "failed_pages": {}, "clones": clones, "failed_clones": {}}


@pytest.fixture
def site(tmp_path: Path) -> content.Content:
    """Return the content of a site that nobody asks."""

    class Admin:
        user, password, url = "admin", "secret", "https://scm.test"

    made = content.Content(tmp_path, "word", Admin(), "/ca.crt", "https://scm.test")  # type: ignore[arg-type]
    made.passwords = {"person": "p", "ci": "c", "large": "l", "small": "s"}
    return made


def test_a_share_is_a_quota_of_a_short_period_on_the_hosts_core() -> None:
    assert hosts.share_arguments(0.25) == ["--cpuset-cpus", "0", "--cpu-period", "10000", "--cpu-quota", "2500"]
    assert hosts.share_arguments(None)[-2:] == ["--cpu-quota", "-1"]
    assert hosts.free_arguments()[:2] != hosts.share_arguments(None)[:2]


def test_all_shares_fit_one_core() -> None:
    """The cluster's as they are in the demo, and four application hosts beside the rest."""
    assert 2 * storms.NODE_SHARE + sum(storms.TIER_SHARES.values()) <= 1
    assert sum(storms.TIER_SHARES.values()) == pytest.approx(0.4)
    # Docker takes no quota below 1 ms.
    assert min(storms.NODE_SHARE, storms.SMALL_SHARE, *storms.TIER_SHARES.values()) * hosts.PERIOD_MICROSECONDS >= 1000
    assert max(storms.NODES) * storms.SMALL_SHARE + storms.FRONT_SHARE <= 1


@pytest.mark.parametrize(("text", "seconds"), [("usage_usec 2500000\nuser_usec 1\nnr_periods 4\n", 2.5), ("3500000000\nnr_periods 9\nnr_throttled 3\n", 3.5)])
def test_processor_time_of_both_versions_of_cgroups(text: str, seconds: float) -> None:
    assert hosts.cpu_seconds(text) == seconds


def test_no_processor_time_is_an_error() -> None:
    with pytest.raises(ValueError, match="no processor time"):
        hosts.cpu_seconds("cat: no such file\n")


def test_the_throttled_share_is_that_between_two_readings() -> None:
    assert hosts.throttled_share("nr_periods 100\nnr_throttled 50\n", "nr_periods 300\nnr_throttled 60\n") == 0.05
    assert hosts.throttled_share("1\n", "2\n") == 0.0


def test_a_storm_is_measured_after_its_idle_phase_with_the_same_people(site: content.Content) -> None:
    plan = storms.storm_plan(site, "https://scm.test", "https://ci.test", 60)
    warm, idle, storm = plan["phases"]
    assert (warm["name"], idle["name"], storm["name"]) == ("warm-up", "idle", "storm")
    assert idle["seconds"] == storm["seconds"] and idle["people"] and storm["people"]
    assert not idle.get("bots") and storm["bots"] == ["ci"]
    assert plan["bots"]["ci"] == {"url": "https://ci.test/word-git", "clients": 16, "user": "word-ci", "password": "c"}
    assert [page["name"] for page in plan["pages"] if page.get("stranger")] == ["login page"]
    assert plan["think_seconds"] == 0.2


def test_more_hosts_get_as_many_more_clients(site: content.Content) -> None:
    one, four = (storms.scaling_plan(site, "https://scm.test", "192.0.2.1", count, 60) for count in (1, 4))
    assert four["people"] == 4 * one["people"] and four["bots"]["ci"]["clients"] == 4 * one["bots"]["ci"]["clients"]
    assert one["bots"]["ci"]["address"] == "192.0.2.1"


def test_only_the_cluster_has_a_goal() -> None:
    idle, storm = [phase("idle", 10)] * 3, [phase("storm", 14)] * 3
    first = storms.storm_figures("cluster", idle, storm, 1.25)
    assert first[0].value == pytest.approx(1.4) and first[0].note == "goal at most 1.25: missed by 0.15"
    assert [figure.verdict for figure in first if figure.name.startswith("cluster: failed")] == ["goal at most 0: met"] * 2
    assert not any(figure.verdict for figure in storms.storm_figures("plain", idle, storm, None))


def test_a_void_run_counts_for_no_figure_of_the_storm() -> None:
    found = storms.storm_figures("cluster", [phase("idle", 10)] * 2, [phase("storm", 90, 0.95), phase("storm", 11)], 1.25)
    assert found[0].runs == pytest.approx([1.1]) and found[0].void == 1
    assert next(figure for figure in found if figure.unit == "clones/s").runs == [0.5]


def result() -> dict[str, Any]:
    """Return a benchmark's result."""
    found = storms.storm_figures("cluster", [phase("idle", 10)] * 3, [phase("storm", 14)] * 3, 1.25)
    for figure in found:
        figure.part = "separation"
    lines = {"idle": figures.curve([phase("idle", 10)]), "storm": figures.curve([phase("storm", 14)]), "plain": []}
    charts = [
        {"part": "separation", "title": "Pages", "x": "percentile", "y": "ms", "lines": lines},
        {"part": "separation", "title": "Seconds", "bars": [["small", 1.5], ["large", 20.0]]},
    ]
    return {
        "date": "2026-11-29T01:00:00+00:00",
        "command": "./scripts/bench separation",
        "environment": {"processor": "A <fast> one", "cores": 2, "hg": ""},
        "problems": ["balancer was ended by hand."],
        "failures": {"ci: fatal: 503": 2},
        "figures": [figure.as_json() for figure in found],
        "charts": charts,
    }


def test_a_report_says_how_it_was_made_and_what_was_missed_by_how_much(tmp_path: Path) -> None:
    written = report.publish(result(), tmp_path)
    assert [path.name for path in written] == ["separation.json", "separation.md", "separation.html"]
    text = (tmp_path / "separation.md").read_text()
    for words in (
        "`./scripts/bench separation` on 2026-11-29",
        "goal at most 1.25: missed by 0.15",
        "goal at most 0: met",
        "ci: fatal: 503: 2 times",
        "- balancer was ended",
    ):
        assert words in text, words
    assert "| processor | A <fast> one |" in text and "| hg |" not in text


def test_the_page_needs_nothing_beside_itself(tmp_path: Path) -> None:
    report.publish(result(), tmp_path)
    text = (tmp_path / "separation.html").read_text()
    assert text.count("<svg ") == 2 and "A &lt;fast&gt; one" in text
    assert not re.search(r"<script|<link|<img|src=|@import", text)
    assert not [address for address in re.findall(r"https?://[^\s\"'<]+", text) if "www.w3.org" not in address]
    for drawing in re.findall(r"<svg .*?</svg>", text, re.DOTALL):
        xml.etree.ElementTree.fromstring(drawing)


def test_pages_are_written_again_from_the_values(tmp_path: Path) -> None:
    report.publish(result(), tmp_path)
    before = (tmp_path / "separation.md").read_text()
    report.publish(json.loads((tmp_path / "separation.json").read_text()), tmp_path / "again")
    assert (tmp_path / "again/separation.md").read_text() == before


def test_every_benchmark_has_a_title_and_stands_in_the_usage() -> None:
    usage = (ROOT / "scripts/bench").read_text()
    names = storms.Storms(None, "").by_name()  # type: ignore[arg-type]
    assert set(names) <= set(report.TITLES)
    for name in report.TITLES:
        assert re.search(rf"^  {name} ", usage, re.MULTILINE), name


def test_the_plain_site_has_no_part_of_the_clusters_ini() -> None:
    """The play takes out what the role writes; a line that the role renames would stay."""
    template = (ROOT / "roles/app/templates/kallithea.ini.j2").read_text()
    play = (ROOT / "tests/benchmark/plain.yml").read_text()
    keys = re.findall(r"regex_replace\('\(\?m\)\^([a-z_\\.]+) = ", play)
    assert len(keys) == 4
    for key in keys:
        assert re.search(rf"^{key} = ", template, re.MULTILINE), key


def test_the_hosts_of_scaling_are_as_many_as_it_measures() -> None:
    inventory = yaml.safe_load((ROOT / "tests/benchmark/scaling/hosts.yml").read_text())["all"]["children"]
    assert len(inventory["kallithea_app"]["hosts"]) == max(storms.NODES)
    assert list(inventory["kallithea_database"]["hosts"]) == list(inventory["kallithea_loadbalancer"]["hosts"])


def test_a_cost_is_what_an_operation_took_beyond_what_the_hosts_do_by_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = {"now": 0.0, "used": 0.0}

    class Fake:
        def of(self, tier: str) -> list[str]:
            return [f"{tier}1"]

        def use(self, host: str) -> str:
            # Each host uses a tenth of a core by itself; the application host what is done besides.
            return f"usage_usec {round((clock['now'] * 0.1 + (clock['used'] if host == 'app1' else 0)) * 1e6)}"

    def sleep(seconds: float) -> None:
        clock["now"] += seconds

    def work(number: int) -> None:
        clock["now"] += 1.0
        clock["used"] += 5.0 if number < 0 else 0.04

    monkeypatch.setattr(time, "sleep", sleep)
    monkeypatch.setattr(time, "monotonic", lambda: clock["now"])
    meter = costs.Meter(Fake())  # type: ignore[arg-type]
    found = meter.cost(20, work)
    assert found["app"] == pytest.approx(40.0, abs=0.1), "the first one, which warms up, does not count"
    assert found["loadbalancer"] == pytest.approx(0.0, abs=0.1)
