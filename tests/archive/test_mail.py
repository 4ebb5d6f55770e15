"""An alarm goes out as a mail; against a server that speaks SMTP as RFC 5321 has it."""

from __future__ import annotations

import email
import email.policy
import socketserver
import threading
from collections.abc import Iterator

import pytest

from labctl.archive.sending import AppriseSender


class PostOffice(socketserver.ThreadingTCPServer):
    """Takes mail from anybody for everybody, but not for ``nobody``."""

    allow_reuse_address = True
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Conversation)
        self.mails: list[tuple[list[str], bytes]] = []

    def address(self, to: str) -> str:
        """Of apprise, for a mail to ``to`` by way of this server."""
        port = self.server_address[1]
        return (
            f"mailto://127.0.0.1:{port}/?smtp=127.0.0.1&mode=insecure"
            f"&from=labctl@lab.example&to={to}"
        )


class _Conversation(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        assert isinstance(self.server, PostOffice)
        recipients: list[str] = []
        self._say("220 lab.example")
        while line := self.rfile.readline():
            verb, _, rest = line.decode().strip().partition(" ")
            match verb.upper():
                case "EHLO" | "HELO" | "MAIL" | "RSET":
                    self._say("250 so be it")
                case "RCPT" if "nobody" in rest:
                    self._say("550 not here")
                case "RCPT":
                    recipients.append(rest.partition("<")[2].partition(">")[0])
                    self._say("250 known")
                case "DATA":
                    self._say("354 go on")
                    self.server.mails.append((recipients, self._text()))
                    self._say("250 taken")
                case "QUIT":
                    self._say("221 bye")
                    return
                case _:
                    self._say("502 what?")

    def _text(self) -> bytes:
        lines = []
        while (line := self.rfile.readline()) not in (b".\r\n", b""):
            lines.append(line.removeprefix(b".") if line.startswith(b"..") else line)
        return b"".join(lines)

    def _say(self, answer: str) -> None:
        self.wfile.write(f"{answer}\r\n".encode())


@pytest.fixture
def post_office() -> Iterator[PostOffice]:
    with PostOffice() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_a_mail_says_what_is_wrong(post_office: PostOffice) -> None:
    sender = AppriseSender(post_office.address("mia@lab.example"))
    said = "[7] high: temperature, cell HEV-5: 61.0 °C is above 60 °C."
    assert sender(title="labctl: temperature, cell HEV-5", body=said, priority="high") == ""
    [(recipients, text)] = post_office.mails
    assert recipients == ["mia@lab.example"]
    mail = email.message_from_bytes(text, policy=email.policy.default)
    assert mail["Subject"] == "labctl: temperature, cell HEV-5"
    body = mail.get_body(("plain", "html"))
    assert body is not None
    assert said in body.get_content()


def test_a_mail_that_is_refused_is_said_to_be(post_office: PostOffice) -> None:
    problem = AppriseSender(post_office.address("nobody@lab.example"))(
        title="labctl: test", body="?", priority="low"
    )
    assert problem
    assert post_office.mails == []
