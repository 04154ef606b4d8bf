"""Processes with a limit in time, which end with all their helpers."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path


class DrillFailed(Exception):
    """There is no point in going on; the message is for the user."""


@dataclass(frozen=True)
class Done:
    """How a command ended; without a status it was killed when its time was over."""

    status: int | None
    output: str
    errors: str
    seconds: float

    @property
    def well(self) -> bool:
        """Whether it succeeded."""
        return self.status == 0


def run(argv: Sequence[str], *, environment: Mapping[str, str], seconds: float, folder: Path | None = None, stdin: str = "") -> Done:
    """Run a command; kill it and its helpers when its time is over."""
    begin = time.monotonic()
    with subprocess.Popen(
        argv, cwd=folder, env=dict(environment), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
    ) as process:
        status: int | None
        try:
            output, errors = process.communicate(stdin.encode(), timeout=seconds)
            status = process.returncode
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            output, errors = process.communicate()
            status = None
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
    return Done(status, output.decode(errors="replace"), errors.decode(errors="replace"), time.monotonic() - begin)


def must(argv: Sequence[str], *, environment: Mapping[str, str], seconds: float, folder: Path | None = None, stdin: str = "") -> str:
    """Run a command that has to succeed and return what it printed."""
    done = run(argv, environment=environment, seconds=seconds, folder=folder, stdin=stdin)
    if not done.well:
        how = f"took longer than {seconds:.0f} s" if done.status is None else f"ended with {done.status}"
        raise DrillFailed(f"{shlex.join(argv)} {how}: {(done.errors or done.output).strip()[-400:]}")
    return done.output
