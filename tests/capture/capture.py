"""Run the clients that are installed here against the recorder and write what they sent to tests/unit/captured.yml."""

from __future__ import annotations

import contextlib
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

import yaml
from recorder import GIT, HG, Recorder, Request, recording

TABLE = pathlib.Path(__file__).parents[1] / "unit" / "captured.yml"
HEAD = """\
# What real clients send, headers in their order, and what the balancer makes of it; tests/capture writes it, `expected` is decided by hand.
# Source: captured, or the page that says how the client names itself. {jane} is that account with its password; pool "-": the balancer answers.
# yamllint disable rule:line-length
"""
PROGRAMS = pathlib.Path(__file__).parent / "programs"
PYTHON = sys.executable
# What the page's form does last.
LAST_OF_BROWSER = "/_admin/login"
QUIET = {
    **os.environ,
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_AUTHOR_NAME": "Jane",
    "GIT_AUTHOR_EMAIL": "jane@example.org",
    "GIT_AUTHOR_DATE": "1767225600 +0000",
    "GIT_COMMITTER_NAME": "Jane",
    "GIT_COMMITTER_EMAIL": "jane@example.org",
    "GIT_COMMITTER_DATE": "1767225600 +0000",
    "HGRCPATH": "",
    "HGUSER": "jane",
    "HGPLAIN": "1",
    "LC_ALL": "C.UTF-8",
}
# Steps of a client: what it does there, and the command, where take() fills in the site's names; a step without a name prepares others.
Steps = list[tuple[str, str]]


def run(command: str, cwd: pathlib.Path, seconds: float = 60, check: bool = True) -> str:
    """Run a line of shell and return what it prints."""
    done = subprocess.run(command, shell=True, cwd=cwd, env={**QUIET, "HOME": str(cwd)}, capture_output=True, text=True, timeout=seconds, check=False)
    if check and done.returncode:
        raise RuntimeError(f"{command}\n{done.stdout}{done.stderr}")
    return done.stdout + done.stderr


def make_repositories(folder: pathlib.Path) -> None:
    """Make a Git repository with branches enough that a client's wishes are worth compressing, and a Mercurial one."""
    run(f"git init -q --bare -b main {GIT}", folder)
    for name in ("http.receivepack", "uploadpack.allowFilter", "uploadpack.allowAnySHA1InWant"):
        run(f"git -C {GIT} config {name} true", folder)
    lines = ["commit refs/heads/main\ncommitter Jane <jane@example.org> 1767225600 +0000\ndata 1\na\nM 644 inline a\ndata 1\na\n"]
    lines += [
        f"commit refs/heads/branch{number}\ncommitter Jane <jane@example.org> {1767225600 + number} +0000\ndata 1\na\nfrom refs/heads/main\n"
        for number in range(40)
    ]
    subprocess.run(["git", "-C", str(folder / GIT), "fast-import", "--quiet"], input="\n".join(lines), text=True, check=True)
    run(f"hg init {HG} && cd {HG} && echo a >a && hg commit -q -A -m a -d '1767225600 0' && echo b >a && hg commit -q -m b -d '1767225601 0'", folder)
    # A bundle that no client takes, so that they ask for the list and go on.
    (folder / HG / ".hg" / "clonebundles.manifest").write_text("https://nowhere.example.org/x BUNDLESPEC=none-of-ours\n", encoding="utf-8")


GIT_STEPS: Steps = [
    ("ls-remote", "git ls-remote {git}"),
    ("clone", "git clone -q {git} v2"),
    ("clone by protocol 0", "git -c protocol.version=0 clone -q {git} v0"),
    ("partial clone", "git clone -q --filter=blob:none --single-branch {git} partial"),
    ("shallow clone", "git clone -q --depth 1 {git} shallow"),
    ("shallow fetch", "git -C shallow fetch -q --deepen 5"),
    ("push", "cd v2 && echo b >b && git add b && git commit -q -m b && git push -q origin HEAD:main"),
    (
        "push of a large pack",
        "cd v2 && head -c 200000 /dev/urandom >c && git add c && git commit -q -m c && git -c http.postBuffer=1000 push -q origin HEAD:main",
    ),
    ("push that deletes a branch", "git -C v2 push -q origin :branch1"),
]
LFS_STEPS: Steps = [
    ("", "git clone -q {git} lfs && cd lfs && git lfs install --local --force && git lfs track '*.bin'"),
    ("", "cd lfs && echo x >a.bin && git add . && git commit -q -m lfs"),
    ("push", "cd lfs && git lfs push origin HEAD || true"),
    ("fetch", "cd lfs && git lfs fetch origin HEAD || true"),
    ("locks", "cd lfs && git lfs locks || true"),
    ("lock", "cd lfs && git lfs lock a.bin || true"),
]
HG_STEPS: Steps = [
    ("identify", "hg identify {hg}"),
    ("identify by a name", "hg identify -r tip {hg}"),
    ("clone", "hg clone -q {hg} {at}"),
    ("clone as a stream", "hg clone -q --stream {hg} {at}-stream"),
    ("incoming", "hg -R {at} incoming -B {hg} || true"),
    ("pull", "hg -R {at} pull -q {hg}"),
    ("pull of one revision", "hg -R {at} pull -q -r tip {hg}"),
    ("outgoing", "cd {at} && echo {at} >>a && hg commit -q -m c && hg outgoing -q {hg}"),
    ("push", "hg -R {at} push -q {hg}"),
    ("push of a bookmark", "cd {at} && hg bookmark {at}-mark && hg push -q -B {at}-mark {hg} || true"),
    ("push of a phase", "cd {at} && hg phase --force --draft tip && hg push -q {hg} || true"),
    ("deletion of a bookmark", "cd {at} && hg bookmark -d {at}-mark && hg push -q -B {at}-mark {hg} || true"),
    ("by pushkey", "hg debugpushkey {hg} bookmarks {at}-key '' $(hg -R {at} id -r 0 --debug -i)"),
    ("discovery", "hg -R {at} debugdiscovery {hg}"),
    ("old stream clone", "hg clone -q --stream --config devel.legacy.exchange=bundle1 {hg} {at}-old"),
    ("old push", "cd {at} && echo x >>a && hg commit -q -m x && hg bookmark {at}-old && hg push -q -B {at}-old --config devel.legacy.exchange=bundle1 {hg}"),
    ("a wire command of its own", "hg debugwireargs {hg} 1 2"),
]
API = '{"id":1,"method":"get_repos","args":{},"api_key":"0123456789abcdef"}'


def version(command: str, cwd: pathlib.Path) -> str:
    """Return the first number with dots that a command prints."""
    found = re.search(r"\d+\.\d+[\w.+-]*", run(command, cwd, check=False))
    return found[0].rstrip(".") if found else "?"


def clients() -> dict[str, tuple[str, str, Steps]]:
    """Return each client: the program it needs, the command that prints its version, its steps."""
    # Debian's packages of Go are sources in its folder; no registry is asked.
    go = "GO111MODULE=off GOPATH=$HOME/go:/usr/share/gocode go"
    found: dict[str, tuple[str, str, Steps]] = {
        "git": ("git", "git --version", GIT_STEPS),
        "git-lfs": ("git-lfs", "git lfs version", LFS_STEPS),
        "hg": ("hg", "hg --version -q", HG_STEPS),
        "libgit2 (pygit2)": (
            PYTHON,
            f"{PYTHON} -c 'import pygit2; print(pygit2.LIBGIT2_VERSION)'",
            [("clone, fetch and push", f"{PYTHON} {PROGRAMS}/use_pygit2.py {{bare}}")],
        ),
        "dulwich": (PYTHON, f"{PYTHON} -m pip show dulwich | grep ^Version", [("ls-remote, clone and push", f"{PYTHON} {PROGRAMS}/use_dulwich.py {{bare}}")]),
        "JGit": (
            "java",
            "dpkg-query -W libjgit-java",
            [("ls-remote, clone and push", f"java -cp '/usr/share/java/*' {PROGRAMS}/JGit.java {{bare}}")],
        ),
        "go-git": (
            "go",
            "dpkg-query -W golang-github-go-git-go-git-dev",
            [("clone and push", f"mkdir -p go/src && cp -r {PROGRAMS}/gogit go/src && cd go/src/gogit && {go} run . {{bare}}")],
        ),
        "isomorphic-git": ("node", "npm ls isomorphic-git", [("clone and push", f"cp {PROGRAMS}/isomorphic.js . && node isomorphic.js {{bare}}")]),
        "net/http of Go": ("go", "go version", [("page", f"{go} run {PROGRAMS}/gohttp/main.go {{page}}")]),
        "curl": (
            "curl",
            "curl --version",
            [
                ("page", "curl -s {page}"),
                ("archive", "curl -s -o archive.zip {url}/group/project/archive/tip.zip"),
                ("API", f"curl -s -d '{API}' -H 'Content-Type: application/json' {{url}}/_admin/api"),
                ("upload", "head -c 2000000 /dev/zero >zero; curl -s --data-binary @zero {url}/_admin/api"),
                ("info/refs with a name", "curl -s -u jane:secret '{bare}/info/refs?service=git-upload-pack'"),
            ],
        ),
        "wget": ("wget", "wget --version", [("page", "wget -q -O page {page}"), ("page with all of its parts", "wget -q -p -e robots=off {page}")]),
        "libwww-perl": ("perl", "perl -MLWP -e 'print LWP->VERSION'", [("page", "perl -MLWP::UserAgent -e 'LWP::UserAgent->new->get(shift)' {page}")]),
        "Net::HTTP of Ruby": ("ruby", "ruby --version", [("page", "ruby -rnet/http -e 'Net::HTTP.get(URI(ARGV[0]))' {page}")]),
        "open-uri of Ruby": ("ruby", "ruby --version", [("page", "ruby -ropen-uri -e 'URI.open(ARGV[0]).read' {page}")]),
        "fetch of Node.js": ("node", "node --version", [("page", "node -e 'fetch(process.argv[1])' {page}")]),
        "axios": ("node", "npm ls axios", [("page", "node -e 'require(\"axios\").get(process.argv[1])' {page}")]),
    }
    for kind, name in (("url", "HttpURLConnection of Java"), ("client", "HttpClient of Java")):
        found[name] = ("java", "java -version", [("page", f"java {PROGRAMS}/Fetch.java {kind} {{page}}")])
    for name in ("requests", "urllib", "urllib3", "httpx", "aiohttp"):
        package = f"-m pip show {name} | grep ^Version" if name != "urllib" else "--version"
        found[f"{name} of Python"] = (PYTHON, f"{PYTHON} {package}", [("page and API", f"{PYTHON} {PROGRAMS}/pages.py {name} {{page}} {{url}}/_admin/api")])
    return found


BROWSERS = {
    "Firefox": ("firefox-esr", "firefox-esr --no-remote --profile profile {page}"),
    "Firefox, headless": ("firefox-esr", "firefox-esr --headless --no-remote --profile profile {page}"),
    "Chromium": ("chromium", "chromium --no-sandbox --no-first-run --user-data-dir=profile {page}"),
    "Chromium, headless": ("chromium", "chromium --no-sandbox --headless --user-data-dir=profile --virtual-time-budget=20000 --dump-dom {page}"),
}


@contextlib.contextmanager
def screen() -> Iterator[str]:
    """Give browsers a screen that nobody sees."""
    process = subprocess.Popen(["Xvfb", "-displayfd", "1"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert process.stdout
    try:
        yield ":" + process.stdout.readline().strip()
    finally:
        process.terminate()
        process.wait()


def browse(recorder: Recorder, command: str, folder: pathlib.Path, display: str) -> list[Request]:
    """Open the page in a browser until its form was sent."""
    shutil.rmtree(folder / "profile", ignore_errors=True)
    (folder / "profile").mkdir()
    environment = {**os.environ, "HOME": str(folder), "DISPLAY": display}
    process = subprocess.Popen(
        command.format(page=f"{recorder.url}/group/project").split(), cwd=folder, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        for _ in range(600):
            if any(request.path == LAST_OF_BROWSER for request in recorder.requests):
                time.sleep(2)
                return recorder.taken()
            time.sleep(0.1)
        raise TimeoutError(f"{command}: only {recorder.taken()}")
    finally:
        process.terminate()
        process.wait()


def name_of(step: str, request: Request) -> str:
    """Return a row's name: what the client does, what it asks for, and what sets this request apart."""
    headers = {name.lower(): value for name, value in request.headers}
    signs = [
        sign
        for sign, there in (
            ("with a name", "authorization" in headers),
            ("compressed", "content-encoding" in headers),
            ("in chunks", "transfer-encoding" in headers),
            ("protocol " + headers.get("git-protocol", "").removeprefix("version="), "git-protocol" in headers),
            ("arguments in the body", "x-hgargs-post" in headers),
        )
        if there
    ]
    return f"{step}: {request.method} {request.path}" + (f" ({', '.join(signs)})" if signs else "")


def sort_of(request: Request) -> tuple:
    """Return what makes two requests the same sort: all but lengths and ids."""
    headers = tuple((name, re.sub(r"[0-9a-f]{40}", "ID", value)) for name, value in request.headers if name.lower() != "content-length")
    return request.method, request.path, headers


def rows(client: str, number: str, steps: list[tuple[str, list[Request]]]) -> list[dict[str, Any]]:
    """Return a client's rows, each sort of request once."""
    seen: set[tuple] = set()
    found: dict[str, dict[str, Any]] = {}
    for step, requests in steps:
        for request in requests:
            name = name_of(step, request)
            if sort_of(request) in seen or name in found:
                continue
            seen.add(sort_of(request))
            if len(request.headers) != len(dict(request.headers)):
                raise ValueError(f"{client}, {name}: a header stands twice, which the table cannot say: {request.headers}")
            sent = {"method": request.method, "path": request.path, "headers": dict(request.headers)}
            found[name] = {"client": client, "version": number, "name": name, "source": "captured", "request": sent}
    return list(found.values())


def take(recorder: Recorder, steps: Steps, folder: pathlib.Path, at: str) -> list[tuple[str, list[Request]]]:
    """Run a client's steps and return what each sent."""
    names = {
        "url": recorder.url,
        "page": f"{recorder.url}/group/project",
        "git": f"{recorder.signed_in}/{GIT}",
        "bare": f"{recorder.url}/{GIT}",
        "hg": f"{recorder.signed_in}/{HG}",
        "at": at,
    }
    taken = []
    for step, command in steps:
        for name, value in names.items():
            command = command.replace("{" + name + "}", value)
        run(command, folder, 120)
        requests = recorder.taken()
        taken += [(step, requests)] if step else []
    return taken


def capture(wanted: Callable[[str], bool], folder: pathlib.Path) -> list[dict[str, Any]]:
    """Return the rows of all wanted clients that are installed here."""
    make_repositories(folder)
    if modules := os.environ.get("NODE_MODULES"):
        (folder / "node_modules").symlink_to(modules)
    found: list[dict[str, Any]] = []
    with recording(folder) as recorder:
        for client, (program, number, steps) in clients().items():
            if not wanted(client):
                continue
            if not shutil.which(program):
                print(f"{client}: {program} is not installed")
                continue
            found += rows(client, version(number, folder), take(recorder, steps, folder, "hg"))
            print(f"{client}: {sum(row['client'] == client for row in found)} rows")
        with screen() as display:
            for client, (program, command) in BROWSERS.items():
                if wanted(client) and shutil.which(program):
                    found += rows(client, version(f"{program} --version", folder), [("page", browse(recorder, command, folder, display))])
                    print(f"{client}: {sum(row['client'] == client for row in found)} rows")
    if wanted("hg"):
        with recording(folder, postargs=True) as recorder:
            found += rows("hg with httppostargs", version("hg --version -q", folder), take(recorder, HG_STEPS, folder, "posting"))
    return found


def merged(old: list[dict[str, Any]], new: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the table: what was captured again is replaced and keeps what was expected of it, all else stays."""

    def client(row: dict[str, Any]) -> tuple:
        return row["client"], row["version"], row["source"]

    expected = {(client(row), row["name"]): row["expected"] for row in old}
    again = {client(row) for row in new}
    table = [row for row in old if client(row) not in again]
    table += [{**row, "expected": expected.get((client(row), row["name"]))} for row in new]
    # Each client keeps its place, so that a difference shows what changed.
    place = {key: number for number, key in enumerate(dict.fromkeys(client(row) for row in old + new))}
    return sorted(table, key=lambda row: place[client(row)])


def write(table: list[dict[str, Any]]) -> None:
    """Write the table."""
    TABLE.write_text(HEAD + yaml.safe_dump(table, sort_keys=False, width=10**6, allow_unicode=True), encoding="utf-8")


def main(words: list[str]) -> None:
    """Capture all clients, or those that are named."""
    old = yaml.safe_load(TABLE.read_text(encoding="utf-8")) if TABLE.exists() else []
    with tempfile.TemporaryDirectory() as folder:
        new = capture(lambda client: not words or client in words, pathlib.Path(folder))
    table = merged(old or [], new)
    write(table)
    print(f"{len(new)} rows captured, {sum(row['expected'] is None for row in table)} without an expectation")


if __name__ == "__main__":
    main(sys.argv[1:])
