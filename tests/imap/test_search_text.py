"""BODY and TEXT piece by piece, against a message read all at once in the most obvious way."""

from __future__ import annotations

import base64
import binascii
import re
import tracemalloc
from html import unescape

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailserver.imap.search_plan import Facts, Plan, term
from mailserver.imap.search_text import FieldsLook, Look
from mailserver.imap.view import Recent
from mailserver.message import charsets, decode, structure
from mailserver.message.decode import collapse, fold, words
from mailserver.message.structure import Part
from mailserver.protocols.imap import commands as c
from tests.imap.test_search_plan import BOX
from tests.message.corpus_reader import all_cases

SETTINGS = settings(max_examples=60, derandomize=True, deadline=None, database=None)


def plan_of(*keys: c.SearchKey) -> Plan:
    plan = Plan(c.And(keys), BOX, Recent())
    for stretch in plan.stretches():
        plan.root.look(stretch)
    return plan


def looked(octets: bytes, texts: list[str], piece: int) -> list[tuple[bool, bool]]:
    """For each text whether TEXT and BODY find it."""
    plan = plan_of(*[key for text in texts for key in (c.TextHas(text), c.BodyHas(text), c.Not(c.BodyHas(text)))])
    facts = Facts(0)
    for key in plan.texts:  # each of its own, so that no answer makes another one needless
        alone = Facts(0)
        alone_plan = plan_of(c.TextHas(key.term) if key.header else c.BodyHas(key.term))
        assert Look(alone_plan, alone, octets, piece).go_on(60)
        if 0 in alone.found:
            facts.found.add(key.index)
    by_term = {(key.term, key.header): key.index in facts.found for key in plan.texts}
    return [(by_term[term(text), True], by_term[term(text), False]) for text in texts]


class Naive:
    """Header and body of a message as text, read in the most obvious way."""

    def __init__(self, octets: bytes) -> None:
        self.octets = octets
        self.header: list[str] = []
        self.body: list[str] = []
        tree = structure.parse(octets)
        self.fields(tree, self.header)
        self.parts(tree)

    def fields(self, part: Part, into: list[str]) -> None:
        header = self.octets[part.start : part.header_end].replace(b"\r\n", b"\n")
        for line in re.sub(rb"\n([ \t])", rb"\1", header).split(b"\n"):
            if line:
                into.append(words(re.sub(rb"^([^:]*?)[ \t]+:", rb"\1:", line)))

    def parts(self, part: Part) -> None:
        for child in part.children:
            self.fields(child, self.header)
            self.parts(child)
        if part.message is not None:
            self.fields(part.message, self.body)
            self.parts(part.message)
        elif not part.children and part.type in (b"text", b"message", b"multipart"):
            octets = self.octets[part.header_end : part.end]
            if part.encoding == b"base64":
                digits = re.sub(rb"[^A-Za-z0-9+/=]", b"", octets)
                groups = [group for group in digits.split(b"=") if len(group) % 4 != 1]
                octets = b"".join(base64.b64decode(group + b"=" * (-len(group) % 4)) for group in groups)
            elif part.encoding == b"quoted-printable":
                octets = binascii.a2b_qp(octets)
            text = charsets.to_text(octets, part.param(b"charset"))
            if part.subtype == b"html":
                text = re.sub(r"(?is)<!--.*?-->|<(style|script)[\s>/].*?</\1[^<>]*>", " ", text)
                text = unescape(re.sub(r"<[a-zA-Z/!?][^<>]*>", self.shown, text))
            self.body.append(text)

    @staticmethod
    def shown(tag: re.Match[str]) -> str:
        return f" {' '.join(re.findall('(?:href|src|alt|title)=.([^>]*?).(?=[ >])', tag[0]))} "

    def holds(self, text: str, texts: list[str]) -> bool:
        return not text or any(term(text) in f" {collapse(fold(one))} " for one in texts)

    def found(self, text: str) -> tuple[bool, bool]:
        body = self.holds(text, self.body)
        return body or self.holds(text, self.header), body


@pytest.mark.parametrize("piece", [1, 5, 64, 32_768])
def test_the_corpus(piece: int) -> None:
    texts = ["a", "text", "x.example", "", "ü", "plain; ", "base64", "line", "no such text", "message", "part"]
    for case in all_cases():
        naive = Naive(case.message)
        assert looked(case.message, texts, piece) == [naive.found(text) for text in texts], case.name


ALPHABET = st.sampled_from([*"aab. <>&=\n", "ß", "ü", "é", "\u0301", "文", "字", "한", "İ", "🙂", "\u00a0", "ﬁ"])
CHARSETS = ["utf-8", "utf-16", "utf-7", "gb18030", "utf-32"]


@st.composite
def messages(draw: st.DrawFn) -> tuple[bytes, str, str]:
    """A message of one text part, its text, and the kind of text it is."""
    text = draw(st.text(ALPHABET, min_size=20, max_size=400))
    charset = draw(st.sampled_from(CHARSETS))
    kind = draw(st.sampled_from(["plain", "html"]))
    if kind == "html":
        text = text.replace("<", "<a href='").replace(">", "' >") if draw(st.booleans()) else text
    octets = text.encode(charset)
    encoding = draw(st.sampled_from(["base64", "quoted-printable", "8bit"]))
    if encoding == "base64":
        octets = base64.encodebytes(octets)
    elif encoding == "quoted-printable":
        escaped = [b"=%02X" % octet for octet in octets]
        octets = b"=\r\n".join(b"".join(escaped[at : at + 12]) for at in range(0, len(escaped), 12))
    head = f"Content-Type: text/{kind}; charset={charset}\r\nContent-Transfer-Encoding: {encoding}\r\n\r\n"
    return head.encode() + octets, text, kind


@SETTINGS
@given(messages(), st.data())
def test_terms_across_the_borders_of_pieces(message: tuple[bytes, str, str], data: st.DataObject) -> None:
    octets, text, kind = message
    piece = data.draw(st.integers(64, 150))  # no line is longer, see transfer.py
    begin = data.draw(st.integers(0, len(text) - 1))
    inside = text[begin : begin + data.draw(st.integers(1, 60))]
    terms = [inside, data.draw(st.text(ALPHABET, min_size=1, max_size=4))]
    naive = Naive(octets)
    if kind == "plain" or not set("<>&") & set(text):
        assert looked(octets, terms, piece) == [naive.found(text) for text in terms]
    whole = looked(octets, terms, 1 << 20)
    assert looked(octets, terms, piece) == whole


def test_a_plan_ends_the_look_when_it_is_decided() -> None:
    octets = b"Subject: x\r\n\r\nneedle " + b"hay " * 200_000
    for keys, found in (((c.BodyHas("needle"),), {0}), ((c.Not(c.BodyHas("needle")), c.BodyHas("hay needle")), {0})):
        facts = Facts(0)
        look = Look(plan_of(*keys), facts, octets)
        steps = 0
        while not look.go_on(0):
            steps += 1
        assert facts.found == found
        # All of it must be decoded to know its charset, but not folded and compared.
        assert facts.read and steps < len(octets) / 32_768 + 10


@pytest.mark.parametrize("encoding", [b"8bit", b"base64"])
def test_a_large_text_is_never_held_whole(encoding: bytes) -> None:
    """What is held beside the octets is bounded by the piece, whatever the text's size."""
    body = ("Zeile für Zeile " + "x" * 300 + "\r\n").encode() * 25_000
    if encoding == b"base64":
        body = base64.encodebytes(body)
    octets = b"Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: " + encoding + b"\r\n\r\n" + body
    facts = Facts(0)
    look = Look(plan_of(c.BodyHas("nowhere to be found")), facts, octets)
    tracemalloc.start()
    try:
        assert look.go_on(60)
        assert tracemalloc.get_traced_memory()[1] < 3_000_000 < len(octets) / 2
    finally:
        tracemalloc.stop()
    assert facts.read and not facts.found


def test_no_step_is_long() -> None:
    """Each step looks at about a piece, so that others can run in between."""
    octets = b"Content-Type: text/html\r\n\r\n" + b"<p>some text of a mail</p>\r\n" * 40_000
    look = Look(plan_of(c.BodyHas("nowhere")), Facts(0), octets)
    steps = 1
    while not look.go_on(0):
        steps += 1
    assert steps > len(octets) / 32_768


HEADER = b"".join(b"X-%d: value %d\r\n" % (number % 50, number) for number in range(2_000)) + b"\r\n"


@pytest.mark.parametrize("names", [3, 60])
def test_header_fields(names: int) -> None:
    """Of few names each is looked for by itself, of many all at once: the answers are the same."""
    keys = [
        c.HeaderHas(f"X-{name}", text) for name in range(names) for text in ("", "VALUE 5", "value 1951", "nothing")
    ]
    plan = plan_of(*keys)
    facts = Facts(0)
    facts.header = HEADER + b"=?: no field\r\n"
    assert FieldsLook(plan, facts).go_on(60)
    found = [key.index in facts.found for name in plan.fields for key in plan.fields[name]]
    expected = []
    for name in range(names):
        values = [f"value {number}" for number in range(name, 2_000, 50)] if name < 50 else []
        expected += [any(text in value for value in values) for text in ("", "value 5", "value 1951", "nothing")]
    assert found == expected


def test_no_step_through_a_header_is_long() -> None:
    """However many keys there are, a step looks for one of them in one field."""
    plan = plan_of(*[c.HeaderHas(f"X-{number % 10}", f"never {number}") for number in range(500)])
    facts = Facts(0)
    facts.header = HEADER
    look = FieldsLook(plan, facts)
    steps = 1
    while not look.go_on(0):
        steps += 1
        assert not facts.header_read
    assert steps >= 2_000 // 50 * 500
    assert facts.header_read and not facts.found


def test_a_field_is_decoded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    decoded = []
    real = decode.field_text
    monkeypatch.setattr(decode, "field_text", lambda field: decoded.append(field) or real(field))
    facts = Facts(0)
    facts.header = b"Subject: =?utf-8?q?=C3=BC?= x\r\nTo: =?utf-8?q?y?=\r\nFrom: z\r\n\r\n"
    names = ("Subject", "To", "From", "Cc", "Bcc", "Sender")
    plan = plan_of(*[c.HeaderHas(name, text) for name in names for text in ("ü", "x y", "no")])
    assert FieldsLook(plan, facts).go_on(60)
    assert len(decoded) == 3, "those with encoded words, and the one that is asked for a text with a space"
