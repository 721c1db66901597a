"""The MIME tree of a message (RFC 2045, RFC 2046), with absolute offsets into its octets.

A region of the message is an entity: a header, an empty line, a body. Lines end in CRLF or in LF alone, mixed as they
come; a lone CR ends nothing. The header reaches to the first empty line whatever its lines hold (RFC 7103 §7.2,
choice 1); without one it is the whole region. The body of a multipart is cut at its delimiter lines, each piece is an
entity of its own, and so on downwards: a region never reaches beyond that of its parent, so an outer boundary ends
whatever an inner one left open. The line end before a delimiter belongs to the delimiter (RFC 2046 §5.1.1).

A delimiter line is `--boundary` or `--boundary--` and white space. RFC 2046 would let it go on in any way, but then a
boundary that is the beginning of another one takes the other's lines; so such a line counts only where a multipart has
no other delimiter at all.

A container that holds nothing (a multipart without a delimiter, or one beyond the bounds) has no children. IMAP has no
word for that: body-type-mpart needs a body (RFC 3501 §9). It is shown as if its body were one text/plain part without
a header, in BODYSTRUCTURE and in `locate` alike, so that what was sent can be read.

Bounds: MAX_DEPTH levels; MAX_PARTS parts; the first MAX_HEADER octets of a header are looked at, and MAX_HEADERS of all
headers together; SCAN_FACTOR times the message's size plus SCAN_EXTRA octets are searched for delimiters, so that time
is linear in the size. Beyond them a container stays whole (it has no children, or its last part reaches to its end) and
the fields of a header count as absent.
"""

from __future__ import annotations

from typing import Final

from mailserver.message import content_type
from mailserver.message.content_type import MESSAGE_RFC822, TEXT_PLAIN, Disposition, MediaType, Parameters

MAX_DEPTH: Final = 100
MAX_PARTS: Final = 10_000
MAX_HEADER: Final = 1024 * 1024
MAX_HEADERS: Final = 4 * MAX_HEADER
SCAN_FACTOR: Final = 32
SCAN_EXTRA: Final = 4 * 1024 * 1024

LEAF: Final = 0
MULTIPART: Final = 1
MESSAGE: Final = 2

_VERSION = 1
_NEAR_MISS_COST = 1_000
_HEADER_WINDOW = 8_192
_COUNTED_AT_ONCE = 4 * 1024 * 1024
_QUICK_OCTETS = 128 * 1024
_QUICK_DELIMITERS = 500

ADDRESS_FIELDS = (b"from", b"sender", b"reply-to", b"to", b"cc", b"bcc")
_WANTED = {
    name: name
    for name in (
        *(b"date", b"subject", b"in-reply-to", b"message-id", b"references"),
        *(b"content-type", b"content-transfer-encoding", b"content-id", b"content-description", b"content-md5"),
        *(b"content-disposition", b"content-language", b"content-location"),
        *ADDRESS_FIELDS,
    )
}
_EMPTY_MEDIA = MediaType(b"", b"", (), b"")


class Part:
    """An entity: `[start, header_end)` is its header with the empty line, `[header_end, end)` its body.

    kind says what its body holds: MULTIPART: `children`; MESSAGE: `message`; LEAF: neither. Either may be missing
    from a container, see above. `fields` are the header fields that summaries need: lower-case name to unfolded value
    without surrounding white space; of fields that are repeated the first one, address fields joined by commas
    (RFC 7103 §7.5.1). lines counts the LF in the body of text/*, of messages and of empty multiparts. A Part that came
    from `unpack` knows kind and offsets only.
    """

    __slots__ = ("children", "end", "fields", "header_end", "kind", "lines", "media", "message", "start")

    def __init__(
        self, start: int, header_end: int, end: int, kind: int, media: MediaType, fields: dict[bytes, bytes]
    ) -> None:
        self.start = start
        self.header_end = header_end
        self.end = end
        self.kind = kind
        self.media = media
        self.fields = fields
        self.lines = 0
        self.children: tuple[Part, ...] = ()
        self.message: Part | None = None

    @property
    def type(self) -> bytes:
        return self.media.type

    @property
    def subtype(self) -> bytes:
        return self.media.subtype

    @property
    def params(self) -> Parameters:
        return self.media.params

    @property
    def encoding(self) -> bytes:
        """Content-Transfer-Encoding in lower case; 7bit where there is none (RFC 2045 §6.1)."""
        value = self.fields.get(b"content-transfer-encoding")
        if not value:
            return b"7bit"
        return content_type.without_comments(value).strip(b" \t;").lower() or b"7bit"

    @property
    def disposition(self) -> Disposition | None:
        value = self.fields.get(b"content-disposition")
        return content_type.parse_disposition(value) if value else None

    def param(self, name: bytes) -> bytes | None:
        """The value of a Content-Type parameter, as sent."""
        for key, value in self.media.params:
            if key == name:
                return value
        return None

    def __repr__(self) -> str:
        return f"<Part {self.media.type!r}/{self.media.subtype!r} {self.start}:{self.header_end}:{self.end}>"


def is_costly(octets: bytes) -> bool:
    """Whether parsing the message and what follows from it may take longer than some milliseconds."""
    return len(octets) > _QUICK_OCTETS or octets.count(b"\n--") > _QUICK_DELIMITERS


def parse(octets: bytes | bytearray | memoryview) -> Part:
    """The tree of a whole message."""
    if not isinstance(octets, bytes):
        octets = bytes(octets)
    return _Parser(octets).entity(0, len(octets), TEXT_PLAIN, 0)


def locate(tree: Part, path: tuple[int, ...] = (), kind: str = "") -> tuple[int, int] | None:
    """Where BODY[section] lies (RFC 3501 §6.4.5): `path` are its numbers, `kind` is "", HEADER, TEXT or MIME.

    None where the message has no such section. HEADER.FIELDS is a subset of HEADER, see headers.select.
    """
    if not path:
        return _of_message(tree, kind)
    part = _descend(tree, path)
    if part is None:
        return None
    if kind == "":
        return part.header_end, part.end
    if kind == "MIME":
        return part.start, part.header_end
    if part.message is None:  # RFC 3501: the other kinds need a message/rfc822
        return None
    return _of_message(part.message, kind)


def find(tree: Part, path: tuple[int, ...]) -> Part | None:
    """The part that a section's numbers name; an empty path is the message itself."""
    return _descend(tree, path) if path else tree


def pack(tree: Part) -> bytes | None:
    """The offsets that `locate` needs, about 6 octets a part; None for a message that is one leaf."""
    if tree.kind == LEAF:
        return None
    out = bytearray((_VERSION,))
    _pack(tree, 0, out)
    return bytes(out)


def unpack(packed: bytes | None, size: int, header_octets: int) -> Part:
    """The tree that was packed; `size` and `header_octets` are those of the message, without what was put before it."""
    if packed is None:
        return Part(0, header_octets, size, LEAF, _EMPTY_MEDIA, {})
    if packed[:1] != bytes((_VERSION,)):
        raise ValueError("part offsets are of an unknown version")
    return _unpack(packed, 1, 0)[0]


def end_of_header(octets: bytes, start: int, end: int) -> int:
    """Past the first empty line of a region, where its body begins; the region's end where there is none."""
    if octets.startswith(b"\n", start, end):
        return start + 1
    if octets.startswith(b"\r\n", start, end):
        return start + 2
    at, window = start, _HEADER_WINDOW
    while at < end:  # in growing windows: only one of the two kinds of empty line may be in the message at all
        stop = min(at + window, end)
        crlf = octets.find(b"\n\r\n", at, stop)
        bare = octets.find(b"\n\n", at, crlf + 1 if crlf >= 0 else stop)
        if bare >= 0:
            return bare + 2
        if crlf >= 0:
            return crlf + 3
        if stop == end:
            break
        at, window = stop - 2, window * 4
    return end


class _Parser:
    """One message being parsed, and what is left of the bounds."""

    __slots__ = ("headers", "octets", "parts", "scan")

    def __init__(self, octets: bytes) -> None:
        self.octets = octets
        self.parts = MAX_PARTS
        self.scan = SCAN_FACTOR * len(octets) + SCAN_EXTRA
        self.headers = MAX_HEADERS

    def entity(self, start: int, end: int, default: MediaType, depth: int) -> Part:
        octets = self.octets
        header_end = end_of_header(octets, start, end)
        fields: dict[bytes, bytes] = {}
        if self.headers > 0:
            fields = _fields(octets[start : min(header_end, start + MAX_HEADER)])
            self.headers -= header_end - start
        value = fields.get(b"content-type")
        media = default if value is None else content_type.parse(value, default)
        part = Part(start, header_end, end, LEAF, media, fields)
        if media.type == b"text":
            part.lines = _count_lines(octets, header_end, end)
        elif media.type == b"multipart":
            part.kind = MULTIPART
            self.multipart(part, depth + 1)
            if not part.children:
                part.lines = _count_lines(octets, header_end, end)
        elif media.type == b"message" and media.subtype == b"rfc822":
            part.kind = MESSAGE
            part.lines = _count_lines(octets, header_end, end)
            if depth < MAX_DEPTH and self.may_scan(part):
                part.message = self.entity(header_end, end, TEXT_PLAIN, depth + 1)
        return part

    def multipart(self, part: Part, depth: int) -> None:
        boundary = (part.param(b"boundary") or b"").rstrip()
        if not boundary or depth > MAX_DEPTH or not self.may_scan(part):
            return
        regions = self.cut(part, boundary)
        default = MESSAGE_RFC822 if part.media.subtype == b"digest" else TEXT_PLAIN  # RFC 2046 §5.1.5
        part.children = tuple([self.entity(start, end, default, depth) for start, end in regions])

    def may_scan(self, part: Part) -> bool:
        """Whether a container's body may still be searched; it is paid for here."""
        self.scan -= part.end - part.header_end
        return self.scan >= 0

    def cut(self, part: Part, boundary: bytes) -> list[tuple[int, int]]:
        """The regions of a multipart's parts."""
        needle = b"\n--" + boundary
        regions, near_misses = self.cut_exactly(part, needle)
        if not regions and near_misses:
            regions, _ = self.cut_exactly(part, needle, lenient=True)
        return regions

    def cut_exactly(self, part: Part, needle: bytes, lenient: bool = False) -> tuple[list[tuple[int, int]], int]:
        octets, end, width = self.octets, part.end, len(needle)
        regions: list[tuple[int, int]] = []
        near_misses = 0
        opened = -1
        at = octets.find(needle, part.header_end - 1, end)  # the empty line's end precedes the body's first line
        while at >= 0:
            line_end = octets.find(b"\n", at + width, end)
            if line_end < 0:
                line_end = end
            tail = octets[at + width : line_end].rstrip(b" \t\r")
            if tail and tail != b"--" and not lenient:
                near_misses += 1
                self.scan -= _NEAR_MISS_COST
                if self.scan < 0:
                    break
            else:
                closing = tail[:2] == b"--"
                if not closing and not self.parts:
                    break  # the bound: what is open, if anything, reaches to the end
                if opened >= 0:
                    regions.append((opened, _before_line_end(octets, opened, at)))
                opened = -1
                if closing:
                    break
                self.parts -= 1
                opened = min(line_end + 1, end)
            at = octets.find(needle, line_end, end)
        if opened >= 0:  # never closed
            regions.append((opened, end))
        return regions, near_misses


def _fields(header: bytes) -> dict[bytes, bytes]:
    """The wanted fields of a header, see Part."""
    if b"\r\n" in header:
        header = header.replace(b"\r\n", b"\n")
    # RFC 5322 §2.2.3: unfolding removes the line end before white space.
    header = header.replace(b"\n ", b" ").replace(b"\n\t", b"\t")
    fields: dict[bytes, bytes] = {}
    repeated: dict[bytes, list[bytes]] = {}
    wanted = _WANTED.get
    for line in header.split(b"\n"):
        name, colon, value = line.partition(b":")
        key = wanted(name.lower().rstrip(b" \t"))  # RFC 5322 §4.5: white space before the colon is obsolete, not wrong
        if key is None or not colon:
            continue
        if key not in fields:
            fields[key] = value.strip()
        elif key in ADDRESS_FIELDS:
            repeated.setdefault(key, [fields[key]]).append(value.strip())
    for key, values in repeated.items():
        fields[key] = b", ".join(values)
    return fields


def _count_lines(octets: bytes, start: int, end: int) -> int:
    """In pieces: a call that takes long keeps other threads from running."""
    if end - start <= _COUNTED_AT_ONCE:
        return octets.count(b"\n", start, end)
    return sum(octets.count(b"\n", at, min(at + _COUNTED_AT_ONCE, end)) for at in range(start, end, _COUNTED_AT_ONCE))


def _before_line_end(octets: bytes, start: int, newline: int) -> int:
    """The end of a part whose delimiter's line end has its LF at `newline`."""
    if newline > start and octets[newline - 1] == 13:
        newline -= 1
    return max(newline, start)


def _of_message(message: Part, kind: str) -> tuple[int, int] | None:
    if kind == "":
        return message.start, message.end
    if kind == "HEADER":
        return message.start, message.header_end
    if kind == "TEXT":
        return message.header_end, message.end
    return None  # MIME needs a part number


def _descend(message: Part, path: tuple[int, ...]) -> Part | None:
    """Each number names a child of a multipart, or, as 1, the body of a message that is no multipart."""
    part, whole = message, True  # whole: `part` stands for a message, not for a part of one
    for number in path:
        if part.message is not None and not whole:
            part, whole = part.message, True
        if part.children:
            if not 0 < number <= len(part.children):
                return None
            part = part.children[number - 1]
        elif number != 1:
            return None
        elif part.kind == MULTIPART or (part.kind == MESSAGE and not whole):
            # An empty container: the one text/plain part that it is shown to have.
            part = Part(part.header_end, part.header_end, part.end, LEAF, TEXT_PLAIN, {})
        elif not whole:
            return None
        whole = False
    return part


def _pack(part: Part, base: int, out: bytearray) -> None:
    children = part.children if part.message is None else (part.message,)
    out.append(part.kind)
    _put(out, part.start - base)
    _put(out, part.header_end - part.start)
    _put(out, part.end - part.header_end)
    if part.kind != LEAF:
        _put(out, len(children))
        at = part.header_end
        for child in children:
            _pack(child, at, out)
            at = child.end


def _unpack(packed: bytes, at: int, base: int) -> tuple[Part, int]:
    kind = packed[at]
    start, at = _get(packed, at + 1)
    header, at = _get(packed, at)
    body, at = _get(packed, at)
    start += base
    part = Part(start, start + header, start + header + body, kind, _EMPTY_MEDIA, {})
    if kind != LEAF:
        count, at = _get(packed, at)
        base = part.header_end
        children = []
        for _ in range(count):
            child, at = _unpack(packed, at, base)
            children.append(child)
            base = child.end
        if kind == MULTIPART:
            part.children = tuple(children)
        elif children:
            part.message = children[0]
    return part, at


def _put(out: bytearray, number: int) -> None:
    """A number in base 128, least significant digits first, the top bit set on all but the last."""
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    out.append(number)


def _get(packed: bytes, at: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        digit = packed[at]
        at += 1
        number |= (digit & 127) << shift
        if digit < 128:
            return number, at
        shift += 7
