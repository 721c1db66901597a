"""The one edit that submission makes (RFC 6409 §8), once, before anything is stored.

Bcc and Resent-Bcc go (RFC 5322 §3.6.3: their recipients are not to be seen by others); a Date, Message-ID and From that
are missing are added in front. Every other octet stays as it was sent. Fields of messages inside are not touched.
"""

from __future__ import annotations

from mailserver.message import dates, headers, structure

_DROPPED = frozenset((b"bcc", b"resent-bcc"))


def submission(octets: bytes, *, date: int, message_id: bytes, sender: bytes, zone: int = 0) -> bytes:
    """The message as it is stored and sent.

    date: epoch seconds, and zone minutes east of UTC; message_id: with its brackets; sender: the address for a missing
    From. The three are used only where they are missing, and must be without line ends.
    """
    end = structure.end_of_header(octets, 0, len(octets))
    present = set()
    dropped = []
    for name, start, stop in headers.fields(octets[:end]):
        present.add(name)
        if name in _DROPPED:
            dropped.append((start, stop))
    added = []
    if b"date" not in present:
        added.append(b"Date: %b\r\n" % dates.format_rfc5322(date, zone))
    if b"from" not in present:
        added.append(b"From: <%b>\r\n" % sender)
    if b"message-id" not in present:
        added.append(b"Message-ID: %b\r\n" % message_id)
    if octets and present == {b""}:  # no field at all: what was sent is a body without a header
        added.append(b"\r\n")
    if not added and not dropped:
        return octets
    kept = []
    at = 0
    for start, stop in dropped:
        kept.append(octets[at:start])
        at = stop
    kept.append(octets[at:])
    return b"".join(added + kept)
