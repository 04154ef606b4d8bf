"""Runs on an application host as the service user: git's answers straight through a pipe, each request's seconds and processor time.

Standard input holds JSON: git, repository and requests, each the hexadecimal form of what a client sends.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import threading
import time

BLOCK = 1 << 20
ANSWER_SECONDS = 300


def used() -> float:
    """Return the processor time of all children that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def main() -> None:
    """Ask, read all of the answer, print the figures."""
    given = json.load(sys.stdin)
    found: dict[str, list[float]] = {"seconds": [], "cpu": [], "bytes": []}
    for request in given["requests"]:
        before, begin, size = used(), time.monotonic(), 0
        command = [given["git"], "upload-pack", "--stateless-rpc", given["repository"]]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd="/") as git:
            assert git.stdin and git.stdout
            limit = threading.Timer(ANSWER_SECONDS, git.kill)
            limit.start()
            git.stdin.write(bytes.fromhex(request))
            git.stdin.close()
            while block := git.stdout.read(BLOCK):
                size += len(block)
            git.wait()
            limit.cancel()
        if git.returncode:
            sys.exit(f"git upload-pack ended with {git.returncode}")
        for name, value in (("seconds", time.monotonic() - begin), ("cpu", used() - before), ("bytes", size)):
            found[name].append(value)
    print("BENCH " + json.dumps(found))


main()
