"""What is wrong with database or broker ends preflight with one sentence that says what, where and how to mend it, before anything has changed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import playbook_runs
import pytest
import yaml
from conftest import SCENARIO
from machines import Machine
from settings import Settings, inventories

CASES: list[dict[str, Any]] = yaml.safe_load((Path(__file__).parent / "bad_input.yml").read_text())
WRONG = "thisIsNotThePassword"


@dataclass
class Bench:
    """What a case's preparation works on, and what it adds to the run."""

    settings: Settings
    given: dict[str, str]
    folder: Path
    variables: dict[str, Any] = field(default_factory=dict)
    inventories: Sequence[Path] = field(default_factory=inventories)

    @property
    def certificates(self) -> Path:
        """Return the folder of all authorities and certificates."""
        return self.settings.ca_file.parent


def stranger_signs_the_database(bench: Bench) -> None:
    """Name an authority that has signed nothing."""
    bench.variables["kallithea_database_ca"] = str(bench.certificates / "stranger.crt")


def stranger_signs_the_broker(bench: Bench) -> None:
    """Name an authority that has signed nothing."""
    bench.variables["kallithea_broker_ca"] = str(bench.certificates / "stranger.crt")


def key_for_an_authority(bench: Bench) -> None:
    """Name the wrong one of two files."""
    bench.variables["kallithea_broker_ca"] = str(bench.certificates / "ca.key")


def database_by_its_address(bench: Bench) -> None:
    """Name the database by what its certificate does not hold."""
    bench.variables["kallithea_database_hosts"] = [bench.settings.addresses["extdb"]]


def wrong_database_password(bench: Bench) -> None:
    """Give another password than the owner has made."""
    bench.variables["kallithea_given_secrets"] = bench.given | {"database_password": WRONG}


def wrong_broker_password(bench: Bench) -> None:
    """Give another password than the owner has made."""
    bench.variables["kallithea_given_secrets"] = bench.given | {"broker_password": WRONG}


def mistyped_secret(bench: Bench) -> None:
    """Give one secret more, which nobody knows."""
    bench.variables["kallithea_given_secrets"] = bench.given | {"databse_password": WRONG}


def database_host_here_too(bench: Bench) -> None:
    """Copy the inventory and put a host into the group of those that are external."""
    bench.inventories = playbook_runs.copy_inventories(bench.folder)
    inventory = yaml.safe_load(bench.inventories[0].read_text())
    inventory["kallithea_database"]["hosts"] = {"app1": {}}
    bench.inventories[0].write_text(yaml.safe_dump(inventory))


PREPARATIONS: dict[str, Callable[[Bench], None]] = {
    function.__name__: function
    for function in (
        stranger_signs_the_database,
        stranger_signs_the_broker,
        key_for_an_authority,
        database_by_its_address,
        wrong_database_password,
        wrong_broker_password,
        mistyped_secret,
        database_host_here_too,
    )
}


def run(bench: Bench) -> playbook_runs.Run:
    """Run preflight with the vault's password."""
    vault = f"--vault-password-file={SCENARIO / 'vault_password'}"
    return playbook_runs.run("preflight", vault, inventories=bench.inventories, variables=bench.variables, folder=bench.folder)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["id"].replace(" ", "-"))
def test_bad_input_is_refused_with_one_sentence(case: dict[str, Any], app: Machine, settings: Settings, given: dict[str, str], tmp_path: Path) -> None:
    """Every case of bad_input.yml."""
    bench = Bench(settings, given, tmp_path, dict(case.get("variables", {})))
    if "prepare" in case:
        PREPARATIONS[case["prepare"]](bench)
    with playbook_runs.unchanged(app, settings):
        refused = run(bench)
        # The secrets first, since a failure prints what was said.
        refused.check(settings.secrets | given | {"wrong": WRONG})
        refused.check_refusal(case["says"])


def test_good_input_is_taken(app: Machine, settings: Settings, given: dict[str, str], tmp_path: Path) -> None:
    """The cases above are refused for what is wrong in them alone."""
    with playbook_runs.unchanged(app, settings):
        taken = run(Bench(settings, given, tmp_path))
    taken.check(settings.secrets | given)
    taken.check_success("app1")
