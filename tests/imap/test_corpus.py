"""The whole corpus of awkward messages by FETCH: every answer of it as octets on the wire."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import pytest

from tests.imap.conftest import PATIENCE, Client, Server
from tests.imap.mail import put_octets
from tests.message import generated
from tests.message.corpus_reader import all_cases
from tests.message.imap_reader import Reader

CASES = all_cases() + generated.cases()


class Answer(Reader):
    """One FETCH response, strictly read (RFC 3501 §7.4.2, RFC 3516 §4.4 for literal8)."""

    def items(self, number: int) -> dict[str, Any]:
        self.expect(b"* %d FETCH (" % number)
        found: dict[str, Any] = {}
        while True:
            label = re.compile(rb"BODY\[[^\]]*\](?:<\d+>)?|[A-Z]+").match(self.text, self.at)
            assert label, self.fail("an item")
            self.at = label.end()
            self.expect(b" ")
            name = label[0].decode()
            found[name] = self.value(name)
            if self.accept(b")\r\n"):
                assert self.at == len(self.text)
                return found
            self.expect(b" ")

    def value(self, name: str) -> Any:
        if name == "ENVELOPE":
            return self.envelope()
        if name in ("BODYSTRUCTURE", "BODY"):
            return self.body(extended=name == "BODYSTRUCTURE", shown=True)
        if not self.accept(b"~"):
            return self.nstring()
        size = re.compile(rb"\{(\d+)\}\r\n").match(self.text, self.at)
        assert size, self.fail("a literal8")
        self.at = size.end() + int(size[1])
        octets = self.text[size.end() : self.at]
        assert b"\0" in octets, "a literal8 without need"
        return octets


async def fetched(client: Client, number: int, items: list[str]) -> dict[str, Any]:
    await client.send(f"x FETCH {number} ({' '.join(items)})\r\n".encode())
    octets = b""
    async with asyncio.timeout(PATIENCE):
        while not octets.endswith(b"x OK FETCH completed\r\n"):
            piece = await client.reader.read(1 << 20)
            octets += piece
            assert piece and not octets.startswith(b"x NO"), octets
    return Answer(octets.removesuffix(b"x OK FETCH completed\r\n")).items(number)


def asked(section: str) -> str:
    name, _, partial = section.partition("<")
    return f"BODY.PEEK[{name}]" + (f"<{partial}" if partial else "")


def label(section: str) -> str:
    """A partial is answered with its beginning alone."""
    return re.sub(r"BODY.PEEK\[(.*)\](<\d+)?.*", lambda found: f"BODY[{found[1]}]{found[2] or ''}", asked(section)) + (
        ">" if "<" in section else ""
    )


async def test_every_answer(server: Server) -> None:
    for case in CASES:
        await put_octets(server, case.message)
    client = await server.logged_in()
    await client.ask("SELECT INBOX")
    for number, case in enumerate(CASES, 1):
        found = await fetched(client, number, ["ENVELOPE", "BODYSTRUCTURE", "BODY.PEEK[]"])
        assert found["BODY[]"] == case.message, case.name
        assert case.envelope is None or found["ENVELOPE"] == case.envelope, case.name
        assert case.bodystructure is None or found["BODYSTRUCTURE"] == case.bodystructure, case.name
        for section, octets in case.sections.items():
            found = await fetched(client, number, [asked(section)])
            assert found == {label(section): octets}, f"{case.name} {asked(section)}"


@pytest.mark.usefixtures("cut")
async def test_nul_goes_in_and_comes_out(server: Server) -> None:
    """RFC 3516 §4.4: what holds NUL is a literal8; in strings of ENVELOPE and BODYSTRUCTURE there is none."""
    message = (
        b"Subject: a\0b\r\nFrom: <n@x.example>\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n"
        b'--b\r\n\r\nno\r\n--b\r\nContent-Type: application/x; name="x\0y"\r\n\r\n\0\r\n--b--\r\n'
    )
    client = await server.logged_in()
    await client.send(b"a APPEND INBOX {%d}\r\n" % len(message))
    assert (await client.line()).startswith("+ ")
    await client.send(message + b"\r\n")
    assert (await client.line()).startswith("a OK [APPENDUID")
    await client.ask("SELECT INBOX")
    await client.send(b"b FETCH 1 BODY.PEEK[HEADER.FIELDS (SUBJECT)]\r\n")
    assert await client.line() == "* 1 FETCH (BODY[HEADER.FIELDS (SUBJECT)] ~{16}"
    assert await client.line() == "Subject: a\0b"
    assert [await client.line() for _ in range(3)] == ["", ")", "b OK FETCH completed"]
    wanted = [
        "ENVELOPE",
        "BODYSTRUCTURE",
        "BODY",
        *map(asked, ("", "HEADER", "TEXT", "1", "1.MIME", "2", "2.MIME", "2<0.1>")),
    ]
    found = await fetched(client, 1, wanted)
    assert found["ENVELOPE"][1] == b"ab"
    assert found["BODYSTRUCTURE"][1][:3] == found["BODY"][1][:3] == (b"application", b"x", (b"name", b"xy"))
    assert found["BODY[]"] == message
    assert found["BODY[HEADER]"] == message[: message.index(b"--b")]
    assert found["BODY[TEXT]"] == message[message.index(b"--b") :]
    assert (found["BODY[1]"], found["BODY[1.MIME]"]) == (b"no", b"\r\n")
    assert (found["BODY[2]"], found["BODY[2]<0>"]) == (b"\0", b"\0")
    assert found["BODY[2.MIME]"] == b'Content-Type: application/x; name="x\0y"\r\n\r\n'
    assert (await client.ask("SEARCH SUBJECT ab"))[0] == "* SEARCH"
    assert (await client.ask('SEARCH SUBJECT "a b"'))[0] == "* SEARCH 1"
