#!/usr/bin/env python3
# Copyright: The kallithea.cluster maintainers
# GPL-3.0-or-later (see LICENSE)
"""Print the median milliseconds of a small synchronous write below the given folder: what each push and each session waits for."""

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
    times = []
    end = time.monotonic() + SECONDS
    with tempfile.TemporaryFile(dir=sys.argv[1]) as stream:
        while len(times) < WRITES and (time.monotonic() < end or not times):
            begin = time.perf_counter()
            stream.write(b"\0" * 4096)
            stream.flush()
            os.fsync(stream.fileno())
            times.append((time.perf_counter() - begin) * 1000)
    print(f"{statistics.median(times):.2f}")


main()
