"""What is stored beside a message so that lists, ENVELOPE and BODYSTRUCTURE need not read it (RFC 3501 §7.4.2).

ENVELOPE and BODYSTRUCTURE are ready-to-send IMAP text, see imap_text.py. Types, subtypes, encodings, disposition types
and names of parameters are case-insensitive and written in lower case; everything else is as sent: encoded words stay
encoded, RFC 2231 parameters stay in their pieces. Defaults: text/plain in us-ascii (RFC 2045 §5.2), message/rfc822 in a
multipart/digest (RFC 2046 §5.1.5), encoding 7bit. Lines are counted as line ends, the last one of a part belonging to
the delimiter. message/global has no place of its own in IMAP4rev1's grammar and is written as a leaf.

Bounds: address fields of all headers together are read up to MAX_ADDRESS_OCTETS and written up to about
MAX_ADDRESS_TEXT, further ones are NIL; strings are bounded by imap_text, the number of parts and the octets of their
headers by structure, so the whole text is too.
"""

from __future__ import annotations

import codecs
import re
from functools import lru_cache
from typing import Final, NamedTuple

from mailserver.message import address, charsets, content_type, dates, html_text, structure, transfer
from mailserver.message.imap_text import nstring, string
from mailserver.message.structure import LEAF, MESSAGE, MULTIPART, Part

MAX_ADDRESS_OCTETS: Final = 1024 * 1024
MAX_ADDRESS_TEXT: Final = 4 * 1024 * 1024
MAX_MESSAGE_IDS: Final = 100
PREVIEW_CHARACTERS: Final = 200

_PREVIEW_OCTETS = 600
_PREVIEW_HTML_OCTETS = 32_768
_PREVIEW_HTML_BODY = 3_000
_PREVIEW_PARTS = 50
_MAX_ID_OCTETS = 998
_SHORT_LIST = 120
_MAX_LANGUAGES = 100
_MAX_YEAR_EPOCH = 253_402_300_799  # 9999-12-31T23:59:59Z
_EMPTY_ENVELOPE = b"(NIL NIL NIL NIL NIL NIL NIL NIL NIL NIL)"
_NO_EXTENSION = b" NIL NIL NIL NIL"
_EXTENSION_FIELDS = frozenset((b"content-md5", b"content-disposition", b"content-language", b"content-location"))
_ID = re.compile(rb"<([^<>]{1,%d})>" % _MAX_ID_OCTETS)
_HIDDEN = re.compile("[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u2064\ufeff\u034f\u00ad]+")
_ENCODINGS = {
    name: b'"%b"' % name.lower()
    for lower in (b"7bit", b"8bit", b"binary", b"base64", b"quoted-printable")
    for name in (lower, lower.upper(), lower.title(), lower.replace(b"bit", b"Bit"))
}


class Summary(NamedTuple):
    """See the module's text. sent: the Date field, epoch seconds; arrival where it is unusable.

    msgids: the message's own id (b"" if it has none), then those of References and In-Reply-To, with their brackets.
    """

    envelope: bytes
    bodystructure: bytes
    header_octets: int
    parts: bytes | None
    sent: int
    preview: str
    msgids: tuple[bytes, ...]


def summarize(octets: bytes, tree: Part, *, arrived: int) -> Summary:
    """The summary of a message that `structure.parse` made the tree of; arrived: epoch seconds."""
    writer = _Writer()
    value = tree.fields.get(b"date")
    sent = dates.parse(value) if value else None
    if sent is None or not -_MAX_YEAR_EPOCH < sent <= _MAX_YEAR_EPOCH:
        sent = arrived
    return Summary(
        writer.envelope(tree.fields),
        writer.body(tree),
        tree.header_end,
        structure.pack(tree),
        sent,
        preview(octets, tree),
        message_ids(tree.fields),
    )


def envelope(tree: Part) -> bytes:
    """ENVELOPE of the message."""
    return _Writer().envelope(tree.fields)


def bodystructure(tree: Part) -> bytes:
    """BODYSTRUCTURE of the message; bodystructure.py makes BODY of it."""
    return _Writer().body(tree)


def message_ids(fields: dict[bytes, bytes]) -> tuple[bytes, ...]:
    """See Summary. At most MAX_MESSAGE_IDS: of too many references the first one and the last ones."""
    own = fields.get(b"message-id")
    references = fields.get(b"references")
    parents = fields.get(b"in-reply-to")
    first = _own_id(own) if own else b""
    if not references and not parents:
        return (first,)
    others = dict.fromkeys(_ids(references or b"") + _ids(parents or b""))
    others.pop(first, None)
    found = list(others)
    if len(found) >= MAX_MESSAGE_IDS:
        found[1 : len(found) - MAX_MESSAGE_IDS + 2] = []
    return (first, *found)


def preview(octets: bytes, tree: Part) -> str:
    """The first words of the first text part, white space collapsed, without what cannot be seen (RFC 8970)."""
    part = _first_text(tree)
    if part is None:
        return ""
    if part.media.subtype == b"html":
        text = _shown_html(octets, part)
    else:
        encoded = b"content-transfer-encoding" in part.fields
        text = _beginning(octets, part, _PREVIEW_OCTETS * 4 if encoded else _PREVIEW_OCTETS)
    text = " ".join(text[: 2 * PREVIEW_CHARACTERS].split())
    if not text.isprintable():
        text = " ".join(_HIDDEN.sub(" ", text).split())
    return text[:PREVIEW_CHARACTERS].rstrip()


class _Writer:
    """Writes IMAP text, and keeps count of what may still be read."""

    __slots__ = ("address_octets", "address_text")

    def __init__(self) -> None:
        self.address_octets = MAX_ADDRESS_OCTETS
        self.address_text = MAX_ADDRESS_TEXT

    def envelope(self, fields: dict[bytes, bytes]) -> bytes:
        if not fields:
            return _EMPTY_ENVELOPE
        get = fields.get
        from_ = self.addresses(get(b"from"))
        self.address_text -= 2 * len(from_)  # it may stand for the sender and the reply's address too
        sender, reply_to = get(b"sender"), get(b"reply-to")
        to, cc, bcc = get(b"to"), get(b"cc"), get(b"bcc")
        return b"(%b %b %b %b %b %b %b %b %b %b)" % (
            nstring(get(b"date")),
            nstring(get(b"subject")),
            from_,
            self.addresses(sender, from_) if sender else from_,
            self.addresses(reply_to, from_) if reply_to else from_,
            self.addresses(to) if to else b"NIL",
            self.addresses(cc) if cc else b"NIL",
            self.addresses(bcc) if bcc else b"NIL",
            nstring(get(b"in-reply-to")),
            nstring(get(b"message-id")),
        )

    def addresses(self, value: bytes | None, empty: bytes = b"NIL") -> bytes:
        """An address list; `empty` where there is no address in it."""
        if not value:
            return empty
        self.address_octets -= len(value)
        if self.address_octets < 0 or self.address_text < 0:
            return empty
        text = (_short_address_list(value) if len(value) <= _SHORT_LIST else _address_list(value)) or empty
        self.address_text -= len(text)
        return text

    def body(self, part: Part) -> bytes:
        if part.children:
            return self.multipart(part, b"".join([self.body(child) for child in part.children]))
        if part.kind == MULTIPART:
            return self.multipart(part, _lone_text(part))
        if part.kind == MESSAGE:
            return self.message(part)
        return self.leaf(part, b" %d" % part.lines if part.media.type == b"text" else b"")

    def multipart(self, part: Part, bodies: bytes) -> bytes:
        subtype = string(part.media.subtype)
        return b"(%b %b %b%b)" % (bodies, subtype, content_type.imap_parameters(part.media.params), _extension(part))

    def message(self, part: Part) -> bytes:
        inner = part.message
        if inner is None:
            return self.leaf(part, b" %b %b %d" % (_EMPTY_ENVELOPE, _lone_text(part), part.lines))
        return self.leaf(part, b" %b %b %d" % (self.envelope(inner.fields), self.body(inner), part.lines))

    def leaf(self, part: Part, specific: bytes) -> bytes:
        """The fields of a body that is no multipart, `specific` being those of its type."""
        fields = part.fields
        get = fields.get
        encoding = get(b"content-transfer-encoding", b"7bit")
        return b"(%b %b %b %b %d%b %b%b)" % (
            part.media.imap,
            nstring(get(b"content-id")),
            nstring(get(b"content-description")),
            _ENCODINGS.get(encoding) or string(part.encoding),
            part.end - part.header_end,
            specific,
            nstring(get(b"content-md5")),
            _extension(part),
        )


def _extension(part: Part) -> bytes:
    """Disposition, language and location, a space before each."""
    if part.fields.keys().isdisjoint(_EXTENSION_FIELDS):
        return b" NIL NIL NIL"
    disposition = part.disposition
    return b" %b %b %b" % (
        b"NIL"
        if disposition is None
        else b"(%b %b)" % (string(disposition.type), content_type.imap_parameters(disposition.params)),
        _language(part.fields.get(b"content-language")),
        nstring(part.fields.get(b"content-location")),
    )


def _language(value: bytes | None) -> bytes:
    """body-fld-lang: a string, or a list where there are several (RFC 3282: separated by commas)."""
    if not value:
        return b"NIL"
    tags = content_type.without_comments(value).split(b",", _MAX_LANGUAGES)[:_MAX_LANGUAGES]
    tags = [tag for tag in map(bytes.strip, tags) if tag]
    if len(tags) > 1:
        return b"(%b)" % b" ".join(map(string, tags))
    return string(tags[0]) if tags else b"NIL"


def _lone_text(part: Part) -> bytes:
    """The text/plain part that an empty container is shown to have, see structure.py."""
    return b'(%b NIL NIL "7bit" %d %d%b)' % (
        content_type.TEXT_PLAIN.imap,
        part.end - part.header_end,
        part.lines,
        _NO_EXTENSION,
    )


def _address_list(value: bytes) -> bytes:
    out = []
    for name, route, mailbox, host in address.parse(value):
        out.append(
            b"(%b %b %b %b)"
            % (
                b"NIL" if name is None else string(name),
                b"NIL" if route is None else string(route),
                b"NIL" if mailbox is None else string(mailbox),
                b"NIL" if host is None else string(host),
            )
        )
    return b"(%b)" % b"".join(out) if out else b""


# The same people write to each other: most lists were seen a moment ago.
_short_address_list = lru_cache(maxsize=2048)(_address_list)


def _own_id(value: bytes) -> bytes:
    found = _ids(value)
    if found:
        return found[0]
    bare = b"".join(value.split())  # a mailer forgot the brackets
    return b"<%b>" % bare if bare and len(bare) <= _MAX_ID_OCTETS and b"<" not in bare and b">" not in bare else b""


def _ids(value: bytes) -> list[bytes]:
    return [b"<%b>" % b"".join(found.split()) for found in _ID.findall(value[: address.MAX_OCTETS])]


def _first_text(tree: Part) -> Part | None:
    """The first text leaf in order among the first parts that is no attachment; plain text before HTML beside it."""
    if tree.kind == LEAF and tree.media is content_type.TEXT_PLAIN:
        return tree
    stack, html, seen = [tree], None, 0
    while stack and seen < _PREVIEW_PARTS:
        part = stack.pop()
        seen += 1
        if part.children:
            stack.extend(reversed(part.children))
        elif part.kind == LEAF and part.media.type == b"text":
            disposition = part.fields.get(b"content-disposition")
            if disposition and disposition[:10].lower() == b"attachment":
                continue
            if part.media.subtype != b"html":
                return part
            html = html or part
    return html


def _beginning(octets: bytes, part: Part, length: int) -> str:
    """The text that the first octets of a text part stand for."""
    data = octets[part.header_end : min(part.end, part.header_end + length)]
    if b"content-transfer-encoding" in part.fields:
        data = transfer.decode(data, part.encoding)
    if data.isascii():
        return data.decode("ascii")
    charset = part.param(b"charset")
    if charset is None or charsets.codec_of(charset) in ("utf_8", "ascii", None):
        try:
            return codecs.utf_8_decode(data, "strict", False)[0]  # not final: a character cut through leaves no trace
        except UnicodeDecodeError:
            pass
    text = charsets.to_text(data, charset)
    for cut in (1, 2, 3):  # the same for other charsets
        if "\ufffd" not in text[-3:] or cut >= len(data):
            break
        text = charsets.to_text(data[:-cut], charset)
    return text


def _shown_html(octets: bytes, part: Part) -> str:
    """The text at the beginning of what HTML shows; heads are often longer than what we look at of a body."""
    html = _beginning(octets, part, _PREVIEW_HTML_OCTETS)
    body = max(html.find("<body"), html.find("<BODY"), 0)
    return html_text.text_of(html[body : body + _PREVIEW_HTML_BODY], attributes=False)
