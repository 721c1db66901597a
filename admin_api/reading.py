"""Stored messages as documents: lists, one message with its text, single parts, raw octets.

Nothing here sets \\Seen. Text is read by the ranges of its parts, so that a message is shown without its attachments.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Iterable
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Final
from urllib.parse import quote

from aiohttp import web

from admin_api.memory import Held
from admin_api.route import Call
from mailserver.message import charsets, shown, structure, summary, transfer
from mailserver.message.shown import Leaf, Parts, Person
from mailserver.message.structure import Part
from storage import AccountId, Extent, MessageId, NotFound, Store, inbox, object_ids, reader
from storage.inbox import Detail, Listed, Membership, Overview
from storage.pages import Entry

SHOWN_OCTETS: Final = 1024 * 1024
"""Of a text in the message, as many as are decoded for a document."""
_ASIDE_OCTETS = 64 * 1024
_PARTS_AT_ONCE = 4 * 1024
"""Octets of a packed structure: more of it is taken apart in a thread."""
_SHORT_OCTETS = 1024
_PIECE = 64 * 1024
_EARLIEST = -62_135_596_800  # 0001-01-01

_TOKEN = re.compile(r"[A-Za-z0-9!#$&^_.+-]{1,127}/[A-Za-z0-9!#$&^_.+-]{1,127}")
_NOT_QUOTABLE = re.compile(r'[^ -~]|["\\%]')

PART_POLICY = "default-src 'none'; sandbox"
"""The Content-Security-Policy of what others have written."""


def moment(epoch: float) -> str:
    """Whole seconds, in the form of RFC 3339."""
    return datetime.fromtimestamp(max(epoch, _EARLIEST), UTC).isoformat()[:19] + "Z"


def people(persons: Iterable[Person]) -> list[dict[str, str]]:
    return [{"name": person.name, "email": person.email} for person in persons]


def filename_of(leaf: Leaf) -> str:
    """Its name, or one that is made up."""
    return leaf.filename or f"part-{leaf.part}"


# Lists ----------------------------------------------------------------------------------------------------------------


def page(listed: Listed, overviews: dict[int, Overview]) -> dict[str, Any]:
    """A page of a mailbox; messages that went meanwhile are left out."""
    items = [
        _item(entry, overviews[entry.message_id], listed.keywords)
        for entry in listed.entries
        if entry.message_id in overviews
    ]
    cursor = f"{listed.uidvalidity}.{listed.entries[-1].uid}" if listed.more else None
    return {"items": items, "next_cursor": cursor, "total": listed.messages, "unseen": listed.unseen}


def _item(entry: Entry, overview: Overview, keywords: tuple[str, ...]) -> dict[str, Any]:
    texts = overview.envelope, overview.bodystructure
    words = _short_words(*texts) if max(map(len, texts)) <= _SHORT_OCTETS else _words(*texts)
    return {
        "id": object_ids.email_id(overview.message_id),
        "thread_id": object_ids.thread_id(overview.thread_id),
        **words,
        "date": moment(overview.sent),
        "received": moment(entry.received),
        "preview": overview.preview,
        "size": overview.size,
        "flags": inbox.flag_names(entry.flags, keywords),
    }


def _words(envelope: bytes, bodystructure: bytes) -> dict[str, Any]:
    """What of an item has to be read out of IMAP text; it is never changed."""
    headline = shown.headline(envelope)
    return {
        "from": people(headline.from_),
        "to": people(headline.to),
        "subject": headline.subject,
        "attachments": [filename_of(leaf) for leaf in shown.parts(bodystructure).attachments],
    }


# Who looks at a list looks at it again.
_short_words = lru_cache(maxsize=1024)(_words)


# One message ----------------------------------------------------------------------------------------------------------


async def email(store: Store, account_id: AccountId, message_id: int) -> dict[str, Any]:
    """NotFound, Damaged."""
    detail, memberships = await inbox.detail(store, account_id, message_id)
    envelope = await _aside(detail.envelope, shown.envelope)
    parts = await _aside(detail.bodystructure, shown.parts)
    tree = await _tree(detail)
    text, cut = await _text(store, account_id, detail, tree, parts.text)
    html, html_cut = await _text(store, account_id, detail, tree, parts.html)
    return {
        "id": object_ids.email_id(detail.message_id),
        "thread_id": object_ids.thread_id(detail.thread_id),
        "trace_id": str(detail.trace_id),
        "message_id": envelope.message_id,
        "in_reply_to": envelope.in_reply_to,
        "from": people(envelope.from_),
        "reply_to": people(envelope.reply_to),
        "to": people(envelope.to),
        "cc": people(envelope.cc),
        "bcc": people([*envelope.bcc, *_bcc_of_prefix(detail.header_prefix)]),
        "subject": envelope.subject,
        "date": moment(detail.sent),
        "received": moment(min(place.received for place in memberships)),
        "preview": detail.preview,
        "size": detail.size + len(detail.header_prefix),
        "body": text or "",
        "html": html,
        "truncated": cut or html_cut,
        "attachments": list(map(_attachment, parts.attachments)),
        "mailboxes": places(account_id, memberships),
    }


def places(account_id: AccountId, memberships: Iterable[Membership]) -> list[dict[str, Any]]:
    """Where a message is."""
    return [
        {
            "id": object_ids.mailbox_id(account_id, place.mailbox_id),
            "name": place.name,
            "uid": place.uid,
            "flags": place.flags,
            "modseq": place.modseq,
        }
        for place in memberships
    ]


def _attachment(leaf: Leaf) -> dict[str, Any]:
    return {
        "part": leaf.part,
        "filename": filename_of(leaf),
        "content_type": leaf.media_type,
        "size": leaf.size,
        "inline": leaf.disposition == "inline" or bool(leaf.content_id and leaf.disposition != "attachment"),
        "content_id": leaf.content_id,
    }


def _bcc_of_prefix(prefix: bytes) -> list[Person]:
    """What a sender's own copy says in front of the octets that all recipients share."""
    if b"Bcc:" not in prefix:
        return []
    return shown.envelope(summary.envelope(structure.parse(prefix))).bcc


async def _text(
    store: Store, account_id: AccountId, detail: Detail, tree: Part, leaf: Leaf | None
) -> tuple[str | None, bool]:
    """The text of a part, and whether it was cut."""
    place = None if leaf is None else _place(detail, tree, leaf.path)
    if leaf is None or place is None:
        return None, False
    start, stop = place
    octets = await reader.octets(store, account_id, _extent(detail), start, min(stop, start + SHOWN_OCTETS))
    return await _aside(octets, _decoded, leaf), stop - start > SHOWN_OCTETS


def _decoded(octets: bytes, leaf: Leaf) -> str:
    text = charsets.to_text(transfer.decode(octets, leaf.encoding), leaf.charset)
    return text.replace("\r\n", "\n")


def _extent(detail: Detail) -> Extent:
    return Extent(detail.message_id, detail.header_prefix, detail.size, detail.header_octets, detail.parts)


async def _tree(detail: Detail) -> Part:
    """Where all parts lie."""
    packed = detail.parts or b""
    if len(packed) <= _PARTS_AT_ONCE:
        return structure.unpack(detail.parts, detail.size, detail.header_octets)
    return await asyncio.to_thread(structure.unpack, packed, detail.size, detail.header_octets)


def _place(detail: Detail, tree: Part, path: tuple[int, ...]) -> tuple[int, int] | None:
    """Where a part's body lies in the whole message."""
    found = structure.locate(tree, path)
    prefix = len(detail.header_prefix)
    return None if found is None else (prefix + found[0], prefix + found[1])


async def _aside(octets: bytes, work: Any, *more: Any) -> Any:
    """In a thread where there is much to do."""
    if len(octets) <= _ASIDE_OCTETS:
        return work(octets, *more)
    return await asyncio.to_thread(work, octets, *more)


# Octets ---------------------------------------------------------------------------------------------------------------


async def part(call: Call, message_id: int, number: str) -> web.StreamResponse:
    """A part as it was before it was encoded. NotFound, Damaged."""
    store, account_id = call.api.store, AccountId(call.account_id)
    detail, _ = await inbox.detail(store, account_id, message_id)
    parts: Parts = await _aside(detail.bodystructure, shown.parts)
    leaves = [*parts.attachments, *filter(None, (parts.text, parts.html))]
    leaf = next((leaf for leaf in leaves if leaf.part == number), None)
    place = None if leaf is None else _place(detail, await _tree(detail), leaf.path)
    if leaf is None or place is None:
        raise NotFound(f"part {number}")
    media_type = leaf.media_type if _TOKEN.fullmatch(leaf.media_type) else "application/octet-stream"
    with Held(call.api.memory) as held:
        held.take(place[1] - place[0])
        octets = await reader.octets(store, account_id, _extent(detail), *place)
        pieces = transfer.pieces(octets, 0, len(octets), leaf.encoding, _PIECE)
        return await _stream(call.request, _slowly(pieces), media_type, filename_of(leaf))


async def raw(call: Call, message_id: int) -> web.StreamResponse:
    """The whole message. NotFound, Damaged."""
    store, account_id = call.api.store, AccountId(call.account_id)
    detail, _ = await inbox.detail(store, account_id, message_id)
    with Held(call.api.memory) as held:
        held.take(detail.size)
        octets = await reader.read(store, account_id, MessageId(message_id), row=_extent(detail))
        pieces = (octets[at : at + _PIECE] for at in range(0, len(octets), _PIECE))
        name = f"{object_ids.email_id(message_id)}.eml"
        return await _stream(call.request, _slowly(pieces), "message/rfc822", name, len(octets))


async def _slowly(pieces: Iterable[bytes]) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece
        await asyncio.sleep(0)


async def _stream(
    request: web.Request, pieces: AsyncIterator[bytes], media_type: str, filename: str, length: int | None = None
) -> web.StreamResponse:
    """Sends octets that others have written: to be kept, not to be shown."""
    headers = {
        "Content-Type": media_type,
        "Content-Disposition": disposition(filename),
        "Content-Security-Policy": PART_POLICY,
    }
    response = web.StreamResponse(headers=headers)
    response.content_length = length
    await response.prepare(request)
    if request.method != "HEAD":
        async for piece in pieces:
            await response.write(piece)
    await response.write_eof()
    return response


def disposition(filename: str) -> str:
    """RFC 6266: the name in plain, and as it is where it is not."""
    plain = _NOT_QUOTABLE.sub("_", filename)[:200]
    if plain == filename:
        return f'attachment; filename="{plain}"'
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(filename[:200], safe='')}"
