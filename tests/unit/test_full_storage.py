"""What pages cannot save on a full storage costs them nothing; other errors stay errors (safety-10-full-storage.patch)."""

from __future__ import annotations

import errno
import pathlib
import sys
import types
from collections.abc import Callable
from typing import Any

import pytest

ROOT = pathlib.Path(__file__).parents[2]
PATCH = ROOT / "roles" / "app" / "files" / "patches" / "safety-10-full-storage.patch"


class Session:
    """Beaker's, on a storage that fails."""

    def __init__(self, number: int) -> None:
        self.number = number

    def persist(self) -> None:
        if self.number:
            raise OSError(self.number, "no")


class Cache:
    """Beaker's, which computes and then cannot keep."""

    number = 0

    def region(self, *_: str) -> Callable[[Callable[..., str]], Callable[..., str]]:
        def decorate(function: Callable[..., str]) -> Callable[..., str]:
            def cached(*keys: str) -> str:
                answer = function(*keys)
                if self.number:
                    raise OSError(self.number, "no")
                return f"cached {answer}"

            return cached

        return decorate


@pytest.fixture
def cache() -> Cache:
    return Cache()


@pytest.fixture
def patched(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The module that the patch adds, between a Beaker that fails as it is told."""
    beaker = types.ModuleType("beaker")
    beaker.cache = types.SimpleNamespace(cache_region=cache.region)  # type: ignore[attr-defined]
    beaker.session = types.SimpleNamespace(SessionObject=Session)  # type: ignore[attr-defined]
    for name, module in (("beaker", beaker), ("beaker.cache", beaker.cache), ("beaker.session", beaker.session)):
        monkeypatch.setitem(sys.modules, name, module)
    _, _, added = PATCH.read_text(encoding="utf-8").partition("+++ b/kallithea/lib/full_storage.py\n")
    names: dict[str, Any] = {"__name__": "full_storage"}
    exec("\n".join(line[1:] for line in added.splitlines() if line.startswith("+")), names)
    return names


@pytest.mark.parametrize("full", [0, errno.ENOSPC, errno.EDQUOT])
def test_a_full_storage_costs_no_page(patched: dict[str, Any], cache: Cache, full: int) -> None:
    patched["SessionObject"](full).persist()
    cache.number = full
    answer = patched["cache_region"]("long_term_file", "readme")(lambda key: f"readme of {key}")("r")
    assert answer == ("readme of r" if full else "cached readme of r")


@pytest.mark.parametrize("broken", [errno.EIO, errno.EACCES, errno.ESTALE])
def test_a_broken_storage_stays_an_error(patched: dict[str, Any], cache: Cache, broken: int) -> None:
    with pytest.raises(OSError, match="no"):
        patched["SessionObject"](broken).persist()
    cache.number = broken
    with pytest.raises(OSError, match="no"):
        patched["cache_region"]("long_term_file", "readme")(lambda key: key)("r")
