"""docs/sizing.md says what the collection's filters compute, and what follows from its own figures."""

from __future__ import annotations

import json
import math
import re

import pytest
from ansible_collections.kallithea.cluster.plugins.filter import database, preflight
from render import ROOT, variable

PAGE = (ROOT / "docs/sizing.md").read_text(encoding="utf-8")
RESULT = ROOT / "docs/benchmarks/costs.json"
# Of 1,000 people at the busiest hour, a second: pages and calls of the API, questions and clones among 2 pulls, pushes.
RATES = {"page of a repository": 22.0, "git: a question with a password": 1.6, "git clone of 20 MB": 0.4, "git push of one commit": 0.4}
# Each pull and push may come alone, so that its password is compared anew.
BCRYPT_MILLISECONDS, PASSWORDS = 52.0, 2.4
BUSY = 0.6
HOST = {"memory": 16, "cores": 8}


def rows(heading: str) -> list[list[str]]:
    """Return the cells of the first table below a heading, without its head."""
    lines = PAGE.split(f"## {heading}\n", 1)[1].splitlines()
    first = next(number for number, line in enumerate(lines) if line.startswith("|---"))
    table = []
    for line in lines[first + 1 :]:
        if not line.startswith("|"):
            break
        table.append([cell.strip() for cell in line.strip("|").split("|")])
    return table


def number(text: str) -> float:
    """Return a number as people write it."""
    return float(text.replace(",", ""))


COSTS = {re.sub(r" \(.*", "", row[0]): [number(cell) for cell in row[1:]] for row in rows("What one thing costs")}


@pytest.mark.parametrize("row", rows("Processes"), ids=lambda row: f"{row[0]} GiB")
def test_the_pools_are_those_that_preflight_proposes(row: list[str]) -> None:
    memory, cores, *pools = map(int, row)
    assert pools == list(preflight.proposed_pools(memory * 1024, cores).values())


def test_the_memory_of_a_process_is_the_filters() -> None:
    assert f"{preflight.PROCESS_MB} MiB a process, {preflight.RESERVED_MB} MiB for the rest" in PAGE


def test_the_costs_are_those_that_were_measured() -> None:
    figures = json.loads(RESULT.read_text())["figures"]
    measured = {
        figure["name"].partition(" (")[0]: [figure["value"], *map(float, re.findall(r"(?:loadbalancer|database) ([\d.]+)", figure["name"]))]
        for figure in figures
    }
    names = {
        "page of a repository": "repository page, git",
        "git: a question with a password": "git ls-remote",
        "git clone of 20 MB": "git clone of 20 MB",
        "git push of one commit": "git push",
        "hg: a question with a password": "hg identify",
    }
    assert set(names) == set(COSTS)
    for name, figure in names.items():
        assert COSTS[name] == pytest.approx(measured[figure], rel=0.02, abs=0.6), name


def test_the_sentences_follow_from_the_costs() -> None:
    page, clone = COSTS["page of a repository"], COSTS["git clone of 20 MB"]
    words = {11: "eleven", 3: "three"}
    assert f"costs {BCRYPT_MILLISECONDS:.0f} ms more**: bcrypt" in PAGE
    assert (
        f"{words[round(1000 / clone[0])]} of 20 MB a second on a core of the application host, {words[round(clone[0] / clone[1])]} times as many on one" in PAGE
    )
    assert f"an application process takes {preflight.PROCESS_MB} MiB" in PAGE
    assert f"A page costs the database {page[2]} ms and the balancer {page[1]}" in PAGE
    carried = [10 * (BUSY * 1000 / milliseconds // 10) for milliseconds in (page[2], page[1])]
    assert f"a core of the one carries {carried[0]:.0f} pages a second, of the other {carried[1]:.0f}" in PAGE


def connections(hosts: int, ci_hosts: int) -> int:
    """Return PostgreSQL's connections for so many hosts with the pools that are proposed for them."""
    pools = preflight.proposed_pools(HOST["memory"] * 1024, HOST["cores"])
    celery = variable("app", "kallithea_app_celery_processes", {})
    nodes = [{"pools": {pool: {"processes": count} for pool, count in pools.items()}, "celery": celery}] * hosts
    nodes += [{"pools": {"ci": {"processes": sum(pools.values())}}, "celery": celery}] * ci_hosts
    count: int = database.connection_budget(nodes, 1, 20)
    return count


@pytest.mark.parametrize("row", rows("People"), ids=lambda row: row[0])
def test_the_worked_table_follows_from_the_costs(row: list[str]) -> None:
    people, cores, hosts, ci_hosts, wanted = (number(row[column]) for column in (0, 2, 3, 4, 5))
    milliseconds = sum(rate * COSTS[name][0] for name, rate in RATES.items()) + PASSWORDS * BCRYPT_MILLISECONDS
    needed = milliseconds / 1000 * people / 1000 / BUSY
    assert number(row[1]) == pytest.approx(sum(RATES.values()) * people / 1000, rel=0.02)
    assert cores == pytest.approx(needed, abs=0.06)
    assert hosts == max(2 if people >= 500 else 1, math.ceil(needed / HOST["cores"]))
    assert wanted == connections(int(hosts), int(ci_hosts))
