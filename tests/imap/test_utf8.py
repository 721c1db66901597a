"""UTF8=ACCEPT (RFC 6855): what a client that has enabled it writes and reads, and what others do meanwhile."""

from __future__ import annotations

import asyncio
import base64
import unicodedata

import pytest

from config.schema import Config
from mailserver import passwords
from storage import accounts
from tests.imap.conftest import PATIENCE, Client, Server, both_separators

GREETINGS = (
    b"From: J\xc3\xbcrgen <j\xc3\xbcrgen@example.org>\r\n"
    b"Subject: Gr\xc3\xbc\xc3\x9fe aus K\xc3\xb6ln\r\n"
    b"Content-Type: text/plain; charset=utf-8; name*=utf-8''%C3%BC\r\n\r\nhallo\r\n"
)


async def enabled(server: Server) -> Client:
    client = await server.logged_in()
    await server.play("C: e ENABLE UTF8=ACCEPT\nS: * ENABLED UTF8=ACCEPT\nS: e OK …", client)
    return client


@both_separators
@pytest.mark.usefixtures("cut")
async def test_names(server: Server) -> None:
    """§3: one mailbox, two ways of writing it. `&` is a character like others, for those who have enabled UTF-8."""
    client, other = await enabled(server), await server.logged_in()
    await server.play(
        r"""
        1C: a CREATE "台北/日本語"
        1S: a OK …
        1C: b CREATE "R&D"
        1S: b OK …
        1C: c LIST "" ("台*" "R&%")
        1S: * LIST (\HasNoChildren) "/" R&D
        1S: * LIST (\HasChildren) "/" "台北"
        1S: * LIST (\HasNoChildren) "/" "台北/日本語"
        1S: c OK …
        2C: a LIST "" ("&U,BTFw-*" "R%")
        2S: * LIST (\HasNoChildren) "/" R&-D
        2S: * LIST (\HasChildren) "/" &U,BTFw-
        2S: * LIST (\HasNoChildren) "/" &U,BTFw-/&ZeVnLIqe-
        2S: a OK …
        1C: d SUBSCRIBE "台北/日本語"
        1S: d OK …
        1C: e LSUB "台北/" %
        1S: * LSUB () "/" "台北/日本語"
        1S: e OK …
        2C: b LIST (SUBSCRIBED RECURSIVEMATCH) "" &U,BTFw-
        2S: * LIST (\HasChildren) "/" &U,BTFw- ("CHILDINFO" ("SUBSCRIBED"))
        2S: b OK …
        1C: f STATUS "台北/日本語" (MESSAGES)
        1S: * STATUS "台北/日本語" (MESSAGES 0)
        1S: f OK …
        1C: g RENAME "台北" Entwürfe
        1S: g BAD …
        1C: h RENAME "台北" "Entwürfe"
        1S: h OK …
        2C: c STATUS Entw&APw-rfe/&ZeVnLIqe- (MESSAGES)
        2S: * STATUS Entw&APw-rfe/&ZeVnLIqe- (MESSAGES 0)
        2S: c OK …
        1C: i DELETE Entw&APw-rfe
        1S: i NO [NONEXISTENT] …
        1C: j DELETE "Entwürfe"
        1S: j OK …
        1C: k LIST "" E% RETURN (STATUS (MESSAGES))
        1S: * LIST (\NonExistent \HasChildren) "/" "Entwürfe"
        1S: k OK …
        """,
        client,
        other,
    )


async def test_names_in_any_form(server: Server) -> None:
    """Net-Unicode (RFC 5198 §2): form C, however it was typed; UTF-8 is read in quotes before it is enabled, too."""
    taken_apart = unicodedata.normalize("NFD", "Café")
    client = await server.logged_in()
    await server.play(
        f"""
        C: a CREATE "{taken_apart}"
        S: a OK …
        C: b CREATE "Café"
        S: b NO [ALREADYEXISTS] …
        C: c STATUS Cafe&AwE- (MESSAGES)
        S: * STATUS Caf&AOk- (MESSAGES 0)
        S: c OK …
        C: d ENABLE UTF8=ACCEPT
        S: * ENABLED UTF8=ACCEPT
        S: d OK …
        C: e STATUS "{taken_apart}" (MESSAGES)
        S: * STATUS "Café" (MESSAGES 0)
        S: e OK …
        """,
        client,
    )
    for octets in (b'"Caf\xe9"', b'"\xc0\xaf"', b'"\xed\xa0\x80"', b'"\xf4\x90\x80\x80"', b'"\xc3"'):
        await client.send(b"x CREATE " + octets + b"\r\n")
        assert (await client.line()).startswith("x BAD "), octets
    for character in "\x01\x7f\x85\u2028\u2029\ufeff":
        await client.send(f'y CREATE "{character}"\r\n'.encode())
        assert (await client.line()).startswith("y NO [CANNOT] "), character


@pytest.mark.usefixtures("cut")
async def test_append(server: Server) -> None:
    """§4; the octets are kept as they are, NUL and bare line ends too."""
    client = await enabled(server)
    odd = GREETINGS + b"\0\n\r"
    await client.send(b"a APPEND Drafts (\\Seen) UTF8 (~{%d}\r\n" % len(GREETINGS))
    assert (await client.line()).startswith("+ ")
    await client.send(GREETINGS + b")\r\n")
    assert (await client.line()).startswith("a OK [APPENDUID ")
    await client.send(b'b APPEND Drafts "17-Jul-1996 02:44:25 -0700" utf8 (~{%d+}\r\n%b)\r\n' % (len(odd), odd))
    assert (await client.line()).startswith("b OK [APPENDUID ")
    await client.send(b"c APPEND Drafts UTF8 (~{5+}\r\nhallo\r\nd NOOP\r\n")
    assert (await client.line()).startswith("c BAD ")
    assert (await client.line()).startswith("d OK ")
    await client.ask("SELECT Drafts")
    await client.send(b"e FETCH 2 BODY.PEEK[]\r\n")
    assert await client.line() == f"* 2 FETCH (BODY[] ~{{{len(odd)}}}"
    assert await client.reader.readexactly(len(odd)) == odd


async def test_too_large_an_append(server: Server) -> None:
    """RFC 7889 §4: the limit that is announced is the one that holds; a client that waits sends nothing in vain."""
    client = await enabled(server)
    limit = server.config.max_append_octets
    server.service.reconfigure(Config(imap={"max_append_octets": 1024}))  # for sessions to come
    for form in (f"{{{limit + 1}}}", f"UTF8 (~{{{limit + 1}}}"):
        await server.play(f"C: a APPEND Drafts {form}\nS: a NO [TOOBIG] …", client)
    await server.play(
        f"""
        C: b STATUS Drafts (APPENDLIMIT)
        S: * STATUS Drafts (APPENDLIMIT {limit})
        S: b OK …
        C: c CAPABILITY
        S: * CAPABILITY … APPENDLIMIT={limit}
        S: c OK …
        """,
        client,
    )


async def test_headers_in_utf_8_are_shown_as_they_are(server: Server) -> None:
    """§7, §8: to all clients alike, in strings that are legal for each: octets above 127 in literals, not in quotes.

    Header fields with such octets are also taken from whoever has not enabled anything: old mail has them.
    """
    client, other = await enabled(server), await server.logged_in()
    old = GREETINGS.decode().encode("latin-1")
    await other.send(b"a APPEND Drafts {%d+}\r\n%b\r\n" % (len(old), old))
    assert (await other.line()).startswith("a OK ")
    await client.send(b"a APPEND INBOX UTF8 (~{%d+}\r\n%b)\r\n" % (len(GREETINGS), GREETINGS))
    assert (await client.line()).startswith("a OK ")
    answers = []
    for one in (client, other):
        await one.ask("EXAMINE INBOX")
        await one.send(b"x FETCH 1 (ENVELOPE BODYSTRUCTURE BODY.PEEK[HEADER.FIELDS (SUBJECT)])\r\n")
        async with asyncio.timeout(PATIENCE):
            answers.append(await one.reader.readuntil(b"\r\nx OK"))
    assert answers[0] == answers[1]
    text = answers[0]
    assert b"(ENVELOPE (NIL {17}\r\nGr\xc3\xbc\xc3\x9fe aus K\xc3\xb6ln" in text
    assert b"BODY[HEADER.FIELDS (SUBJECT)] {30}\r\nSubject: Gr\xc3\xbc\xc3\x9fe aus K\xc3\xb6ln\r\n" in text
    assert b'("charset" "utf-8" "name*" "utf-8\'\'%C3%BC")' in text


async def test_search(server: Server) -> None:
    """§3: strings are UTF-8, and CHARSET is refused."""
    client = await enabled(server)
    await client.send(b"a APPEND INBOX UTF8 (~{%d+}\r\n%b)\r\n" % (len(GREETINGS), GREETINGS))
    assert (await client.line()).startswith("a OK ")
    await client.ask("SELECT INBOX")
    await server.play(
        """
        C: b SEARCH SUBJECT "grüße"
        S: * SEARCH 1
        S: b OK …
        C: c SEARCH SUBJECT "Grüsse aus Köln" FROM "jürgen"
        S: * SEARCH 1
        S: c OK …
        C: d SEARCH CHARSET UTF-8 SUBJECT "grüße"
        S: d BAD …
        C: e UID SEARCH RETURN (COUNT) CHARSET US-ASCII ALL
        S: e BAD …
        """,
        client,
    )


async def test_names_of_users(server: Server) -> None:
    """§5: AUTHENTICATE takes them. LOGIN's quoted strings are UTF-8 here as well, which the RFC leaves out."""
    hashed = passwords.Hasher(64, 1).hash("schlüssel")
    await accounts.add(server.store, None, "jürgen@example.org", hashed)
    for name in ("jürgen", "Jürgen@example.org", unicodedata.normalize("NFD", "jürgen@example.org")):
        response = base64.b64encode(f"\0{name}\0schlüssel".encode()).decode()
        await server.play(f"S: * OK …\nC: a AUTHENTICATE PLAIN {response}\nS: a OK …")
    await server.play('S: * OK …\nC: a LOGIN "jürgen" "schlüssel"\nS: a OK …')
    client = await server.connect()
    await client.line()
    await client.send('a LOGIN "jürgen" schlüssel\r\nb LOGIN "jürgen" "schl'.encode() + b'\xfcssel"\r\n')
    assert (await client.line()).startswith("a BAD ")
    assert (await client.line()).startswith("b BAD ")
