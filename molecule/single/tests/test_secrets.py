"""No secret of the cluster stands where somebody reads it who should not: logs, files, command lines, answers."""

from __future__ import annotations

import base64
import json
import secrets
from collections.abc import Iterator

import pytest
from machines import Machine, wait_until
from settings import Settings
from web import Site

# Names the cluster and opens nothing; stands in files on purpose.
PUBLIC = {"cluster_id"}
WORDS = "/run/test-secrets"
COMMAND_LINES = "/run/kallithea-test/cmdlines"
SAMPLE = "/run/test-readable"
READABLE = "/etc /opt/kallithea /srv /run /usr/local /tmp /var/lib /var/cache /var/spool /home /root"
# Prints the names of the secrets that standard input or the files under the given paths hold; never the secrets.
FINDER = r"""
import json, os, stat, sys
words = {name: value.encode() for name, value in json.load(open("/run/test-secrets/words")).items()}
def look(stream, where):
    tail = b""
    while block := stream.read(1 << 20):
        text = tail + block
        for name, word in words.items():
            if word in text:
                print(name, "in", where)
        tail = text[-200:]
if sys.argv[1:] == ["-"]:
    look(sys.stdin.buffer, "standard input")
for path in sys.argv[1:]:
    if path == "-":
        continue
    for folder, folders, files in ([("", [], [path])] if os.path.isfile(path) else os.walk(path)):
        for name in files:
            full = os.path.join(folder, name)
            try:
                if stat.S_ISREG(os.lstat(full).st_mode):
                    with open(full, "rb") as stream:
                        look(stream, full)
            except OSError:
                pass
"""


@pytest.fixture(scope="module")
def finder(node: Machine, settings: Settings) -> Iterator[Machine]:
    """Put the secrets and the finder into a folder that only root reads."""
    words = {key: value for key, value in settings.secrets.items() if key not in PUBLIC}
    password = settings.secrets["admin_password"]
    words["admin_password as HTTP sends it"] = base64.b64encode(f"admin:{password}".encode()).decode()
    node.run(f"install -d -m 0700 {WORDS}")
    node.write(f"{WORDS}/words", json.dumps(words))
    node.write(f"{WORDS}/lines", "".join(f"{word}\n" for word in words.values()))
    node.write(f"{WORDS}/find.py", FINDER)
    yield node
    node.run(f"rm -rf {WORDS}")


def test_finder_finds(finder: Machine) -> None:
    """The tests below would see a secret."""
    finder.run(f"mkdir -p {WORDS}/sample && cp {WORDS}/words {WORDS}/sample/")
    assert "admin_password" in finder.run(f"python3 {WORDS}/find.py {WORDS}/sample")
    assert "admin_password" in finder.run(f"python3 {WORDS}/find.py - < {WORDS}/words")


def test_journal_holds_no_secret(finder: Machine) -> None:
    """No field of any entry."""
    assert finder.run(f"journalctl --quiet --no-pager --all --output=export | python3 {WORDS}/find.py -") == ""


def test_log_files_hold_no_secret(finder: Machine) -> None:
    """No file of any program; the journal's own files are read above."""
    assert finder.run(f"find /var/log -mindepth 1 -maxdepth 1 ! -name journal -print0 | xargs -0 -r python3 {WORDS}/find.py") == ""


def test_readable_files_hold_no_secret(finder: Machine) -> None:
    """Nothing that nobody's account can read; a file with a word of the test's own is found."""
    mark = secrets.token_hex(20)
    finder.write(SAMPLE, f"before {mark} after", "0644")
    # Root reads the words before nobody seeks them; 2 says that some files could not be read.
    search = "LC_ALL=C setpriv --reuid=65534 --regid=65534 --clear-groups grep -r --text --fixed-strings --files-with-matches --no-messages --file=-"
    try:
        found = finder.run(f"cat {WORDS}/lines - | {search} {READABLE} || [ $? -eq 2 ]", stdin=mark)
    finally:
        finder.run(f"rm -f {SAMPLE}")
    assert found.split() == [SAMPLE]


def test_command_lines_held_no_secret(finder: Machine) -> None:
    """Not while the site was set up, and not since."""
    assert int(finder.run(f"wc -l < {COMMAND_LINES}")) > 100, "the sampler saw next to nothing"
    assert finder.run(f"python3 {WORDS}/find.py {COMMAND_LINES}") == ""


def test_environments_hold_no_secret(finder: Machine) -> None:
    """A process's environment is inherited by hooks, and shown by many a crash report."""
    assert finder.run(f"cat /proc/[0-9]*/environ 2>/dev/null | python3 {WORDS}/find.py -") == ""


def test_requests_leave_no_trace_of_what_is_secret_in_them(node: Machine, settings: Settings) -> None:
    """Query strings, credentials, cookies and referrers are in no log."""
    mark, path = f"mark{secrets.token_hex(12)}", f"/nothing-{secrets.token_hex(6)}"
    basic = base64.b64encode(f"admin:{mark}".encode()).decode()
    headers = {"Authorization": f"Basic {basic}", "Cookie": f"kallithea={mark}", "Referer": f"https://{settings.hostname}/?token={mark}", "X-Mark": mark}
    site = Site(settings)
    site.get(f"{path}?api_key={mark}", headers)
    site.get(f"{path}?api_key={mark}", headers, port=80)
    site.get(f"{path}?api_key={mark}", {"Host": f"{mark}.example.org", "User-Agent": "mark"})
    site.get(f"{path}?api_key={mark}", headers, port=settings.pools["ui"]["port"])
    wait_until("the path in the log", lambda: path in node.run("journalctl --quiet --lines=200 -o cat"))
    log = "journalctl --quiet --no-pager -o export; cat $(find /var/log -type f ! -path '*/journal/*')"
    assert node.try_run(f"({log}) | grep -a -F -e {mark[4:]} -e {basic} | grep -a -v -F {mark}.example.org").output == ""
