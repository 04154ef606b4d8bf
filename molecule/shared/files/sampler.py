#!/usr/bin/python3
"""Writes every distinct command line that any process of this host shows, one a line, until stopped.

Proves afterwards that no secret was ever on a command line. A process that lives shorter than the interval is
missed; young ones are read again, because a process shows another command line after exec.
"""

import os
import sys
import time

INTERVAL_SECONDS = 0.02
YOUNG_SECONDS = 1.0


def main(path):
    """Sample until killed."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    first_seen = {}
    written = set()
    with os.fdopen(descriptor, "ab", buffering=0) as output:
        while True:
            now = time.monotonic()
            pids = [name for name in os.listdir("/proc") if name.isdigit()]
            for pid in pids:
                if now - first_seen.setdefault(pid, now) > YOUNG_SECONDS:
                    continue
                try:
                    with open(f"/proc/{pid}/cmdline", "rb") as source:
                        line = source.read().replace(b"\n", b" ").rstrip(b"\0").replace(b"\0", b" ")
                except OSError:
                    continue
                if line and line not in written:
                    written.add(line)
                    output.write(line + b"\n")
            first_seen = {pid: first_seen[pid] for pid in pids}
            time.sleep(INTERVAL_SECONDS)


if __name__ == "__main__":
    main(sys.argv[1])
