"""External database and broker: what the controller can tell of their variables, and of groups that are filled too."""

from __future__ import annotations

import pathlib
import subprocess
from typing import Any

import pytest
from ansible_collections.kallithea.cluster.plugins.filter.external import external_problems

NOTHING: dict[str, Any] = {
    "database_hosts": [],
    "database_port": 5432,
    "database_sslmode": "require",
    "database_ca": "",
    "broker_hosts": [],
    "broker_tls": False,
    "broker_ca": "",
}


def test_nothing_external_is_no_problem() -> None:
    assert external_problems(NOTHING) == []
    assert external_problems({**NOTHING, "database_hosts": ["db.example.org"], "database_port": 6432, "broker_hosts": ["mq.example.org"]}) == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"database_hosts": ["db"], "database_sslmode": "verify-full"}, "kallithea_database_ca is empty"),
        ({"database_port": 6432}, "kallithea_database_hosts is empty"),
        ({"database_sslmode": "verify-ca"}, "kallithea_database_hosts is empty"),
        ({"broker_tls": True}, "kallithea_broker_hosts is empty"),
        ({"database_hosts": ["db"], "database_ca": "/no/such/file"}, "cannot be read on the controller (No such file or directory)"),
    ],
)
def test_one_sentence_each(change: dict[str, Any], words: str) -> None:
    (problem,) = external_problems({**NOTHING, **change})
    assert words in problem and problem.endswith(".")


def test_a_ca_has_to_be_one(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "ca.crt"
    path.write_text("no certificate\n", encoding="utf-8")
    settings = {**NOTHING, "broker_hosts": ["mq"], "broker_tls": True, "broker_ca": str(path)}
    (problem,) = external_problems(settings)
    assert problem.startswith(f"kallithea_broker_ca names {path}, which holds no certificate")
    make = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-subj", "/CN=ca"]
    subprocess.run([*make, "-keyout", str(tmp_path / "ca.key"), "-out", str(path)], check=True, capture_output=True)
    assert external_problems(settings) == []
    (problem,) = external_problems({**settings, "broker_tls": False})
    assert "kallithea_broker_tls is false" in problem
