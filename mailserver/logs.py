"""The log: lines on standard error, JSON for machines or plain text for people, one line for a transaction.

Both structlog's loggers (`structlog.get_logger().info("delivered", trace=…, recipients=2)`) and the standard library's
end here. Lines are gathered and written together, at the latest after FLUSH_SECONDS; a warning takes everything before
it along at once. What a line holds is chosen where it is made: never a password, a key, or the text of a message.
Values of type Secret print as ***.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
import time
import traceback
from collections.abc import Mapping, MutableMapping
from typing import Any, Literal

import structlog

FLUSH_SECONDS = 0.1
FLUSH_OCTETS = 32 * 1024
# A write of this size to a pipe is not torn apart by those of other processes (POSIX write, PIPE_BUF).
ATOMIC_OCTETS = 4096

_JSON = json.JSONEncoder(ensure_ascii=False, default=str, separators=(",", ":"))

Format = Literal["auto", "console", "json"]

_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
_URGENT = frozenset({"warning", "error", "critical", "exception"})


class Writer:
    """Gathers lines and writes them to a descriptor. Without a loop each line is written at once."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._lines: list[bytes] = []
        self._octets = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None

    def attach(self, loop: asyncio.AbstractEventLoop | None) -> None:
        """From now on lines may wait for each other in this loop; None: no more."""
        self.flush()
        self._loop = loop

    def write(self, line: str, *, urgent: bool) -> None:
        octets = line.encode("utf-8", "backslashreplace") + b"\n"
        self._lines.append(octets)
        self._octets += len(octets)
        if urgent or self._loop is None or self._octets >= FLUSH_OCTETS:
            self.flush()
        elif self._timer is None:
            try:
                self._loop.call_soon_threadsafe(self._start_timer)
            except RuntimeError:  # the loop is closed
                self.flush()

    def _start_timer(self) -> None:
        if self._timer is None and self._loop is not None and self._lines:
            self._timer = self._loop.call_later(FLUSH_SECONDS, self.flush)

    def flush(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        lines, self._lines, self._octets = self._lines, [], 0
        piece: list[bytes] = []
        size = 0
        for line in lines:
            if size + len(line) > ATOMIC_OCTETS and piece:
                self._put(b"".join(piece))
                piece, size = [], 0
            piece.append(line)
            size += len(line)
        if piece:
            self._put(b"".join(piece))

    def _put(self, octets: bytes) -> None:
        view = memoryview(octets)
        try:
            while view:
                view = view[os.write(self._descriptor, view) :]
        except OSError:
            pass  # nobody reads our log any more; that must not stop the mail


class _Rendered:
    """structlog's logger: what the chain made goes to the writer."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer

    def msg(self, line: str, urgent: bool) -> None:
        self._writer.write(line, urgent=urgent)

    debug = info = warning = error = critical = exception = fatal = log = msg


class _Lines:
    """Makes a line of an event; the last step of structlog's chain and the formatter of the standard library's."""

    def __init__(self, kind: Literal["console", "json"], fields: Mapping[str, object]) -> None:
        self._json = kind == "json"
        self._fields = dict(fields)
        self._second = 0
        self._stamp = ""

    def __call__(
        self, logger: object, method: str, event: MutableMapping[str, Any]
    ) -> tuple[tuple[str, bool], dict[str, Any]]:
        text = str(event.pop("event", ""))
        failure = event.pop("exc_info", None)
        if failure:
            event["traceback"] = _traceback(failure)
        level = "error" if method == "exception" else method
        return (self.line(level, text, event), level in _URGENT), {}

    def line(self, level: str, text: str, fields: Mapping[str, object]) -> str:
        if self._json:
            whole = {"time": self._now() + "Z", "level": level, "event": text, **self._fields, **fields}
            return _JSON.encode(whole)
        shown = " ".join(f"{name}={_shown(value)}" for name, value in (*self._fields.items(), *fields.items()))
        lines = str(fields["traceback"]) if "traceback" in fields else ""
        if lines:
            shown = " ".join(f"{name}={_shown(value)}" for name, value in fields.items() if name != "traceback")
        return f"{self._now()[11:]} {level:<7} {_one_line(text)}{'  ' if shown else ''}{shown}" + (
            f"\n{lines}" if lines else ""
        )

    def _now(self) -> str:
        now = time.time()
        second = int(now)
        if second != self._second:
            self._second = second
            self._stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
        return f"{self._stamp}.{int((now - second) * 1000):03d}"


class _Handler(logging.Handler):
    """The standard library's records."""

    def __init__(self, writer: Writer, lines: _Lines) -> None:
        super().__init__()
        self._writer = writer
        self._lines = lines

    def emit(self, record: logging.LogRecord) -> None:
        try:
            fields: dict[str, object] = {"logger": record.name}
            if record.exc_info and record.exc_info[1] is not None:
                fields["traceback"] = _traceback(record.exc_info)
            level = record.levelname.lower()
            self._writer.write(self._lines.line(level, record.getMessage(), fields), urgent=level in _URGENT)
        except Exception:
            self.handleError(record)


_writer = Writer(2)


def configure(level: str, kind: Format, **fields: object) -> None:
    """Sends all logs of this process to standard error; fields go into every line. May be called again."""
    _writer.flush()
    if kind == "auto":
        kind = "console" if sys.stderr is not None and sys.stderr.isatty() else "json"
    lines = _Lines(kind, fields)
    number = _LEVELS[level]
    structlog.configure(
        processors=[structlog.contextvars.merge_contextvars, lines],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=lambda *_: _Rendered(_writer),
        cache_logger_on_first_use=False,
    )
    root = logging.getLogger()
    root.handlers[:] = [_Handler(_writer, lines)]
    root.setLevel(number)
    # None of these is part of a line, and finding them out costs more than the rest (logging HOWTO, "Optimization").
    logging._srcfile = None
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    if sys.version_info >= (3, 12):
        logging.logAsyncioTasks = False
    for noisy in ("asyncio", "mail.log"):  # mail.log is aiosmtpd's, a line for every command
        logging.getLogger(noisy).setLevel(max(number, logging.WARNING))


def attach(loop: asyncio.AbstractEventLoop | None) -> None:
    """Lets lines gather while this loop runs."""
    _writer.attach(loop)


def flush() -> None:
    """Writes what has been gathered."""
    _writer.flush()


def _traceback(failure: object) -> str:
    if failure is True:
        failure = sys.exc_info()
    elif isinstance(failure, BaseException):
        failure = (type(failure), failure, failure.__traceback__)
    if not isinstance(failure, tuple) or failure[0] is None:
        return ""
    return "\n".join(map(_one_line, "".join(traceback.format_exception(*failure)).rstrip().split("\n")))


def _shown(value: object) -> str:
    text = str(value)
    plain = text and text.isprintable() and not any(c in text for c in ' "=')
    return text if plain else json.dumps(text, ensure_ascii=not text.isprintable())


def _one_line(text: str) -> str:
    """What came from a peer must neither make lines nor steer a terminal."""
    return text if text.isprintable() else json.dumps(text)[1:-1]
