"""The benchmarks of sites where there is much of something, each on the demo and on plain Kallithea in one run."""

from __future__ import annotations

import contextlib
import os
import pathlib
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from types import TracebackType
from typing import Protocol

import costs
import figures
from client import Browser
from figures import Figure
from hosts import GENERATOR_CORE, Hosts
from sites import Site, Sources
from storms import Bench as StormBench
from storms import say
from variant import Variant, can_be_made

HERE = pathlib.Path(__file__).resolve().parent
CLUSTER, PLAIN = "cluster", "plain"
SCM_PORT = 8082
KALLITHEA_GIT, GIT = "/usr/local/lib/kallithea/kallithea-git", "/usr/bin/git"
USERS, GROUPS = 500, 50
BYTES_COMMITS = 200
# Of one operation in a run; one that takes longer is done once.
OPERATION_SECONDS = 20
GROWTH_GOAL, HOME_GOAL = 1.5, 0.5
PAGE_GOAL, CHANGELOG_GOAL, LONG_GOAL = 0.6, 1.0, 3.0
STALL_GOAL, STRAIGHT_GOAL = 1.5, 1.3
PUSH_GOALS = {"git push": 0.4, "hg push": 0.35}
CLONE_GOAL, GIT_PART_GOAL, FETCH_GOAL = 1 / 7, 1 / 9, 1 / 2


@dataclass(frozen=True)
class Scale:
    """How much there is of everything, and how often it is asked for."""

    # Repositories on the site; the goals hold for the one before the last against the first.
    sizes: tuple[int, ...] = (10, 500, 5_000, 20_000)
    commits: int = 6_000
    references: int = 2_000
    long_commits: int = 100_000
    looks: int = 200
    clones: tuple[int, int] = (50, 10)
    clone_bytes: tuple[int, int] = (14_000_000, 200_000_000)
    downloads: int = 5
    cloned_bytes: int = 20_000_000
    # Four objects each, one for 390 bytes, as a clone of celery's repository has: 103,079 objects in 40 MB, with 5,357 references.
    cloned_commits: int = 12_800
    cloned_references: int = 5_000
    operations: int = 10
    repeated: int = 4


QUICK = Scale((10, 50, 100, 200), 300, 100, 1_000, 10, (3, 2), (2_000_000, 8_000_000), 2, 4_000_000, 2_560, 200, 2, 2)


class Deadline(Protocol):
    """The time that a run may take."""

    def check(self) -> None:
        """Fail where it is over."""


class Bench(StormBench, Protocol):
    """What these benchmarks ask of the whole run."""

    quick: bool
    admin: Browser

    @property
    def deadline(self) -> Deadline:
        """The time that is left."""


@dataclass
class Cost:
    """What one operation takes its client, and the application host's processor; the runs' medians."""

    seconds: Figure
    cpu: Figure
    name: str
    database: list[float] = field(default_factory=list)

    def add(self, seconds: Sequence[float], spent: Mapping[str, float]) -> None:
        """Add a run."""
        self.seconds.runs.append(statistics.median(seconds))
        self.cpu.runs.append(spent["app"])
        self.database.append(spent["database"])
        self.cpu.name = f"{self.name}, processor time (database beside it: {figures.number(statistics.median(self.database))} ms)"


def new_cost(name: str) -> Cost:
    """Return one that has no runs yet."""
    return Cost(Figure(name, "s", at_most=True), Figure(f"{name}, processor time", "ms", at_most=True), name)


def quoted(text: str) -> str:
    """Return a text as SQL has it."""
    return "'" + text.replace("'", "''") + "'"


def repository_rows(word: str, owner: str, first: int, last: int) -> list[str]:
    """Return what adds repositories that nobody asks for, as the web interface would: everybody may read them."""
    names = f"{quoted(word + '-many-')} || lpad(n::text, 5, '0')"
    return [
        "INSERT INTO repositories (repo_name, repo_state, repo_type, user_id, private, statistics, downloads, description, created_on, updated_on,"
        f" landing_revision) SELECT {names}, 'repo_state_created', 'git', user_id, false, false, false, 'Repository ' || n, now(), now(), 'rev:tip'"
        f" FROM users, generate_series({first}, {last}) AS n WHERE username = {quoted(owner)}",
        "INSERT INTO repo_to_perm (user_id, permission_id, repository_id) SELECT users.user_id, permission_id, repo_id FROM users, permissions, repositories"
        f" JOIN generate_series({first}, {last}) AS n ON repo_name = {names} WHERE username = 'default' AND permission_name = 'repository.read'",
        "ANALYZE",
    ]


def people_rows(word: str, owner: str, visitor: str) -> list[str]:
    """Return what adds users and groups of them; the visitor is in the first group."""
    return [
        "INSERT INTO users (username, password, active, admin, firstname, lastname, email, extern_type, extern_name, api_key, created_on)"
        f" SELECT {quoted(word + '-many-')} || n, 'x', true, false, 'Bench', 'Many', {quoted(word + '-many-')} || n || '@localhost.test', 'internal',"
        f" {quoted(word + '-many-')} || n, md5({quoted(word)} || n), now() FROM generate_series(1, {USERS}) AS n",
        "INSERT INTO users_groups (users_group_name, user_group_description, users_group_active, user_id, created_on)"
        f" SELECT {quoted(word + '-many-')} || n, '', true, user_id, now() FROM users, generate_series(1, {GROUPS}) AS n WHERE username = {quoted(owner)}",
        "INSERT INTO users_groups_members (users_group_id, user_id) SELECT users_group_id, users.user_id FROM users, users_groups"
        f" JOIN generate_series(1, {USERS}) AS n ON users_group_name = {quoted(word + '-many-')} || (n % {GROUPS} + 1)"
        f" WHERE username = {quoted(word + '-many-')} || n OR (username = {quoted(visitor)} AND n = {GROUPS})",
    ]


def removal(word: str) -> list[str]:
    """Return what removes the rows again. Without a VACUUM between, each repository would be looked for among all the dead rows."""
    of_ours = f"LIKE {quoted(word + '-many-%')}"
    return [
        f"DELETE FROM repo_to_perm WHERE repository_id IN (SELECT repo_id FROM repositories WHERE repo_name {of_ours})",
        "VACUUM ANALYZE repo_to_perm",
        f"DELETE FROM repositories WHERE repo_name {of_ours}",
        f"DELETE FROM users_groups_members WHERE users_group_id IN (SELECT users_group_id FROM users_groups WHERE users_group_name {of_ours})",
        f"DELETE FROM users_groups WHERE users_group_name {of_ours}",
        f"DELETE FROM users WHERE username {of_ours}",
        "VACUUM ANALYZE",
    ]


@contextlib.contextmanager
def crowd(site: Site) -> Iterator[Callable[[int], None]]:
    """Have many users, and as many repositories as one asks for; all of them go again."""
    there = 0

    def grow(size: int) -> None:
        nonlocal there
        site.hosts.sql(*repository_rows(site.word, site.admin.user, there + 1, size))
        there = size

    try:
        site.hosts.sql(*people_rows(site.word, site.admin.user, site.account))
        yield grow
    finally:
        site.hosts.sql(*removal(site.word))


@contextlib.contextmanager
def on_generators_core() -> Iterator[None]:
    """Let this process and the clients that it starts leave the hosts' core to the hosts."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {GENERATOR_CORE})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def stall_figures(name: str, times: Sequence[float], highest: int, goal: float | None) -> list[Figure]:
    """Return how evenly operations went: percentiles in seconds, and how far the highest one lies above the median; 100 is the maximum."""
    middle = figures.percentile(times, 50)
    word = "maximum" if highest == 100 else f"p{highest}"
    found = [Figure(f"{name}, p50", "s", [middle]), Figure(f"{name}, p99", "s", [figures.percentile(times, 99)]), Figure(f"{name}, maximum", "s", [max(times)])]
    return [*found, Figure(f"{name}, {word} against p50", "x", [figures.percentile(times, highest) / middle], goal=goal, at_most=True)]


class Large:
    """The benchmarks, by name; the plain site is made for the first one that wants it, and goes with everything else at the end."""

    def __init__(self, bench: Bench, ca_file: str) -> None:
        """Remember what all of them share."""
        self.bench, self.ca_file = bench, ca_file
        self.sources = Sources(bench.folder / "large")
        self.made: dict[str, Site] = {}
        self.closing = contextlib.ExitStack()

    def __enter__(self) -> Large:
        """Begin with nothing."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Remove what was made."""
        self.closing.close()

    def by_name(self) -> dict[str, Callable[[], None]]:
        """Return what can be run."""
        return {"many": self.many, "bigrepo": self.bigrepo, "stall": self.stall, "push": self.push, "clone": self.clone, "fetch": self.fetch}

    @property
    def scale(self) -> Scale:
        """How much of everything this run has."""
        return QUICK if self.bench.quick else Scale()

    def site(self, name: str) -> Site:
        """Return a site, which the first to ask has made."""
        if name not in self.made:
            site = self.cluster() if name == CLUSTER else self.plain()
            self.made[name] = site
            site.open()
        return self.made[name]

    def cluster(self) -> Site:
        """Return the demo, of which what we make there is removed."""
        hosts, straight = Hosts(self.bench.cluster.inventory), f"http://{self.bench.node}:{SCM_PORT}"
        site = Site(CLUSTER, hosts, self.bench.url, straight, KALLITHEA_GIT, self.bench.admin, self.ca_file, self.bench.folder, f"{self.bench.word}l")
        self.closing.callback(site.close)
        return site

    def plain(self) -> Site:
        """Make plain Kallithea with as many processes as an application host of the demo has; it goes with all that is made there."""
        can_be_made()
        demo = Hosts(self.bench.cluster.inventory)
        variant = Variant("plain", HERE / "apart", self.bench.output, self.bench.cluster.log, say)
        self.closing.callback(variant.down)
        variant.up()
        hosts = Hosts(variant.inventory)
        url = variant.make_plain(hosts.of("app")[0], demo.processes(demo.of("app")[0]))
        return Site(PLAIN, hosts, url, url, GIT, variant.admin(url), "", self.bench.folder, f"{self.bench.word}l")

    @contextlib.contextmanager
    def measured(self, name: str) -> Iterator[tuple[Site, costs.Meter]]:
        """Have one application host with all of the hosts' core, at rest, and a meter for it; the clients have the other core."""
        site = self.site(name)
        hosts, nodes = site.hosts, site.hosts.of("app", "ci")
        others = [host for host in nodes if host != site.app]
        with hosts.drained(*others), hosts.without_timers(nodes):
            hosts.wait_quiet([site.app])
            with hosts.shares(dict.fromkeys(hosts.all, None)), on_generators_core():
                yield site, costs.Meter(hosts)

    def weigh(self, meter: costs.Meter, name: str, count: int, do: Callable[[], float]) -> Cost:
        """Measure an operation, which returns its seconds, in as many runs as a figure has."""
        cost = new_cost(name)
        self.bench.figures += [cost.seconds, cost.cpu]
        do()
        for number in range(self.bench.rounds):
            self.bench.deadline.check()
            say(f"{name}, run {number + 1} of {self.bench.rounds}")
            cost.add(*meter.weigh(count, lambda _: do(), OPERATION_SECONDS))
        return cost

    def against(self, name: str, found: Mapping[str, Cost], goal: float | None) -> None:
        """Add how the processor time of an operation compares with plain's."""
        self.bench.figures.append(figures.pair_ratio(f"{name}, processor time, cluster against plain", found[CLUSTER].cpu, found[PLAIN].cpu, goal))

    def small(self, site: Site) -> str:
        """Return a small Git repository that a copy on this machine is up to date with."""
        repository = f"{site.word}-small"
        if repository not in site.made:
            site.filled("small", self.sources.git_source("small", 50, 0, 5))
            site.git.run("clone", "-q", "--bare", f"{site.url}/{repository}", "small")
        return repository

    def many(self) -> None:
        """Pages, a fetch and the API with more and more repositories that nobody asks for."""
        sizes = self.scale.sizes
        found = {name: self.many_on(name) for name in (CLUSTER, PLAIN)}
        first, large, last = sizes[0], sizes[-2], sizes[-1]
        found[CLUSTER]["home page", large].seconds.goal = HOME_GOAL
        looks = list(dict.fromkeys(look for look, _ in found[CLUSTER]))
        for name, costs_of in found.items():
            for look in looks:
                goal = GROWTH_GOAL if name == CLUSTER and look in ("repository page", "fetch with nothing new") else None
                for upper, lower, wanted in ((large, first, goal), (last, large, None)):
                    words = f"{name}: {look}, processor time, {upper:,} against {lower:,} repositories"
                    self.bench.figures.append(figures.pair_ratio(words, costs_of[look, upper].cpu, costs_of[look, lower].cpu, wanted))
        for look in looks:
            lines = {name: [(size, costs_of[look, size].cpu.value) for size in sizes] for name, costs_of in found.items()}
            self.bench.charts.append({"title": f"Processor time of the application host: {look}", "x": "repositories", "y": "ms", "lines": lines})

    def many_on(self, name: str) -> dict[tuple[str, int], Cost]:
        """Return what each look costs on a site, by the number of its repositories."""
        found = {}
        count = self.scale.operations
        with self.measured(name) as (site, meter), crowd(site) as grow:
            small = self.small(site)
            looks: dict[str, tuple[int, Callable[[], float]]] = {
                "home page": (min(3, count), lambda: site.page("/")),
                "repository page": (count, lambda: site.page(f"/{small}")),
                "fetch with nothing new": (count, lambda: site.git.run("-C", "small", "fetch", "-q", "origin")),
                "API get_repo": (count, lambda: site.api(small)),
            }
            for size in self.scale.sizes:
                grow(size)
                for look, (times, do) in looks.items():
                    found[look, size] = self.weigh(meter, f"{name}: {look}, {size:,} repositories", times, do)
        return found

    def bigrepo(self) -> None:
        """Pages of repositories with much history and many references."""
        scale = self.scale
        for name in (CLUSTER, PLAIN):
            with self.measured(name) as (site, meter):
                source = self.sources.git_source("history", scale.commits, 0, scale.references)
                words = f"{scale.commits:,} commits and {scale.references:,} references"
                repository = site.filled("history", source)
                self.pages(site, meter, f"{words}, freshly pushed", repository, source, PAGE_GOAL, CHANGELOG_GOAL)
                site.maintain(repository)
                self.pages(site, meter, f"{words}, maintained", repository, source, PAGE_GOAL, CHANGELOG_GOAL)
                source = self.sources.git_source("long", scale.long_commits, 0, 10)
                self.pages(site, meter, f"{scale.long_commits:,} commits", site.filled("long", source), source, LONG_GOAL, LONG_GOAL)

    def pages(self, site: Site, meter: costs.Meter, words: str, repository: str, source: pathlib.Path, goal: float, changelog_goal: float) -> None:
        """Look at the pages of a repository; the goals are the cluster's."""
        (tip,) = self.sources.ids(source, "-1", "master")
        file = figures.module(0)
        paths = {"summary": "", "changelog": "/changelog", "file": f"/files/tip/{file}", "diff": f"/changeset/{tip}", "annotate": f"/annotate/tip/{file}"}
        for page, path in paths.items():
            cost = self.weigh(meter, f"{site.name}: {page}, {words}", self.scale.operations, partial(site.page, f"/{repository}{path}"))
            if site.name == CLUSTER:
                cost.seconds.goal = changelog_goal if page == "changelog" else goal

    def stall(self) -> None:
        """Whether answers come evenly, and what a large one costs beside git alone."""
        scale = self.scale
        for name in (CLUSTER, PLAIN):
            goal = STALL_GOAL if name == CLUSTER else None
            with self.measured(name) as (site, meter):
                repository = site.filled("references", self.sources.git_source("history", scale.commits, 0, scale.references))
                ask = partial(site.git.run, "ls-remote", "-q", f"{site.url}/{repository}")
                self.bench.figures += stall_figures(*self.times(f"{name}: ls-remote of {scale.references:,} references", scale.looks, ask), 99, goal)
                for count, size, highest in zip(scale.clones, scale.clone_bytes, (99, 100), strict=True):
                    # A reference for each commit, so that each can be asked for.
                    source = self.sources.git_source(f"bytes-{size}", BYTES_COMMITS, size, BYTES_COMMITS)
                    repository = site.filled(f"bytes-{size}", source)
                    times = self.times(f"{name}: clone of {size / 1e6:.0f} MB", count, partial(site.clone, repository))
                    self.bench.figures += stall_figures(*times, highest, goal)
                # Another one each time, so that no cache of packs has it.
                self.straight(site, meter, repository, self.sources.ids(source, f"-{scale.downloads + 1}", "master"))

    def times(self, name: str, count: int, do: Callable[[], float]) -> tuple[str, list[float]]:
        """Do something so many times, after once to warm up; return its name and the seconds."""
        say(f"{name}, {count} times")
        do()
        found = []
        for _ in range(count):
            self.bench.deadline.check()
            found.append(do())
        return name, found

    def straight(self, site: Site, meter: costs.Meter, repository: str, wanted: Sequence[str]) -> None:
        """Hold the largest repository's pack as Kallithea hands it out against git's own through a pipe."""
        name = f"{site.name}: pack of {self.scale.clone_bytes[-1] / 1e6:.0f} MB"
        say(f"{name}, past the balancer and straight from git")
        requests = [figures.upload_request([commit]) for commit in wanted]
        alone = site.upload(GIT, repository, requests)
        site.download(repository, requests[0])
        answers, spent = meter.weigh(len(requests) - 1, lambda number: site.download(repository, requests[number + 1]))
        rates = {
            "past the balancer": [size / 1e6 / seconds for seconds, size in answers],
            "git upload-pack through a pipe": [size / 1e6 / seconds for seconds, size in zip(alone["seconds"][1:], alone["bytes"][1:], strict=True)],
        }
        self.bench.figures += [Figure(f"{name}, {way}", "MB/s", runs) for way, runs in rates.items()]
        goal = STRAIGHT_GOAL if site.name == CLUSTER else None
        seconds = statistics.median(taken for taken, _ in answers) / statistics.median(alone["seconds"][1:])
        cpu = spent["app"] / 1000 / statistics.mean(alone["cpu"][1:])
        self.bench.figures += [
            Figure(f"{name}, time against git's", "x", [seconds], goal=goal, at_most=True),
            Figure(f"{name}, processor time against git's", "x", [cpu], goal=goal, at_most=True),
        ]

    def push(self) -> None:
        """One small commit by git and by hg."""
        for name in (CLUSTER, PLAIN):
            with self.measured(name) as (site, meter):
                for what, kind in (("git push", "git"), ("hg push", "hg")):
                    pusher = self.pusher(site, f"push-{kind}", self.small_source(kind))
                    cost = self.weigh(meter, f"{name}: {what} of one small commit", self.scale.operations, pusher)
                    if name == CLUSTER:
                        cost.seconds.goal = PUSH_GOALS[what]

    def small_source(self, kind: str) -> pathlib.Path:
        """Return a small repository to push."""
        source = self.sources.git_source("small", 50, 0, 5)
        return source if kind == "git" else self.sources.hg_source(source)

    def pusher(self, site: Site, name: str, source: pathlib.Path) -> Callable[[], float]:
        """Make a repository of the source and return what pushes one small commit to it, and returns the push's seconds alone."""
        url = f"{site.url}/{site.filled(name, source)}"
        local = site.folder / f"{name}-local"
        if (source / ".hg").exists():
            site.hg.run("clone", "-q", str(source), str(local))

            def push_hg() -> float:
                (local / "news.txt").write_text(f"{time.monotonic_ns()}\n")
                site.hg.run("-R", str(local), "commit", "-q", "--addremove", "-m", "A small change")
                return site.hg.run("-R", str(local), "push", "-q", url)

            return push_hg
        site.git.run("clone", "-q", "--bare", str(source), str(local))

        def push_git() -> float:
            who = ("-c", "user.name=Bench", "-c", "user.email=bench@localhost")
            message = f"A small change, {time.monotonic_ns()}"
            made = site.git.says("-C", str(local), *who, "commit-tree", "-p", "master", "-m", message, "master^{tree}")
            site.git.run("-C", str(local), "update-ref", "refs/heads/master", made)
            return site.git.run("-C", str(local), "push", "-q", url, "master")

        return push_git

    def clone(self) -> None:
        """The first clone after a push, and those that come after it."""
        scale = self.scale
        source = self.sources.git_source("cloned", scale.cloned_commits, scale.cloned_bytes, scale.cloned_references)
        sources = {"git": source, "hg": self.sources.hg_source(source)}
        found: dict[str, dict[str, Cost]] = {f"{when} {kind} clone": {} for kind in sources for when in ("first", "repeated")}
        alone: dict[str, Figure] = {}
        for name in (CLUSTER, PLAIN):
            with self.measured(name) as (site, meter):
                for kind, source in sources.items():
                    push = self.pusher(site, f"cloned-{kind}", source)
                    repository = site.made[-1]
                    if name == CLUSTER:
                        site.maintain(repository)
                    clone = partial(site.clone if kind == "git" else site.hg_clone, repository)
                    first, repeated = self.clones(meter, f"{name}: {{}} {kind} clone", push, clone)
                    found[f"first {kind} clone"][name], found[f"repeated {kind} clone"][name] = first, repeated
                    if kind == "git":
                        alone[name] = self.git_part(site, repository, source)
        for look, both in found.items():
            self.against(look, both, CLONE_GOAL if look.startswith("repeated") else None)
        words = "git's own part of a repeated clone, processor time, cluster against plain"
        self.bench.figures.append(figures.pair_ratio(words, alone[CLUSTER], alone[PLAIN], GIT_PART_GOAL))

    def clones(self, meter: costs.Meter, name: str, push: Callable[[], float], clone: Callable[[], float]) -> tuple[Cost, Cost]:
        """Measure the first clone after a push and those after it, in as many runs as a figure has."""
        size = f"of {self.scale.cloned_bytes / 1e6:.0f} MB with {self.scale.cloned_references:,} references"
        first, repeated = (new_cost(f"{name.format(when)} {size}") for when in ("first", "repeated"))
        self.bench.figures += [first.seconds, first.cpu, repeated.seconds, repeated.cpu]
        for number in range(self.bench.rounds):
            self.bench.deadline.check()
            say(f"{first.name}, and repeated, run {number + 1} of {self.bench.rounds}")
            push()
            first.add(*meter.weigh(1, lambda _: clone()))
            repeated.add(*meter.weigh(self.scale.repeated, lambda _: clone()))
        return first, repeated

    def git_part(self, site: Site, repository: str, source: pathlib.Path) -> Figure:
        """Return the processor time of git's own part of a repeated clone, as the site runs git."""
        request = figures.upload_request(list(dict.fromkeys(self.sources.ids(source, "--no-walk", "--all"))))
        spent = site.upload(site.git_path, repository, [request] * (self.bench.rounds + 1))
        figure = Figure(f"{site.name}: git's own part of a repeated clone, processor time", "ms", [1000 * seconds for seconds in spent["cpu"][1:]])
        self.bench.figures.append(figure)
        return figure

    def fetch(self) -> None:
        """A fetch that finds nothing new."""
        found: dict[str, dict[str, Cost]] = {"git fetch": {}, "hg pull": {}}
        for name in (CLUSTER, PLAIN):
            with self.measured(name) as (site, meter):
                self.small(site)
                url = f"{site.url}/{site.filled('fetch-hg', self.small_source('hg'))}"
                local = str(site.folder / "fetch-hg")
                site.hg.run("clone", "-q", "--noupdate", url, local)
                looks = {
                    "git fetch": partial(site.git.run, "-C", "small", "fetch", "-q", "origin"),
                    "hg pull": partial(site.hg.run, "-R", local, "pull", "-q", url),
                }
                for look, do in looks.items():
                    found[look][name] = self.weigh(meter, f"{name}: {look} with nothing new", self.scale.operations, do)
        self.against("git fetch with nothing new", found["git fetch"], FETCH_GOAL)
        self.against("hg pull with nothing new", found["hg pull"], None)
