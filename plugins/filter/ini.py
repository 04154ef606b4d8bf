# Copyright: The kallithea.cluster maintainers
# GPL-3.0-or-later (see LICENSE)
"""Kallithea's ini file: values as its parser reads them, the user's own keys, the URLs of database and broker."""

from __future__ import annotations

import json
import re
import ssl
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

from ansible.errors import AnsibleFilterError

# Keys that the role writes, and what to set instead.
OWNED = {
    "use": "nothing: the role starts Kallithea itself",
    "cache_dir": "kallithea_app_data_dir",
    "index_dir": "kallithea_app_index_dir",
    "app_instance_uuid": "kallithea_secrets.app_instance_uuid",
    "kallithea_cluster_id": "kallithea_secrets.cluster_id",
    "static_files": "nothing: Apache serves static files",
    "serve_static": "nothing: Apache serves static files",
    "canonical_url": "kallithea_app_canonical_url",
    "remote_addr_variable": "kallithea_app_trusted_proxies",
    "url_scheme_variable": "kallithea_app_trusted_proxies",
    "force_https": "kallithea_app_scheme",
    "git_path": "nothing: what writes holds its repository's lock by the program that it names",
    "git_hook_interpreter": "nothing: git hooks follow /opt/kallithea/current",
    "kallithea_cli_path": "nothing: it follows /opt/kallithea/current",
    "allow_repo_location_change": "kallithea_storage_path",
    "allow_custom_hooks_settings": "nothing: it would let a web administrator run any code on every node",
    "verified_password_seconds": "kallithea_app_verified_password_seconds",
    "log_bot_pulls": "kallithea_app_log_bot_pulls",
    "debug": "nothing: it would let every visitor run code",
    "ignore_alembic_revision": "nothing: it would run Kallithea on another version's tables",
    "auto_reload_templates": "nothing: templates change with the release only",
    "templating.mako.compiled_templates_dir": "nothing: they are in /run/kallithea-web",
    "use_celery": "kallithea_app_celery_processes",
    "celery.broker_url": "kallithea_app_broker_hosts",
    "celery.worker_concurrency": "kallithea_app_celery_processes",
    "celery.task_default_queue": "kallithea_app_broker_vhost",
    "celery.worker_enable_remote_control": "nothing: it makes queues that the broker is about to drop",
    "celery.broker_use_ssl": "kallithea_app_broker_tls",
    "celery.broker_connection_timeout": "nothing: a page must not wait long for the broker",
    "celery.broker_transport_options": "nothing: a page must not wait long for the broker",
    "celery.task_publish_retry_policy": "nothing: a page must not wait long for the broker",
    "celery.broker_connection_retry_on_startup": "nothing: workers always wait for the broker",
    "celery.worker_prefetch_multiplier": "nothing: a worker takes one task at a time",
    "beaker.cache.data_dir": "kallithea_app_beaker_data_dir",
    "beaker.cache.lock_dir": "kallithea_app_beaker_lock_dir",
    "beaker.cache.regions": "kallithea_app_beaker_memory_seconds and kallithea_app_beaker_file_seconds",
    "beaker.cache.long_term.type": "kallithea_app_beaker_memory_seconds",
    "beaker.cache.long_term.expire": "kallithea_app_beaker_memory_seconds",
    "beaker.cache.long_term.key_length": "kallithea_app_beaker_memory_seconds",
    "beaker.cache.long_term_file.type": "kallithea_app_beaker_file_seconds",
    "beaker.cache.long_term_file.expire": "kallithea_app_beaker_file_seconds",
    "beaker.cache.long_term_file.key_length": "kallithea_app_beaker_file_seconds",
    "session.key": "nothing: the balancer knows the cookie by this name",
    "session.type": "kallithea_app_sessions",
    "session.url": "kallithea_app_sessions",
    "session.table_name": "kallithea_app_sessions",
    "session.data_dir": "kallithea_app_data_dir",
    "session.lock_dir": "kallithea_app_data_dir",
    "session.timeout": "kallithea_app_session_days",
    "session.secret": "kallithea_secrets.session_secret",
    "session.secure": "kallithea_app_scheme",
    "session.httponly": "nothing: cookies are always out of JavaScript's reach",
    "sqlalchemy.hide_parameters": "nothing: passwords in a failed statement would reach the journal",
    "sqlalchemy.url": "kallithea_app_database_hosts",
    "sqlalchemy.pool_recycle": "nothing: connections are tested before use",
    "sqlalchemy.pool_pre_ping": "nothing: connections are tested before use",
    "app_email_from": "kallithea_app_mail.from",
    "error_email_from": "kallithea_app_mail.from",
    "email_prefix": "kallithea_app_mail.prefix",
    "email_to": "kallithea_app_mail.to",
    "smtp_server": "kallithea_app_mail.server",
    "smtp_port": "kallithea_app_mail.port",
    "smtp_username": "kallithea_app_mail.username",
    "smtp_password": "kallithea_app_mail_password",
    "smtp_use_ssl": "kallithea_app_mail.ssl",
    "smtp_use_tls": "kallithea_app_mail.tls",
}
KEY = re.compile(r"[A-Za-z][A-Za-z0-9_.\-]*")


def ini_value(value: Any) -> str:
    """Return a value as Kallithea's ini parser reads it back: booleans in its words, per cent signs doubled."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if value is None:
        return ""
    if not isinstance(value, (str, int, float)):
        raise AnsibleFilterError(f"an ini value must be text, a number or a boolean, not a {type(value).__name__}.")
    text = str(value)
    if "\n" in text or "\r" in text:
        raise AnsibleFilterError("an ini value must stand on one line.")
    return text.replace("%", "%%")


def ini_problems(settings: Any) -> list[str]:
    """Return one sentence for each of the user's own ini keys that cannot be taken."""
    if not isinstance(settings, Mapping):
        return ["kallithea_app_ini is not a dictionary of keys and values of the section [app:main]."]
    problems = []
    for key, value in settings.items():
        if not isinstance(key, str) or not KEY.fullmatch(key):
            problems.append(f"kallithea_app_ini has the key '{key}', which is no ini key: use letters, digits, dots, dashes and underscores.")
        elif key.lower() in OWNED:
            instead = OWNED[key.lower()]
            mend = f"take it out ({instead.removeprefix('nothing: ')})" if instead.startswith("nothing: ") else f"take it out and use {instead}"
            problems.append(f"kallithea_app_ini sets '{key}', which the role owns; {mend}.")
        else:
            try:
                ini_value(value)
            except AnsibleFilterError as error:
                problems.append(f"kallithea_app_ini key '{key}': {error}")
    return problems


def ini_lines(settings: Mapping[str, Any]) -> str:
    """Return the user's own settings as lines of the section [app:main], sorted; fail on what the role owns."""
    problems = ini_problems(settings)
    if problems:
        raise AnsibleFilterError(" ".join(problems))
    return "\n".join(f"{key} = {ini_value(settings[key])}" for key in sorted(settings))


def database_url(hosts: Sequence[str], port: int, name: str, user: str, password: str, sslmode: str, ca_file: str = "") -> str:
    """Return SQLAlchemy's URL of a PostgreSQL database: one directory of a socket, or the servers of which one takes writes."""
    if not hosts:
        raise AnsibleFilterError("kallithea_app_database_hosts is empty; name the database's address, or /var/run/postgresql for the local socket.")
    options = [f"host={','.join(hosts)}", f"port={','.join([str(port)] * len(hosts))}", "connect_timeout=5"]
    if not hosts[0].startswith("/"):
        # A database host that has vanished is noticed in about a minute, not in the two hours of the kernel.
        options += [f"sslmode={sslmode}", "keepalives_idle=30", "keepalives_interval=10", "keepalives_count=3"]
        options += [f"sslrootcert={quote(ca_file)}"] if ca_file else []
    if len(hosts) > 1:
        options.append("target_session_attrs=read-write")
    return f"postgresql://{user}:{password}@/{name}?{'&'.join(options)}"


def broker_url(hosts: Sequence[str], port: int, vhost: str, user: str, password: str) -> str:
    """Return Celery's URLs of the brokers, tried in this order."""
    if not hosts:
        raise AnsibleFilterError("kallithea_app_broker_hosts is empty; name the broker's address.")
    return ";".join(f"amqp://{user}:{password}@{f'[{host}]' if ':' in host else host}:{port}/{quote(vhost, safe='')}" for host in hosts)


def broker_ssl(ca_file: str) -> str:
    """Return Celery's broker_use_ssl as JSON: the certificate is required, and checked for the name in the broker's URL (null says so)."""
    settings: dict[str, Any] = {"cert_reqs": int(ssl.CERT_REQUIRED), "server_hostname": None}
    if ca_file:
        settings["ca_certs"] = ca_file
    return json.dumps(settings)


class FilterModule:
    """Filters of the collection."""

    def filters(self) -> dict[str, Any]:
        """Return the filters by name."""
        return {
            "ini_value": ini_value,
            "ini_problems": ini_problems,
            "ini_lines": ini_lines,
            "database_url": database_url,
            "broker_url": broker_url,
            "broker_ssl": broker_ssl,
        }
