"""The SMTP client: one process a session, blocking sockets, nothing parsed beyond the reply codes.

A session sends its share one message after another, with a connection each or with one for all. It waits for each reply
before the next command, like most sending servers.
"""

from __future__ import annotations

import base64
import socket
from dataclasses import dataclass

from benchmark.errors import BenchError
from benchmark.messages import Template
from benchmark.parallel import Done, Work, run_together
from benchmark.ports import LOOPBACK


@dataclass(frozen=True, slots=True)
class Load:
    """What is to be sent. recipients, templates, senders: by turns, one a session.

    password: with which each sender logs in, "" for no AUTH.
    """

    port: int
    recipients: tuple[str, ...]
    templates: tuple[Template, ...]
    messages: int
    sessions: int
    reuse: bool = False
    seconds: float = 120.0
    first_number: int = 0
    senders: tuple[str, ...] = ("sender@example.org",)
    password: str = ""


def expected(load: Load) -> dict[str, int]:
    """How many messages each recipient gets."""
    counts = dict.fromkeys(load.recipients, 0)
    for session in range(load.sessions):
        counts[_recipient(load, session)] += len(_share(load, session))
    return counts


def send(load: Load, on_start: Work) -> Done:
    """Send it all; raise BenchError when one message was not accepted in time."""
    return run_together(load.sessions, lambda session: _session(load, session), load.seconds, on_start)


def _session(load: Load, session: int) -> Work:
    return lambda: _send_share(load, session)


def _recipient(load: Load, session: int) -> str:
    return load.recipients[session % len(load.recipients)]


def _share(load: Load, session: int) -> range:
    return range(load.messages * session // load.sessions, load.messages * (session + 1) // load.sessions)


def _send_share(load: Load, session: int) -> None:
    recipient = _recipient(load, session).encode()
    sender = load.senders[session % len(load.senders)]
    template = load.templates[session % len(load.templates)]
    login = (sender, load.password) if load.password else None
    client: Client | None = None
    for number in _share(load, session):
        client = client or Client(load.port, load.seconds, login)
        client.send(sender.encode(), recipient, template.numbered(load.first_number + number))
        if not load.reuse:
            client.quit()
            client = None
    if client is not None:
        client.quit()


class Client:
    """One SMTP connection that has said EHLO, and AUTH PLAIN (RFC 4616) where a login is given."""

    def __init__(self, port: int, seconds: float, login: tuple[str, str] | None = None) -> None:
        self._socket = socket.create_connection((LOOPBACK, port), timeout=seconds)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._expect(b"220")
        self._command(b"EHLO bench.example.org\r\n", b"250")
        if login is not None:
            response = base64.b64encode("\0".join(("", *login)).encode())
            self._command(b"AUTH PLAIN " + response + b"\r\n", b"235")

    def send(self, sender: bytes, recipient: bytes, message: bytes) -> None:
        """One message, which must have no line that begins with a dot and must end with a line end."""
        self._command(b"MAIL FROM:<%b>\r\n" % sender, b"250")
        self._command(b"RCPT TO:<%b>\r\n" % recipient, b"250")
        self._command(b"DATA\r\n", b"354")
        self._command(message + b".\r\n", b"250")

    def quit(self) -> None:
        self._command(b"QUIT\r\n", b"221")
        self._socket.close()

    def _command(self, octets: bytes, wanted: bytes) -> None:
        self._socket.sendall(octets)
        self._expect(wanted)

    def _expect(self, wanted: bytes) -> None:
        """Read one reply, of several lines perhaps."""
        reply = b""
        while not _is_whole(reply):
            chunk = self._socket.recv(4096)
            if not chunk:
                raise BenchError(f"connection closed instead of {wanted.decode()}")
            reply += chunk
        if not reply.startswith(wanted):
            raise BenchError(f"{reply.decode(errors='replace').strip()!r} instead of {wanted.decode()}")


def _is_whole(reply: bytes) -> bool:
    """RFC 5321 §4.2.1: the last line of a reply has a space, or nothing, after its code."""
    if not reply.endswith(b"\r\n"):
        return False
    last = reply[reply.rfind(b"\r\n", 0, -2) + 2 if b"\r\n" in reply[:-2] else 0 :]
    return last[3:4] != b"-"
