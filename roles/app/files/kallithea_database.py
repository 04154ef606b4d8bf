# Copyright: The kallithea.cluster maintainers
# GPL-3.0-or-later (see LICENSE)
"""What the scripts beside this file share: the database that the ini names, and its advisory locks."""

import configparser
import os

import psycopg2
from sqlalchemy.engine.url import make_url

INI = "/etc/kallithea/kallithea.ini"


def connect(ini=INI):
    """Connect to the application's database; every statement is a transaction of its own until told otherwise."""
    parser = configparser.ConfigParser(defaults={"here": os.path.dirname(ini), "__file__": ini}, strict=False)
    with open(ini, encoding="utf-8") as stream:
        parser.read_file(stream)
    url = make_url(parser.get("app:main", "sqlalchemy.url"))
    options = url.translate_connect_args(username="user")
    options.update(url.query)
    connection = psycopg2.connect(**options)
    connection.autocommit = True
    return connection


def value(connection, statement, parameters=()):
    """Return the first column of the first row, or None."""
    with connection.cursor() as cursor:
        cursor.execute(statement, parameters)
        row = cursor.fetchone()
    return row[0] if row else None


def try_lock(connection, name):
    """Take the cluster-wide lock of that name if it is free; it is gone with the connection."""
    return value(connection, "SELECT pg_try_advisory_lock(hashtextextended(%s, 0))", ["kallithea.cluster/" + name])
