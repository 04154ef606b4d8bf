"""What a run of verify removes from the storage: its own, what earlier runs could not remove, and nothing else."""

from __future__ import annotations

import importlib.util
import pathlib
from types import ModuleType

import pytest

SCRIPT = pathlib.Path(__file__).parents[2] / "roles" / "acceptance" / "files" / "kallithea_acceptance.py"


@pytest.fixture
def script() -> ModuleType:
    """Return the script as a module."""
    spec = importlib.util.spec_from_file_location("kallithea_acceptance", SCRIPT)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_moved_aside_by_verify_goes_and_all_else_stays(script: ModuleType, tmp_path: pathlib.Path) -> None:
    group, moved, mine = tmp_path / "kallithea-verify", tmp_path / "rm__20261128_GROUP_kallithea-verify", tmp_path / "rm__20261127_GROUP_kallithea-verify"
    goes = [group / "rm__20261128_100000__verify0123456789ab-git", moved / "rm__20261127_100000__verify0123456789ab-hg"]
    stays = [group / "verify0123456789ab-git", tmp_path / "rm__20261128_100000__verified", mine / "rm__20261127_100000__project"]
    for path in (*goes, *stays):
        (path / "objects").mkdir(parents=True)
        (path / "objects" / "pack").write_text("x")
    script.remove_leftovers(tmp_path)
    assert not any(path.exists() for path in goes) and not moved.exists()
    assert all(path.exists() for path in stays)
