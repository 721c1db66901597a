"""Who may log in, and what the server says of itself in each state."""

from __future__ import annotations

import asyncio
import base64
import re
import ssl
from pathlib import Path
from typing import Any

import pytest

from mailserver.imap.auth import ALWAYS
from storage import Account, Store
from tests.imap.conftest import Client, Server, running

ALL = " ".join([*ALWAYS, "APPENDLIMIT=52428800"])
RFCS = Path(__file__).parents[2] / "docs" / "rfcs.md"
NO_CAPABILITY = {"2683", "5530"}
"""Rows of docs/rfcs.md that no capability stands for: advice, response codes."""


@pytest.mark.usefixtures("cut")
async def test_capability_tells_the_truth_in_each_state(server: Server) -> None:
    await server.play(
        f"""
        S: * OK [CAPABILITY {ALL} STARTTLS AUTH=PLAIN AUTH=LOGIN] …
        C: a CAPABILITY
        S: * CAPABILITY {ALL} STARTTLS AUTH=PLAIN AUTH=LOGIN
        S: a OK CAPABILITY completed
        C: b LOGIN alice pw
        S: b OK [CAPABILITY {ALL}] LOGIN completed
        C: c CAPABILITY
        S: * CAPABILITY {ALL}
        S: c OK CAPABILITY completed
        """
    )


def documented() -> dict[str, set[str]]:
    """The words of the titles of docs/rfcs.md's IMAP rows, by RFC, where the server has it."""
    table = RFCS.read_text(encoding="utf-8").partition("## IMAP")[2].partition("\n## ")[0]
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines() if re.match(r"\| \d", line)]
    return {rfc: set(re.split(r"[ ,]+", title)) for rfc, title, state, *_ in rows if state != "No"}


async def test_what_is_announced_is_what_the_documentation_says(server: Server) -> None:
    """Before login, after it, and after ENABLE, which takes nothing away."""
    client = await server.connect()
    before = re.findall(r"CAPABILITY ([^]]+)]", await client.line())[0].split()
    after = re.findall(r"CAPABILITY ([^]]+)]", (await client.ask("LOGIN alice pw"))[-1])[0].split()
    await client.ask("ENABLE UTF8=ACCEPT CONDSTORE")
    assert (await client.ask("CAPABILITY"))[0].split()[2:] == after
    assert [name for name in before if name not in after] == ["STARTTLS", "AUTH=PLAIN", "AUTH=LOGIN"]
    assert [name for name in after if name not in before] == []
    titles = documented()
    announced = {re.sub(r"=\d+$", "", name) for name in after}
    assert announced - set().union(*titles.values()) == set()
    assert [rfc for rfc, words in titles.items() if not words & announced and rfc not in NO_CAPABILITY] == []


async def test_without_tls_no_login(store: Store, certificate: Path) -> None:
    """RFC 3501 §6.2.3; RFC 5530, PRIVACYREQUIRED."""
    async with running(store, certificate, server={"insecure_loopback_auth": False}) as server:
        await server.play(
            f"""
            S: * OK [CAPABILITY {ALL} STARTTLS LOGINDISABLED] …
            C: a LOGIN alice pw
            S: a NO [PRIVACYREQUIRED] …
            C: b AUTHENTICATE PLAIN AGFsaWNlAHB3
            S: b NO [PRIVACYREQUIRED] …
            """
        )


@pytest.mark.usefixtures("cut")
@pytest.mark.parametrize(
    "dialogue",
    [
        "C: a LOGIN alice pw",
        'C: a login "alice@example.org" "pw"',
        "C: a LOGIN {5}\nS: + …\nC: alice {2+}\nC: pw",
        "C: a AUTHENTICATE PLAIN\nS: +\nC: AGFsaWNlAHB3",
        "C: a AUTHENTICATE PLAIN AGFsaWNlAHB3",
        "C: a AUTHENTICATE PLAIN YWxpY2UAYWxpY2UAcHc=",
        "C: a AUTHENTICATE LOGIN\nS: + VXNlcm5hbWU6\nC: YWxpY2U=\nS: + UGFzc3dvcmQ6\nC: cHc=",
        "C: a AUTHENTICATE LOGIN YWxpY2U=\nS: + UGFzc3dvcmQ6\nC: cHc=",
    ],
)
async def test_ways_to_log_in(server: Server, dialogue: str) -> None:
    await server.play(f"S: * OK …\n{dialogue}\nS: a OK [CAPABILITY …] … completed\nC: b NAMESPACE\nS: * NAMESPACE …")


@pytest.mark.parametrize(
    ("dialogue", "answer"),
    [
        ("C: a LOGIN alice wrong", "a NO [AUTHENTICATIONFAILED] Wrong name or password"),
        ("C: a LOGIN nobody pw", "a NO [AUTHENTICATIONFAILED] Wrong name or password"),
        ("C: a AUTHENTICATE PLAIN Ym9iAGFsaWNlAHB3", "a NO [AUTHORIZATIONFAILED] …"),
        ("C: a AUTHENTICATE PLAIN\nS: +\nC: *", "a BAD Authentication cancelled"),
        ("C: a AUTHENTICATE PLAIN\nS: +\nC: !!", "a BAD Invalid base64"),
        ("C: a AUTHENTICATE PLAIN =", "a BAD Invalid PLAIN response"),
        ("C: a AUTHENTICATE CRAM-MD5", "a NO [CANNOT] …"),
        ("C: a SELECT INBOX", "a BAD Command is not allowed before login"),
        ("C: a LOGIN alice", "a BAD …"),
        ("C: a FROB", "a BAD …"),
    ],
)
async def test_who_is_not_let_in_may_try_again(server: Server, dialogue: str, answer: str) -> None:
    await server.play(
        f"S: * OK …\n{dialogue}\nS: {answer}\nC: b LOGIN alice pw\nS: b OK …\nC: c LOGIN alice pw\nS: c BAD …"
    )


async def test_disabled_account(server: Server) -> None:
    from storage import accounts

    account = await accounts.find(server.store, "alice")
    await accounts.set_status(server.store, account.account_id, "disabled")
    await server.play("S: * OK …\nC: a LOGIN alice pw\nS: a NO [AUTHORIZATIONFAILED] The account is disabled")


async def test_an_account_that_ends_while_its_password_is_checked(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    check = server.logins.check

    async def ended_meanwhile(*arguments: Any, **more: Any) -> Account:
        account = await check(*arguments, **more)
        server.sessions.end(account.account_id, "disabled")
        return account

    monkeypatch.setattr(server.logins, "check", ended_meanwhile)
    await server.play("S: * OK …\nC: a LOGIN alice pw\nS: a NO [AUTHENTICATIONFAILED] …\nC: b NOOP\nS: b OK …")


async def test_sessions_of_an_account_are_bounded(store: Store, certificate: Path) -> None:
    bounds: dict[str, Any] = {"imap": {"max_connections_per_account": 2}, "server": {"trusted_networks": []}}
    async with running(store, certificate, **bounds) as server:
        first = await server.logged_in()
        await server.logged_in()
        await server.play("S: * OK …\nC: a LOGIN alice pw\nS: a NO [LIMIT] …\nC: b LOGIN bob pw\nS: b OK …")
        await first.ask("LOGOUT")
        assert await first.closed()
        await server.logged_in()


async def test_connections_are_bounded(store: Store, certificate: Path) -> None:
    bounds: dict[str, Any] = {"imap": {"max_connections": 1}, "server": {"trusted_networks": []}}
    async with running(store, certificate, **bounds) as server:
        await server.play("1S: * OK …\n2S: * BYE [UNAVAILABLE] Too many connections\n2S: \n1C: a NOOP\n1S: a OK …")


async def test_logout(server: Server) -> None:
    [client] = await server.play("S: * OK …\nC: a LOGOUT\nS: * BYE …\nS: a OK LOGOUT completed")
    assert await client.closed()


async def test_id(server: Server) -> None:
    await server.play('S: * OK …\nC: a ID ("name" "test")\nS: * ID ("name" "Pillarbox")\nS: a OK ID completed')


def _trusting() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


async def test_starttls(server: Server) -> None:
    [client] = await server.play("S: * OK …\nC: a STARTTLS\nS: a OK Begin TLS negotiation now")
    await client.writer.start_tls(_trusting())
    await server.play(
        f"""
        C: b CAPABILITY
        S: * CAPABILITY {ALL} AUTH=PLAIN AUTH=LOGIN
        S: b OK CAPABILITY completed
        C: c STARTTLS
        S: c BAD TLS is active already
        C: d LOGIN alice pw
        S: d OK …
        """,
        client,
    )


async def test_what_was_sent_in_clear_behind_starttls_is_not_carried_out(server: Server) -> None:
    """RFC 3501 §6.2.1; the octets came from anyone."""
    client = await server.connect()
    await client.line()
    await client.send(b"a STARTTLS\r\nevil LOGIN alice pw\r\n")
    assert (await client.line()).startswith("a OK")
    await client.writer.start_tls(_trusting())
    await server.play("C: b NOOP\nS: b OK NOOP completed\nC: c SELECT INBOX\nS: c BAD …", client)


async def test_tls_from_the_start(server: Server) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.tls_port, ssl=_trusting())
    client = Client(reader, writer, 0)
    await server.play(f"S: * OK [CAPABILITY {ALL} AUTH=PLAIN AUTH=LOGIN] …\nC: a LOGIN alice pw\nS: a OK …", client)
    client.close()


async def test_the_longest_sasl_line(server: Server) -> None:
    """A longer one is refused and the session stays in step."""
    long = base64.b64encode(b"x" * 20_000).decode()
    await server.play(f"S: * OK …\nC: a AUTHENTICATE PLAIN\nS: +\nC: {long}\nS: a BAD …\nC: b NOOP\nS: b OK …")
