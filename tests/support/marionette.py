"""Drives a Mozilla program from outside: Marionette, its remote protocol, as far as running scripts needs it.

Started with `--marionette --remote-allow-system-access`, the program writes the port it listens on into its profile.
Each message is `LENGTH:JSON` over TCP; a command is `[0, id, name, parameters]`, its answer `[1, id, error, result]`.
"""

from __future__ import annotations

import itertools
import json
import socket
from pathlib import Path
from typing import Any

HOST = "127.0.0.1"
PORT_FILE = "MarionetteActivePort"

# A script runs as an async function; what it throws comes back as text, since Marionette itself loses the trace.
_WRAPPED = """
const [args, done] = arguments;
(async () => {{
{script}
}})().then(value => done({{ value }}), error => done({{ error: `${{error}}\\n${{error?.stack}}` }}));
"""


class ScriptFailed(Exception):
    """What the script threw, with its trace."""


class Marionette:
    """A session with the privileges of the program itself ("chrome")."""

    def __init__(self, port: int, seconds: float) -> None:
        """seconds: how long a script may take."""
        self._numbers = itertools.count(1)
        self._buffer = b""
        self._socket = socket.create_connection((HOST, port), timeout=seconds + 10)
        self._read()  # the greeting
        # Questions that the program asks meanwhile are answered with yes.
        self._command("WebDriver:NewSession", unhandledPromptBehavior="accept")
        self._command("Marionette:SetContext", value="chrome")
        self._command("WebDriver:SetTimeouts", script=int(seconds * 1000))

    def run(self, script: str, *args: Any) -> Any:
        """What an async JavaScript function with this body returns; its `args` are these. JSON both ways."""
        answer = self._command(
            "WebDriver:ExecuteAsyncScript",
            script=_WRAPPED.format(script=script),
            args=[list(args)],
            sandbox="system",
            newSandbox=False,  # what a script leaves in globalThis is there for the next
        )["value"]
        answer = answer or {}  # empty when a question came up
        if "error" in answer:
            raise ScriptFailed(answer["error"])
        return answer.get("value")

    def close(self) -> None:
        self._socket.close()

    def _command(self, name: str, **parameters: Any) -> Any:
        message = json.dumps([0, next(self._numbers), name, parameters]).encode()
        self._socket.sendall(b"%d:%s" % (len(message), message))
        _, _, error, result = self._read()
        if error:
            raise ScriptFailed(f"{name}: {error['error']}: {error['message']}\n{error.get('stacktrace', '')}")
        return result

    def _read(self) -> Any:
        while b":" not in self._buffer:
            self._receive()
        length, _, self._buffer = self._buffer.partition(b":")
        while len(self._buffer) < int(length):
            self._receive()
        message, self._buffer = self._buffer[: int(length)], self._buffer[int(length) :]
        return json.loads(message)

    def _receive(self) -> None:
        octets = self._socket.recv(65536)
        if not octets:
            raise ConnectionError("the program has ended")
        self._buffer += octets


def port_of(profile: Path) -> int | None:
    """Where the program that uses this profile listens; None: not yet."""
    try:
        return int((profile / PORT_FILE).read_text())
    except (FileNotFoundError, ValueError):
        return None
