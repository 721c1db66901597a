from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailserver.message.report import utf8_address
from mailserver.protocols.smtp import dsn
from mailserver.protocols.smtp.dsn import Notify
from mailserver.protocols.smtp.replies import Refused

BOUNDED = settings(max_examples=200, deadline=None, derandomize=True, database=None)
ASCII = st.text(st.characters(max_codepoint=127))
PRINTABLE = st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=1, max_size=100)
WIDE = st.text(st.characters(min_codepoint=33, blacklist_categories=["Cc", "Cs", "Zl", "Zp"]), min_size=1, max_size=40)


# Xtext ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "xtext"),
    [
        ("", ""),
        ("QQ314159", "QQ314159"),
        ("a+b=c d", "a+2Bb+3Dc+20d"),
        ("!<>~,;", "!<>~,;"),
        ("\0\x1f\x7f", "+00+1F+7F"),
    ],
)
def test_xtext(text: str, xtext: str) -> None:
    assert dsn.encode_xtext(text) == xtext
    assert dsn.decode_xtext(xtext) == text


@pytest.mark.parametrize("wrong", ["+", "a+2", "+2b", "+G0", "a=b", "a b", "\x7f", "\r\n", "+41\n", "ü", "\udc80"])
def test_what_is_no_xtext(wrong: str) -> None:
    with pytest.raises(ValueError):
        dsn.decode_xtext(wrong)


@BOUNDED
@given(ASCII)
def test_xtext_comes_back(text: str) -> None:
    xtext = dsn.encode_xtext(text)
    assert dsn.decode_xtext(xtext) == text
    assert all("!" <= char <= "~" and char != "=" for char in xtext)


def test_only_ascii_becomes_xtext() -> None:
    with pytest.raises(ValueError):
        dsn.encode_xtext("ü")


# NOTIFY ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "asked", "said"),
    [
        ("NEVER", Notify.NEVER, "NEVER"),
        ("never", Notify.NEVER, "NEVER"),
        ("SUCCESS", Notify.SUCCESS, "SUCCESS"),
        ("Failure", Notify.FAILURE, "FAILURE"),
        ("DELAY,SUCCESS", Notify.SUCCESS | Notify.DELAY, "SUCCESS,DELAY"),
        ("success,FAILURE,Delay", Notify.SUCCESS | Notify.FAILURE | Notify.DELAY, "SUCCESS,FAILURE,DELAY"),
    ],
)
def test_notify(value: str, asked: Notify, said: str) -> None:
    assert dsn.notify(value) == asked
    assert str(asked) == said
    assert dsn.notify(said) == asked


@pytest.mark.parametrize(
    "value",
    [
        *(None, "", ",", "ALWAYS", "NEVER,SUCCESS", "SUCCESS,NEVER", "NEVER,NEVER", "SUCCESS,", ",SUCCESS"),
        *("SUCCESS,,DELAY", "SUCCESS,SUCCESS", "SUCCESS,DELAY,success", "SUCCESS DELAY", "FAILURE;DELAY"),
        *("\u017fuccess", "SUCCESS|DELAY", "\udc80", "SUCCESS," * 1000),
    ],
)
def test_what_is_no_notify(value: str | None) -> None:
    with pytest.raises(Refused, match=r"501 5\.5\.4 Syntax: NOTIFY="):
        dsn.notify(value)


@pytest.mark.parametrize(
    ("value", "success", "failure", "delay"),
    [
        (None, False, True, True),
        ("NEVER", False, False, False),
        ("SUCCESS", True, False, False),
        ("FAILURE", False, True, False),
        ("SUCCESS,DELAY", True, False, True),
    ],
)
def test_what_is_wanted(value: str | None, success: bool, failure: bool, delay: bool) -> None:
    """RFC 3461 §5.2.2-5.2.6."""
    asked = None if value is None else dsn.notify(value)
    assert dsn.wants(asked, Notify.SUCCESS) is success
    assert dsn.wants(asked, Notify.FAILURE) is failure
    assert dsn.wants(asked, Notify.DELAY) is delay


def test_an_expanded_recipient_asks_for_no_success() -> None:
    """RFC 3461 §5.2.7.3 (c)."""
    assert str(dsn.notify("SUCCESS,FAILURE") & ~Notify.SUCCESS) == "FAILURE"
    assert str(dsn.notify("SUCCESS") & ~Notify.SUCCESS) == "NEVER"


# RET and ENVID --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("value", "ret"), [("FULL", "FULL"), ("hdrs", "HDRS"), ("Full", "FULL")])
def test_ret(value: str, ret: str) -> None:
    assert dsn.ret(value) == ret


@pytest.mark.parametrize("value", [None, "", "HEADERS", "FULL,HDRS", "hdr\u017f", "FULL\0", "\udc80"])
def test_what_is_no_ret(value: str | None) -> None:
    with pytest.raises(Refused, match=r"501 5\.5\.4 Syntax: RET="):
        dsn.ret(value)


@pytest.mark.parametrize("value", ["QQ314159", "a+20b+2B", "+09", "x" * 100, "+41" * 33, "<;,>"])
def test_envid_is_kept_as_it_was_said(value: str) -> None:
    assert dsn.envid(value) == value


@pytest.mark.parametrize(
    "value", [None, "", "x" * 101, "a=b", "a b", "+0D+0A", "+00", "+7F", "+FC", "+2b", "ü", "a\r\nb", "\udc80", "+"]
)
def test_what_is_no_envid(value: str | None) -> None:
    with pytest.raises(Refused, match=r"501 5\.5\.4 Syntax: ENVID="):
        dsn.envid(value)


# ORCPT ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "original"),
    [
        ("rfc822;Bob@Example.COM", "rfc822;Bob@Example.COM"),
        ("RFC822;bob+2Btag@example.com", "RFC822;bob+tag@example.com"),
        ('rfc822;"a+20b"@example.com', 'rfc822;"a b"@example.com'),
        ("x400;/G=Ann/S=X;/", "x400;/G=Ann/S=X;/".replace("=", "+3D")),
        ("unknown;,", "unknown;,"),
        ("rfc822;" + "x" * 493, "rfc822;" + "x" * 493),
        (r"utf-8;gr\x{FC}n@example.org", r"utf-8;gr\x{FC}n@example.org"),
        # RFC 6533 §3: what is no address of the type goes on without alteration.
        ("UTF-8;a+2Bb", "UTF-8;a+2Bb"),
        (r"utf-8;\x{zz}", r"utf-8;\x{zz}"),
    ],
)
def test_orcpt_is_kept_as_it_was_said(value: str, original: str) -> None:
    value = value.replace("G=", "G+3D").replace("S=", "S+3D")
    assert dsn.orcpt(value) == value
    assert dsn.orcpt(value, smtputf8=True) == value
    assert dsn.original_recipient(value) == original.replace("+3D", "=")
    assert dsn.ascii_orcpt(value) == value


@pytest.mark.parametrize(
    "value",
    [
        *(None, "", ";", "rfc822", "rfc822;", ";bob@example.com", "rfc 822;b", "rfc822:b", "(c);b", "a=b;c", "ü;b"),
        *("rfc822;a=b", "rfc822;a b", "rfc822;a+0D+0Ab", "rfc822;+00", "rfc822;+FC", "rfc822;+2b", "rfc822;ü@b"),
        *("utf-8;", "utf-8;a=b", "utf-8;a b", "utf-8;+2b", "utf-8;\u0085", "utf-8;\u2028", "utf-8;\udc80", "utf-8;\0"),
        *("rfc822;" + "x" * 494, "utf-8;" + "ü" * 248, "rfc822;a\r\nb", "\u212arfc822;b"),
    ],
)
def test_what_is_no_orcpt(value: str | None) -> None:
    with pytest.raises(Refused, match=r"501 5\.5\.4 Syntax: ORCPT="):
        dsn.orcpt(value, smtputf8=True)


def test_orcpt_in_utf8() -> None:
    """RFC 6533 §3: with SMTPUTF8 only."""
    said = r"utf-8;grün\x{2B}x@bücher.example"
    assert dsn.orcpt(said, smtputf8=True) == said
    assert dsn.orcpt("utf-8;" + "ü" * 247, smtputf8=True)
    with pytest.raises(Refused, match=r"553 5\.6\.7"):
        dsn.orcpt(said)
    assert dsn.ascii_orcpt(said) == r"utf-8;gr\x{FC}n\x{2B}x@b\x{FC}cher.example"


@pytest.mark.parametrize(
    ("address", "for_ascii", "for_utf8"),
    [
        ("Bob@Example.COM", "rfc822;Bob@Example.COM", "rfc822;Bob@Example.COM"),
        ('"a b"+=@x', 'rfc822;"a+20b"+2B+3D@x', 'rfc822;"a+20b"+2B+3D@x'),
        ("ü+=\\@x", r"utf-8;\x{FC}\x{2B}\x{3D}\x{5C}@x", r"utf-8;ü\x{2B}\x{3D}\x{5C}@x"),
        ("用户😀@x", r"utf-8;\x{7528}\x{6237}\x{1F600}@x", "utf-8;用户😀@x"),
    ],
)
def test_an_orcpt_of_our_own(address: str, for_ascii: str, for_utf8: str) -> None:
    assert dsn.format_orcpt(address) == for_ascii
    assert dsn.format_orcpt(address, smtputf8=True) == for_utf8


@BOUNDED
@given(PRINTABLE)
def test_an_address_in_ascii_comes_back(address: str) -> None:
    said = dsn.format_orcpt(address)
    assert dsn.orcpt(said) == said
    assert dsn.original_recipient(said) == f"rfc822;{address}"


@BOUNDED
@given(WIDE.map("ü".__add__), st.booleans())
def test_an_address_in_utf8_comes_back(address: str, smtputf8: bool) -> None:
    said = dsn.format_orcpt(address, smtputf8=smtputf8)
    assert said.isascii() is not smtputf8
    assert dsn.orcpt(said, smtputf8=smtputf8) == dsn.original_recipient(said) == said
    assert utf8_address(said.removeprefix("utf-8;")) == address
    assert dsn.ascii_orcpt(said) == dsn.format_orcpt(address)


@BOUNDED
@given(st.text(max_size=40) | st.text("rfc82utf-;+2BxX{}\\=\r\nü", max_size=40), st.booleans())
def test_anything_else_is_refused(value: str, smtputf8: bool) -> None:
    for parse in (dsn.notify, dsn.ret, dsn.envid, lambda text: dsn.orcpt(text, smtputf8=smtputf8)):
        try:
            said = str(parse(value))
        except Refused:
            continue
        assert said.isprintable() or smtputf8
        assert not {"\r", "\n", " ", "=", "\0"} & set(said)
