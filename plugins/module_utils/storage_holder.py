# Copyright: The kallithea.cluster maintainers
# GPL-3.0-or-later (see LICENSE)
"""A process that holds a file open and a lock between the steps in which hosts try a shared storage."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket

from ansible_collections.kallithea.cluster.plugins.module_utils.storage_probes import first_word, said

HOLD_SECONDS = 30.0


def address(run: str, number: int) -> bytes:
    """Return where this host's holder is asked: a name in memory, which leaves no file behind."""
    return f"\0kallithea-acceptance-{run}-{number}".encode()


def start_holder(folder: str, run: str, number: int) -> None:
    """Start a process that holds a file open until it is asked what it reads there, or for a bounded time; the first host's also holds the lock."""
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
            answer_once(listener, held)
    except OSError as error:
        with contextlib.suppress(OSError):
            os.write(ready, str(error.errno or errno.EIO).encode())


def answer_once(listener: socket.socket, held: int) -> None:
    """Answer with what the held file reads now."""
    with listener.accept()[0] as connection:
        try:
            word = read_again(held)
        except OSError as error:
            word = said(error)
        connection.sendall(word.encode())


def read_again(descriptor: int) -> str:
    """Return the first word of an open file, from its server and not from memory."""
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    return str(first_word(os.pread(descriptor, 16, 0).decode(errors="replace")))


def ask_holder(run: str, number: int) -> str:
    """Return what this host's holder reads, which ends it; nothing where it is gone."""
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(2.0)
        connection.connect(address(run, number))
        return connection.recv(200).decode(errors="replace")
    return ""
