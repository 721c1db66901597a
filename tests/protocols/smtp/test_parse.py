from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailserver.protocols.smtp import parse
from mailserver.protocols.smtp.commands import Chunk, Mail, Rcpt
from mailserver.protocols.smtp.dsn import Notify
from mailserver.protocols.smtp.replies import Refused

ADDRESSES = [
    "a@b",
    "alice@example.org",
    "Alice.Smith+tag@Mail.Example.ORG",
    "a..b.@example.org",
    "!#$%&'*+-/=?^_`{|}~@example.org",
    "under_score@_dmarc.example.org",
    '"quoted local"@example.org',
    r'"with \" quote and \\ slash"@example.org',
    '"at@sign>and<"@example.org',
    '""@example.org',
    "user@[192.0.2.1]",
    "user@[IPv6:2001:db8::1]",
    "user@[ipv6:::1]",
    "x" * 64 + "@example.org",
    "x" * 256 + "@example.org",
    "a@" + ".".join(["x" * 63] * 3) + ".org",
]

WIDE = ["grüße@example.org", "用户@例え.テスト", "user@bücher.example", '"ü "@example.org']

BAD = [
    "alice@example.org",
    "<alice@example.org",
    "<alice>",
    "<@example.org>",
    "<alice@>",
    "<alice@@example.org>",
    "<alice@example..org>",
    "<alice@.example.org>",
    "<alice@example.org.>",
    "<alice@-example.org>",
    "<alice@example.org->",
    "<al ice@example.org>",
    "<alice@exa mple.org>",
    "<alice@example.org>>",
    "<<alice@example.org>>",
    '<"alice@example.org>',
    '<"ali"ce"@example.org>',
    '<"alice"bob@example.org>',
    '<"alice\\"@example.org>',
    "<alice@[192.0.2.1>",
    "<alice@[192.0.2.300]>",
    "<alice@[IPv6:xyz]>",
    "<alice@[example]>",
    "<alice@192.0.2.1]>",
    "<alice\x00@example.org>",
    "<alice\x7f@example.org>",
    "<alice@exam\tple.org>",
    "<ali\udc80ce@example.org>",
    "<ali\u0085ce@example.org>",
    "<ali\u2028ce@example.org>",
    "<" + "x" * 257 + "@example.org>",
    "<a@" + "x" * 64 + ".org>",
    "<a@" + "x." * 130 + "org>",
    "<a@b>c",
    "<a@b>SIZE=1",
    "<@relay.example:>",
    "<@relay.example,alice@example.org>",
    "",
    "<",
    ">",
]


@pytest.mark.parametrize("address", ADDRESSES)
def test_addresses(address: str) -> None:
    assert parse.mail(f"FROM:<{address}>") == Mail(address)
    assert parse.mail(f"from: <{address}> SIZE=5") == Mail(address, 5)
    assert parse.rcpt(f"TO:<{address}>") == Rcpt(address)
    assert parse.rcpt(f"To: <{address}>  ") == Rcpt(address)


@pytest.mark.parametrize("address", ADDRESSES)
def test_source_routes_are_stripped(address: str) -> None:
    """RFC 5321 §4.1.1.3 and appendix C."""
    assert parse.rcpt(f"TO:<@relay.example:{address}>") == Rcpt(address)
    assert parse.mail(f"FROM:<@a.example,@[192.0.2.1],@c.example:{address}>") == Mail(address)


@pytest.mark.parametrize("address", WIDE)
def test_internationalized_addresses(address: str) -> None:
    assert parse.mail(f"FROM:<{address}> SMTPUTF8") == Mail(address, smtputf8=True)
    assert parse.rcpt(f"TO:<{address}>", smtputf8=True) == Rcpt(address)
    with pytest.raises(Refused, match=r"553 5\.6\.7"):
        parse.mail(f"FROM:<{address}>")
    with pytest.raises(Refused, match=r"553 5\.6\.7"):
        parse.mail(f"FROM:<{address}> SIZE=1")
    with pytest.raises(Refused, match=r"553 5\.6\.7"):
        parse.rcpt(f"TO:<{address}>")


@pytest.mark.parametrize("text", BAD)
def test_bad_addresses(text: str) -> None:
    with pytest.raises(Refused, match=r"501 5\.1\.7"):
        parse.mail("FROM:" + text)
    with pytest.raises(Refused, match=r"501 5\.1\.3"):
        parse.rcpt("TO:" + text, smtputf8=True)


@pytest.mark.parametrize("argument", ["", "FROM", "FORM:<a@b>", "<a@b>", "TO:<a@b>", "FROM :<a@b>", "FROM:  <a@b>x"])
def test_mail_needs_its_keyword(argument: str) -> None:
    with pytest.raises(Refused, match=r"501 5\.1\.7"):
        parse.mail(argument)


def test_null_sender() -> None:
    assert parse.mail("FROM:<>") == Mail("")
    assert parse.mail("FROM: <> BODY=8BITMIME") == Mail("", body="8BITMIME")
    with pytest.raises(Refused, match=r"501 5\.1\.3"):
        parse.rcpt("TO:<>")


def test_postmaster_without_domain() -> None:
    """RFC 5321 §4.5.1; as a recipient only."""
    assert parse.rcpt("TO:<Postmaster>") == Rcpt("postmaster")
    assert parse.rcpt("TO:<@relay.example:postmaster>") == Rcpt("postmaster")
    with pytest.raises(Refused):
        parse.mail("FROM:<postmaster>")
    with pytest.raises(Refused):
        parse.rcpt("TO:<postmaster2>")


@pytest.mark.parametrize(
    ("parameters", "mail"),
    [
        ("SIZE=0", Mail("a@b")),
        ("size=12345678901234567890", Mail("a@b", 12345678901234567890)),
        ("BODY=8BITMIME", Mail("a@b", body="8BITMIME")),
        ("body=7bit", Mail("a@b", body="7BIT")),
        ("SMTPUTF8 SIZE=7  BODY=8bitmime", Mail("a@b", 7, "8BITMIME", True)),
    ],
)
def test_mail_parameters(parameters: str, mail: Mail) -> None:
    assert parse.mail("FROM:<a@b> " + parameters) == mail


@pytest.mark.parametrize(
    ("parameters", "reply"),
    [
        ("SIZE", "501 5.5.4"),
        ("SIZE=", "501 5.5.4"),
        ("SIZE=-1", "501 5.5.4"),
        ("SIZE=1k", "501 5.5.4"),
        ("SIZE=٣", "501 5.5.4"),
        ("SIZE=123456789012345678901", "501 5.5.4"),
        ("SIZE=1 SIZE=2", "501 5.5.4"),
        ("BODY", "501 5.5.4"),
        ("BODY=9BIT", "501 5.5.4"),
        ("BODY=BINARYMIME", "555 5.5.4"),
        ("SMTPUTF8=yes", "501 5.5.4"),
        ("RET=FULL", "555 5.5.4"),
        ("ENVID=x", "555 5.5.4"),
        ("AUTH=<>", "555 5.5.4"),
        ("UNKNOWN", "555 5.5.4"),
        ("=", "501 5.5.4"),
        ("a=b=c", "501 5.5.4"),
        ("ke_y=x", "501 5.5.4"),
        ("k=\x01", "501 5.5.4"),
    ],
)
def test_bad_mail_parameters(parameters: str, reply: str) -> None:
    with pytest.raises(Refused) as caught:
        parse.mail("FROM:<a@b> " + parameters)
    assert str(caught.value).startswith(reply)


@pytest.mark.parametrize(("value", "good"), [("<>", True), ("e+3Dmc2@example.com", True), ("a+3d", False), ("", False)])
def test_auth_parameter_where_login_is_offered(value: str, good: bool) -> None:
    """RFC 4954 §5: <> and xtext; it has no effect."""
    argument = f"FROM:<a@b> AUTH={value}"
    if good:
        assert parse.mail(argument, login_offered=True) == Mail("a@b")
    else:
        with pytest.raises(Refused, match=r"501 5\.5\.4"):
            parse.mail(argument, login_offered=True)


@pytest.mark.parametrize("parameters", ["NOTIFY=NEVER", "ORCPT=rfc822;a@b", "SIZE=1", "X"])
def test_rcpt_knows_no_parameters_where_dsn_is_not_offered(parameters: str) -> None:
    with pytest.raises(Refused, match=r"555 5\.5\.4"):
        parse.rcpt("TO:<a@b> " + parameters)


@pytest.mark.parametrize(
    ("parameters", "mail"),
    [
        ("RET=hdrs ENVID=QQ+2B1", Mail("a@b", ret="HDRS", envid="QQ+2B1")),
        ("SIZE=5 envid=x", Mail("a@b", 5, envid="x")),
        ("RET=FULL", Mail("a@b", ret="FULL")),
    ],
)
def test_mail_parameters_where_dsn_is_offered(parameters: str, mail: Mail) -> None:
    assert parse.mail(f"FROM:<a@b> {parameters}", dsn_offered=True) == mail


@pytest.mark.parametrize(
    ("parameters", "rcpt"),
    [
        ("", Rcpt("a@b")),
        ("NOTIFY=NEVER", Rcpt("a@b", Notify.NEVER)),
        ("ORCPT=rfc822;A@B notify=delay,SUCCESS", Rcpt("a@b", Notify.SUCCESS | Notify.DELAY, "rfc822;A@B")),
        ("ORCPT=utf-8;grün@b", Rcpt("a@b", None, "utf-8;grün@b")),
    ],
)
def test_rcpt_parameters_where_dsn_is_offered(parameters: str, rcpt: Rcpt) -> None:
    assert parse.rcpt(f"TO:<a@b> {parameters}", smtputf8=True, dsn_offered=True) == rcpt


@pytest.mark.parametrize(
    ("parameters", "reply"),
    [
        ("RET=ALL", "501 5.5.4"),
        ("RET=FULL RET=FULL", "501 5.5.4"),
        ("ENVID", "501 5.5.4"),
        ("ENVID=a=b", "501 5.5.4"),
        ("NOTIFY=NEVER", "555 5.5.4"),
    ],
)
def test_bad_mail_parameters_of_dsn(parameters: str, reply: str) -> None:
    with pytest.raises(Refused) as caught:
        parse.mail(f"FROM:<a@b> {parameters}", dsn_offered=True)
    assert str(caught.value).startswith(reply)


@pytest.mark.parametrize(
    ("parameters", "reply"),
    [
        ("NOTIFY", "501 5.5.4"),
        ("NOTIFY=NEVER,DELAY", "501 5.5.4"),
        ("NOTIFY=DELAY NOTIFY=DELAY", "501 5.5.4"),
        ("ORCPT=a@b", "501 5.5.4"),
        ("ORCPT=rfc822;grün@b", "501 5.5.4"),
        ("ORCPT=utf-8;grün@b", "553 5.6.7"),
        ("RET=FULL", "555 5.5.4"),
    ],
)
def test_bad_rcpt_parameters_of_dsn(parameters: str, reply: str) -> None:
    with pytest.raises(Refused) as caught:
        parse.rcpt(f"TO:<a@b> {parameters}", dsn_offered=True)
    assert str(caught.value).startswith(reply)


@pytest.mark.parametrize(
    ("argument", "result"),
    [
        ("0", (Chunk(0, False), True)),
        ("1000", (Chunk(1000, False), True)),
        ("86 LAST", (Chunk(86, True), True)),
        ("0 last", (Chunk(0, True), True)),
        ("86  LAST", (Chunk(86, True), True)),
        ("86 FIRST", (Chunk(86, False), False)),
        ("86 LAST LAST", (Chunk(86, True), False)),
        ("", (None, False)),
        ("LAST", (None, False)),
        ("-1", (None, False)),
        ("1e3", (None, False)),
        ("²", (None, False)),
        ("123456789012345678901", (None, False)),
    ],
)
def test_bdat(argument: str, result: object) -> None:
    assert parse.bdat(argument) == result


@given(st.text())
def test_any_text_is_parsed_or_refused(text: str) -> None:
    for parser in (parse.mail, parse.rcpt):
        for start in ("FROM:", "FROM:<", "FROM:<a@b> ", "TO:", "TO:<", 'TO:<"', "TO:<@"):
            try:
                parser(start + text)
                code = 501
            except Refused as refused:
                code = refused.reply.code
            assert code in (501, 553, 555)
    parse.bdat(text)


@pytest.mark.parametrize(
    "text",
    ["<" + "a." * 5000 + ">", '<"' + "\\a" * 5000, "<@a" + ",@a" * 5000 + ":x", "<a@" + "a-" * 5000, "<" + "@" * 10000],
)
def test_long_rubbish_costs_little(text: str) -> None:
    begin = time.process_time()
    with pytest.raises(Refused):
        parse.mail("FROM:" + text)
    assert time.process_time() - begin < 1
