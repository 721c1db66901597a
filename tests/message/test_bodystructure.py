from __future__ import annotations

import pytest

from mailserver.message.bodystructure import without_extensions

LEAF = b'("text" "plain" ("charset" "utf-8") NIL NIL "7bit" 5 1%b)'
EXT = b' NIL ("inline" ("a" "b)(")) ("de" "en") "l"'
ENVELOPE = b"(NIL {3}\r\n)( NIL NIL NIL NIL NIL NIL NIL NIL)"


@pytest.mark.parametrize(
    ("full", "plain"),
    [
        (LEAF % EXT, LEAF % b""),
        (LEAF % b"", LEAF % b""),
        (b'("image" "gif" NIL {2}\r\n") NIL "base64" 0%b)' % EXT, b'("image" "gif" NIL {2}\r\n") NIL "base64" 0)'),
        (
            b'(%b%b "mixed" ("b" "\\"c") NIL NIL NIL)' % (LEAF % EXT, LEAF % EXT),
            b'(%b%b "mixed")' % (LEAF % b"", LEAF % b""),
        ),
        (
            b'("message" "rfc822" NIL NIL NIL "7bit" 9 %b %b 2%b)' % (ENVELOPE, LEAF % EXT, EXT),
            b'("message" "rfc822" NIL NIL NIL "7bit" 9 %b %b 2)' % (ENVELOPE, LEAF % b""),
        ),
        (b'("message" "partial" NIL NIL NIL "7bit" 9%b)' % EXT, b'("message" "partial" NIL NIL NIL "7bit" 9)'),
    ],
)
def test_extensions_go(full: bytes, plain: bytes) -> None:
    assert without_extensions(full) == plain


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"NIL",
        b"(",
        b"()",
        LEAF % EXT + b" ",
        (LEAF % EXT)[:-1],
        b'("text")',
        b'("text" "plain" NIL NIL NIL "7bit" {9}',
    ],
)
def test_what_is_no_body_structure_is_refused(text: bytes) -> None:
    with pytest.raises(ValueError):
        without_extensions(text)
