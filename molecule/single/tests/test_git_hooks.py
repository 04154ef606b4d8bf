"""A git push leaves and says the same, whether its hook ran where the application is loaded already or had to load it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import pytest
from machines import Machine, wait_until
from repositories import Make
from scm import Client
from settings import Settings

UNIT = "kallithea-hooks"
# Says who ran it, and what it was given.
CUSTOM = "#!/bin/sh\necho custom, in $PWD, by $(tr '\\0' ' ' </proc/$PPID/cmdline)\ncat\necho as $KALLITHEA_EXTRAS >&2\nexit 3\n"
# A new repository, a new branch with a tag, more commits on both branches, a branch that goes.
PUSHES = ("master~1:refs/heads/master", "side~1:refs/heads/side v1", "master side", ":side")
ROWS = """
SELECT row_to_json(l) FROM user_logs AS l WHERE repository_name = '{name}' ORDER BY user_log_id;
SELECT convert_from(changeset_cache, 'UTF8') FROM repositories WHERE repo_name = '{name}';
"""
# Of each row only this differs between two repositories.
OWN = {"user_log_id", "repository_id", "action_date"}
# Longer than Kallithea waits for the beginning of git's answer where a client fetches.
SLOW_SECONDS = 8


def left(node: Machine, name: str) -> list[Any]:
    """Return what the database knows of a repository's pushes."""
    script = ROWS.format(name=name)
    lines = node.run("cd / && runuser -u postgres -- psql -AtX -q -v ON_ERROR_STOP=1 -d kallithea", stdin=script).splitlines()
    rows = [json.loads(line.replace(name, "NAME")) for line in lines]
    return [{key: value for key, value in row.items() if key not in OWN} if isinstance(row, dict) else row for row in rows]


@pytest.fixture
def push_all(node: Machine, settings: Settings, client: Client, make_repository: Make) -> Callable[[str], tuple[str, str, list[Any]]]:
    """Return a function that pushes the same to a repository of this name; it returns what was said and what was left."""
    client.run("rm -rf hooks-out")
    for text in ("first", "second"):
        client.commit("git", "hooks-out", text)
    client.run("cd hooks-out && git checkout -q -b side && git tag v1 master~1")
    client.commit("git", "hooks-out", "third")
    client.run("cd hooks-out && git checkout -q master")
    client.commit("git", "hooks-out", "fourth")

    def push(name: str) -> tuple[str, str, list[Any]]:
        made = make_repository("git", name)
        folder = f"{settings.repositories}/{made}"
        node.write(f"{folder}/hooks/post-receive-custom", CUSTOM, "0755")
        node.run(f"chown kallithea: {folder}/hooks/post-receive-custom")
        url = client.url(made)
        said = [client.run(f"cd hooks-out && git push {url} {references} 2>&1") for references in PUSHES]
        return made, "".join(said).replace(made, "NAME"), left(node, made)

    return push


def custom_runners(said: str) -> set[str]:
    """Return which programs ran the custom hook."""
    return {line.partition(", by ")[2].split()[1].rpartition("/")[2] for line in said.splitlines() if ", by " in line}


def without_runners(said: str) -> list[str]:
    """Return what was said without who ran the custom hook, and without progress."""
    return [line.partition(", by ")[0].rstrip() for line in said.splitlines() if line.startswith(("remote: custom", "remote: as", "remote: 0", " "))]


def test_the_same_is_left_and_said(node: Machine, push_all: Callable[[str], tuple[str, str, list[Any]]]) -> None:
    """Journal, what the repository's page shows first, custom hooks with their words; Kallithea makes no notifications of pushes."""
    _, served, rows = push_all("hooks-served")
    assert custom_runners(served) == {"kallithea-hooks"}, served
    node.run(f"systemctl stop {UNIT}")
    try:
        _, alone, wanted = push_all("hooks-alone")
    finally:
        node.run(f"systemctl start {UNIT}")
    assert custom_runners(alone) == {"post-receive"}, alone
    assert without_runners(served) == without_runners(alone)
    assert len(without_runners(served)) >= 3 * len(PUSHES), served
    assert rows == wanted
    assert len([row for row in wanted if isinstance(row, dict) and row.get("action", "").startswith("push:")]) == len(PUSHES), wanted


def test_what_a_hook_costs(node: Machine, client: Client, make_repository: Make) -> None:
    """A push is a second of processor time cheaper where the application is loaded."""
    name = make_repository("git", "hooks-timed")
    wait_for_socket = "until test -S /run/kallithea-hooks/socket; do sleep 0.2; done"
    took: dict[str, list[float]] = {"served": [], "alone": []}
    client.run("rm -rf hooks-timed")
    for number in range(3):
        for way, times in took.items():
            if way == "alone":
                node.run(f"systemctl stop {UNIT}")
            try:
                client.commit("git", "hooks-timed", f"{way}-{number}")
                begin = time.monotonic()
                client.push("git", "hooks-timed", client.url(name))
                times.append(time.monotonic() - begin)
            finally:
                node.run(f"systemctl start {UNIT} && timeout 30 sh -c '{wait_for_socket}'")
    best = {way: min(times) for way, times in took.items()}
    print(f"git push of one small commit: {best['served']:.2f} s with {UNIT}, {best['alone']:.2f} s without")
    assert best["served"] < best["alone"] * 0.75, took


def test_a_push_whose_client_goes_away_comes_to_its_end(node: Machine, settings: Settings, client: Client, make_repository: Make) -> None:
    """What it has pushed is there by then; its hooks run to their end, although nobody reads what they say."""
    name = make_repository("git", "hooks-gone")
    custom, mark = f"{settings.repositories}/{name}/hooks/post-receive-custom", f"{settings.repositories}/{name}/custom-hook"
    node.write(custom, f"#!/bin/sh\necho begun\ntouch {mark}-begun\nsleep {SLOW_SECONDS}\necho done\nsleep 1\necho really\ntouch {mark}-done\n", "0755")
    node.run(f"chown kallithea: {custom}")
    client.run("rm -rf hooks-gone")
    client.commit("git", "hooks-gone", "first")
    pusher = client.run(f"cd hooks-gone && nohup git push {client.url(name)} master >/dev/null 2>&1 & echo $!").strip()
    wait_until("the hook", lambda: node.try_run(f"test -e {mark}-begun").status == 0, 30)
    client.run(f"pkill -KILL git-remote-http && kill -KILL {pusher}")
    wait_until("the hook's end", lambda: node.try_run(f"test -e {mark}-done").status == 0, SLOW_SECONDS + 30)
    rows = [row for row in left(node, name) if isinstance(row, dict) and row.get("action", "").startswith("push:")]
    assert len(rows) == 1, rows
