#!/usr/bin/env python3
# Copyright: The kallithea.cluster maintainers
# GPL-3.0-or-later (see LICENSE)
"""measure_writes.py FOLDER UID GID: print the median milliseconds of a small synchronous write, which each push and each session waits for."""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time

WRITES = 200
SECONDS = 10.0


def main() -> None:
    """Write 4 KiB and wait for the storage, again and again, within a bounded time."""
    folder, uid, gid = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    # As the service user, since a file server may take nothing from root.
    os.setgroups([])
    os.setgid(gid)
    os.setuid(uid)
    times = []
    end = time.monotonic() + SECONDS
    with tempfile.TemporaryFile(dir=folder) as stream:
        while len(times) < WRITES and (time.monotonic() < end or not times):
            begin = time.perf_counter()
            stream.write(b"\0" * 4096)
            stream.flush()
            os.fsync(stream.fileno())
            times.append((time.perf_counter() - begin) * 1000)
    print(f"{statistics.median(times):.2f}")


main()
