"""A message taken apart for storage: a front of text, octets kept inline, blobs.

A leaf in base64 is kept decoded, a third smaller and equal for equal attachments, if encoding it again in the canonical
form (lines of 76 digits, CRLF between them) gives its octets; line ends behind the last line stay in the front. From
`blob_threshold` octets in the message upwards it becomes a blob, from INLINE_MINIMUM upwards octets kept inline, else
it stays where it is. Any other leaf of that threshold's size becomes a blob of its octets as they are. The rest,
headers and delimiters and small parts, is the front. storage/layout.py describes the pieces and puts them together
again.

Nothing here trusts the MIME tree for the octets: pieces are cut out of the message and put back, whatever they hold.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from mailserver.message.structure import Part
from storage import base64_lines, layout
from storage.layout import BLOB_BASE64, BLOB_RAW, INLINE_BASE64, Piece

INLINE_MINIMUM: Final = 1024


class Split(NamedTuple):
    """A message taken apart. layout None: it is all front."""

    front: bytes
    inline: tuple[bytes, ...]
    blobs: tuple[bytes, ...]
    layout: bytes | None


def split(octets: bytes, tree: Part, blob_threshold: int) -> Split:
    """Takes a message apart; `tree` is structure.parse's."""
    if tree.end - tree.header_end < min(INLINE_MINIMUM, blob_threshold):
        return Split(octets, (), (), None)
    front: list[bytes] = []
    inline: list[bytes] = []
    blobs: list[bytes] = []
    pieces: list[Piece] = []
    at = 0
    for part in _leaves(tree):
        start, end = part.header_end, part.end
        size = end - start
        raw = None
        if size >= INLINE_MINIMUM and part.encoding == b"base64":
            end = _last_line_end(octets, start, end)
            raw = base64_lines.decode(octets[start:end])
        if raw is not None:
            if size >= blob_threshold:
                blobs.append(raw)
            else:
                inline.append(raw)
            pieces.append(Piece(start - at, BLOB_BASE64 if size >= blob_threshold else INLINE_BASE64, len(raw)))
        elif size >= blob_threshold:
            end = part.end
            blobs.append(octets[start:end])
            pieces.append(Piece(start - at, BLOB_RAW, size))
        else:
            continue
        front.append(octets[at:start])
        at = end
    if not pieces:
        return Split(octets, (), (), None)
    front.append(octets[at:])
    return Split(b"".join(front), tuple(inline), tuple(blobs), layout.pack(pieces))


def _leaves(tree: Part) -> list[Part]:
    """What holds no parts, in the order of the octets; an empty container is one."""
    found = []
    stack = [tree]
    while stack:
        part = stack.pop()
        if part.message is not None:
            stack.append(part.message)
        elif part.children:
            stack.extend(reversed(part.children))
        else:
            found.append(part)
    return found


def _last_line_end(octets: bytes, start: int, end: int) -> int:
    """Without the line ends behind the last line."""
    while end - start >= 2 and octets[end - 1] == 10 and octets[end - 2] == 13:
        end -= 2
    return end
