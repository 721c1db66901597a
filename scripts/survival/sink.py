"""The server elsewhere: takes all mail (RFC 5321, with PIPELINING and 8BITMIME), and writes down what it has accepted
before it says so. It lives in a thread of this process, so no fault reaches it."""

from __future__ import annotations

import asyncio
import socket
import threading

from survival.ledger import Ledger
from survival.octets import attempt_of, is_exact, message

_LONGEST = 4 * 1024 * 1024
_SECONDS = 30
_EHLO = b"250-sink.remote.test\r\n250-PIPELINING\r\n250 8BITMIME\r\n"
_REPLIES = {b"EHLO": _EHLO, b"QUIT": b"221 Bye\r\n", b"DATA": b"354 Go on\r\n"}


class Sink:
    """port: where it listens on loopback, from the beginning; it answers between start and stop."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._socket = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.port: int = self._socket.getsockname()[1]
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._server: asyncio.Server | None = None

    def start(self) -> None:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._start(), self._loop).result(_SECONDS)

    async def _start(self) -> None:
        self._server = await asyncio.start_server(self._serve, sock=self._socket, limit=_LONGEST)

    def stop(self) -> None:
        if self._thread.is_alive():
            asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result(_SECONDS)
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(_SECONDS)
        self._socket.close()
        self._loop.close()

    async def _stop(self) -> None:
        if self._server is not None:
            self._server.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Nobody is asked for the right order: the client is our own."""
        try:
            writer.write(b"220 sink.remote.test\r\n")
            to: list[str] = []
            while line := await reader.readline():
                word = line[:4].upper().rstrip()
                if word == b"MAIL":
                    to = []
                elif word == b"RCPT":
                    to.append(line.partition(b"<")[2].partition(b">")[0].decode())
                writer.write(_REPLIES.get(word, b"250 Yes\r\n"))
                if word == b"DATA":
                    self._take((await reader.readuntil(b"\r\n.\r\n"))[:-3], to)
                    writer.write(b"250 Taken\r\n")
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, asyncio.CancelledError):
            pass  # what has not come whole was not accepted
        finally:
            writer.close()

    def _take(self, dotted: bytes, to: list[str]) -> None:
        octets = dotted.removeprefix(b".").replace(b"\r\n..", b"\r\n.")  # RFC 5321 §4.5.2
        number = attempt_of(octets)
        attempt = None if number is None else self._ledger.attempts.get(number)
        if attempt is None:
            self._ledger.surprise(f"a message that no attempt has sent came to {', '.join(to)}: {octets[:300]!r}")
        else:
            sent = message(self._ledger.seed, attempt.number, attempt.sender)
            self._ledger.arrived_elsewhere(attempt.number, to, is_exact(octets, sent, appended=False))
