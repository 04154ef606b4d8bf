"""What breaks and comes back: broker, database, logs, processes, an interrupted creation of the database."""

from __future__ import annotations

import http.client
import time
from collections.abc import Iterator
from contextlib import suppress
from functools import partial

import pytest
from machines import Machine, Result, wait_until
from pools import Pools
from repositories import Make
from scm import Client
from settings import Settings
from web import Answer, Site

HEAL_SECONDS = 30.0
# A process that could not load is asked again, or replaced after a minute (startup-timeout).
LOAD_SECONDS = 90.0
SLOW_RATE = 2_000_000
SCRATCH = "/run/test-scratch"
DB_CREATE = "/usr/local/lib/kallithea/kallithea-db-create"
HEALTH = "http://127.0.0.1:8089/"
AS_USER = "setpriv --reuid=kallithea --regid=kallithea --init-groups env LC_ALL=C.UTF-8 HOME=/var/lib/kallithea"
# Writes a second ini with another database, which root enters by peer, and other folders.
SCRATCH_INI = """
import re
text = open("/etc/kallithea/kallithea.ini").read()
text, count = re.subn(r"(?m)^sqlalchemy\\.url = .*", "sqlalchemy.url = postgresql://postgres@/kallithea_scratch?host=/var/run/postgresql", text)
assert count == 1
print(re.sub(r"(?m)^(\\S+_dir) = .*", r"\\1 = /run/test-scratch/data", text))
"""
# Holds the creation up between the tables and their first rows, so that it is killed in the middle.
STUMBLING_BLOCK = """
CREATE FUNCTION stumble() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(30); RETURN NEW; END $$;
CREATE FUNCTION lay() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN
  IF EXISTS (SELECT FROM pg_event_trigger_ddl_commands() WHERE object_type = 'table' AND object_identity = 'public.users') THEN
    CREATE TRIGGER stumble BEFORE INSERT ON public.users FOR EACH ROW EXECUTE FUNCTION stumble();
  END IF;
END $$;
CREATE EVENT TRIGGER lay ON ddl_command_end WHEN TAG IN ('CREATE TABLE') EXECUTE FUNCTION lay();
"""
KILLER = """#!/bin/bash
cd /
for _ in $(seq 200); do
  found=$(setpriv --reuid=postgres --regid=postgres --init-groups psql -AtX \\
    -c "select 1 from pg_stat_activity where datname = 'kallithea_scratch' and wait_event = 'PgSleep'")
  [ -z "$found" ] || break
  sleep 0.1
done
pkill -KILL -f '^/opt/kallithea/current/bin/python3 [^ ]*kallithea-db-create create'
"""


def use_all(client: Client, site: Site, repository: str, word: str) -> None:
    """Look at pages, push, and clone."""
    for path in ("/_admin/my_account", f"/{repository}"):
        assert site.get(path).status == 200, path
    client.commit_git("fault-out", word)
    client.run(f"cd fault-out && git push -q {client.url(repository)} master")
    assert word in client.run(f"rm -rf fault-in && git clone -q {client.url(repository)} fault-in && cat fault-in/word")


@pytest.fixture(scope="module")
def repository(make_repository: Make, client: Client) -> str:
    """Return an empty repository and forget older working copies."""
    client.run("rm -rf fault-out fault-in")
    return make_repository("git", "faults")


def test_broker_stopped(node: Machine, client: Client, site: Site, repository: str, make_repository: Make) -> None:
    """Without the broker pages, pushes and clones go on, the host stays ready, and afterwards Celery works again by itself."""
    node.run("systemctl stop rabbitmq-server")
    try:
        use_all(client, site, repository, "without-broker")
        assert node.probe(HEALTH + "ready").startswith("200")
    finally:
        node.run("systemctl start rabbitmq-server")
    make_repository("git", "after-broker")


def test_database_restarted(node: Machine, site: Site, settings: Settings, repository: str) -> None:
    """After a restart of the database no process answers an error, and nobody restarts anything."""
    node.run("systemctl restart postgresql")
    wait_until("a page", lambda: site.get("/_admin/my_account").status == 200, HEAL_SECONDS)
    requests = 3 * sum(pool["processes"] for pool in settings.pools.values())
    answers = [site.get(f"/{repository}").status for _ in range(requests)]
    assert answers == [200] * requests


def test_database_stopped(node: Machine, client: Client, site: Site, repository: str) -> None:
    """Without the database the host is not ready, visitors get 503 and when to come again; with it all heals by itself."""

    def unhealthy(verdict: str) -> str:
        answer = node.probe(HEALTH + verdict)
        return answer if answer.startswith("503") else ""

    def refused() -> Answer | None:
        # A page that was on its way when the host left may be cut.
        with suppress(http.client.RemoteDisconnected):
            answer = site.get("/_admin/login")
            return answer if answer.status == 503 else None
        return None

    node.run("systemctl stop postgresql")
    try:
        for verdict in ("ready", "writable"):
            answer = wait_until(f"{verdict} 503", partial(unhealthy, verdict), 15)
            assert "database" in answer.lower(), answer
        assert node.probe(HEALTH + "live").startswith("200")
        assert wait_until("503 from the balancer", refused, 15).header("Retry-After").isdigit()
    finally:
        node.run("systemctl start postgresql")
    wait_until("ready again", lambda: node.probe(HEALTH + "ready").startswith("200"), HEAL_SECONDS)
    wait_until("a page again", lambda: site.get("/_admin/my_account").status == 200, HEAL_SECONDS)
    use_all(client, site, repository, "after-database")


def test_ready_when_every_process_has_loaded(node: Machine, client: Client, site: Site, repository: str) -> None:
    """Web processes that start without their database: the host says what has not loaded, comes back by itself, and is fast from the first page on."""
    node.run("systemctl stop postgresql")
    try:
        node.run("systemctl restart kallithea-web")
        said = wait_until("what has not loaded", lambda: (answer := node.probe(HEALTH + "ready")).count("not loaded yet") == 4 and answer, 15)
        assert said.startswith("503") and "pool ui:" in said, said
    finally:
        node.run("systemctl start postgresql")
    wait_until("ready", lambda: node.probe(HEALTH + "ready").startswith("200"), LOAD_SECONDS)
    assert node.run("ls /run/kallithea-web/loading") == ""
    wait_until("the balancer's word", lambda: site.get("/_admin/login").status != 503, 15)
    for _ in range(6):
        begin = time.monotonic()
        assert site.get("/_admin/my_account").status == 200
        assert time.monotonic() - begin < 5
    use_all(client, site, repository, "after-loading")


def test_log_rotation_and_recycling_cut_no_clone(node: Machine, client: Client, pools: Pools, heavy_repository: tuple[str, float]) -> None:
    """While a slow clone runs, logs are rotated, processes are recycled and the balancer is reloaded: the clone is whole."""
    node.run("command -v logrotate >/dev/null || apt-get install -qq -y logrotate >/dev/null", seconds=120)
    client.clear_slow_clones(1)
    old = {process.pid for process in pools.processes("ui")}
    try:
        client.slow_clone(0, heavy_repository[0], SLOW_RATE, 120)
        wait_until("the clone at work", lambda: pools.at_work("scm"))
        node.run("logrotate --force /etc/logrotate.conf && journalctl --rotate")
        node.run("systemctl reload kallithea-web")
        node.run("systemctl reload haproxy")
        wait_until("the idle processes replaced", lambda: not old & {process.pid for process in pools.processes("ui")}, 60)
        time.sleep(3)
        assert client.machine.is_running("slow-clone-0"), f"the clone ended early: {client.run('cat slow-0.log')}"
        client.free_clones()
        wait_until("the clone whole", lambda: client.cloned(0), 60, 1.0)
    finally:
        client.clear_slow_clones(1)


def test_pushes_that_die_give_their_processes_back(node: Machine, client: Client, site: Site, settings: Settings, repository: str) -> None:
    """As many clients as there are processes for pushes go away in the middle of one; the next push finds a free process."""
    for _ in range(settings.pools["write"]["processes"]):
        site.push_and_die(repository)
    wait_until("git's processes gone", lambda: node.try_run("pgrep -f 'git[ ]receive-pack'").status == 1, 15)
    use_all(client, site, repository, "after-the-dead")


@pytest.fixture
def scratch(node: Machine) -> Iterator[Machine]:
    """Make an empty database and an ini that names it; remove both."""
    drop = as_postgres("dropdb --force --if-exists kallithea_scratch")
    node.run(f"{drop} && {as_postgres('createdb --template=template0 --encoding=UTF8 kallithea_scratch')}")
    node.run(f"install -d -m 0700 {SCRATCH} {SCRATCH}/data {SCRATCH}/repositories")
    node.run(f"umask 077; python3 - > {SCRATCH}/kallithea.ini", SCRATCH_INI)
    yield node
    node.run(f"rm -rf {SCRATCH}; {drop}")


def as_postgres(command: str) -> str:
    """Return a command as the database's superuser."""
    return f"cd / && setpriv --reuid=postgres --regid=postgres --init-groups {command}"


def db_create(node: Machine, mode: str, repositories: str) -> Result:
    """Run the script that creates the database's content, in the scratch database, which only the superuser enters."""
    answers = '{"admin_user": "admin", "admin_email": "admin@localhost", "admin_password": "scratch1", "admin_api_key": "scratch2", "cluster_id": "scratch3"}'
    return node.try_run(f"cd / && LC_ALL=C.UTF-8 {DB_CREATE} {mode} --ini={SCRATCH}/kallithea.ini --repositories={repositories}", answers)


def test_killed_db_create_is_recognised(scratch: Machine) -> None:
    """A creation that was killed in the middle is neither taken for complete nor begun anew over what it left."""
    scratch.run(as_postgres("psql -qX -v ON_ERROR_STOP=1 -d kallithea_scratch"), STUMBLING_BLOCK)
    scratch.write(f"{SCRATCH}/killer", KILLER)
    scratch.start("test-killer", f"exec bash {SCRATCH}/killer", 60)
    killed = db_create(scratch, "create", f"{SCRATCH}/repositories")
    assert killed.status == 137, f"the creation was not killed but ended with {killed.status}"
    assert scratch.try_run("pgrep -f '^[^ ]*python3 [^ ]*kallithea-cli db-create'").status == 1, "the killed script's child goes on"
    again = db_create(scratch, "create", f"{SCRATCH}/repositories")
    assert again.status == 1 and "interrupted" in again.errors, again
    assert db_create(scratch, "require", f"{SCRATCH}/repositories").status == 1


def test_empty_database_over_a_full_share_is_refused(scratch: Machine, settings: Settings, repository: str) -> None:
    """Repositories without their database are somebody's: they are not taken over without being told to."""
    result = db_create(scratch, "create", settings.repositories)
    assert result.status == 1 and "already holds repositories" in result.errors, result
    tables = scratch.run(as_postgres("psql -AtXd kallithea_scratch -c \"select count(*) from pg_tables where schemaname = 'public'\""))
    assert tables.strip() == "0"


def test_complete_database_is_left_alone(node: Machine) -> None:
    """The creation of the cluster's own database is complete, and running it again changes nothing."""
    result = node.try_run(f"cd / && {AS_USER} {DB_CREATE} check", "{}")
    assert result.status == 0 and '"found": "complete"' in result.output, result
