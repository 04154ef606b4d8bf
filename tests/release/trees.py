"""What a program of this folder says with one tree of Kallithea, and with another one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any


def ask(tree: Path, program: str, *arguments: str) -> Any:
    """Return what the program writes as JSON, in its last line, where `import kallithea` finds this tree."""
    environment = {**os.environ, "PYTHONPATH": str(tree), "PYTHONHASHSEED": "0"}
    done = subprocess.run([sys.executable, program, *arguments], env=environment, stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def differences(stock: Any, patched: Any, where: str = "") -> list[str]:
    """Return where two answers differ, and how."""
    if isinstance(stock, dict) and isinstance(patched, dict):
        return [line for key in sorted({*stock, *patched}) for line in differences(stock.get(key), patched.get(key), f"{where}/{key}")]
    return [] if stock == patched else [f"{where}: {stock!r} in stock, {patched!r} patched"]
