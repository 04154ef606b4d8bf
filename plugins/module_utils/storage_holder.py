# Copyright: The kallithea.cluster maintainers
# GPL-3.0-or-later (see LICENSE)
"""A process that lives between the steps in which hosts try a shared storage: it holds a file open and a lock, and looks before and after the changes.

A new process would see more than a server that runs for weeks: Linux asks an NFS server anew for the rights of a user whose process began later than what it
remembers, and what it is told renews what it knows of the folder.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import socket
from typing import Any

from ansible_collections.kallithea.cluster.plugins.module_utils.storage_probes import first_word, remember, said, sights

# Longer than all steps together may take; a controller that comes too late would find the first host's lock gone.
HOLD_SECONDS = 90.0
# Longer than it looks for changes that do not come.
ANSWER_SECONDS = 4.0
LOOK, LEAVE = b"look", b"leave"


def address(run: str, number: int) -> bytes:
    """Return where this host's holder is asked: a name in memory, which leaves no file behind."""
    return f"\0kallithea-acceptance-{run}-{number}".encode()


def start_holder(folder: str, run: str, number: int) -> None:
    """Start a process that looks at everything and holds a file open until it is asked what it sees, or for a bounded time; the first host's holds the lock."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            # Twice, so that it is nobody's child.
            if os.fork() == 0:
                os.setsid()
                hold(folder, run, number, writer)
        finally:
            os._exit(0)
    os.close(writer)
    os.waitpid(child, 0)
    with os.fdopen(reader, encoding="utf-8") as pipe:
        answer = pipe.read()
    if answer != "held":
        raise OSError(int(answer or errno.EIO), os.strerror(int(answer or errno.EIO)))


def hold(folder: str, run: str, number: int, ready: int) -> None:
    """Hold what has to be held, say so, and wait."""
    # The caller's pipes are not this process's matter.
    for descriptor in os.listdir("/proc/self/fd"):
        if int(descriptor) > 2 and int(descriptor) != ready:
            with contextlib.suppress(OSError):
                os.close(int(descriptor))
    try:
        remember(folder)
        held = os.open(os.path.join(folder, "replaced", "file"), os.O_RDONLY)
        read_again(held)
        if number == 0:
            fcntl.flock(os.open(os.path.join(folder, "lock"), os.O_RDWR), fcntl.LOCK_EX | fcntl.LOCK_NB)
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
            listener.bind(address(run, number))
            listener.listen(1)
            listener.settimeout(HOLD_SECONDS)
            os.write(ready, b"held")
            os.close(ready)
            answer_once(listener, folder, held)
    except OSError as error:
        with contextlib.suppress(OSError):
            os.write(ready, str(error.errno or errno.EIO).encode())


def answer_once(listener: socket.socket, folder: str, held: int) -> None:
    """Answer with what this process sees of the changes, and what the held file reads now, where that is the question."""
    with listener.accept()[0] as connection:
        if connection.recv(len(LEAVE)) == LOOK:
            seen = {"sights": sights(folder)}
            try:
                word = read_again(held)
            except OSError as error:
                word = said(error)
            connection.sendall(json.dumps({**seen, "held": word}).encode())


def read_again(descriptor: int) -> str:
    """Return the first word of an open file, from its server and not from memory."""
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    return str(first_word(os.pread(descriptor, 16, 0).decode(errors="replace")))


def ask_holder(run: str, number: int) -> dict[str, Any]:
    """Return what this host's holder sees and reads, which ends it."""
    answer = question(run, number, LOOK)
    if not answer:
        raise ProcessLookupError(errno.ESRCH, "the process that looked before the changes is gone")
    return dict(json.loads(answer))


def end_holder(run: str, number: int) -> None:
    """End this host's holder where there is one."""
    question(run, number, LEAVE)


def question(run: str, number: int, word: bytes) -> bytes:
    """Return what this host's holder answers; nothing where it is gone."""
    answer = b""
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(ANSWER_SECONDS)
        connection.connect(address(run, number))
        connection.sendall(word)
        while block := connection.recv(65536):
            answer += block
    return answer
