# Copyright: The kallithea.cluster maintainers
# GPL-3.0-or-later (see LICENSE)
"""Work in a process of its own that gets a limited time: a storage that hangs must not hold whoever looks at it."""

from __future__ import annotations

import errno
import json
import os
import select
import signal
import time
from collections.abc import Callable
from typing import Any

REAP_SECONDS = 1.0


def bounded(work: Callable[[], Any], seconds: float) -> Any:
    """Return what the work returns in a process of its own, or raise its OSError; a TimeoutError where it takes longer.

    A process may be killed, a thread of ours could not. What it returns comes as JSON.
    """
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(reader)
            answer_into(writer, work)
        finally:
            os._exit(0)
    os.close(writer)
    try:
        data = read_all(reader, seconds)
    finally:
        os.close(reader)
        end(child)
    if not data:
        raise ChildProcessError(errno.ECHILD, "the process ended without an answer")
    answer = json.loads(data)
    if "errno" in answer:
        raise OSError(answer["errno"], answer["strerror"])
    return answer["result"]


def answer_into(pipe: int, work: Callable[[], Any]) -> None:
    """Do the work and write what it returns; whoever waits for the caller's output must not wait for a process that hangs."""
    null = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(null, number)
    answer: dict[str, Any]
    try:
        answer = {"result": work()}
    except OSError as error:
        answer = {"errno": error.errno, "strerror": error.strerror}
    with os.fdopen(pipe, "w", encoding="utf-8") as stream:
        json.dump(answer, stream)


def read_all(pipe: int, seconds: float) -> bytes:
    """Return what comes until the other end is closed."""
    data, last = b"", time.monotonic() + seconds
    while select.select([pipe], [], [], max(0.0, last - time.monotonic()))[0]:
        block = os.read(pipe, 65536)
        if not block:
            return data
        data += block
    raise TimeoutError(errno.ETIMEDOUT, f"no answer within {seconds:.0f} s")


def end(child: int) -> None:
    """Kill a process and take note of its end; the kernel may hold one that waits for a lost file server, which is not waited for."""
    os.kill(child, signal.SIGKILL)
    last = time.monotonic() + REAP_SECONDS
    while os.waitpid(child, os.WNOHANG)[0] == 0 and time.monotonic() < last:
        time.sleep(0.01)
