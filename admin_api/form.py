"""A message to be sent as multipart/form-data (RFC 7578): fields, some of them repeated, and files.

Files are read piece by piece, each counted as it comes: against what one message may have, and against the worker's
memory. A file that becomes a blob is put into the blob store as soon as it is whole, while the next one arrives.
"""

from __future__ import annotations

import asyncio
import warnings
from dataclasses import dataclass, field
from typing import Any

from aiohttp import BadContentDispositionHeader, BadContentDispositionParam, BodyPartReader, MultipartReader, web
from aiohttp.http_exceptions import BadHttpMessage

from admin_api import bodies
from admin_api.memory import Held
from admin_api.problems import Problem
from mailserver.message.compose import Attachment
from storage import StorageError, Store

PIECE = 256 * 1024
MAX_PARTS = 2000
FILES = "attachments"
REPEATED = ("recipients", "cc", "bcc")
_SWITCHES = {"true": True, "1": True, "yes": True, "on": True, "false": False, "0": False, "no": False, "off": False}
_PLAIN = ("", "7bit", "8bit", "binary")

# aiohttp warns of what clients send, each text of it anew, and Python remembers every warning.
_WARNINGS = (BadContentDispositionHeader, BadContentDispositionParam)
for _kind in _WARNINGS:
    warnings.simplefilter("ignore", _kind)
_MALFORMED = (ValueError, LookupError, BadHttpMessage, *_WARNINGS)


@dataclass(slots=True)
class Form:
    """fields: as a JSON document would have them."""

    fields: dict[str, Any] = field(default_factory=dict)
    files: list[Attachment] = field(default_factory=list)


async def read_form(request: web.Request, store: Store, held: Held, limit: int, seconds: float) -> Form:
    """The form of a request whose parts have at most `limit` octets together. Problem: 400, 408, 413, 415, 422, 503."""
    bodies.check_head(request, 2 * limit)
    reading = _Reading(store, held, limit)
    async with bodies.arriving(seconds):
        try:
            await reading.read(await request.multipart())
        except _MALFORMED:
            raise Problem(400, "the body is no well-formed multipart/form-data") from None
        finally:
            if not reading.whole:
                reading.give_up()
    await reading.end()
    return reading.form


class _Reading:
    def __init__(self, store: Store, held: Held, limit: int) -> None:
        self.form = Form()
        self.whole = False
        self._store = store
        self._held = held
        self._limit = limit
        self._octets = 0
        self._puts: list[asyncio.Task[None]] = []

    async def read(self, parts: MultipartReader) -> None:
        count = 0
        while (part := await parts.next()) is not None:
            count += 1
            if count > MAX_PARTS or not isinstance(part, BodyPartReader):
                raise ValueError("too many parts, or parts inside of parts")
            if part.headers.get("Content-Transfer-Encoding", "").lower() not in _PLAIN:
                raise ValueError("RFC 7578 §4.7: parts are sent as they are")
            await self._take(part)
        self.whole = True

    async def _take(self, part: BodyPartReader) -> None:
        name = part.name or ""
        if name == FILES:
            octets = await self._octets_of(part)
            self.form.files.append(Attachment(part.filename or "", part.headers.get("Content-Type", ""), octets))
            self._put_early(octets)
            return
        if part.filename is not None:
            raise Problem(422, f"files are sent as {FILES}", name[:100])
        try:
            self._set(name, (await self._octets_of(part)).decode("utf-8"))
        except UnicodeDecodeError:
            raise Problem(422, "the field is not UTF-8", name[:100]) from None

    def _set(self, name: str, text: str) -> None:
        fields = self.form.fields
        if name in REPEATED:
            fields.setdefault(name, []).append(text)
        elif name in fields:
            raise Problem(422, "the field stands twice", name[:100])
        elif name == "save":
            fields[name] = _SWITCHES.get(text.strip().lower(), text)
        else:
            fields[name] = text

    async def _octets_of(self, part: BodyPartReader) -> bytes:
        octets = bytearray()
        while piece := await part.read_chunk(PIECE):
            self._octets += len(piece)
            if self._octets > self._limit:
                raise bodies.too_large(self._limit)
            self._held.take(len(piece))
            octets += piece
        return bytes(octets)

    def _put_early(self, octets: bytes) -> None:
        """What is in the blob store already is found there when the message is stored; what failed is tried again."""
        if len(octets) >= self._store.blob_threshold:
            self._puts.append(asyncio.create_task(self._put(octets)))

    async def _put(self, octets: bytes) -> None:
        try:
            await self._store.blobs.put(octets)
        except StorageError:
            pass

    async def end(self) -> None:
        await asyncio.gather(*self._puts)

    def give_up(self) -> None:
        for put in self._puts:
            put.cancel()
