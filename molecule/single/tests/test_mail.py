"""Mail leaves the cluster through the configured server, made by Celery, with addresses that lead back to the site."""

from __future__ import annotations

import email
import email.policy
import secrets
from collections.abc import Iterator

import pytest
from machines import Machine, wait_until
from settings import Settings
from web import Site

FOLDER = "/run/test-mail"
# As much of SMTP as a client needs to hand over a message; each message becomes a file.
SINK = r"""
import os, socketserver, sys
class Handler(socketserver.StreamRequestHandler):
    def say(self, text):
        self.wfile.write(text.encode() + b"\r\n")
    def handle(self):
        self.say("220 sink")
        while line := self.rfile.readline():
            word = line.split(b" ")[0].strip().upper()
            if word == b"DATA":
                self.say("354 go on")
                lines = []
                while (line := self.rfile.readline()) not in (b".\r\n", b""):
                    lines.append(line[1:] if line.startswith(b".") else line)
                name = f"{sys.argv[2]}/{len(os.listdir(sys.argv[2]))}"
                with open(name + ".part", "wb") as target:
                    target.write(b"".join(lines))
                os.rename(name + ".part", name + ".eml")
                self.say("250 taken")
            elif word == b"QUIT":
                self.say("221 bye")
                return
            else:
                self.say("250 sink")
socketserver.ThreadingTCPServer.allow_reuse_address = True
socketserver.ThreadingTCPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


@pytest.fixture(scope="module")
def sink(node: Machine, settings: Settings) -> Iterator[Machine]:
    """Run a mail server on the host that keeps what it gets."""
    assert settings.mail.get("server"), "the scenario's inventory names no mail server in kallithea_app_mail"
    node.run(f"install -d -m 0700 {FOLDER}")
    node.write("/run/test-sink.py", SINK)
    node.start("test-sink", f"exec python3 /run/test-sink.py {settings.mail['port']} {FOLDER}", 120)
    wait_until("the sink listening", lambda: node.host.socket(f"tcp://127.0.0.1:{settings.mail['port']}").is_listening)
    yield node
    node.stop("test-sink")
    node.run(f"rm -rf {FOLDER} /run/test-sink.py")


def messages(sink: Machine, recipient: str) -> list[email.message.EmailMessage]:
    """Return the messages to a recipient that have come so far."""
    texts = sink.run(f"for f in {FOLDER}/*.eml; do [ -e $f ] && cat $f && printf '\\f'; done; true").split("\f")
    found = [email.message_from_string(text.lstrip("\n"), policy=email.policy.default) for text in texts if text.strip()]
    return [message for message in found if recipient in (message["To"] or "")]


def test_reset_mail_arrives_and_leads_home(sink: Machine, site: Site, settings: Settings) -> None:
    """Who asks for a new password with a forged Host gets a mail from the site's address with a link to the site's name."""
    user = f"mail{secrets.token_hex(4)}"
    recipient = f"{user}@localhost.test"
    made = site.call("create_user", username=user, email=recipient, password=secrets.token_hex(12))["user"]
    try:
        stranger = Site(settings)
        forged = {"X-Forwarded-Host": "evil.example.org", "Referer": "https://evil.example.org/"}
        answer = stranger.post("/_admin/password_reset", {"email": recipient}, forged)
        assert answer.status == 302, f"the form was answered {answer.status}"
        message = wait_until("the mail", lambda: messages(sink, recipient), 20)[0]
        assert settings.mail["from"] in message["From"]
        body = message.get_body(("plain", "html"))
        assert body is not None
        text = body.get_content()
        assert f"https://{settings.hostname}/_admin/password_reset_confirmation" in text
        assert "evil" not in text
    finally:
        site.call("delete_user", userid=made["user_id"])
