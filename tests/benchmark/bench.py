"""Measures a running cluster for scripts/bench, which gives it the environment; puts everything back and removes what it made."""

from __future__ import annotations

import argparse
import contextlib
import datetime
import ipaddress
import json
import os
import pathlib
import platform
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.parse
from collections.abc import Callable, Iterator
from typing import Any

import report
from client import BenchFailed, Browser, Git
from content import Content
from figures import Figure, difference, fast_import, nearest, parse_lock, parse_sizes, parse_wrk, ratio, table
from large import Large
from storms import Storms

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]

# The parts that run without a name, and how long the others may take.
PARTS = ("pages", "static", "git", "lock")
STORM_SECONDS = {"separation": 2700, "separation-shared": 2700, "scaling": 3600, "balancer": 900, "fairness": 1500, "beaker": 2700, "costs": 900}
# Each with the making of plain Kallithea, which the first one in a run does for all.
STORM_SECONDS |= {"many": 5400, "bigrepo": 5400, "stall": 3600, "push": 1800, "clone": 2700, "fetch": 1800}
STATIC_FOLDERS = ("images/", "css/", "js/", "codemirror/", "fontello/")
# The roles' defaults, which the demo has; a port that does not answer is said before anything is measured.
STATIC_PORT, SCM_PORT, WRITE_PORT = 8080, 8082, 8083
STORAGE = "/srv/kallithea"
REPOSITORIES = f"{STORAGE}/repositories"
CONFIGURATION = ("/etc/kallithea/apache.conf", "/etc/haproxy/haproxy.cfg")
PROCESSES = (1, 4)
CLIENTS = (1, 4, 8)
LOGIN_CLIENTS = 4
STATIC_SIZES = (4_000, 235_000)
STATIC_CLIENTS = 8
STATIC_GOAL = 0.5
COMMITS, REPOSITORY_BYTES = 500, 20_000_000
WARM_UP_SECONDS = 2
PLAYBOOK_SECONDS = 240
STATIC_SECONDS = 4
# Putting back takes the rest of ten minutes.
MEASURE_SECONDS = 510
# Of each phase of a storm; and in the quick run that only shows that it works.
PHASE_SECONDS, QUICK_PHASE_SECONDS = 60, 6


def say(text: str) -> None:
    """Tell how far it is."""
    print(f"[{time.monotonic() - STARTED:4.0f}s] {text}", file=sys.stderr, flush=True)


STARTED = time.monotonic()


class Deadline:
    """The time that all measuring may take."""

    def __init__(self, seconds: float) -> None:
        """Start now."""
        self.seconds = seconds
        self.end = STARTED + seconds

    def check(self) -> None:
        """End the measuring where the time is over."""
        if time.monotonic() > self.end:
            raise BenchFailed(f"the measurements took longer than {self.seconds:.0f} s: the machine is too slow or too busy for figures worth having.")


class Cluster:
    """The hosts, by their inventory."""

    def __init__(self, inventory: str, log: pathlib.Path) -> None:
        """Remember the inventory; what the playbooks say goes to the log."""
        self.inventory = inventory
        self.log = log
        self.changed = False

    def change(self, what: str, variables: dict[str, Any], only: str = "") -> None:
        """Run the playbook that gives the cluster another shape."""
        say(what)
        self.changed = True
        command = ["ansible-playbook", "-i", self.inventory, str(HERE / "change.yml"), "-e", json.dumps(variables)]
        command += ["--tags", only] if only else []
        with self.log.open("a") as log:
            status = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, timeout=PLAYBOOK_SECONDS, check=False).returncode
        if status:
            raise BenchFailed(f"the cluster could not be changed ({what}): see {self.log}.")

    def run(self, group: str, *command: str, module: str = "command") -> str:
        """Run a command, or with the module script a file of ours, on the group's first host and return what it printed."""
        done = subprocess.run(
            ["ansible", "-i", self.inventory, f"{group}[0]", "-b", "-m", f"ansible.builtin.{module}", "-a", " ".join(command)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        if done.returncode:
            raise BenchFailed(f"{command[0]} failed on the first host of {group}: {(done.stdout + done.stderr).strip()[-300:]}")
        return done.stdout


class Bench:
    """All measurements and what they share."""

    def __init__(self, folder: pathlib.Path, output: pathlib.Path, cluster: Cluster, deadline: Deadline, quick: bool) -> None:
        """Read the environment."""
        self.folder = folder
        self.output = output
        self.cluster = cluster
        self.deadline = deadline
        self.quick = quick
        self.rounds, self.seconds = (1, 2) if quick else (3, 6)
        self.storm_seconds = QUICK_PHASE_SECONDS if quick else PHASE_SECONDS
        self.figures: list[Figure] = []
        self.charts: list[dict[str, Any]] = []
        # What failed in storms, by name and reason.
        self.failures: dict[str, int] = {}
        self.used: Content | None = None
        self.ready = False
        self.url = os.environ["KALLITHEA_URL"].rstrip("/")
        self.ci_url = os.environ.get("KALLITHEA_CI_URL", "").rstrip("/")
        parts = urllib.parse.urlsplit(self.url)
        self.plain_url = f"http://{parts.hostname}"
        nodes = [str(urllib.parse.urlsplit(url).hostname) for url in os.environ["KALLITHEA_NODE_URLS"].split(",")]
        check_addresses(str(parts.hostname), *nodes)
        # What is measured past the balancer is measured on the first one.
        self.node = nodes[0]
        self.where = f" on each of {len(nodes)} hosts" if len(nodes) > 1 else ""
        self.ca_file = os.environ["KALLITHEA_CA_FILE"]
        user = os.environ["KALLITHEA_ADMIN_USER"]
        password = pathlib.Path(os.environ["KALLITHEA_ADMIN_PASSWORD_FILE"]).read_text().strip()
        self.admin = Browser(self.url, user, password, self.ca_file)
        self.stranger = Browser(self.url, user, password, self.ca_file)
        self.git = Git(folder, user, password, self.ca_file)
        self.word = "bench" + secrets.token_hex(4)
        self.made: list[str] = []

    def load(self, url: str, clients: int, seconds: int, environment: dict[str, str]) -> tuple[dict[str, float], int]:
        """Have wrk ask for one address in a closed loop, each client waiting for its answer before it asks again."""
        command = ["wrk", "-t1", f"-c{clients}", f"-d{seconds}s", "--timeout", "20s", "-s", str(HERE / "wrk.lua"), url]
        done = subprocess.run(
            command,
            env={"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8", **environment},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=seconds + 40,
            check=False,
        )
        return parse_wrk(done.stdout + done.stderr)

    def rate(self, figure: Figure, url: str, clients: int, environment: dict[str, str], seconds: int, smallest: int = 0) -> None:
        """Add one run to the figure; answers that are too short count as errors."""
        self.deadline.check()
        report, errors = self.load(url, clients, seconds, environment)
        figure.errors += errors
        if not report["requests"] or report["bytes"] / report["requests"] < smallest:
            figure.errors += 1
            return
        figure.runs.append(report["requests"] / report["microseconds"] * 1e6)

    def create(self, name: str) -> str:
        """Create an empty repository and return its name."""
        self.made.append(name)
        self.admin.create_repository(name)
        return name

    def delete(self, name: str) -> None:
        """Delete a repository of ours through the API."""
        self.admin.call("delete_repo", repoid=name)
        self.made.remove(name)

    @contextlib.contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Write down to which part the figures and plots of the block belong."""
        figures, charts = len(self.figures), len(self.charts)
        yield
        for figure in self.figures[figures:]:
            figure.part = name
        for chart in self.charts[charts:]:
            chart["part"] = name

    def start(self) -> None:
        """Log in, and make what the parts share: the local repository and the one on the cluster."""
        if self.ready:
            return
        self.ready = True
        for port in (STATIC_PORT, SCM_PORT, WRITE_PORT):
            try:
                socket.create_connection((self.node, port), 5).close()
            except OSError as error:
                raise BenchFailed(
                    f"{self.node}:{port} does not answer ({error}): the benchmark needs the roles' default ports, as the demo has them."
                ) from error
        self.admin.login()
        self.stranger.page("/_admin/login")
        (self.folder / "admin-cookie").write_text(self.admin.cookies())
        (self.folder / "stranger-cookie").write_text(self.stranger.cookies())
        say(f"Making a repository with {COMMITS} commits and {REPOSITORY_BYTES / 1e6:.0f} MB")
        self.git.run("init", "-q", "--bare", "-b", "master", "source")
        self.feed()
        self.git.run("-C", "source", "repack", "-adq")

    def push_source(self) -> None:
        """Let the cluster have the repository that the parts of one kind ask for."""
        self.repository = self.create(self.word)
        self.git.run("-C", "source", "-c", "http.version=HTTP/1.1", "push", "-q", f"{self.url}/{self.repository}", "master")

    def content(self, admin: Browser, ca_file: str, push_url: str) -> Content:
        """Fill a site for a storm."""
        content = Content(self.folder, f"{self.word}s", admin, ca_file, push_url)
        if admin is self.admin:
            self.used = content
        content.make()
        return content

    def demo_content(self) -> Content:
        """Fill the cluster once."""
        self.start()
        return self.used or self.content(self.admin, self.ca_file, self.url)

    def feed(self) -> None:
        """Let git import the commits."""
        self.git.says("-C", "source", "fast-import", "--quiet", pieces=fast_import(COMMITS, REPOSITORY_BYTES))

    def pages(self) -> None:
        """Pages per second with few and with many processes, by https through the balancer."""
        found: dict[tuple[int, int], Figure] = {}
        for processes in PROCESSES:
            self.deadline.check()
            self.cluster.change(f"Setting the pool ui to {processes} processes", {"bench_ui_processes": processes})
            self.check_page()
            for clients in CLIENTS:
                figure = self.page_figure(
                    f"repository page, {processes} ui processes{self.where}, {clients} clients", f"/{self.repository}", clients, "admin-cookie"
                )
                found[processes, clients] = figure
            self.page_figure(f"login page, {processes} ui processes{self.where}, {LOGIN_CLIENTS} clients", "/_admin/login", LOGIN_CLIENTS, "stranger-cookie")
        few, many = PROCESSES
        for clients in CLIENTS[1:]:
            self.figures.append(
                ratio(f"repository page, {many} against {few} processes{self.where}, {clients} clients", found[many, clients], found[few, clients])
            )

    def check_page(self) -> None:
        """Make sure that the page is the logged-in one and not a redirection to the login."""
        if "/_admin/logout" not in self.admin.page(f"/{self.repository}"):
            raise BenchFailed("the repository's page is not that of somebody who is logged in.")

    def page_figure(self, name: str, path: str, clients: int, cookie: str) -> Figure:
        """Measure one page."""
        say(name)
        figure = Figure(name, "pages/s")
        self.figures.append(figure)
        environment = {"BENCH_COOKIE_FILE": str(self.folder / cookie), "BENCH_ONLY_200": "1"}
        self.load(self.url + path, clients, WARM_UP_SECONDS, environment)
        for _ in range(self.rounds):
            self.rate(figure, self.url + path, clients, environment, self.seconds)
        return figure

    def static(self, https: bool) -> None:
        """Static files: first by https as people get them; then by plain http, where Apache can be asked the same way."""
        sizes = parse_sizes(
            self.cluster.run("kallithea_app", "find", "/opt/kallithea/current/", "-path", "'*/kallithea/public/*'", "-type", "f", "-printf", "'%s %P\\n'"),
            ("lib/",),
        )
        served = {path.split("/kallithea/public/", 1)[1]: size for path, size in sizes.items()}
        served = {path: size for path, size in served.items() if path.startswith(STATIC_FOLDERS)}
        if not served:
            raise BenchFailed("the release on the first application host has no static files.")
        for wanted in STATIC_SIZES:
            path = nearest(served, wanted)
            size = served[path]
            name = f"static file, {size / 1000:.3g} kB"
            if https:
                self.static_figures(size, [(f"{name}, balancer, https", f"{self.url}/{path}", {})])
            else:
                # The balancer believes the scheme of its trusted proxy, which we are while TLS is off.
                straight, through = self.static_figures(
                    size,
                    [
                        (f"{name}, straight from Apache, http", f"http://{self.node}:{STATIC_PORT}/{path}", {}),
                        (f"{name}, balancer, http", f"{self.plain_url}/{path}", {"BENCH_PROTO": "https"}),
                    ],
                )
                self.figures.append(ratio(f"{name}, balancer against straight", through, straight, STATIC_GOAL))

    def static_figures(self, size: int, ways: list[tuple[str, str, dict[str, str]]]) -> list[Figure]:
        """Measure the ways to one file in turns, so that a slow moment of the machine meets all of them."""
        figures = [Figure(name, "requests/s") for name, _, _ in ways]
        self.figures += figures
        for round_number in range(self.rounds + 1):
            for figure, (name, url, environment) in zip(figures, ways, strict=True):
                if round_number == 0:
                    say(name)
                    self.load(url, STATIC_CLIENTS, WARM_UP_SECONDS, environment)
                else:
                    self.rate(figure, url, STATIC_CLIENTS, environment, min(self.seconds, STATIC_SECONDS), size)
        return figures

    def scm(self, https: bool, runs: int) -> None:
        """Pushes of the whole repository and clones of it: by https as people do, or by plain http to compare with the pool's own port."""
        ways: list[tuple[str, str, str, tuple[str, ...]]]
        if https:
            # Over HTTP/2 the git of Debian 12 may never send the end of a large push.
            ways = [("balancer, https", self.url, self.url, ("-c", "http.version=HTTP/1.1"))]
        else:
            header = ("-c", "http.extraHeader=X-Forwarded-Proto: https")
            ways = [
                ("straight to the pool, http", f"http://{self.node}:{WRITE_PORT}", f"http://{self.node}:{SCM_PORT}", ()),
                ("balancer, http", self.plain_url, self.plain_url, header),
            ]
        pushes = [Figure(f"git push, 20 MB, {way[0]}", "s") for way in ways]
        clones = [Figure(f"git clone, 20 MB, {way[0]}", "s") for way in ways]
        for kind, figures in (("push", pushes), ("clone", clones)):
            self.figures += figures
            say(f"git {kind}, {', '.join(way[0] for way in ways)}")
            # The first clone of each way warms up; a push has met the processes already, and takes long.
            warm_ups = 1 if kind == "clone" else 0
            for run in range(-warm_ups, runs):
                for figure, way in zip(figures, ways, strict=True):
                    self.deadline.check()
                    seconds = self.push(way[1], way[3]) if kind == "push" else self.clone(way[2], way[3])
                    if run >= 0:
                        figure.runs.append(seconds)
            if len(figures) == 2:
                self.figures.append(ratio(f"git {kind}, balancer against straight (time)", figures[1], figures[0]))

    def push(self, base: str, options: tuple[str, ...]) -> float:
        """Push everything into a new repository and return the seconds of the push alone."""
        name = self.create(f"{self.word}-{secrets.token_hex(3)}")
        seconds = self.git.run("-C", "source", *options, "push", "-q", f"{base}/{name}", "master")
        self.delete(name)
        return seconds

    def clone(self, base: str, options: tuple[str, ...]) -> float:
        """Clone without a working copy, which would be the client's own work."""
        seconds = self.git.run(*options, "clone", "-q", "--bare", f"{base}/{self.repository}", "copy")
        shutil.rmtree(self.folder / "copy")
        return seconds

    def lock(self) -> None:
        """What the repository's lock costs a write, on the first application host itself."""
        say("git update-ref with and without the repository's lock")
        script = (str(HERE / "lock.py"), STORAGE, f"{self.word}-lock", str(self.rounds), "executable=/usr/bin/python3")
        plain, locked = parse_lock(self.cluster.run("kallithea_app", *script, module="script"))
        without, having = Figure("git update-ref", "ms", plain), Figure("git update-ref, with the repository's lock", "ms", locked)
        self.figures += [without, having, difference("the repository's lock", having, without)]

    def measure(self, parts: list[str]) -> None:
        """Run the parts; the cluster changes its shape as seldom as possible."""
        if "lock" in parts:
            with self.part("lock"):
                self.lock()
        self.storms([part for part in parts if part in STORM_SECONDS])
        if not {"pages", "static", "git"} & set(parts):
            return
        self.start()
        self.push_source()
        if "static" in parts:
            with self.part("static"):
                self.static(https=True)
        if "git" in parts:
            with self.part("git"):
                self.scm(https=True, runs=self.rounds)
        if "pages" in parts:
            with self.part("pages"):
                self.pages()
        if "static" in parts or "git" in parts:
            self.deadline.check()
            variables: dict[str, Any] = {"kallithea_loadbalancer_tls": "off", "kallithea_loadbalancer_trusted_proxies": [own_address(self.node)]}
            if "pages" in parts:
                variables["bench_ui_processes"] = PROCESSES[-1]
            self.cluster.change("Letting the balancer speak plain http, as Apache does", variables, "kallithea_loadbalancer")
            self.admin.go_to(self.plain_url)
            if "static" in parts:
                with self.part("static"):
                    self.static(https=False)
            if "git" in parts:
                with self.part("git"):
                    self.scm(https=False, runs=5 if self.rounds > 1 else 1)

    def storms(self, parts: list[str]) -> None:
        """Run the parts in which people and build servers use the cluster together."""
        if not parts:
            return
        if not self.ci_url:
            raise BenchFailed("KALLITHEA_CI_URL is not set: build servers use the bots' name.")
        self.start()
        with Large(self, self.ca_file) as large:
            benchmarks = Storms(self, self.ca_file).by_name() | large.by_name()
            for name in parts:
                self.deadline.check()
                say(f"== {name}")
                with self.part(name):
                    benchmarks[name]()

    def clean(self) -> list[str]:
        """Remove repositories, what Kallithea keeps of deleted ones, and our sessions; return what could not be removed."""
        problems: list[str] = []
        if self.made:
            say("Removing what was made")
        for name in list(self.made):
            with attempt(problems, f"the repository {name}"):
                if name in {repository["repo_name"] for repository in self.admin.call("get_repos")}:
                    self.delete(name)
        if self.used:
            with attempt(problems, "the repositories and accounts of the storms"):
                self.used.remove()
        if self.admin.api_key:
            with attempt(problems, f"{REPOSITORIES}/rm__*__{self.word}*"):
                leftovers = ["-maxdepth", "1", "-name", f"'rm__*__{self.word}*'"]
                self.cluster.run("kallithea_app", "find", REPOSITORIES, *leftovers, "-exec", "rm", "-rf", "{}", "+")
        for browser in (self.admin, self.stranger):
            with attempt(problems, "a session"):
                if browser.cookies():
                    browser.page("/_admin/logout")
        return problems


@contextlib.contextmanager
def attempt(problems: list[str], what: str) -> Iterator[None]:
    """Go on after a failure, but keep it."""
    try:
        yield
    except (BenchFailed, OSError, subprocess.TimeoutExpired, ValueError) as error:
        problems.append(f"{what} could not be removed: {error}")


def own_address(node: str) -> str:
    """Return the address that the node sees us by."""
    family = socket.AF_INET6 if ":" in node else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        probe.connect((node, STATIC_PORT))
        return str(probe.getsockname()[0])


def check_addresses(*names: str) -> None:
    """Refuse whatever is not a private address: this is a load generator."""
    for name in names:
        try:
            addresses = {str(entry[4][0]) for entry in socket.getaddrinfo(name, None)}
        except OSError as error:
            raise BenchFailed(f"{name} does not resolve here ({error}): run scripts/demo, which says what to put into /etc/hosts.") from error
        for address in addresses:
            if not ipaddress.ip_address(address).is_private:
                raise BenchFailed(f"{name} is {address}, which is no private address; the benchmark loads test clusters only.")


def fingerprint(cluster: Cluster) -> str:
    """Return the checksums of the configuration that the benchmark changes."""
    lines = [cluster.run(group, "sha256sum", path) for group, path in zip(("kallithea_app", "kallithea_loadbalancer"), CONFIGURATION, strict=True)]
    return "\n".join(line for text in lines for line in text.splitlines() if re.match(r"[0-9a-f]{64} ", line))


def put_back(cluster: Cluster, bench: Bench | None, before: str) -> list[str]:
    """Give the cluster its own shape again and make sure that it has it."""
    if not cluster.changed:
        return []
    try:
        cluster.change("Putting the cluster back", {})
        if bench:
            bench.admin.go_to(bench.url)
        if fingerprint(cluster) != before:
            return [f"{' or '.join(CONFIGURATION)} is not as before: the inventory had changes that no run had applied; run kallithea.cluster.site."]
    except (BenchFailed, subprocess.TimeoutExpired) as error:
        return [f"{error} Run kallithea.cluster.app and kallithea.cluster.loadbalancer."]
    return []


def uninterrupted(work: Callable[[], list[str]]) -> list[str]:
    """Do what has to be done after a signal as well; a second one does not stop it."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    return work()


def version(*command: str) -> str:
    """Return the first line that a program says of its version; nothing where it is not there."""
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30, check=False)
    except OSError:
        return ""
    return (done.stdout or done.stderr).strip().partition("\n")[0]


def machine() -> dict[str, Any]:
    """Return what the figures depend on."""
    models = re.findall(r"^model name\s*: (.*)$", pathlib.Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    changed = version("git", "-C", str(ROOT), "status", "--porcelain", "--untracked-files=no")
    return {
        "processor": models[0] if models else platform.machine(),
        "cores": os.cpu_count(),
        "kernel": platform.release(),
        "load average at the start": " ".join(pathlib.Path("/proc/loadavg").read_text().split()[:3]),
        "hosts": os.environ.get("KALLITHEA_TEST_IMAGE", ""),
        "git": version("git", "--version"),
        "hg": version("hg", "--version", "-q"),
        "python": platform.python_version(),
        "ansible": version("ansible", "--version"),
        "docker": version("docker", "--version"),
        "commit": version("git", "-C", str(ROOT), "rev-parse", "--short=12", "HEAD") + (", with changes" if changed else ""),
    }


def main() -> int:
    """Measure, put back, remove, print, write."""
    names = [*PARTS, *STORM_SECONDS]
    parser = argparse.ArgumentParser(prog="scripts/bench", description="The figures of a running cluster; by default of the demo.")
    parser.add_argument("parts", nargs="*", metavar="NAME", help=f"one of {', '.join(names)}; without one {', '.join(PARTS)}")
    parser.add_argument("--quick", action="store_true", help="one short run of each, to see that it works; no figures to quote")
    parser.add_argument("--report", action="store_true", help="write the results to docs/benchmarks")
    parser.add_argument("--output", type=pathlib.Path, required=True, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if wrong := set(arguments.parts) - set(names):
        parser.error(f"there is no benchmark {', '.join(sorted(wrong))}; there are {', '.join(names)}")
    parts = arguments.parts or list(PARTS)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: sys.exit(130))
    now = datetime.datetime.now().astimezone()
    arguments.output.mkdir(parents=True, exist_ok=True)
    stem = now.strftime("%Y-%m-%dT%H%M%S")
    cluster = Cluster(os.environ["KALLITHEA_INVENTORY"], arguments.output / f"{stem}.log")
    surroundings = machine()
    problems: list[str] = []
    bench: Bench | None = None
    with tempfile.TemporaryDirectory(prefix="kallithea-bench-") as folder:
        before = ""
        try:
            limit = (MEASURE_SECONDS if set(parts) & set(PARTS) else 0) + sum(STORM_SECONDS.get(part, 0) for part in parts)
            bench = Bench(pathlib.Path(folder), arguments.output, cluster, Deadline(limit), arguments.quick)
            before = fingerprint(cluster)
            bench.measure(parts)
        except (BenchFailed, OSError, subprocess.SubprocessError, ValueError) as error:
            problems.append(str(error))
        except (KeyboardInterrupt, SystemExit):
            problems.append("interrupted.")
        problems += uninterrupted(lambda: put_back(cluster, bench, before))
        if bench:
            problems += uninterrupted(bench.clean)
    figures = bench.figures if bench else []
    problems += [f"{figure.name}: {figure.note}." for figure in figures if figure.value is None]
    if bench and figures:
        print(table(figures))
        for why, count in bench.failures.items():
            print(f"failed {count} times: {why}")
        result = {
            "date": now.isoformat(timespec="seconds"),
            "command": " ".join(["./scripts/bench", *(["--report"] if arguments.report else []), *arguments.parts, *(["--quick"] if arguments.quick else [])]),
            "url": os.environ["KALLITHEA_URL"],
            "quick": arguments.quick,
            "seconds": round(time.monotonic() - STARTED),
            "environment": surroundings,
            "problems": problems,
            "failures": bench.failures,
            "figures": [figure.as_json() for figure in figures],
            "charts": bench.charts,
        }
        target = arguments.output / f"{stem}.json"
        target.write_text(json.dumps(result, indent=2, ensure_ascii=False) + "\n")
        say(f"Written to {target}")
        if arguments.report and not problems:
            for path in report.publish(result, ROOT / "docs/benchmarks"):
                say(f"Written to {path}")
    for problem in problems:
        print(f"ERROR: {problem}", file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
