"""What is wrong with database or broker ends preflight with a sentence each that says what, where and how to mend it, before anything has changed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import playbook_runs
import pytest
import yaml
from bad_input import load, pytest_generate_tests, test_bad_input_is_refused_in_one_message, test_mistake_has_its_sentence
from conftest import SCENARIO
from machines import Machine
from playbook_runs import Run
from settings import Settings, inventories

# The tests themselves.
__all__ = ["pytest_generate_tests", "test_bad_input_is_refused_in_one_message", "test_mistake_has_its_sentence"]

CASES = load(Path(__file__).parent / "bad_input.yml")
NOTHING_WRONG = "nothing wrong"
WRONG = "thisIsNotThePassword"


@dataclass
class Bench:
    """What a run's preparations work on, and what they add to it."""

    settings: Settings
    given: dict[str, str] = field(repr=False)
    folder: Path
    # Not in any failure's text.
    variables: dict[str, Any] = field(default_factory=dict, repr=False)
    inventories: Sequence[Path] = field(default_factory=inventories)

    @property
    def certificates(self) -> Path:
        """Return the folder of all authorities and certificates."""
        return self.settings.ca_file.parent

    def give(self, secret: str) -> None:
        """Give another password than the owner has made, beside the others."""
        self.variables["kallithea_given_secrets"] = self.variables.get("kallithea_given_secrets", self.given) | {secret: WRONG}


def stranger_signs_the_database(bench: Bench) -> None:
    """Name an authority that has signed nothing."""
    bench.variables["kallithea_database_ca"] = str(bench.certificates / "stranger.crt")


def stranger_signs_the_broker(bench: Bench) -> None:
    """Name an authority that has signed nothing."""
    bench.variables["kallithea_broker_ca"] = str(bench.certificates / "stranger.crt")


def key_for_an_authority(bench: Bench) -> None:
    """Name the wrong one of two files."""
    bench.variables["kallithea_broker_ca"] = str(bench.certificates / "ca.key")


def database_by_unfit_names(bench: Bench) -> None:
    """Name the database by a name that is not known, and by what its certificate does not hold."""
    bench.variables["kallithea_database_hosts"] = ["no-such-host.invalid", bench.settings.addresses["extdb"]]


def wrong_database_password(bench: Bench) -> None:
    """Give another password than the owner has made."""
    bench.give("database_password")


def wrong_broker_password(bench: Bench) -> None:
    """Give another password than the owner has made."""
    bench.give("broker_password")


def mistyped_secret(bench: Bench) -> None:
    """Give one secret more, which nobody knows."""
    bench.give("databse_password")


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
        database_by_unfit_names,
        wrong_database_password,
        wrong_broker_password,
        mistyped_secret,
        database_host_here_too,
    )
}


def begin(bench: Bench) -> Run:
    """Run preflight with the vault's password; no secret may be seen."""
    vault = f"--vault-password-file={SCENARIO / 'vault_password'}"
    run = playbook_runs.run("preflight", vault, inventories=bench.inventories, variables=bench.variables, folder=bench.folder)
    run.check(bench.settings.secrets | bench.given | {"wrong": WRONG})
    return run


@pytest.fixture(scope="module")
def runs(app: Machine, settings: Settings, given: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    """Make all runs of bad_input.yml, and one in which nothing is wrong; nothing may change."""
    benches = {}
    for name, case in (CASES | {NOTHING_WRONG: {}}).items():
        benches[name] = Bench(settings, given, tmp_path_factory.mktemp("bad_input"), dict(case.get("variables", {})))
        for preparation in case.get("prepare", []):
            PREPARATIONS[preparation](benches[name])
    with playbook_runs.unchanged(app, settings):
        return playbook_runs.run_all({name: partial(begin, bench) for name, bench in benches.items()})


def test_good_input_is_taken(runs: dict[str, Run]) -> None:
    """The cases above are refused for what is wrong in them alone."""
    runs[NOTHING_WRONG].check_success("app1")
