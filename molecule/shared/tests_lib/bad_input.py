"""The tests of bad input that is refused: a test module takes them from here and gives them its CASES, and by its fixture runs what came of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from playbook_runs import Run


def load(path: Path) -> dict[str, dict[str, Any]]:
    """Return the cases of a file by their ids."""
    return {case["id"]: case for case in yaml.safe_load(path.read_text())}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Make a test of each case of the module, and one of each mistake in it."""
    cases: dict[str, dict[str, Any]] = metafunc.module.CASES
    if "sentences" in metafunc.fixturenames:
        expected = [(run, list(case["says"].values())) for run, case in cases.items()]
        metafunc.parametrize(("run", "sentences"), expected, ids=[run.replace(" ", "-") for run in cases])
    if "sentence" in metafunc.fixturenames:
        mistakes = [(run, sentence, mistake) for run, case in cases.items() for mistake, sentence in case["says"].items()]
        metafunc.parametrize(("run", "sentence"), [row[:2] for row in mistakes], ids=[mistake.replace(" ", "-") for _, _, mistake in mistakes])


def test_bad_input_is_refused_in_one_message(runs: Mapping[str, Run], run: str, sentences: Sequence[str]) -> None:
    """Each run ends with the sentences of its mistakes and no other words."""
    runs[run].check_refusal(*sentences)


def test_mistake_has_its_sentence(runs: Mapping[str, Run], run: str, sentence: str) -> None:
    """Whatever else is wrong, each mistake is named, once."""
    runs[run].check_sentence(sentence)
