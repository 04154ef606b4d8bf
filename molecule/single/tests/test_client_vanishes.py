"""A client that vanished gives its process back. Before the tests of faults by its name: they restart what it hangs on."""

from __future__ import annotations

import time

from balancer import Balancer
from machines import Machine, wait_until
from vanished import NOTICED_SECONDS, Vanished

CLONE_BYTES = 200 * 1024 * 1024


def test_a_client_that_vanishes_gives_its_process_back(node: Machine, vanished: Vanished) -> None:
    """The balancer ends its clone, also where it was reloaded meanwhile; git and its process are free."""
    wait_until("git's processes gone", lambda: node.try_run("pgrep -f 'git[ ]upload-pack'").status == 1, vanished.when + NOTICED_SECONDS - time.time())
    clones = [entry for entry in Balancer(node).log(vanished.when) if entry["client"].endswith(f":{vanished.port}")]
    assert [(entry["status"], entry["end"][:2]) for entry in clones] == [("200", "CD")], clones
    assert int(clones[0]["bytes"]) < CLONE_BYTES, "the clone was not cut"
