"""Database and broker are the external ones, over TLS and under the names in their certificates; without the broker, pages and clones go on."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from machines import Machine, wait_until
from repositories import Make
from scm import Client
from settings import Settings
from web import ApiError, Site

AS_SERVICE = "cd / && setpriv --reuid=kallithea --regid=kallithea --init-groups env HOME=/var/lib/kallithea /opt/kallithea/current/bin/python3 -c"
CONNECTIONS = (
    "SELECT usename, ssl, count(*) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid)"
    " WHERE datname = 'kallithea' AND client_addr IS NOT NULL GROUP BY usename, ssl ORDER BY usename"
)
# The application's own way to the database, to another name or address of the server.
CONNECT = """
import configparser, sys, psycopg2
from sqlalchemy.engine.url import make_url
parser = configparser.ConfigParser(defaults=dict(here="/etc/kallithea"))
parser.read("/etc/kallithea/kallithea.ini")
url = make_url(parser.get("app:main", "sqlalchemy.url"))
options = {**url.translate_connect_args(username="user"), **url.query, "host": sys.argv[1]}
try:
    psycopg2.connect(**options).close()
    print("connected")
except psycopg2.OperationalError as error:
    print(" ".join(str(error).split()))
"""
# Celery's way to the broker.
PUBLISH = """
import configparser, sys
import kombu
from kallithea.lib.celery_app import make_celery_config
parser = configparser.ConfigParser(defaults=dict(here="/etc/kallithea"))
parser.read("/etc/kallithea/kallithea.ini")
config = make_celery_config(dict(parser.items("app:main")))
connection = kombu.Connection(config.broker_url.replace("extmq", sys.argv[1]), ssl=dict(config.broker_use_ssl), connect_timeout=5)
try:
    connection.connect()
    print("connected")
except OSError as error:
    print(error)
"""


def query(machine: Machine, statement: str) -> list[list[str]]:
    """Ask PostgreSQL as its administrator."""
    text = machine.run(f'cd / && runuser -u postgres -- psql -X -A -t -c "{statement}"')
    return [line.split("|") for line in text.splitlines()]


def test_every_connection_to_the_database_is_encrypted(machines: dict[str, Machine], site: Site) -> None:
    """PostgreSQL says it of the application's and of the health service's."""
    assert site.get("/").status == 200
    found = query(machines["extdb"], CONNECTIONS)
    assert [row[:2] for row in found] == [["kallithea", "t"], ["kallithea_health", "t"]]


def test_every_connection_to_the_broker_is_encrypted(machines: dict[str, Machine]) -> None:
    """RabbitMQ says it of the worker's and of those that pages have left open."""
    found = machines["extmq"].run("rabbitmqctl --silent list_connections user ssl").split("\n")
    rows = {tuple(line.split()) for line in found if line.strip() and not line.startswith("user")}
    assert rows == {("kallithea", "true")}


@pytest.mark.parametrize(("script", "server"), [(CONNECT, "extdb"), (PUBLISH, "extmq")], ids=["database", "broker"])
def test_the_server_has_to_be_the_one_it_says(app: Machine, settings: Settings, script: str, server: str) -> None:
    """By its name it is let in; by its address, which is not in the certificate, it is not."""
    app.write("/run/test-connect.py", script, "0644")
    run = f"{AS_SERVICE} 'exec(open(\"/run/test-connect.py\").read())'"
    try:
        assert app.run(f"{run} {server}").strip() == "connected"
        said = app.run(f"{run} {settings.addresses[server]}")
    finally:
        app.run("rm /run/test-connect.py")
    assert "certificate" in said and "connected" not in said


@pytest.mark.parametrize("name", ["database-ca.crt", "broker-ca.crt"])
def test_the_authority_is_on_the_host(app: Machine, settings: Settings, name: str) -> None:
    """As the controller has it, and nobody but root can change it."""
    file = app.host.file(f"/etc/kallithea/{name}")
    assert file.content_string == settings.ca_file.read_text()
    assert (file.user, file.group, oct(file.mode)) == ("root", "root", "0o644")


@pytest.mark.parametrize("package", ["postgresql", "postgresql-common", "rabbitmq-server", "erlang-base"])
def test_neither_is_on_the_application_host(app: Machine, package: str) -> None:
    """Nothing of them is installed."""
    assert not app.host.package(package).is_installed


def test_no_port_of_them_on_the_application_host(app: Machine) -> None:
    """Nothing listens in their place."""
    assert app.run("ss --no-header --tcp --listening --numeric '( sport = 5432 or sport = 5671 or sport = 5672 or sport = 4369 )'") == ""


@contextmanager
def frozen(machine: Machine) -> Iterator[None]:
    """Stop the broker's process in its tracks: it takes connections and never answers."""
    machine.run("systemctl kill --signal=STOP rabbitmq-server")
    try:
        yield
    finally:
        machine.run("systemctl kill --signal=CONT rabbitmq-server")


@contextmanager
def stopped(machine: Machine) -> Iterator[None]:
    """Stop the broker as its owner would."""
    machine.run("systemctl stop rabbitmq-server")
    try:
        yield
    finally:
        machine.run("systemctl start rabbitmq-server", seconds=120)


TROUBLES = {"frozen": frozen, "stopped": stopped}


@pytest.mark.parametrize("trouble", TROUBLES)
def test_without_the_broker_an_action_fails_soon_and_all_else_goes_on(
    machines: dict[str, Machine], client: Client, site: Site, make_repository: Make, trouble: str
) -> None:
    """Whoever wants a new repository is told within 10 s; pages, clones and pushes do not notice; later it works again."""
    name = make_repository("git", trouble)
    client.commit_git("broker-out", trouble)
    with TROUBLES[trouble](machines["extmq"]):
        begin = time.monotonic()
        with pytest.raises(ApiError, match="failed to create repository"):
            site.call("create_repo", repo_name=f"{name}-never", repo_type="git", private=True)
        assert time.monotonic() - begin < 10
        assert site.get("/").status == 200
        client.run(f"cd broker-out && git push -q {client.url(name)} HEAD:master && rm -rf ../broker-in && git clone -q {client.url(name)} ../broker-in")
    make_repository("git", f"{trouble}-after")
    # What the frozen broker had taken may still be done.
    if site.repository_is_there(f"{name}-never"):
        site.call("delete_repo", repoid=f"{name}-never")
    wait_until("the worker at work", lambda: "kallithea" in machines["extmq"].run("rabbitmqctl --silent list_consumers -p kallithea"), 60)
