# Copyright: The kallithea.cluster maintainers
# GPL-3.0-or-later (see LICENSE)
"""What is wrong with the variables of an external database and broker, as far as the controller can tell."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from typing import Any


def ca_problem(variable: str, path: str) -> list[str]:
    """Return a sentence where a CA's file cannot be used."""
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(path)
    except ssl.SSLError:
        return [f"{variable} names {path}, which holds no certificate; give a PEM file with the certificates of those who sign the server's."]
    except OSError as error:
        return [f"{variable} names {path}, which cannot be read on the controller ({error.strerror}); put the file there or correct the variable."]
    return []


def external_problems(settings: Mapping[str, Any]) -> list[str]:
    """Return a sentence for each variable of the external database and broker that cannot work."""
    problems = []
    for tier in ("database", "broker"):
        path = settings[f"{tier}_ca"]
        if path:
            problems += ca_problem(f"kallithea_{tier}_ca", path)
    mode = settings["database_sslmode"]
    if settings["database_hosts"]:
        if mode.startswith("verify") and not settings["database_ca"]:
            problems.append(f"kallithea_database_sslmode is {mode}, but kallithea_database_ca is empty; name the PEM file of the CA that signs the database's.")
    elif mode.startswith("verify") or settings["database_ca"] or settings["database_port"] != 5432:
        problems.append(
            "kallithea_database_port, _sslmode or _ca is set, but kallithea_database_hosts is empty; name the external database's hosts, "
            "or take these out, since the cluster's own database is reached by port 5432 and its own certificate."
        )
    if not settings["broker_hosts"] and (settings["broker_tls"] or settings["broker_ca"]):
        problems.append(
            "kallithea_broker_tls or kallithea_broker_ca is set, but kallithea_broker_hosts is empty; name the external broker's hosts, or take these out."
        )
    elif settings["broker_ca"] and not settings["broker_tls"]:
        problems.append("kallithea_broker_ca is set, but kallithea_broker_tls is false; set it to true, or take the CA out.")
    return problems


class FilterModule:
    """Filters of the collection."""

    def filters(self) -> dict[str, Any]:
        """Return the filters by name."""
        return {"external_problems": external_problems}
