"""`pillarbox admin queue`, as people and programs see it."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from mailserver.cli import acting
from tests.cli.conftest import Admin, AdminJson

FIRST, SECOND = 1873904172384951001, 1873904172384951002
ROOT = Path(__file__).parents[2]

_MESSAGE = """
INSERT INTO queue_messages (account_id, queue_id, trace_id, reverse_path, body, open, created_at)
VALUES (7, $1, '00000000-0000-0000-0000-000000000001', $2, '7BIT', $3, now() - interval '3 hours')
"""
_OCTETS = """
INSERT INTO messages (account_id, message_id, trace_id, header_prefix, size, header_octets, envelope, bodystructure,
    thread_id, sent, preview, created)
VALUES (7, $1, gen_random_uuid(), '', 2048, 0, '', '', 1, 1, 'Dear all', 1)
"""
_RECIPIENT = """
INSERT INTO queue_recipients (account_id, queue_id, recipient, destination, state, attempts, next_attempt_at,
    last_code, last_status, last_text, last_host, last_attempt)
VALUES (7, $1, $2, $3, 'waiting', 2, now() + interval '10 minutes', 451, '4.7.1', 'greylisted', 'mx.test',
    now() - interval '5 minutes')
"""


async def fill(database: str) -> None:
    conn = await asyncpg.connect(database)
    for queue_id, sender, names in ((FIRST, "alice@example.org", ("a.test", "b.test")), (SECOND, "", ("b.test",))):
        await conn.execute(_MESSAGE, queue_id, sender, len(names))
        await conn.execute(_OCTETS, queue_id)
        for name in names:
            await conn.execute(_RECIPIENT, queue_id, f"x@{name}", name)
    await conn.close()


@pytest.fixture(autouse=True)
def _filled(database: str) -> None:
    asyncio.run(fill(database))


def said(admin: Admin, *words: str) -> str:
    """The output of a command that must succeed and complain of nothing."""
    result = admin("queue", *words)
    assert (result.exit_code, result.stderr) == (0, ""), result.output
    return result.stdout


def test_the_queue_from_beginning_to_end(admin: Admin) -> None:
    steps = [
        (("hold", str(FIRST)), "2 recipients held.\n"),
        (("hold", "--destination", "b.test"), "1 recipient held. 1 recipient left as it was.\n"),
        (("release", "--state", "held", "--sender", "alice@example.org"), "2 recipients released, and due now.\n"),
        (("retry", "--all"), "3 recipients due now.\n"),
        (("retry", "--destination", "*.nowhere.test"), "No recipient matches; nothing was changed.\n"),
        (
            ("drop", str(FIRST), "--recipient", "x@a.test", "--notify"),
            "1 recipient dropped, and senders are told.\n",
        ),
        (("drop", "--sender", "<>", "--yes"), "1 recipient dropped, and nobody is told.\n"),
        (("drop", "--all", "--older-than", "2h", "--yes"), "2 recipients dropped, and nobody is told.\n"),
        (("list",), "none\n"),
    ]
    for words, output in steps:
        assert said(admin, *words) == output, words


def test_the_list(admin: Admin, admin_json: AdminJson) -> None:
    head, *lines = said(admin, "list", "--destination", "b.test").splitlines()
    assert head.split("  ")[0] == "QUEUE ID" and len(lines) == 2
    assert re.fullmatch(
        rf"{FIRST}  3 h  2\.0 KiB  waiting  2 +in \d+ min +<alice@example\.org>  x@b\.test  451 4\.7\.1 greylisted",
        lines[0],
    )
    value = admin_json("queue", "list", "--sender", "<>")
    (one,) = value["recipients"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", one.pop("created"))
    assert one.pop("next_attempt") and one.pop("last_attempt")
    assert one == {
        "queue_id": str(SECOND),
        "account_id": 7,
        "sender": "",
        "recipient": "x@b.test",
        "destination": "b.test",
        "state": "waiting",
        "attempts": 2,
        "size": 2048,
        "leased_until": None,
        "last_reply": {"code": 451, "status": "4.7.1", "text": "greylisted", "host": "mx.test"},
        "report_owed": None,
        "told_of_delay": False,
    }
    assert value["after"] is None


def test_a_long_list_goes_on(admin: Admin, admin_json: AdminJson) -> None:
    result = admin("queue", "list", "--limit", "2")
    assert result.exit_code == 0 and len(result.stdout.splitlines()) == 3
    found = re.search(r"--after '(.+)'", result.stderr)
    assert found is not None
    rest = admin_json("queue", "list", "--after", found[1])
    assert [one["queue_id"] for one in rest["recipients"]] == [str(SECOND)]


def test_one_message(admin: Admin, admin_json: AdminJson) -> None:
    text = said(admin, "show", str(FIRST))
    for line in (
        f"Queue id {FIRST}",
        r"  from         <alice@example.org>",
        r"  begins with  Dear all",
        r"  to           x@a.test: waiting, 2 attempts, next in \d+ min",
        r"               451 4.7.1 greylisted \(mx.test 5 min ago\)",
    ):
        assert re.search(f"(?m)^{line}$", text), text
    value = admin_json("queue", "show", str(FIRST))
    assert (value["queue_id"], len(value["recipients"]), value["done"]) == (str(FIRST), 2, None)


def test_the_summary(admin: Admin, admin_json: AdminJson) -> None:
    lines = said(admin, "top", "--once", "--limit", "1").splitlines()
    assert [line.split()[0] for line in lines] == ["DESTINATION", "b.test", "(1", "total"]
    assert lines[1].split()[1:5] == ["2", "0", "0", "0"] and lines[1].endswith("451 4.7.1 greylisted")
    value = admin_json("queue", "top")
    assert [one["destination"] for one in value["destinations"]] == ["b.test", "a.test"]
    assert (value["total"]["waiting"], value["all_destinations"]) == (3, 2)


def test_a_program_learns_what_was_done(admin_json: AdminJson) -> None:
    assert admin_json("queue", "hold", "--destination", "b.test") == {"matched": 2, "changed": 2}
    assert admin_json("queue", "hold", "--all") == {"matched": 3, "changed": 1}


@pytest.mark.parametrize(
    ("words", "status", "complaint"),
    [
        (("show", "5"), 1, "queue id 5 does not exist"),
        (("hold", "5"), 1, "queue id 5 does not exist"),
        (("retry", str(FIRST), "--recipient", "y@a.test"), 1, f"queue id {FIRST} has no such recipient"),
        (("retry",), 1, "say which: a queue id, a filter, or all of them"),
        (("drop", "--yes"), 1, "say which: a queue id, a filter, or all of them"),
        (("drop", "--all"), 1, "this may drop many messages: look with `list` first, then say --yes"),
        (("list", "--account", "nobody"), 1, "the account nobody does not exist"),
        (("list", "--destination", "a b"), 1, "a b is not a domain name"),
        (("list", "--after", "there"), 1, "this is not what a page before has said"),
        (("top",), 1, "there is no terminal to show it on: use --once or --json"),
        (("list", "--older-than", "soon"), 2, "'soon' is no age such as 90s, 15m, 2h, 3d or 1w"),
        (("list", "--state", "lost"), 2, "'lost' is not one of"),
        (("show", "abc"), 2, "Invalid value for 'ID': Input should be a valid integer"),
        (("show", "-5"), 2, "No such option"),
    ],
)
def test_complaints_say_what_to_do(admin: Admin, words: tuple[str, ...], status: int, complaint: str) -> None:
    result = admin("queue", *words)
    flat = " ".join(re.sub(r"[│╭╰─╮╯]", " ", result.stderr).split())
    assert result.exit_code == status and result.stdout == "", result.output
    assert complaint in flat, flat
    assert said(admin, "list").count("waiting") == 3


def test_a_complaint_for_a_program(admin: Admin) -> None:
    result = admin("queue", "drop", "--all", "--json")
    assert json.loads(result.stderr)["field"] == "yes" and result.exit_code == 1


@pytest.mark.parametrize(("answer", "status", "left"), [("y\n", 0, 1), ("n\n", 1, 3), ("", 1, 3)])
def test_on_a_terminal_it_is_asked(
    admin: Admin, monkeypatch: pytest.MonkeyPatch, answer: str, status: int, left: int
) -> None:
    monkeypatch.setattr(acting, "is_terminal", lambda: True)
    monkeypatch.setattr("mailserver.cli.admin_queue.is_terminal", lambda: True)
    result = admin("queue", "drop", "--destination", "b.test", stdin=answer)
    assert result.exit_code == status
    assert "Drop 2 recipients from the queue, and nobody is told?" in result.stdout
    assert said(admin, "list").count("waiting") == left


def test_long_work_says_how_far_it_is(admin: Admin, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(acting, "LINE_SECONDS", -1.0)
    result = admin("queue", "hold", "--all")
    assert (result.exit_code, result.stderr) == (0, "3 of 3 recipients done\n")


def test_the_live_view_ends_with_ctrl_c(database: str, tmp_path: Path) -> None:
    """On a terminal of its own, as a program of its own."""
    master, slave = pty.openpty()
    environment = {**os.environ, "PILLARBOX_STORAGE__POSTGRES": database, "PYTHONPATH": str(ROOT), "TERM": "xterm"}
    words = [sys.executable, "-m", "mailserver.cli.main", "--data", str(tmp_path / "d"), "admin", "queue", "top"]
    with subprocess.Popen(words, stdin=slave, stdout=slave, stderr=slave, env=environment, cwd=ROOT) as program:
        os.close(slave)
        seen = _read_until(master, b"b.test")
        program.send_signal(signal.SIGINT)
        _read_until(master, b"\x1b[?1049l")  # the screen of before is back
        status: Any = program.wait(30)
    os.close(master)
    assert b"DESTINATION" in seen and status == 0


def _read_until(master: int, wanted: bytes) -> bytes:
    seen = b""
    deadline = time.monotonic() + 60
    while wanted not in seen and time.monotonic() < deadline:
        seen += os.read(master, 65_536)
    assert wanted in seen
    return seen
