"""What the unit tests share: the collection's import path."""

from __future__ import annotations

import pathlib
import sys
import types

ROOT = pathlib.Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests" / "unit"))


def _namespace(name: str, path: pathlib.Path) -> None:
    module = types.ModuleType(name)
    module.__path__ = [str(path)]
    sys.modules.setdefault(name, module)


# The tests run from the source tree, which need not lie in a folder ansible_collections/kallithea/cluster.
_namespace("ansible_collections", ROOT / "tests" / "no-such-folder")
_namespace("ansible_collections.kallithea", ROOT / "tests" / "no-such-folder")
_namespace("ansible_collections.kallithea.cluster", ROOT)
