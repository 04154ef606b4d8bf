"""People push and clone with git and hg through the balancer, and see on the pages what they pushed."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
from machines import Machine, quote, wait_until
from repositories import Make, push_look_and_clone
from scm import Client
from settings import Settings
from web import ApiError, Site

HEADS = 2000
# Each would wait for 2 to 10 s if it counted as a guess.
NAMED_CLONES, NAMED_SECONDS = 20, 40.0
HEAVY_PUSH_SECONDS = 60.0
SLOW_GIT_SECONDS = 3
# Holds Mercurial's lock for a while, as a push does.
HOLD_HG = "import sys, time; from mercurial import hg, ui; held = hg.repository(ui.ui.load(), sys.argv[1].encode()).lock(); time.sleep(4); held.release()"
# The same, and commits before it lets go.
HOLD_HG_AND_COMMIT = """
import sys, time
from mercurial import context, hg, ui
repo = hg.repository(ui.ui.load(), sys.argv[1].encode())
with repo.lock():
    time.sleep(4)
    made = context.memctx(repo, [repo[b"tip"].node(), None], b"came-first", [b"other"], lambda *given: context.memfilectx(*given, b"other"), b"Test")
    repo.commitctx(made)
"""


@pytest.mark.parametrize("name", ["", "hé-名前"], ids=["ASCII", "another script"])
@pytest.mark.parametrize("kind", ["git", "hg"])
def test_push_page_and_clone(client: Client, site: Site, make_repository: Make, kind: str, name: str) -> None:
    """What is pushed stands on its page, and in a clone of anybody."""
    push_look_and_clone(client, site, kind, make_repository(kind, kind + name))


@contextmanager
def slow_history(node: Machine) -> Iterator[None]:
    """Let git take its time before it looks at a repository's history."""
    script = "/usr/local/lib/kallithea/kallithea-git"
    node.run(f'cp -p {script} /run/test-git && sed -i \'1a case " $* " in *" log "*) sleep {SLOW_GIT_SECONDS} ;; esac\' {script}')
    try:
        yield
    finally:
        node.run(f"mv /run/test-git {script}")


def test_page_while_a_branch_moves(node: Machine, settings: Settings, client: Client, site: Site, make_repository: Make) -> None:
    """A page that has begun when somebody pushes shows the repository all the same."""
    name = make_repository("git", "moving")
    client.commit("git", "moving", "first")
    client.push("git", "moving", client.url(name))
    git = f"cd / && runuser -u kallithea -- git -C {settings.repositories}/{name} -c user.name=Test -c user.email=test@localhost"
    commit = node.run(f"{git} commit-tree -p master -m came-meanwhile master^{{tree}}").strip()
    with slow_history(node), ThreadPoolExecutor(1) as executor:
        page = executor.submit(site.get, f"/{name}")
        time.sleep(SLOW_GIT_SECONDS / 2)
        node.run(f"{git} update-ref refs/heads/master {commit}")
        answer = page.result()
    assert answer.status == 200 and "came-meanwhile" in answer.text, f"answered {answer.status}"


def test_a_lock_that_a_killed_process_left_costs_no_push(node: Machine, settings: Settings, client: Client, make_repository: Make) -> None:
    """Nobody reads the list of packs that Kallithea wrote after each push; where it could not, the push was there and its user read an error 500."""
    name = make_repository("git", "left")
    for text in ("first", "second"):
        client.commit("git", "left", text)
        client.push("git", "left", client.url(name))
        node.run(f"cd / && runuser -u kallithea -- touch {settings.repositories}/{name}/objects/info/packs.lock")


Edits = dict[str, tuple[str, list[str]]]


def edit_while_locked(node: Machine, settings: Settings, client: Client, name: str, script: str) -> tuple[str, list[str]]:
    """Change a file in the browser while a process has Mercurial's lock; return the repository's page and its heads."""
    # A session of its own: the page says what was done in it last.
    site, unit = Site(settings), f"hold-{name}"
    site.login()
    client.commit("hg", name, "first")
    client.push("hg", name, client.url(name))
    folder = f"{settings.repositories}/{name}"
    node.start(unit, f"cd / && exec runuser -u kallithea -- /opt/kallithea/current/bin/python3 -c {quote(script)} {folder}", 60)
    wait_until("the lock held", lambda: node.try_run(f"test -L {folder}/.hg/store/lock").status == 0, 20)
    site.post(f"/{name}/edit/default/word", {"content": "edited\n", "message": "edited-meanwhile"})
    page = site.get(f"/{name}").text
    return page, client.run(f"hg -R {name} pull -q {client.url(name)} && hg -R {name} heads -T '{{desc}}\n'").split()


@pytest.fixture(scope="module")
def edits(node: Machine, settings: Settings, client: Client, make_repository: Make) -> Edits:
    """Edit a repository whose lock is held, and at the same time one into which the holder commits."""
    scripts = {"held": HOLD_HG, "changed": HOLD_HG_AND_COMMIT}
    names = {purpose: make_repository("hg", purpose) for purpose in scripts}
    with ThreadPoolExecutor() as executor:
        begun = {purpose: executor.submit(edit_while_locked, node, settings, client, names[purpose], script) for purpose, script in scripts.items()}
        return {purpose: edit.result() for purpose, edit in begun.items()}


def test_an_edit_in_the_browser_waits_for_mercurials_lock(edits: Edits) -> None:
    """As a push does; the word that it waits for goes nowhere."""
    page, heads = edits["held"]
    assert "Successfully committed" in page and "edited-meanwhile" in page
    assert heads == ["edited-meanwhile"]


def test_an_edit_in_the_browser_makes_no_second_head(edits: Edits) -> None:
    """Where somebody else was first it is refused, as a push is."""
    page, heads = edits["changed"]
    assert "Error occurred during commit" in page
    assert heads == ["came-first"]


def test_bots_name_serves_the_same_repositories(client: Client, settings: Settings, make_repository: Make) -> None:
    """What people pushed is cloned by the bots' name, and the other way round."""
    name = make_repository("git", "bots")
    client.commit_git("bots-out", "word-for-bots")
    client.run(f"cd bots-out && git push -q {client.url(name, settings.ci_hostname)} master")
    assert client.run(f"rm -rf bots-in && git clone -q {client.url(name)} bots-in && cat bots-in/word").strip() == "word-for-bots"
    client.run(f"rm -rf bots-again && git clone -q {client.url(name, settings.ci_hostname)} bots-again")


def test_wrong_password_gets_nothing(client: Client, foreign: Machine, make_repository: Make) -> None:
    """A private repository is neither read nor written without the right password."""
    name = make_repository("git", "private")
    client.commit_git("private-out", "word")
    wrong = "GIT_ASKPASS=/bin/echo; export GIT_ASKPASS;"
    for command in (f"git ls-remote {client.url(name)}", f"git -C private-out push {client.url(name)} master"):
        result = foreign.try_run(f"cd /root/client; export HOME=$PWD GIT_SSL_CAINFO=$PWD/ca.crt GIT_TERMINAL_PROMPT=0; {wrong} {command}")
        assert result.status != 0 and "Authentication failed" in result.errors, result


def test_a_user_in_the_address_makes_nobody_wait(client: Client, node: Machine, settings: Settings, make_repository: Make) -> None:
    """As Kallithea's pages show it. git sends the name with an empty password before it asks for one: no guess for the balancer, nor in the log."""
    name = make_repository("git", "named")
    url = client.url(name, f"admin@{settings.hostname}")
    client.commit("git", "named-out", "word")
    client.push("git", "named-out", url)
    begin = time.time()
    client.run(f"for number in $(seq {NAMED_CLONES}); do rm -rf named-in; git clone -q {url} named-in; done; cat named-in/word", seconds=NAMED_SECONDS)
    print(f"{NAMED_CLONES} clones with a user in the address took {time.time() - begin:.1f} s")
    said = node.run(f"journalctl --no-pager --quiet --since=@{begin:.0f} --unit=kallithea-web").splitlines()
    assert not [line for line in said if "bad password" in line or "failed to authenticate" in line]


def test_repository_made_and_deleted_by_the_api(site: Site, make_repository: Make) -> None:
    """A deleted repository is gone from the pages and the API."""
    name = make_repository("git", "short-lived")
    assert site.get(f"/{name}").status == 200
    site.call("delete_repo", repoid=name)
    assert site.get(f"/{name}").status == 404
    with pytest.raises(ApiError, match="does not exist"):
        site.call("get_repo", repoid=name)


def test_git_push_of_200_mb(client: Client, site: Site, heavy_repository: tuple[str, float]) -> None:
    """A push that git sends in chunks arrives whole and in time."""
    name, seconds = heavy_repository
    commit = client.run("git -C heavy rev-parse HEAD").strip()
    assert site.call("get_changeset", repoid=name, raw_id=commit)["message"].strip() == "heavy"
    assert seconds < HEAVY_PUSH_SECONDS


# Prints the sum of the peaks of memory of all programs on the way, in MB; "begin" forgets the peaks first.
PEAKS = r"""
import os, pathlib, subprocess, sys
peaks = []
for pid in subprocess.run(["pgrep", "haproxy|apache2|kallithea-scm"], capture_output=True, text=True, check=True).stdout.split():
    folder = pathlib.Path("/proc", pid)
    if sys.argv[1] == "begin":
        (folder / "clear_refs").write_text("5")
    fields = dict(line.split(":", 1) for line in (folder / "status").read_text().splitlines())
    peaks.append(int(fields["VmHWM"].split()[0]))
print(sum(peaks) // 1024)
"""
# Of a clone's git: what it has written, to the pack's maker first what is wanted, then the answer.
WRITTEN = "runuser -u kallithea -- sed -n 's/^wchar: //p' /proc/{pid}/io"
WANTED_BYTES = 200
FIRST_MEGABYTE_SECONDS = 3.0
STREAM_MEGABYTES = 60


def size_of(client: Client, file: str) -> int:
    """Return how many bytes the client has of a file."""
    return int(client.run(f"stat --format=%s {file} 2>/dev/null || echo 0"))


def ask_for_pack(client: Client, name: str) -> str:
    """Return the command by which the client asks for all of the heavy repository, as git does."""
    wanted = client.run("git -C heavy rev-parse HEAD").strip()
    client.machine.write("/root/client/want", f"0032want {wanted}\n00000009done\n")
    header = "Content-Type: application/x-git-upload-pack-request"
    return f"curl -sS --fail -K curl-right -X POST -H '{header}' --data-binary @want {client.url(name)}/git-upload-pack"


def test_a_clone_of_200_mb_is_a_stream(client: Client, node: Machine, heavy_repository: tuple[str, float]) -> None:
    """Its first megabyte comes long before the pack is complete, and no program on the way holds what passes."""
    name, _ = heavy_repository
    ask = ask_for_pack(client, name)
    before = int(node.run(f"python3 -c {quote(PEAKS)} begin"))
    begin = time.monotonic()
    client.run(f"{ask} 2>/dev/null | head -c 1000000 > first-megabyte")
    first = time.monotonic() - begin
    size = int(client.run(f"{ask} | wc -c", seconds=60))
    grown = int(node.run(f"python3 -c {quote(PEAKS)} end")) - before
    print(f"the first megabyte after {first:.1f} s, {grown} MB held for {size / 1e6:.0f} MB")
    assert size > 200_000_000
    assert first < FIRST_MEGABYTE_SECONDS
    assert grown < STREAM_MEGABYTES


def test_where_git_pauses_all_that_it_said_is_at_the_client(client: Client, node: Machine, heavy_repository: tuple[str, float]) -> None:
    """Blocks are made of what comes at once; nothing on the way waits for more."""
    name, _ = heavy_repository
    client.run(f"nohup {ask_for_pack(client, name)} --no-buffer --limit-rate 20M --max-time 60 --output paused-pack >/dev/null 2>&1 &")
    wait_until("the pack comes", lambda: size_of(client, "paused-pack") > 1_000_000, 20)
    # The newest: another test's client may have left one behind.
    pid = node.run(f"pgrep --newest --full '[g]it upload-pack.*/{name}'").strip()
    try:
        node.run(f"kill -STOP {pid}")
        wait_until("git pauses", lambda: node.run(f"cut -d ' ' -f 3 /proc/{pid}/stat").strip() == "T", 5)
        written = int(node.run(WRITTEN.format(pid=pid)))
        wait_until(f"all {written} bytes are at the client", lambda: size_of(client, "paused-pack") >= written - WANTED_BYTES, 15)
    finally:
        node.run(f"kill -CONT {pid}")
    wait_until("the rest comes", lambda: size_of(client, "paused-pack") > 200_000_000, 30)
    client.run("rm paused-pack")


def test_hg_repository_with_many_heads(client: Client, make_repository: Make) -> None:
    """Mercurial sends what it knows in headers; a repository with 2,000 heads is pushed, cloned and pulled all the same."""
    name = make_repository("hg", "heads")
    url = client.url(name)
    dag = "+1:r " + " ".join(["*r"] * HEADS)
    client.run(f"rm -rf heads-out heads-in && hg init heads-out && hg -R heads-out debugbuilddag -q {dag!r}", seconds=90)
    client.run(f"hg -R heads-out push -q --force {url}", seconds=120)
    client.run(f"hg clone -q --noupdate {url} heads-in", seconds=120)
    count = "hg -R heads-in log -r 'head()' -T x | wc -c"
    assert int(client.run(count)) == HEADS
    # One more on the server: the pull has to say all the heads that it has.
    client.run("cd heads-out && hg update -q -r 1 && echo more > more && hg commit -q -A -m more")
    client.run(f"hg -R heads-out push -q --force {url}")
    client.run(f"hg -R heads-in pull -q {url}")
    assert client.run("hg -R heads-in log -r tip -T '{desc}'").strip() == "more"
    client.run("rm -rf heads-out heads-in")
