"""Kallithea's ini: the user's own keys, values read back, the rendered template parsed back, the URLs."""

from __future__ import annotations

import configparser
import json
import pathlib
import ssl
from typing import Any

import jinja2
import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.kallithea.cluster.plugins.filter import ini

ROLE = pathlib.Path(__file__).parents[2] / "roles" / "app"


def read_back(text: str) -> configparser.ConfigParser:
    parser = configparser.ConfigParser(defaults={"here": "/etc/kallithea"}, strict=True)
    parser.read_string(text)
    return parser


@pytest.mark.parametrize(
    ("value", "text"),
    [(True, "true"), (False, "false"), (10, "10"), (None, ""), ("50%", "50%%"), ("a b", "a b"), ("#x ; y", "#x ; y")],
)
def test_values(value: Any, text: str) -> None:
    assert ini.ini_value(value) == text


@pytest.mark.parametrize("value", [["a"], {"a": 1}, "two\nlines", "two\rlines"])
def test_values_that_cannot_be_taken(value: Any) -> None:
    with pytest.raises(AnsibleFilterError):
        ini.ini_value(value)


@pytest.mark.parametrize("value", ["50%", "%(here)s", "a = b", "#1", "ä"])
def test_values_come_back(value: str) -> None:
    parser = read_back("[app:main]\n" + ini.ini_lines({"some.key": value}))
    assert parser.get("app:main", "some.key") == value


def test_lines_are_sorted() -> None:
    assert ini.ini_lines({"b": 1, "a": True}) == "a = true\nb = 1"
    assert ini.ini_lines({}) == ""


def test_owned_key_names_the_variable() -> None:
    assert ini.ini_problems({"cache_dir": "/x", "show_sha_length": 10}) == [
        "kallithea_app_ini sets 'cache_dir', which the role owns; take it out and use kallithea_app_data_dir."
    ]
    assert "kallithea_app_sessions" in ini.ini_problems({"Session.Type": "cookie"})[0]
    with pytest.raises(AnsibleFilterError, match="kallithea_app_database_hosts"):
        ini.ini_lines({"sqlalchemy.url": "sqlite://"})


@pytest.mark.parametrize("key", ["a b", "[app:main]", "a=b", "#a", "", "set x", 5])
def test_keys_that_are_none(key: Any) -> None:
    assert "is no ini key" in ini.ini_problems({key: "x"})[0]


def test_problems_of_values_and_types() -> None:
    assert ini.ini_problems({"a": ["b"]}) == ["kallithea_app_ini key 'a': an ini value must be text, a number or a boolean, not a list."]
    assert ini.ini_problems("a = b") == ["kallithea_app_ini is not a dictionary of keys and values of the section [app:main]."]


def test_every_key_of_the_template_is_owned() -> None:
    written = set()
    section = ""
    for line in (ROLE / "templates" / "kallithea.ini.j2").read_text(encoding="utf-8").splitlines():
        if line.startswith("["):
            section = line
        elif section in ("[DEFAULT]", "[app:main]") and " = " in line and not line.startswith(("#", "{")):
            written.add(line.split(" = ")[0])
    assert written - set(ini.OWNED) == {"celery.worker_max_tasks_per_child"}


def test_database_urls() -> None:
    assert ini.database_url(["/var/run/postgresql"], 5432, "k", "u", "p", "require") == (
        "postgresql://u:p@/k?host=/var/run/postgresql&port=5432&connect_timeout=5"
    )
    url = ini.database_url(["192.0.2.1", "2001:db8::1"], 5433, "k", "u", "p", "require")
    assert "host=192.0.2.1,2001:db8::1&port=5433,5433" in url
    assert "sslmode=require" in url and "target_session_attrs=read-write" in url
    assert "sslrootcert" not in url
    assert "&sslmode=verify-full&" in (url := ini.database_url(["db"], 5432, "k", "u", "p", "verify-full", "/etc/kallithea/database-ca.crt"))
    assert url.endswith("&sslrootcert=/etc/kallithea/database-ca.crt")
    with pytest.raises(AnsibleFilterError, match="kallithea_app_database_hosts is empty"):
        ini.database_url([], 5432, "k", "u", "p", "prefer")


def test_broker_urls() -> None:
    assert ini.broker_url(["192.0.2.1", "2001:db8::1"], 5672, "/", "u", "p") == ("amqp://u:p@192.0.2.1:5672/%2F;amqp://u:p@[2001:db8::1]:5672/%2F")
    with pytest.raises(AnsibleFilterError, match="kallithea_app_broker_hosts is empty"):
        ini.broker_url([], 5672, "k", "u", "p")


def test_broker_ssl() -> None:
    assert json.loads(ini.broker_ssl("")) == {"cert_reqs": ssl.CERT_REQUIRED, "server_hostname": None}
    assert json.loads(ini.broker_ssl("/etc/kallithea/broker-ca.crt"))["ca_certs"] == "/etc/kallithea/broker-ca.crt"


@pytest.mark.parametrize("sessions", ["files", "database"])
def test_rendered_ini(sessions: str) -> None:
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, trim_blocks=True, autoescape=False)
    environment.filters.update({f"kallithea.cluster.{name}": function for name, function in ini.FilterModule().filters().items()})
    environment.filters["bool"] = bool
    text = environment.from_string((ROLE / "templates" / "kallithea.ini.j2").read_text(encoding="utf-8")).render(
        kallithea_app_mail={"from": "K <k@example.org>", "server": "mail", "tls": True},
        kallithea_app_mail_password="a%b",
        kallithea_secrets={"app_instance_uuid": "u" * 32, "cluster_id": "c" * 32, "session_secret": "s" * 48},
        kallithea_app_broker_tls=sessions == "files",
        kallithea_app_broker_ca_file="/etc/kallithea/100%.crt",
        kallithea_app_canonical_url="https://scm.example.org",
        kallithea_app_data_dir="/srv/kallithea/data",
        kallithea_app_index_dir="/srv/kallithea/data/index",
        kallithea_app_beaker_data_dir="/srv/kallithea/data/cache/data",
        kallithea_app_beaker_lock_dir="/srv/kallithea/data/cache/lock",
        kallithea_app_beaker_memory_seconds=36000,
        kallithea_app_beaker_file_seconds=3600,
        kallithea_app_celery_processes=0,
        kallithea_app_ini={"show_sha_length": 10, "instance_id": "50%"},
        kallithea_app_log_bot_pulls=sessions == "files",
        kallithea_app_log_level="INFO",
        kallithea_app_scheme="https",
        kallithea_app_session_days=30,
        kallithea_app_sessions=sessions,
        kallithea_app_verified_password_seconds=30,
        __kallithea_app_broker_url="amqp://u:p@h:5672/%2F",
        __kallithea_app_current="/opt/kallithea/current",
        __kallithea_app_ini_limits={"cut_off_limit": 256000, "show_sha_length": 12},
        __kallithea_app_lib="/usr/local/lib/kallithea",
        __kallithea_app_database_url="postgresql://u:p@/k?host=h",
    )
    parser = read_back(text)
    assert parser.get("app:main", "smtp_password") == "a%b"
    assert parser.getint("app:main", "verified_password_seconds") == 30
    assert parser.getboolean("app:main", "log_bot_pulls") == (sessions == "files")
    assert parser.get("app:main", "celery.broker_url") == "amqp://u:p@h:5672/%2F"
    assert json.loads(parser.get("app:main", "celery.broker_transport_options")) == {"confirm_publish": True}
    assert json.loads(parser.get("app:main", "celery.task_publish_retry_policy"))["max_retries"] == 1
    assert parser.has_option("app:main", "celery.broker_use_ssl") == (sessions == "files")
    if sessions == "files":
        assert json.loads(parser.get("app:main", "celery.broker_use_ssl"))["ca_certs"] == "/etc/kallithea/100%.crt"
    assert parser.get("app:main", "instance_id") == "50%"
    # A site's own value takes the place of ours.
    assert (parser.get("app:main", "cut_off_limit"), parser.get("app:main", "show_sha_length")) == ("256000", "10")
    assert parser.get("app:main", "kallithea_cluster_id") == "c" * 32
    assert parser.get("app:main", "session.secure") == "true"
    assert parser.get("app:main", "session.type") == ("ext:database" if sessions == "database" else "file")
    assert parser.get("app:main", "smtp_use_tls") == "true"
    assert parser.get("logger_kallithea", "level") == "INFO"
