"""What EHLO announces, in all the ways in which servers write it."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailserver.protocols.smtp.extensions import Extensions
from mailserver.protocols.smtp.reply import Reply


def ehlo(*lines: str) -> Extensions:
    return Extensions.from_ehlo(Reply(250, ("mx.example says hello", *lines)))


NONE = Extensions("mx.example")
FLAGS = {
    "PIPELINING": Extensions("mx.example", pipelining=True),
    "8BITMIME": Extensions("mx.example", eight_bit=True),
    "SMTPUTF8": Extensions("mx.example", smtputf8=True),
    "CHUNKING": Extensions("mx.example", chunking=True),
    "STARTTLS": Extensions("mx.example", starttls=True),
    "DSN": Extensions("mx.example", dsn=True),
    "ENHANCEDSTATUSCODES": Extensions("mx.example", enhanced=True),
}


@pytest.mark.parametrize("keyword", FLAGS)
def test_keywords(keyword: str) -> None:
    assert ehlo(keyword) == ehlo(keyword.lower()) == ehlo(keyword.capitalize() + "  ") == FLAGS[keyword]
    assert ehlo(keyword + " with parameters") == FLAGS[keyword]
    for wrong in (keyword[:-1], keyword + "X", "X" + keyword, "X " + keyword):
        assert ehlo(wrong) == NONE


def test_every_combination() -> None:
    fields = Extensions.__dataclass_fields__
    for chosen in itertools.product((False, True), repeat=len(FLAGS)):
        keywords = [keyword for keyword, wanted in zip(FLAGS, chosen, strict=True) if wanted]
        found = ehlo("HELP", *keywords)
        for name in fields:
            if name not in ("domain", "size", "auth"):
                assert getattr(found, name) == any(getattr(FLAGS[keyword], name) for keyword in keywords)


@pytest.mark.parametrize(
    ("lines", "size"),
    [
        ([], None),
        (["SIZE"], 0),
        (["SIZE 0"], 0),
        (["size 35882577"], 35882577),
        (["SIZE 18446744073709551615"], 18446744073709551615),
        (["SIZE " + "9" * 21], 0),
        (["SIZE " + "9" * 4000], 0),
        (["SIZE -1"], 0),
        (["SIZE ten"], 0),
        (["SIZE ٣"], 0),
        (["SIZE=10"], None),
        (["SIZE 10 20"], 10),
    ],
)
def test_size(lines: list[str], size: int | None) -> None:
    assert ehlo(*lines).size == size


@pytest.mark.parametrize(
    ("lines", "auth"),
    [
        ([], set()),
        (["AUTH"], set()),
        (["AUTH PLAIN LOGIN"], {"PLAIN", "LOGIN"}),
        (["auth  plain\tCram-MD5"], {"PLAIN", "CRAM-MD5"}),
        (["AUTH=PLAIN LOGIN"], {"PLAIN", "LOGIN"}),
        (["AUTH= PLAIN"], {"PLAIN"}),
        (["AUTH LOGIN", "AUTH=PLAIN LOGIN"], {"PLAIN", "LOGIN"}),
        (["AUTH="], set()),
        (["XAUTH PLAIN"], set()),
    ],
)
def test_auth(lines: list[str], auth: set[str]) -> None:
    assert ehlo(*lines).auth == auth


@pytest.mark.parametrize(
    ("line", "domain"),
    [
        ("mx.example", "mx.example"),
        ("mx.example  at your service", "mx.example"),
        ("", ""),
        ("[192.0.2.1]", "[192.0.2.1]"),
    ],
)
def test_domain(line: str, domain: str) -> None:
    assert Extensions.from_ehlo(Reply(250, (line, "DSN"))) == Extensions(domain, dsn=True)
    assert Extensions.from_helo(Reply(250, (line,))) == Extensions(domain)


def test_the_first_line_announces_nothing() -> None:
    assert Extensions.from_ehlo(Reply(250, ("PIPELINING",))) == Extensions("PIPELINING")


def test_after_helo_there_are_none() -> None:
    assert Extensions.from_helo(Reply(250, ("mx.example", "PIPELINING", "SIZE 10"))) == NONE


@given(st.lists(st.text(max_size=30) | st.sampled_from(["SIZE", "AUTH=", "AUTH", "SIZE ", "="]), min_size=1))
def test_any_text(lines: list[str]) -> None:
    found = Extensions.from_ehlo(Reply(250, tuple(lines)))
    assert found.size is None or 0 <= found.size < 10**20
