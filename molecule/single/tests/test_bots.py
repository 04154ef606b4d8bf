"""Who is a bot, as an operator sees and changes it on the host; what a run of the playbook says of that; what failed log-ins leave."""

from __future__ import annotations

import secrets
import time
from pathlib import Path

import playbook_runs
from balancer import Balancer
from machines import Machine, wait_until
from playbook_runs import Run
from repositories import Make
from scm import Client
from settings import Settings
from web import Site

AGENT = "our-nightly-job/1.0"
RUN_SECONDS = 120.0


def verdict(node: Machine, site: Site, agent: str) -> str:
    """Return who the balancer took a program for, by its log."""
    begin = time.time() - 1
    path = f"/{secrets.token_hex(8)}"
    site.get(path, {"User-Agent": agent})
    (line,) = wait_until("the line in the log", lambda: [line for line in Balancer(node).log(begin) if line["path"] == path], 10)
    return f"{line['who']} {line['signal']} {line['pool']}"


def check_and_refuse(node: Machine, settings: Settings, folder: Path) -> tuple[Run, Run]:
    """Make a check, and at the same time a run with an expression that HAProxy refuses; neither changes anything."""
    bad = {"kallithea_loadbalancer_bot_user_agents": [r"\N{DIGIT ONE}"]}
    with playbook_runs.unchanged(node, settings):
        runs = playbook_runs.run_all(
            {
                "checked": lambda: playbook_runs.run("loadbalancer", "--check", folder=folder, seconds=RUN_SECONDS),
                "refused": lambda: playbook_runs.run("preflight", variables=bad, folder=folder, seconds=RUN_SECONDS),
            }
        )
    return runs["checked"], runs["refused"]


def test_a_command_changes_the_lists_and_a_run_takes_it_back(node: Machine, settings: Settings, tmp_path: Path) -> None:
    """At once and without a reload; the next run names what the inventory does not have. An expression that HAProxy refuses changes nothing."""
    stranger = Site(settings)
    worker = "pgrep --newest haproxy"
    before = node.run(worker)
    assert verdict(node, stranger, AGENT) == "person none ui"
    said = node.run("kallithea-bots add agent '^our-nightly-job/'")
    assert "kallithea_loadbalancer_bot_user_agents" in said
    assert verdict(node, stranger, AGENT) == "bot agent ci"
    assert node.run(worker) == before, "HAProxy was reloaded for it"
    assert node.try_run("kallithea-haproxy loaded").status == 0, "the next run would reload for it"
    checked, refused = check_and_refuse(node, settings, tmp_path)
    run = playbook_runs.run("loadbalancer", folder=tmp_path, seconds=RUN_SECONDS)
    for ended in (checked, run):
        ended.check_success(node.name)
        assert f"On {node.name} kallithea-bots had added to kallithea_loadbalancer_bot_user_agents: ^our-nightly-job/." in ended.output, ended.end
    assert verdict(node, stranger, AGENT) == "person none ui"
    assert "our-nightly-job" not in node.run("kallithea-bots list")
    # Python takes it, so that only HAProxy itself can say so.
    refused.check_sentence(r"kallithea_loadbalancer_bot_user_agents holds '\\N\{DIGIT ONE\}', which HAProxy does not take \(")


def test_failed_log_ins_are_counted_for_form_and_git(node: Machine, settings: Settings, client: Client, make_repository: Make) -> None:
    """Kallithea answers a wrong password of the form with the form and one of git's with 401; a right one of either costs nothing."""
    stranger = Site(settings)
    assert stranger.post("/_admin/login", {"username": "somebody", "password": "this-is-not-it"}).status == 200

    def failures(account: str) -> list[int]:
        table = Balancer(node).ask("show table st_login_pair")
        return [int(line.split(" gpc0=")[1].split()[0]) for line in table.splitlines() if f"key={account}|" in line]

    assert failures("somebody") == [1]
    before = failures("admin")
    Site(settings).login()
    assert sum(failures("admin")) == sum(before), "right passwords count as failures"
    client.run(f"curl -sS -o /dev/null -K curl-wrong {client.url(make_repository('git', 'guarded'))}/info/refs?service=git-upload-pack")
    assert sum(failures("admin")) == sum(before) + 1


def test_metrics_are_there_for_the_host_itself(node: Machine) -> None:
    """HAProxy's, ours, Apache's."""
    assert 'haproxy_server_current_sessions{proxy="be_ui"' in node.probe("http://127.0.0.1:8405/metrics")
    assert 'kallithea_balancer_requests_total{who="person"' in node.probe("http://127.0.0.1:8405/metrics/kallithea")
    status = node.probe("http://127.0.0.1:8406/server-status?auto")
    assert "BusyWorkers:" in status and "GET" not in status


def test_crawlers_are_asked_to_stay_away(settings: Settings) -> None:
    """Before any repository's history is walked through."""
    assert Site(settings).get("/robots.txt").text == "User-agent: *\nDisallow: /\n"
