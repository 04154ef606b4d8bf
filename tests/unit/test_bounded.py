"""Work that gets a limited time: what it returns, how it fails, and what becomes of its process."""

from __future__ import annotations

import os
import pathlib
import signal
import time
from collections.abc import Callable

import pytest
from ansible_collections.kallithea.cluster.plugins.module_utils import bounded
from ansible_collections.kallithea.cluster.plugins.module_utils.storage_probes import said


def raises(error: BaseException) -> Callable[[], None]:
    """Return work that ends with an error."""

    def work() -> None:
        raise error

    return work


def hang(pid_file: pathlib.Path) -> None:
    """Say which process it is, and take longer than anybody waits."""
    pid_file.write_text(str(os.getpid()))
    time.sleep(30)


def test_it_returns_what_another_process_found() -> None:
    assert bounded.bounded(os.getpid, 5) != os.getpid()
    assert bounded.bounded(lambda: {"large": "x" * 300000}, 20) == {"large": "x" * 300000}
    assert bounded.bounded(lambda: None, 5) is None


def test_it_raises_the_error_of_the_work() -> None:
    with pytest.raises(PermissionError, match="Not for you"):
        bounded.bounded(raises(PermissionError(13, "Not for you")), 5)
    with pytest.raises(ChildProcessError, match="the process ended without an answer"):
        bounded.bounded(raises(SystemExit()), 5)


def test_what_takes_too_long_is_killed_and_leaves_no_zombie(tmp_path: pathlib.Path) -> None:
    begun = time.monotonic()
    with pytest.raises(TimeoutError) as raised:
        bounded.bounded(lambda: hang(tmp_path / "pid"), 0.3)
    assert said(raised.value) == "ETIMEDOUT: no answer within 0 s"
    assert time.monotonic() - begun < 5
    assert not pathlib.Path("/proc", (tmp_path / "pid").read_text()).exists()


def test_a_process_that_answered_leaves_no_zombie() -> None:
    assert not pathlib.Path("/proc", str(bounded.bounded(os.getpid, 5))).exists()


def test_a_process_that_the_kernel_holds_is_not_waited_for(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounded, "REAP_SECONDS", 0.2)
    # As in a file system whose server is gone: it can not be killed.
    monkeypatch.setattr(os, "kill", lambda *_: None)
    begun = time.monotonic()
    with pytest.raises(TimeoutError):
        bounded.bounded(lambda: hang(tmp_path / "pid"), 0.3)
    assert 0.5 <= time.monotonic() - begun < 5
    monkeypatch.undo()
    child = int((tmp_path / "pid").read_text())
    os.kill(child, signal.SIGKILL)
    assert os.waitpid(child, 0)[0] == child


def test_its_output_is_nobodys(capfd: pytest.CaptureFixture[str]) -> None:
    def say() -> int:
        return os.write(1, b"said")

    assert bounded.bounded(say, 5) == 4
    assert capfd.readouterr().out == ""
