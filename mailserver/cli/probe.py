"""Does a listener answer properly? One short dialogue for each kind, with a deadline."""

from __future__ import annotations

import contextlib
import socket
import ssl
from typing import Any

SECONDS = 5.0


class NoAnswer(Exception):
    """The listener does not answer as it should; the text says how it fails."""


def listener(name: str, host: str, port: int) -> None:
    """Talks to one listener. NoAnswer."""
    try:
        with contextlib.ExitStack() as stack:
            sock: socket.socket = stack.enter_context(socket.create_connection((host, port), SECONDS))
            if name in ("submissions", "imaps", "https"):
                sock = stack.enter_context(_context().wrap_socket(sock, server_hostname="localhost"))
            _talk(name, sock)
    except (OSError, ValueError) as error:
        raise NoAnswer(f"{name} on {host}:{port}: {_reason(error)}") from error


def _context() -> ssl.SSLContext:
    """Any certificate will do here: the question is whether the server speaks TLS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _talk(name: str, sock: socket.socket) -> None:
    sock.settimeout(SECONDS)
    if name in ("http", "https"):
        sock.sendall(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        _expect(sock, b"HTTP/1.1 200")
    elif name in ("imap", "imaps"):
        _expect(sock, b"* OK")
        sock.sendall(b"a LOGOUT\r\n")
    else:
        _expect(sock, b"220")
        sock.sendall(b"QUIT\r\n")


def _expect(sock: socket.socket, begin: bytes) -> None:
    received = b""
    while len(received) < len(begin) or b"\n" not in received:
        piece = sock.recv(1000)
        if not piece or len(received) > 10_000:
            break
        received += piece
    if not received.startswith(begin):
        line = received.partition(b"\r\n")[0].decode(errors="replace")
        raise ValueError(f"it says {line[:100]!r}")


def _reason(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, ConnectionRefusedError):
        return "nobody listens"
    return str(error)


def addresses(server: dict[str, Any]) -> list[tuple[str, str, int]]:
    """Name, host and port of all listeners of a running server, by server.json."""
    loopback = {"0.0.0.0": "127.0.0.1", "::": "::1"}
    return [
        (name, loopback.get(host, host), int(port)) for host in server["host"] for name, port in server["ports"].items()
    ]
