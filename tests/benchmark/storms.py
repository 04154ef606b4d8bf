"""The benchmarks in which people and build servers use a cluster together: what each of them plans, and what becomes of it."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import costs
import figures
from client import BenchFailed, Browser, Git
from content import Content
from figures import Figure
from hosts import GENERATOR_CORE, Hosts
from variant import Variant, can_be_made

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
PEOPLE, THINK_SECONDS = 2, 0.2
CI_CLIENTS = 16
# Each application and CI host, and what the other tiers have together: a quarter of a core each, 0.4.
NODE_SHARE = 0.25
# No less than 0.1 for any: Docker takes no quota below 1 ms.
TIER_SHARES = {"loadbalancer": 0.2, "database": 0.1, "broker": 0.1}
# In scaling four nodes have to fit beside the other tiers, which are one host there.
SMALL_SHARE, FRONT_SHARE = 0.125, 0.4
NODES = (1, 2, 4)
CLIENTS_A_NODE = 3
LARGE_CLIENTS = 50
# The roles' defaults, which the demo has.
UI_PORT, WRITE_PORT = 8081, 8083
SEPARATION_GOAL, SHARED_GOAL, SCALING_GOAL, BALANCER_GOAL, FAIRNESS_GOAL = 1.25, 1.5, 0.9, 2.0, 2.0
# The warm-up loads every process; a storm takes a moment to fill the queues, and its end a moment to empty them.
WARM_UP_SECONDS, SETTLE_SECONDS = 15, 8
STORM_GRACE_SECONDS = 300
BEAKER: dict[str, dict[str, Any]] = {
    "shared": {},
    "local": {"kallithea_app_beaker_data_dir": "/var/lib/kallithea/beaker/data", "kallithea_app_beaker_lock_dir": "/var/lib/kallithea/beaker/lock"},
    "off": {"kallithea_app_ini": {"beaker.cache.enabled": False}},
}


class Cluster(Protocol):
    """What the benchmarks ask of the cluster."""

    @property
    def inventory(self) -> str:
        """Where its hosts stand."""

    @property
    def log(self) -> pathlib.Path:
        """What takes the playbooks' words."""

    def change(self, what: str, variables: dict[str, Any], only: str = "") -> None:
        """Give it another shape."""


class Bench(Protocol):
    """What the benchmarks ask of the whole run."""

    folder: pathlib.Path
    output: pathlib.Path
    url: str
    ci_url: str
    node: str
    word: str
    rounds: int
    storm_seconds: int
    figures: list[Figure]
    charts: list[dict[str, Any]]
    failures: dict[str, int]

    @property
    def cluster(self) -> Cluster:
        """The demo."""

    def content(self, admin: Browser, ca_file: str, push_url: str) -> Content:
        """Fill a site."""

    def demo_content(self) -> Content:
        """Fill the demo once."""


def say(text: str) -> None:
    """Tell how far it is."""
    print(f"       {text}", file=sys.stderr, flush=True)


def generate(plan: dict[str, Any]) -> list[dict[str, Any]]:
    """Let the generator run a plan on its core, and return the phases that it measured."""
    seconds = sum(phase["seconds"] + phase.get("settle_seconds", 0) for phase in plan["phases"])
    command = ["taskset", "-c", str(GENERATOR_CORE), sys.executable, str(HERE / "storm.py")]
    with subprocess.Popen(
        command, env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as storm:
        try:
            out, _ = storm.communicate(json.dumps(plan), timeout=seconds + STORM_GRACE_SECONDS)
        except BaseException as error:
            # It ends its clients itself.
            storm.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                storm.wait(60)
            storm.kill()
            if isinstance(error, subprocess.TimeoutExpired):
                raise BenchFailed(f"the generator took longer than {seconds + STORM_GRACE_SECONDS:.0f} s.") from error
            raise
    if storm.returncode:
        raise BenchFailed(f"the generator ended with {storm.returncode} (see above).")
    phases: list[dict[str, Any]] = json.loads(out)["phases"]
    return [phase for phase in phases if phase["name"] != "warm-up"]


def people_plan(content: Content, ways: list[dict[str, str]], ca_file: str, people: int, think_seconds: float) -> dict[str, Any]:
    """Return a plan without phases and bots."""
    return {
        "ways": ways,
        "ca_file": ca_file,
        "people": people,
        "think_seconds": think_seconds,
        "login": content.login(),
        "pages": content.pages(),
        "bots": {},
    }


def storm_plan(content: Content, url: str, ci_url: str, seconds: int) -> dict[str, Any]:
    """Return the plan of one run: a warm-up, people alone, people while build servers clone."""
    plan = people_plan(content, [{"name": "site", "url": url}], content.ca_file, PEOPLE, THINK_SECONDS)
    plan["bots"] = {"ci": content.bot("ci", CI_CLIENTS, ci_url)}
    plan["phases"] = [
        {"name": "warm-up", "seconds": WARM_UP_SECONDS, "people": True},
        {"name": "idle", "settle_seconds": 2, "seconds": seconds, "people": True},
        {"name": "storm", "settle_seconds": SETTLE_SECONDS, "seconds": seconds, "people": True, "bots": ["ci"]},
    ]
    return plan


def own_machines(hosts: Hosts) -> dict[str, float | None]:
    """Return the shares that make a machine of its own of one application host, each CI host and each host of the other tiers."""
    app, ci = hosts.of("app"), hosts.of("ci")
    if not ci:
        raise BenchFailed("the demo has no CI host: bring it up without --single.")
    nodes: dict[str, float | None] = dict.fromkeys((app[0], *ci), NODE_SHARE)
    return nodes | {host: share for tier, share in TIER_SHARES.items() for host in hosts.of(tier)}


def storm_figures(who: str, idle: list[dict[str, Any]], storm: list[dict[str, Any]], goal: float | None) -> list[Figure]:
    """Return all that a storm says of a site; without a goal it is there to compare."""
    found = [figures.rises(f"{who}: p95 of people's pages, storm against idle", idle, storm, goal)]
    found += [figures.rises(f"{who}: the same, {page}", idle, storm, page=page) for page in sorted({page for phase in idle for page in phase["pages"]})]
    found += figures.page_figures(f"{who}, idle", idle) + figures.page_figures(f"{who}, storm", storm)
    failed = [
        figures.failure_figure(f"{who}: failed pages", [*idle, *storm], "pages"),
        figures.failure_figure(f"{who}: failed clones", [*idle, *storm], "clones"),
    ]
    for figure in failed:
        figure.goal = 0 if goal is not None else None
    share = Figure(f"{who}: the generator's core in the storm", "of it", [phase["generator_share"] for phase in storm])
    return [*found, *failed, figures.clone_rate(f"{who}: clones", storm, "ci"), share]


class Storms:
    """The benchmarks, by name; a plain site is made once for all that want one."""

    def __init__(self, bench: Bench, ca_file: str) -> None:
        """Remember what all of them share."""
        self.bench = bench
        self.ca_file = ca_file

    def by_name(self) -> dict[str, Callable[[], None]]:
        """Return what can be run."""
        return {
            "separation": self.separation,
            "separation-shared": self.separation_shared,
            "scaling": self.scaling,
            "balancer": self.balancer,
            "fairness": self.fairness,
            "beaker": self.beaker,
            "costs": self.costs,
        }

    @contextlib.contextmanager
    def variant(self, name: str, inventory: pathlib.Path) -> Iterator[Variant]:
        """Have another cluster as long as the block lasts."""
        can_be_made()
        variant = Variant(name, inventory, self.bench.output, self.bench.cluster.log, say)
        try:
            variant.up()
            yield variant
        finally:
            say(f"Removing {variant.name}")
            variant.down()

    def keep(self, *phases: dict[str, Any]) -> None:
        """Remember by name and reason what failed."""
        for kind in ("pages", "clones"):
            for why, count in figures.failures(phases, kind).items():
                self.bench.failures[why] = self.bench.failures.get(why, 0) + count

    def rounds(self, who: str, content: Content, url: str, ci_url: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """Run the storm as often as a figure needs; return the idle phases and those of the storm."""
        idle, storm = [], []
        for number in range(self.bench.rounds):
            say(f"{who}, run {number + 1} of {self.bench.rounds}")
            before, during = generate(storm_plan(content, url, ci_url, self.bench.storm_seconds))
            idle.append(before)
            storm.append(during)
            rise = figures.rises("", [before], [during])
            say(f"   {figures.number(rise.value)} x {rise.note}, the generator used {during['generator_share']:.0%} of its core")
        self.keep(*idle, *storm)
        return idle, storm

    def separation(self) -> None:
        """People and build servers on hosts of their own."""
        hosts = Hosts(self.bench.cluster.inventory)
        app, ci = hosts.of("app"), hosts.of("ci")
        self.compare(hosts, own_machines(hosts), [app[0], *ci], app[1:], SEPARATION_GOAL)

    def separation_shared(self) -> None:
        """People and build servers on the same hosts."""
        hosts = Hosts(self.bench.cluster.inventory)
        app = hosts.of("app")
        # One of them: of two on one core each would take as much of it for build servers as the other for people, which no two machines do.
        self.compare(hosts, {}, app[:1], [*app[1:], *hosts.of("ci")], SHARED_GOAL)

    def compare(self, hosts: Hosts, shares: dict[str, float | None], measured: list[str], unused: list[str], goal: float) -> None:
        """Hold the storm against the cluster, then against plain Kallithea with as many processes and the same share of the processor."""
        nodes = hosts.of("app", "ci")
        content = self.bench.demo_content()
        processes = sum(hosts.processes(host) for host in measured)
        with contextlib.ExitStack() as stack:
            stack.enter_context(hosts.drained(*unused))
            stack.enter_context(hosts.without_timers(nodes))
            hosts.wait_quiet(nodes)
            stack.enter_context(hosts.shares(dict.fromkeys(hosts.all, None) | shares))
            idle, storm = self.rounds("the cluster", content, self.bench.url, self.bench.ci_url)
        self.bench.figures += storm_figures("cluster", idle, storm, goal)
        lines = {"cluster, idle": figures.curve(idle), "cluster, storm": figures.curve(storm)}
        given = [share for share in shares.values() if share is not None]
        with self.variant("plain", ROOT / "inventories/single-host") as variant:
            plain = Hosts(variant.inventory)
            host = plain.of("app")[0]
            url = variant.make_plain(host, processes)
            content = self.bench.content(variant.admin(url), "", url)
            with plain.without_timers([host]):
                plain.wait_quiet([host])
                # Database and broker are on its one host: it has the shares of all the cluster's hosts.
                with plain.shares({host: sum(given) if given else None}):
                    idle, storm = self.rounds("plain", content, url, url)
        self.bench.figures += storm_figures(f"plain, {processes} processes", idle, storm, None)
        lines |= {"plain, idle": figures.curve(idle), "plain, storm": figures.curve(storm)}
        self.bench.charts.append({"title": "Milliseconds of people's pages by percentile", "x": "percentile", "y": "ms", "lines": lines})

    def scaling(self) -> None:
        """Pages and clones a second with more and more application hosts."""
        found: dict[int, list[list[dict[str, Any]]]] = {count: [] for count in NODES}
        with self.variant("scaling", HERE / "scaling") as variant:
            hosts = Hosts(variant.inventory)
            app = hosts.of("app")
            url = f"https://{variant.hostname}"
            address = variant.address(hosts.of("loadbalancer")[0])
            # Its name leads nowhere on this machine: what the generator does not do goes straight to the first host.
            straight = f"http://{variant.address(app[0])}"
            content = self.bench.content(variant.admin(f"{straight}:{UI_PORT}"), variant.ca_file, f"{straight}:{WRITE_PORT}")
            shares: dict[str, float | None] = {**dict.fromkeys(app, SMALL_SHARE), **dict.fromkeys(hosts.of("loadbalancer"), FRONT_SHARE)}
            with hosts.without_timers(app):
                hosts.wait_quiet(app)
                for number in range(self.bench.rounds):
                    for count in NODES:
                        say(f"{count} application hosts, run {number + 1} of {self.bench.rounds}")
                        with hosts.drained(*app[count:]), hosts.shares(shares):
                            found[count].append(generate(scaling_plan(content, url, address, count, self.bench.storm_seconds)))
        pages = {count: [run[0] for run in runs] for count, runs in found.items()}
        clones = {count: [run[1] for run in runs] for count, runs in found.items()}
        self.keep(*[phase for runs in (*pages.values(), *clones.values()) for phase in runs])
        rates = {
            "pages": {count: figures.page_rate(f"pages, {count} application hosts", pages[count]) for count in NODES},
            "clones": {count: figures.clone_rate(f"clones, {count} application hosts", clones[count], "ci") for count in NODES},
        }
        for kind, by_count in rates.items():
            self.bench.figures += by_count.values()
            self.bench.figures += [
                figures.pair_ratio(f"{kind}: {count} hosts against one", by_count[count], by_count[1], SCALING_GOAL * count, at_most=False)
                for count in NODES[1:]
            ]
            reached = [(count, by_count[count].value / by_count[1].value) for count in NODES if by_count[count].value and by_count[1].value]  # type: ignore[operator]
            lines = {"measured": reached, "all of it": [(count, float(count)) for count in NODES]}
            self.bench.charts.append({"title": f"{kind} a second, as a multiple of one host's", "x": "application hosts", "y": "x", "lines": lines})
        everything = [phase for runs in (*pages.values(), *clones.values()) for phase in runs]
        self.bench.figures += [figures.failure_figure(f"failed {kind}", everything, kind) for kind in ("pages", "clones")]

    def balancer(self) -> None:
        """What HAProxy adds to a page: through it and straight to the pool's port of the one host behind it, in turns."""
        hosts = Hosts(self.bench.cluster.inventory)
        app = hosts.of("app")
        content = self.bench.demo_content()
        ways = [{"name": "balancer", "url": self.bench.url}, {"name": "straight", "url": f"http://{self.bench.node}:{UI_PORT}"}]
        plan = people_plan(content, ways, self.ca_file, 1, 0.0)
        plan["phases"] = [
            {"name": "warm-up", "seconds": WARM_UP_SECONDS, "people": True},
            {"name": "turns", "seconds": self.bench.storm_seconds, "people": True},
        ]
        runs = []
        with hosts.drained(*app[1:]), hosts.without_timers(hosts.of("app", "ci")):
            hosts.wait_quiet(app)
            with hosts.shares(dict.fromkeys(hosts.all, None)):
                for number in range(self.bench.rounds):
                    say(f"in turns, run {number + 1} of {self.bench.rounds}")
                    runs += generate(plan)
        self.keep(*runs)
        for page in [page["name"] for page in content.pages()]:
            for share, goal in ((50, None), (95, BALANCER_GOAL)):
                self.bench.figures.append(figures.added(f"{page}: added by the balancer, p{share}", runs, page, ("balancer", "straight"), share, goal))
        self.bench.figures += figures.page_figures("in turns", runs)
        self.bench.figures.append(figures.failure_figure("failed pages", runs, "pages"))

    def fairness(self) -> None:
        """One clone of a small bot, alone and beside a large one."""
        hosts = Hosts(self.bench.cluster.inventory)
        content = self.bench.demo_content()
        plan = people_plan(content, [], self.ca_file, 0, 0.0)
        plan["bots"] = {"large": content.bot("large", LARGE_CLIENTS, self.bench.ci_url), "small": content.bot("small", 1, self.bench.ci_url)}
        seconds = self.bench.storm_seconds
        plan["phases"] = [
            {"name": "warm-up", "seconds": WARM_UP_SECONDS, "bots": ["small"]},
            {"name": "alone", "settle_seconds": 2, "seconds": seconds // 2, "bots": ["small"]},
            {"name": "together", "settle_seconds": 2 * SETTLE_SECONDS, "seconds": 2 * seconds, "bots": ["large", "small"]},
        ]
        alone, together = [], []
        nodes = hosts.of("app", "ci")
        # Of one core the hosts would serve more clones than the generator can take.
        with hosts.drained(*hosts.of("app")[1:]), hosts.without_timers(nodes):
            hosts.wait_quiet(nodes)
            with hosts.shares(dict.fromkeys(hosts.all, None) | own_machines(hosts)):
                for number in range(self.bench.rounds):
                    say(f"one client beside {LARGE_CLIENTS}, run {number + 1} of {self.bench.rounds}")
                    first, second = generate(plan)
                    alone.append(first)
                    together.append(second)
        self.keep(*alone, *together)
        lonely, beside = (
            figures.clone_seconds(f"small bot's clone, {when}", runs, "small") for when, runs in (("alone", alone), ("beside the large one", together))
        )
        large = figures.clone_seconds("large bot's clone", together, "large")
        self.bench.figures += [
            lonely,
            beside,
            large,
            figures.pair_ratio("small bot's clone, beside against alone", beside, lonely, FAIRNESS_GOAL),
            figures.clone_rate("large bot's clones", together, "large"),
            figures.failure_figure("failed clones", [*alone, *together], "clones"),
        ]
        bars = [(figure.name, figure.value) for figure in (lonely, beside, large) if figure.value is not None]
        self.bench.charts.append({"title": "Seconds of a clone of 20 MB", "bars": bars})

    def beaker(self) -> None:
        """Pages with Beaker's cache on the share, on the node, and without it, in turns."""
        hosts = Hosts(self.bench.cluster.inventory)
        content = self.bench.demo_content()
        plan = people_plan(content, [{"name": "site", "url": self.bench.url}], self.ca_file, PEOPLE, 0.0)
        # Where Kallithea uses the cache: the rendered README on the repository's page, names in the changelog, and the feed.
        plan["pages"] = [page for page in content.pages() if not page.get("stranger")] + [{"name": "feed", "path": f"/{content.git}/feed/atom"}]
        plan["phases"] = [
            {"name": "warm-up", "seconds": WARM_UP_SECONDS, "people": True},
            {"name": "pages", "seconds": self.bench.storm_seconds, "people": True},
        ]
        runs: dict[str, list[dict[str, Any]]] = {name: [] for name in BEAKER}
        nodes = hosts.of("app", "ci")
        for number in range(self.bench.rounds):
            for name, variables in BEAKER.items():
                self.bench.cluster.change(f"Beaker's cache: {name}, run {number + 1} of {self.bench.rounds}", variables)
                with hosts.without_timers(nodes):
                    hosts.wait_quiet(nodes)
                    with hosts.shares(dict.fromkeys(hosts.all, None)):
                        runs[name] += generate(plan)
        rates = {name: figures.page_rate(f"{name}: pages a second", phases) for name, phases in runs.items()}
        self.bench.figures += rates.values()
        self.bench.figures += [figures.pair_ratio(f"{name} against shared, pages a second", rates[name], rates["shared"]) for name in ("local", "off")]
        for name, phases in runs.items():
            self.keep(*phases)
            self.bench.figures += figures.page_figures(name, phases)
        self.bench.figures.append(figures.failure_figure("failed pages", [phase for phases in runs.values() for phase in phases], "pages"))
        self.bench.charts.append(
            {
                "title": "Milliseconds of people's pages by percentile",
                "x": "percentile",
                "y": "ms",
                "lines": {name: figures.curve(phases) for name, phases in runs.items()},
            }
        )

    def costs(self) -> None:
        """What one operation costs, with one application host behind the balancer."""
        hosts = Hosts(self.bench.cluster.inventory)
        content = self.bench.demo_content()
        work = costs.Work(content, Git(content.folder, content.admin.user, content.admin.password, content.ca_file), self.bench.url)
        app = hosts.of("app")
        with hosts.drained(*app[1:], *hosts.of("ci")), hosts.without_timers(hosts.of("app", "ci")):
            hosts.wait_quiet(app)
            self.bench.figures += costs.measure(hosts, work, self.bench.rounds, say)


def scaling_plan(content: Content, url: str, address: str, count: int, seconds: int) -> dict[str, Any]:
    """Return the plan of one run with so many application hosts: pages in a closed loop, then clones."""
    plan = people_plan(content, [{"name": "site", "url": url, "address": address}], content.ca_file, CLIENTS_A_NODE * count, 0.0)
    plan["bots"] = {"ci": {**content.bot("ci", CLIENTS_A_NODE * count, url), "address": address}}
    plan["phases"] = [
        {"name": "warm-up", "seconds": WARM_UP_SECONDS, "people": True},
        {"name": "pages", "seconds": seconds, "people": True},
        {"name": "clones", "settle_seconds": SETTLE_SECONDS, "seconds": seconds, "bots": ["ci"]},
    ]
    return plan
