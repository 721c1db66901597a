from __future__ import annotations

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
