"""What is wrong with several hosts is said in one sentence each, all of them in one run, before anything has changed on any host."""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import playbook_runs
import pytest
import settings as cluster_settings
import yaml
from bad_input import load
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from machines import Machine
from playbook_runs import Run
from settings import Settings

CASES = load(Path(__file__).parent / "bad_input.yml")
RUN_SECONDS = 240.0
NEWER_DEBIAN = {
    "ansible_distribution": "Debian",
    "ansible_distribution_major_version": "13",
    "ansible_distribution_release": "trixie",
    "ansible_python_version": "3.13.5",
    "ansible_architecture": "x86_64",
}


@dataclass
class Bench:
    """What a case's preparation works on, and what it adds to the run."""

    settings: Settings
    folder: Path
    environment: dict[str, str] = field(default_factory=dict)
    variables: dict[str, Any] = field(default_factory=dict)
    hosts: dict[str, dict[str, Any]] = field(default_factory=dict)


def one_address_for_two(bench: Bench) -> None:
    """Give the second application host the address of the first."""
    first, second = bench.settings.groups["app"][:2]
    bench.hosts.setdefault(second, {})["kallithea_address"] = bench.settings.addresses[first]


def newer_debian(bench: Bench) -> None:
    """Let Ansible know the second application host from a fact cache: there is no other Debian among the test hosts."""
    bench.environment = {"ANSIBLE_CACHE_PLUGIN": "ansible.builtin.jsonfile", "ANSIBLE_CACHE_PLUGIN_CONNECTION": str(bench.folder / "facts")}
    arguments = json.dumps({**NEWER_DEBIAN, "cacheable": True})
    host = bench.settings.groups["app"][1]
    cluster_settings.ansible("ansible", host, "--module-name=ansible.builtin.set_fact", f"--args={arguments}", environment=bench.environment)


def deaf_database(bench: Bench) -> None:
    """Name a host on which no PostgreSQL listens."""
    bench.variables["kallithea_database_hosts"] = [bench.settings.addresses[bench.settings.client]]


def deaf_broker(bench: Bench) -> None:
    """Name a host on which no RabbitMQ listens."""
    bench.variables["kallithea_broker_hosts"] = [bench.settings.addresses[bench.settings.client]]


def external_database(bench: Bench) -> None:
    """Take the cluster's own database for one that is given."""
    bench.variables["kallithea_database_hosts"] = [bench.settings.addresses[bench.settings.groups["database"][0]]]


def foreign_ca(bench: Bench) -> None:
    """Give an authority that has not signed the database's certificate."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Another authority")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=30))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    (bench.folder / "another-ca.crt").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    bench.variables["kallithea_database_ca"] = str(bench.folder / "another-ca.crt")


PREPARATIONS: dict[str, Callable[[Bench], None]] = {
    function.__name__: function for function in (one_address_for_two, newer_debian, deaf_database, deaf_broker, external_database, foreign_ca)
}


def write_inventory(path: Path, hosts: dict[str, dict[str, Any]], groups: dict[str, list[str]]) -> None:
    """Give hosts variables and groups hosts in a copied inventory."""
    content: dict[str, Any] = yaml.safe_load(path.read_text())
    for host, variables in hosts.items():
        content["all"]["hosts"][host] = {**(content["all"]["hosts"][host] or {}), **variables}
    for group, members in groups.items():
        content["all"]["children"][group] = {"hosts": {member: {} for member in members}}
    path.write_text("---\n" + yaml.safe_dump(content, sort_keys=False))


def begin(case: dict[str, Any], settings: Settings, folder: Path) -> Run:
    """Run preflight with a case's mistakes; no secret may be seen."""
    bench = Bench(settings, folder, variables=dict(case.get("variables", {})), hosts={host: dict(own) for host, own in case.get("host_variables", {}).items()})
    for name in case.get("prepare", []):
        PREPARATIONS[name](bench)
    inventories = playbook_runs.copy_inventories(folder)
    write_inventory(inventories[0], bench.hosts, case.get("groups", {}))
    run = playbook_runs.run("preflight", inventories=inventories, variables=bench.variables, folder=folder, environment=bench.environment, seconds=RUN_SECONDS)
    run.check(settings.secrets)
    return run


@pytest.fixture(scope="module")
def runs(cluster: dict[str, Machine], settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    """Make all runs of bad_input.yml; nothing may change."""
    ready = {name: partial(begin, case, settings, tmp_path_factory.mktemp("bad_input")) for name, case in CASES.items()}
    with playbook_runs.unchanged(cluster.values(), settings):
        return playbook_runs.run_all(ready)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.replace(" ", "-"))
def test_bad_input_of_several_hosts(runs: dict[str, Run], case: str) -> None:
    """Every case of bad_input.yml: several mistakes in one inventory, since each run takes long."""
    runs[case].check_sentences(CASES[case]["says"])
