"""Bad input ends a playbook with a sentence for each mistake that says what, where and how to mend it, before anything has changed."""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import playbook_runs
import pytest
import yaml
from bad_input import load, pytest_generate_tests, test_bad_input_is_refused_in_one_message, test_mistake_has_its_sentence
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from machines import Machine, wait_until
from playbook_runs import Run
from settings import Settings, ansible, inventories

# The tests themselves.
__all__ = ["pytest_generate_tests", "test_bad_input_is_refused_in_one_message", "test_mistake_has_its_sentence"]

CASES = load(Path(__file__).parent / "bad_input.yml")
PORT = 18080
LISTENER = f"""
import socket, time
with socket.create_server(("127.0.0.1", {PORT})):
    time.sleep(300)
"""
STORAGE = "/srv/test-foreign-storage"
DATABASE, STRANGER = "test_foreign", "test_stranger"
PSQL = "cd / && runuser -u postgres -- psql -X -q -v ON_ERROR_STOP=1"


@dataclass
class Bench:
    """What a run's preparations work on, and what they add to it."""

    node: Machine
    settings: Settings
    folder: Path
    variables: dict[str, Any] = field(default_factory=dict)
    secrets: dict[str, str] = field(default_factory=dict, repr=False)
    environment: dict[str, str] = field(default_factory=dict)
    inventories: Sequence[Path] = field(default_factory=inventories)


def empty(bench: Bench, group: str) -> AbstractContextManager[None]:
    """Copy the inventory and take every host out of a group."""
    bench.inventories = playbook_runs.copy_inventories(bench.folder)
    inventory = yaml.safe_load(bench.inventories[0].read_text())
    inventory["all"]["children"][group]["hosts"] = {}
    bench.inventories[0].write_text(yaml.safe_dump(inventory))
    return nullcontext()


def no_broker(bench: Bench) -> AbstractContextManager[None]:
    """Leave a mandatory group empty."""
    return empty(bench, "kallithea_broker")


def no_storage_host(bench: Bench) -> AbstractContextManager[None]:
    """Let no host serve the storage, as with a file system that is mounted already."""
    return empty(bench, "kallithea_storage")


@contextmanager
def listener(bench: Bench) -> Iterator[None]:
    """Listen on the host's port, as another program would."""
    bench.node.write("/run/test-listener.py", LISTENER)
    bench.node.start("test-listener", "exec python3 /run/test-listener.py", 300)
    try:
        wait_until("the listener", lambda: bench.node.try_run(f"bash -c '</dev/tcp/127.0.0.1/{PORT}'").status == 0, 10)
        bench.variables["kallithea_app_static_port"] = PORT
        yield
    finally:
        bench.node.stop("test-listener")
        bench.node.run("rm /run/test-listener.py")


@contextmanager
def bad_secret(bench: Bench) -> Iterator[None]:
    """Name a secrets file in which somebody put a password with a per cent sign."""
    bench.secrets["database_password"] = "with%percentsign"
    file = bench.folder / "bad_secrets.yml"
    file.touch(mode=0o600)
    file.write_text(yaml.safe_dump({"kallithea_secrets": bench.settings.secrets | bench.secrets}))
    bench.variables["kallithea_secrets_file"] = str(file)
    # The authority stays where it is.
    bench.variables["kallithea_loadbalancer_ca_dir"] = str(bench.settings.ca_file.parent)
    yield


def facts(bench: Bench, **known: str) -> AbstractContextManager[None]:
    """Let Ansible know the host from a fact cache: there is no other system among the test hosts."""
    bench.environment = {"ANSIBLE_CACHE_PLUGIN": "ansible.builtin.jsonfile", "ANSIBLE_CACHE_PLUGIN_CONNECTION": str(bench.folder / "facts")}
    arguments = json.dumps({**known, "cacheable": True})
    ansible("ansible", bench.settings.node, "--module-name=ansible.builtin.set_fact", f"--args={arguments}", environment=bench.environment)
    return nullcontext()


def ubuntu(bench: Bench) -> AbstractContextManager[None]:
    """Let the host be of another distribution."""
    return facts(bench, ansible_distribution="Ubuntu", ansible_distribution_major_version="24", ansible_python_version="3.12.3")


def other_python(bench: Bench) -> AbstractContextManager[None]:
    """Let the host have a Python that is not its Debian's."""
    return facts(bench, ansible_distribution="Debian", ansible_distribution_major_version="13", ansible_python_version="3.9.2")


@contextmanager
def foreign_storage(bench: Bench) -> Iterator[None]:
    """Make a storage with another cluster's marker."""
    bench.node.write(f"{STORAGE}/.kallithea-cluster", json.dumps({"cluster_id": "anotherclustersname"}), "0644")
    try:
        bench.variables["kallithea_storage_path"] = STORAGE
        yield
    finally:
        bench.node.run(f"rm -rf {STORAGE}")


@contextmanager
def foreign_database(bench: Bench) -> Iterator[None]:
    """Make a database with a table that a stranger owns."""
    try:
        bench.node.run(f"{PSQL} postgres", stdin=f"CREATE ROLE {STRANGER} NOLOGIN; CREATE DATABASE {DATABASE} OWNER {STRANGER};")
        bench.node.run(f"{PSQL} {DATABASE}", stdin=f"SET ROLE {STRANGER}; CREATE SCHEMA theirs; CREATE TABLE theirs.work (id integer);")
        bench.variables["kallithea_database_name"] = DATABASE
        yield
    finally:
        bench.node.run(f"{PSQL} postgres", stdin=f"DROP DATABASE IF EXISTS {DATABASE}; DROP ROLE IF EXISTS {STRANGER};")


def give_certificate(bench: Bench, names: Sequence[str], own_key: bool) -> None:
    """Write a certificate for the names, with its own key or another one beside it."""
    made_for, other = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0])])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(made_for.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=30))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), critical=False)
        .sign(made_for, hashes.SHA256())
    )
    key = (made_for if own_key else other).private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (bench.folder / "scm.crt").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (bench.folder / "scm.key").write_bytes(key)
    # A line of the key stands for all of it.
    bench.secrets["key"] = key.decode().splitlines()[1]
    bench.variables |= {
        "kallithea_loadbalancer_tls": "given",
        "kallithea_loadbalancer_certificate": str(bench.folder / "scm.crt"),
        "kallithea_loadbalancer_certificate_key": str(bench.folder / "scm.key"),
    }


@contextmanager
def certificate_of_another_key(bench: Bench) -> Iterator[None]:
    """Give a certificate for the right names with a wrong key."""
    give_certificate(bench, [bench.settings.hostname, bench.settings.ci_hostname], own_key=False)
    yield


@contextmanager
def certificate_of_another_name(bench: Bench) -> Iterator[None]:
    """Give a certificate with its key that does not cover the people's name."""
    give_certificate(bench, ["scm.example.org", bench.settings.ci_hostname], own_key=True)
    yield


PREPARATIONS: dict[str, Callable[[Bench], AbstractContextManager[None]]] = {
    function.__name__: function
    for function in (
        no_broker,
        no_storage_host,
        listener,
        bad_secret,
        ubuntu,
        other_python,
        foreign_storage,
        foreign_database,
        certificate_of_another_key,
        certificate_of_another_name,
    )
}


def begin(case: dict[str, Any], bench: Bench) -> Run:
    """Run the playbook of a case; no secret may be seen."""
    run = playbook_runs.run(case["playbook"], inventories=bench.inventories, variables=bench.variables, folder=bench.folder, environment=bench.environment)
    run.check(bench.settings.secrets | bench.secrets)
    return run


@pytest.fixture(scope="module")
def runs(node: Machine, settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    """Make all runs of bad_input.yml; nothing may change."""
    with ExitStack() as stack:
        ready = {}
        for name, case in CASES.items():
            bench = Bench(node, settings, tmp_path_factory.mktemp("bad_input"), dict(case.get("variables", {})))
            for preparation in case.get("prepare", []):
                stack.enter_context(PREPARATIONS[preparation](bench))
            ready[name] = partial(begin, case, bench)
        with playbook_runs.unchanged(node, settings):
            return playbook_runs.run_all(ready)
