"""The log: whole lines, both kinds of loggers, nothing secret, nothing lost at a warning."""

from __future__ import annotations

import asyncio
import json
import logging
import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import structlog

from config.secret import Secret
from mailserver import logs

Read = Callable[[], list[str]]


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> Iterator[Read]:
    """What has been written so far."""
    read_end, write_end = os.pipe()
    os.set_blocking(read_end, False)
    root = logging.getLogger()
    before = (list(root.handlers), root.level)
    writer = logs.Writer(write_end)
    monkeypatch.setattr(logs, "_writer", writer)

    def read() -> list[str]:
        try:
            return os.read(read_end, 1_000_000).decode().splitlines()
        except BlockingIOError:
            return []

    yield read
    writer.attach(None)
    root.handlers[:], root.level = before[0], before[1]
    structlog.reset_defaults()
    os.close(read_end)
    os.close(write_end)


def parsed(lines: Read) -> list[dict[str, Any]]:
    return [json.loads(line) for line in lines()]


def test_json_lines_of_both_loggers(lines: Read) -> None:
    logs.configure("info", "json", worker=3)
    structlog.get_logger().info("accepted", trace="abc", size=12)
    logging.getLogger("part").warning("slow peer=%s", "1.2.3.4")
    one, two = parsed(lines)
    assert (one["event"], one["trace"], one["size"], one["worker"], one["level"]) == ("accepted", "abc", 12, 3, "info")
    assert (two["event"], two["logger"], two["level"]) == ("slow peer=1.2.3.4", "part", "warning")
    assert one["time"].endswith("Z") and len(one["time"]) == len("2026-01-01T00:00:00.000Z")


def test_console_lines(lines: Read) -> None:
    logs.configure("info", "console", worker=1)
    structlog.get_logger().info("accepted", subject="two words", empty="")
    (line,) = lines()
    assert line.endswith('info    accepted  worker=1 subject="two words" empty=""')


@pytest.mark.parametrize("kind", ["json", "console"])
def test_what_a_peer_sends_cannot_make_lines(lines: Read, kind: Any) -> None:
    logs.configure("info", kind)
    structlog.get_logger().info("refused", name='x"\n{"event":"forged"}\r\x1b[2J')
    structlog.get_logger().info("refused", name="\x1b[2J")
    logging.getLogger("part").info("refused %s", "a\nb\x1b[2J")
    found = lines()
    assert len(found) == 3 and not any("\x1b" in line for line in found)


def test_levels(lines: Read) -> None:
    logs.configure("warning", "json")
    structlog.get_logger().info("no")
    logging.getLogger("part").info("no")
    logging.getLogger("part").error("yes")
    assert [line["event"] for line in parsed(lines)] == ["yes"]


@pytest.mark.parametrize("kind", ["json", "console"])
def test_tracebacks(lines: Read, kind: Any) -> None:
    logs.configure("info", kind)
    try:
        raise ValueError("deep inside")
    except ValueError as error:
        logging.getLogger("part").exception("fault")
        structlog.get_logger().exception("fault")
        structlog.get_logger().error("fault", exc_info=error)
    text = "\n".join(lines())
    assert text.count("ValueError: deep inside") == 3 and text.count("Traceback") == 3


def test_secrets_are_hidden(lines: Read) -> None:
    logs.configure("debug", "json")
    structlog.get_logger().info("settings", password=Secret("hunter2"))
    logging.getLogger("part").info("dsn=%s", Secret("hunter2"))
    text = "\n".join(lines())
    assert "hunter2" not in text and text.count("***") == 2


async def test_lines_gather_and_a_warning_takes_them_along(lines: Read) -> None:
    logs.configure("info", "json")
    logs.attach(asyncio.get_running_loop())
    log = structlog.get_logger()
    log.info("one")
    assert lines() == []
    log.warning("two")
    assert [line["event"] for line in parsed(lines)] == ["one", "two"]
    log.info("three")
    await asyncio.sleep(logs.FLUSH_SECONDS * 3)
    assert [line["event"] for line in parsed(lines)] == ["three"]
    log.info("four")
    logs.flush()
    assert [line["event"] for line in parsed(lines)] == ["four"]


async def test_lines_from_threads(lines: Read) -> None:
    logs.configure("info", "json")
    logs.attach(asyncio.get_running_loop())
    await asyncio.gather(*(asyncio.to_thread(structlog.get_logger().info, "x", n=n) for n in range(20)))
    await asyncio.sleep(logs.FLUSH_SECONDS * 3)
    assert sorted(line["n"] for line in parsed(lines)) == list(range(20))


def test_writes_to_a_pipe_are_whole_lines_of_at_most_its_atomic_size(
    lines: Read, monkeypatch: pytest.MonkeyPatch
) -> None:
    writes: list[bytes] = []

    def write(descriptor: int, data: Any) -> int:
        writes.append(bytes(data))
        return len(data)

    writer = logs.Writer(2)
    monkeypatch.setattr(logs.os, "write", write)
    writer._loop = asyncio.new_event_loop()
    for n in range(300):
        writer.write(f"{n} " + "x" * 100, urgent=False)
    writer.flush()
    writer._loop.close()
    assert len(writes) > 1
    assert all(len(piece) <= logs.ATOMIC_OCTETS and piece.endswith(b"\n") for piece in writes)
    assert b"".join(writes).count(b"\n") == 300


def test_nobody_reads_the_log(monkeypatch: pytest.MonkeyPatch) -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    logs.Writer(write_end).write("lost", urgent=True)
    os.close(write_end)
