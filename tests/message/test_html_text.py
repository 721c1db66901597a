from __future__ import annotations

import re
from html import unescape

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailserver.message import html_text
from mailserver.message.folding import collapse
from tests.message.messages import SETTINGS


@pytest.mark.parametrize(
    ("html", "text"),
    [
        ("plain", "plain"),
        ("<p>one</p><p>two</p>", "one two"),
        ("a<br>b<BR/>c", "a b c"),
        ("x &lt; y &amp;&nbsp;z &#252; &#xFC; &notanentity;", "x < y & z ü ü ¬anentity;"),
        ("<style type=x>p { }</style>seen<script>if (a<b) x()</script>too", "seen too"),
        ("<STYLE>hidden</Style >seen", "seen"),
        ("<styled>seen</styled>", "seen"),
        ("<!-- hidden <b> -->seen<!-- > --> too", "seen too"),
        ("<!DOCTYPE html><?xml?>seen", "seen"),
        ("1 < 2 and 3 > 2 <3", "1 < 2 and 3 > 2 <3"),
        ("<a href='http://x.example/?a=1&amp;b'>link</a>", "http://x.example/?a=1&b link"),
        ('<img src="cid:p" ALT="a picture" title=short width=1>', "cid:p a picture short"),
        ("<p class=x data-src=y>t</p>", "t"),
        # Never closed: hidden to the end, or a tag to the end.
        ("seen<!-- hidden", "seen"),
        ("seen<style>hidden", "seen"),
        ("seen<a href='x'", "seen x"),
        ("&#" + "9" * 5000 + ";x", "x"),
        ("&#x110000;&#0;", "\ufffd\ufffd"),
    ],
)
def test_text_of(html: str, text: str) -> None:
    assert collapse(html_text.text_of(html)) == text


def test_without_attributes() -> None:
    assert collapse(html_text.text_of("<a href='x' title='y'>seen</a>", attributes=False)) == "seen"


@SETTINGS
@given(
    st.lists(
        st.sampled_from(["<", ">", "<!--", "-->", "<style>", "</style>", "&", "&#", "=", "'", '"', " href", "a", "1"])
    )
)
def test_anything_is_read(pieces: list[str]) -> None:
    html_text.text_of("".join(pieces))


@SETTINGS
@given(
    st.lists(
        st.sampled_from(
            [
                *("<", ">", "<!--", "-->", "--", "<style>", "</style>", "</style ", "<script ", "</script>", "/"),
                *("<a href='x y'>", "<a", "&amp;", "&am", "&#65;", "&#", "65", ";", "text", " ", "=", '"', "&notin"),
            ]
        ),
        max_size=20,
    ).map("".join),
    st.integers(1, 7),
)
def test_pieces_are_read_as_the_whole(html: str, piece: int) -> None:
    pieces = [html[at : at + piece] for at in range(0, len(html), piece)]
    assert "".join(html_text.texts(pieces)) == reference(html) == html_text.text_of(html)


def reference(html: str) -> str:
    """The same by patterns over all of the text."""
    html = re.sub(r"(?is)<!--.*?(?:-->|\Z)|<(style|script)(?=[\s>/]).*?(?:</\1[^<>]*>?|\Z)", hidden, html)
    tag = re.compile(r"<[a-zA-Z/!?][^<>]*(?:>|\Z)")
    return unescape(tag.sub(lambda found: html_text._kept(found), html))


def hidden(found: re.Match[str]) -> str:
    closed = found[0].endswith("-->") and len(found[0]) >= 7 if not found[1] else "</" + found[1] in found[0].lower()
    return " " if closed else ""


@pytest.mark.parametrize("unit", ["<a ", "<a", "&#1", "<!--", "<style>", "x", "<a b='c", "</style"])
def test_little_is_held(unit: str) -> None:
    pieces = [unit * 1000] * 100
    held = longest = 0
    for text in html_text.texts(pieces):
        held = max(held, len(text))
        longest += len(text)
    assert held <= html_text.MAX_TAG + 3 * len(pieces[0])
