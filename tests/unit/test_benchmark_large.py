"""The benchmarks of large sites: what they push, ask, insert and remove again, and which figures and goals come of it."""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import bench
import costs
import figures
import large
import pytest
import report
import sites
import storms
import yaml
from client import BenchFailed

ROOT = Path(__file__).resolve().parents[2]
TINY = large.Scale((1, 2, 3, 4), 60, 20, 90, 4, (3, 2), (1_000_000, 2_000_000), 2, 400_000, 40, 30, 2, 2)


@pytest.fixture
def sources(tmp_path: Path) -> sites.Sources:
    """Return the sources of repositories."""
    return sites.Sources(tmp_path / "sources")


def test_a_long_history_is_the_same_each_time_and_has_its_references(sources: sites.Sources, tmp_path: Path) -> None:
    source = sources.git_source("history", 100, 0, 40)
    again = sites.Sources(tmp_path / "again").git_source("history", 100, 0, 40)
    assert sources.ids(source, "master") == sources.ids(again, "master") and len(sources.ids(source, "master")) == 100
    names = sources.git.says("-C", "history", "for-each-ref", "--format=%(refname)").splitlines()
    assert len(names) == 41 and sum(name.startswith("refs/heads/branch-") for name in names) == 4
    # Spread over the history, and loose as a push leaves them.
    assert len(set(sources.ids(source, "--no-walk", "--tags"))) == 36 and not (source / "packed-refs").exists()
    blamed = sources.git.says("-C", "history", "blame", "-s", "master", "--", figures.module(0)).splitlines()
    assert len({line.split()[0] for line in blamed}) == 3, "a module has lines of several commits"


def test_a_mercurial_source_is_the_same_each_time_and_has_all_of_gits(sources: sites.Sources, tmp_path: Path) -> None:
    source = sources.hg_source(sources.git_source("bytes", 40, 400_000, 30))
    again = sites.Sources(tmp_path / "again")
    again.hg_source(again.git_source("bytes", 40, 400_000, 30))
    tips = [where.hg.says("-R", source.name, "id", "-i", "-r", "p1(tip)") for where in (sources, again)]
    assert tips[0] == tips[1]
    said = [sources.hg.says("-R", source.name, command, "-T", "x").count("x") for command in ("log", "tags", "bookmarks")]
    # The tags are a changeset of their own, and "tip" is one; master is a bookmark.
    assert said == [41, 28, 4]
    files = sources.git.says("-C", "bytes", "ls-tree", "-r", "--name-only", "master").split()
    assert sources.hg.says("-R", source.name, "manifest", "-r", "tip").split() == sorted([".hgtags", *files])


def test_a_repository_is_maintained_as_the_role_has_it_done() -> None:
    defaults = yaml.safe_load((ROOT / "roles/app/defaults/main.yml").read_text())
    assert defaults["kallithea_app_pull_bundle_bytes"] == sites.PULL_BUNDLE_BYTES


def test_what_fails_or_hangs_says_so(sources: sites.Sources) -> None:
    with pytest.raises(BenchFailed, match=r"git rev-parse nothing ended with 128: fatal: "):
        sources.git.run("rev-parse", "nothing")
    with pytest.raises(BenchFailed, match="took longer than 0 s"):
        sources.git.run("-c", "alias.wait=!sleep 30", "wait", seconds=0.2)


def test_git_answers_straight_what_a_client_asks_for(sources: sites.Sources) -> None:
    source = sources.git_source("bytes", 10, 300_000, 10)
    requests = [figures.upload_request([commit]).hex() for commit in sources.ids(source, "-3", "master")]
    given = json.dumps({"git": "git", "repository": str(source), "requests": requests})
    command = [sys.executable, str(ROOT / "tests/benchmark/straight.py")]
    done = subprocess.run(command, input=given, capture_output=True, text=True, check=True)
    found = figures.marked(done.stdout)
    assert {name: len(values) for name, values in found.items()} == {"seconds": 3, "cpu": 3, "bytes": 3}
    assert all(size > 200_000 for size in found["bytes"]) and found["bytes"][0] > found["bytes"][2]
    given = json.dumps({**json.loads(given), "requests": [figures.upload_request(["0" * 39 + "1"]).hex()]})
    refused = subprocess.run(command, input=given, capture_output=True, text=True, check=False)
    assert refused.returncode, "an answer that is none is no figure"


def test_all_rows_that_are_added_are_removed() -> None:
    added = [*large.repository_rows("w", "it's me", 1, 10), *large.people_rows("w", "it's me", "w-visitor")]
    tables = re.findall(r"INSERT INTO (\w+)", "\n".join(added))
    assert sorted(tables) == sorted(re.findall(r"DELETE FROM (\w+)", "\n".join(large.removal("w")))) and len(tables) == 5
    assert not [statement for statement in added if "it's" in statement], "a name with a quote"
    # What refers to a row goes before it.
    order = re.findall(r"DELETE FROM (\w+)", "\n".join(large.removal("w")))
    assert order.index("repo_to_perm") < order.index("repositories") and order.index("users_groups_members") < order.index("users_groups")


class Database:
    """Remembers statements."""

    def __init__(self) -> None:
        self.statements: list[str] = []

    def sql(self, *statements: str) -> str:
        self.statements += statements
        return ""


class Site:
    """A site whose operations take as long as they are told to, by the name of what is asked."""

    def __init__(self, name: str, clock: Callable[[str], float], folder: Path) -> None:
        self.name, self.clock, self.folder = name, clock, folder
        self.url, self.word, self.account, self.git_path, self.app = f"https://{name}.test", "w", "w-visitor", f"/{name}/git", "app1"
        self.made: list[str] = []
        self.asked: list[str] = []
        self.hosts = Database()
        self.admin = type("Admin", (), {"user": "admin"})
        self.git = self.hg = self
        self.maintained: list[str] = []

    def run(self, *words: str, seconds: float = 0) -> float:
        self.asked.append(" ".join(words))
        if "clone" in words:
            Path(self.folder, words[-1]).mkdir(parents=True, exist_ok=True)
        return self.clock(" ".join(words))

    def says(self, *words: str) -> str:
        return "1" * 40

    def page(self, path: str) -> float:
        return self.clock(path)

    def api(self, repository: str) -> float:
        return self.clock("api")

    def clone(self, repository: str) -> float:
        return self.clock("clone")

    hg_clone = clone

    def filled(self, name: str, source: Path) -> str:
        assert source.exists() and f"w-{name}" not in self.made
        self.made.append(f"w-{name}")
        return f"w-{name}"

    def maintain(self, repository: str) -> None:
        self.maintained.append(repository)

    def upload(self, git: str, repository: str, requests: Sequence[bytes]) -> dict[str, list[float]]:
        self.asked.append(f"{git} {len(set(requests))}")
        return {"seconds": [1.0] * len(requests), "cpu": [0.5 if self.name == "plain" else 0.05] * len(requests), "bytes": [2e8] * len(requests)}

    def download(self, repository: str, request: bytes) -> tuple[float, int]:
        return 1.2, 200_000_000


class Meter:
    """Counts what is done; the cluster costs a tenth of plain."""

    def __init__(self, name: str) -> None:
        self.name = name

    def weigh(self, count: int, do: Callable[[int], Any], limit: float = 0) -> tuple[list[Any], dict[str, float]]:
        cost = 10.0 if self.name == "cluster" else 100.0
        return [do(number) for number in range(count)], {"app": cost, "loadbalancer": 1.0, "database": 2.0}


class Bench:
    """A run that has all the time it needs."""

    url, node, word, quick, rounds = "https://cluster.test", "192.0.2.1", "w", True, 2
    deadline = bench.Deadline(1e6)

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.figures: list[figures.Figure] = []
        self.charts: list[dict[str, Any]] = []


class Run(large.Large):
    """The benchmarks, without hosts and small."""

    scale = TINY

    def __init__(self, folder: Path, clock: Callable[[str], float] = lambda words: 0.1) -> None:
        super().__init__(Bench(folder), "")  # type: ignore[arg-type]
        self.sites = {name: Site(name, clock, folder / name) for name in ("cluster", "plain")}

    @contextlib.contextmanager
    def measured(self, name: str) -> Iterator[Any]:
        yield self.sites[name], Meter(name)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Return the benchmarks with fake sites."""
    return Run(tmp_path)


# The goals of each benchmark: how many figures have which.
GOALS = {
    "many": {1.5: 2, 0.5: 1},
    "bigrepo": {0.6: 8, 1.0: 2, 3.0: 5},
    "stall": {1.5: 3, 1.3: 2},
    "push": {0.4: 1, 0.35: 1},
    "clone": {1 / 7: 2, 1 / 9: 1},
    "fetch": {0.5: 1},
}


@pytest.mark.parametrize("name", GOALS)
def test_each_benchmark_measures_both_sites_and_holds_the_cluster_against_its_goals(run: Run, tmp_path: Path, name: str) -> None:
    run.by_name()[name]()
    found = run.bench.figures
    for figure in found:
        figure.part = name
    names = [figure.name for figure in found]
    assert len(set(names)) == len(names), "a name for each figure"
    assert not [figure.name for figure in found if figure.value is None]
    wanted = [figure for figure in found if figure.goal is not None]
    assert {goal: sum(figure.goal == goal for figure in wanted) for goal in {figure.goal for figure in wanted}} == GOALS[name]
    assert all(figure.at_most and not figure.name.startswith("plain") for figure in wanted)
    measured = [{word for word in names if word.startswith(site)} for site in ("cluster", "plain")]
    assert len(measured[0]) == len(measured[1]) > 0
    result = {"date": "2026-11-29T01:00:00", "command": "./scripts/bench", "environment": {}, "problems": [], "failures": {}, "charts": run.bench.charts}
    for chart in run.bench.charts:
        chart["part"] = name
    written = report.publish({**result, "figures": [figure.as_json() for figure in found]}, tmp_path / "report")
    assert "goal at most" in written[1].read_text()


def test_goals_are_missed_by_a_site_that_is_as_slow_as_plain(tmp_path: Path) -> None:
    run = Run(tmp_path, lambda words: 2.0 if "changelog" in words else 0.7)
    run.bigrepo()
    missed = [figure.name for figure in run.bench.figures if "missed" in figure.verdict]
    assert len(missed) == 10 and not any("90 commits" in name for name in missed)


def test_many_repositories_go_again_whatever_happens(tmp_path: Path) -> None:
    def clock(words: str) -> float:
        if words == "api":
            raise BenchFailed("no answer")
        return 0.1

    run = Run(tmp_path, clock)
    with pytest.raises(BenchFailed, match="no answer"):
        run.many()
    statements = run.sites["cluster"].hosts.statements
    assert statements[-len(large.removal("w")) :] == large.removal("w") and any("generate_series(1, 1)" in statement for statement in statements)


def test_repositories_are_added_to_those_that_are_there(run: Run) -> None:
    run.many()
    statements = "\n".join(run.sites["plain"].hosts.statements)
    assert [pair for pair in re.findall(r"FROM users, generate_series\((\d+), (\d+)\)", statements) if pair != ("1", str(large.GROUPS))] == [
        ("1", "1"),
        ("2", "2"),
        ("3", "3"),
        ("4", "4"),
    ]


def test_no_pack_is_asked_for_twice_where_streams_are_compared(run: Run) -> None:
    run.stall()
    assert [words for words in run.sites["cluster"].asked if words.startswith("/")] == [f"/usr/bin/git {TINY.downloads + 1}"]


def test_each_first_clone_comes_after_a_push_and_gits_part_is_asked_as_the_site_runs_git(run: Run) -> None:
    run.clone()
    for name, site in run.sites.items():
        assert sum("push" in words for words in site.asked) == 2 * run.bench.rounds
        assert [words for words in site.asked if words.startswith("/")] == [f"/{name}/git 1"]
    assert run.sites["cluster"].maintained == ["w-cloned-git", "w-cloned-hg"] and not run.sites["plain"].maintained


@pytest.mark.parametrize(("highest", "word", "value"), [(99, "p99", 1.0), (100, "maximum", 10.0)])
def test_one_long_wait_in_two_hundred_is_a_maximum_and_no_p99(highest: int, word: str, value: float) -> None:
    found = large.stall_figures("x", [1.0] * 199 + [10.0], highest, 1.5)
    assert [figure.name for figure in found] == ["x, p50", "x, p99", "x, maximum", f"x, {word} against p50"]
    assert found[-1].value == pytest.approx(value) and found[-1].goal == 1.5


def test_what_takes_long_is_done_once(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    meter = costs.Meter.__new__(costs.Meter)
    meter.hosts, meter.idle = {"app": "app1"}, {"app": 0.0}
    meter.read = lambda host: f"usage_usec {round(now[0] * 5e5)}"

    def work(number: int) -> int:
        now[0] += 30.0
        return number

    done, spent = meter.weigh(10, work, 20)
    assert done == [0] and spent["app"] == pytest.approx(15_000.0)
    assert meter.weigh(10, work, 70)[0] == [0, 1, 2]


def test_a_site_removes_what_it_made_and_nothing_else() -> None:
    called: list[tuple[str, dict[str, Any]]] = []

    class Admin:
        def call(self, method: str, **arguments: Any) -> Any:
            called.append((method, arguments))
            return [{"repo_name": "w-small"}, {"repo_name": "theirs"}]

    site = sites.Site.__new__(sites.Site)
    site.admin, site.made, site.has_account, site.account = Admin(), ["w-small", "w-never-made"], True, "w-visitor"  # type: ignore[assignment]
    site.close()
    assert called[1:] == [("delete_repo", {"repoid": "w-small"}), ("delete_user", {"userid": "w-visitor"})]


def test_the_sites_that_were_made_go_at_the_end_also_after_a_failure(tmp_path: Path) -> None:
    gone: list[str] = []
    with pytest.raises(KeyboardInterrupt), Run(tmp_path) as run:
        run.closing.callback(gone.append, "site")
        raise KeyboardInterrupt
    assert gone == ["site"]


def test_every_benchmark_has_a_title_stands_in_the_usage_and_has_its_time() -> None:
    usage = (ROOT / "scripts/bench").read_text()
    for name in GOALS:
        assert name in report.TITLES and name in bench.STORM_SECONDS
        assert re.search(rf"^  {name} ", usage, re.MULTILINE) and f" {name} |" in usage
    assert not set(GOALS) & set(storms.Storms(None, "").by_name())  # type: ignore[arg-type]


def test_plains_application_host_has_nothing_else() -> None:
    children = yaml.safe_load((ROOT / "tests/benchmark/apart/hosts.yml").read_text())["all"]["children"]
    (app,) = children["kallithea_app"]["hosts"]
    assert not [name for name, group in children.items() if name != "kallithea_app" and app in (group["hosts"] or {})]
