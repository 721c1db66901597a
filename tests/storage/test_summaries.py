"""Reading summaries of many messages, large ones apart."""

from __future__ import annotations

import uuid

import pytest

from mailserver.delivery.accept import accept
from storage import NotFound, Placement, Store, summaries
from storage.records import INBOX
from tests.storage.conftest import ALICE

SMALL = b"Subject: small\r\n\r\ntext\r\n"
LONG = b"Subject: long\r\nX-Long: " + b"x" * 20_000 + b"\r\n\r\ntext\r\n"
COMPLEX = b"Content-Type: multipart/mixed; boundary=x\r\n\r\n" + b"--x\r\n\r\n\r\n" * 200 + b"--x--\r\n"


async def put(store: Store, octets: bytes) -> int:
    placement = Placement(ALICE, INBOX, 0, header_prefix=b"X-Prefix: p\r\n")
    (placed,) = await accept(store, octets, [placement], trace_id=uuid.uuid4(), quota="refuse", arrived=0)
    return placed.message_id


async def test_structures(store: Store) -> None:
    small, complex_ = await put(store, SMALL), await put(store, COMPLEX)
    envelopes, bodystructures = await summaries.structures(store, ALICE, [small, complex_, 1])
    assert envelopes.keys() == bodystructures.keys() == {small, complex_}
    assert bodystructures[complex_] is None and envelopes[complex_] is not None
    assert (await summaries.structure(store, ALICE, small)) == (envelopes[small], bodystructures[small])
    envelope, bodystructure = await summaries.structure(store, ALICE, complex_)
    assert envelope == envelopes[complex_] and bodystructure.count(b'"plain"') == 200
    with pytest.raises(NotFound):
        await summaries.structure(store, ALICE, 1)


async def test_headers(store: Store) -> None:
    small, long = await put(store, SMALL), await put(store, LONG)
    found = await summaries.headers(store, ALICE, [small, long, 1])
    assert found == {small: b"X-Prefix: p\r\nSubject: small\r\n\r\n", long: None}
    assert await summaries.header(store, ALICE, long) == b"X-Prefix: p\r\n" + LONG.removesuffix(b"text\r\n")
    assert await summaries.header(store, ALICE, small) == found[small]
    with pytest.raises(NotFound):
        await summaries.header(store, ALICE, 1)


async def test_extents(store: Store) -> None:
    small, complex_ = await put(store, SMALL), await put(store, COMPLEX)
    found = await summaries.extents(store, ALICE, [small, complex_, 1])
    assert found.keys() == {small, complex_}
    assert found[small].header_prefix == b"X-Prefix: p\r\n"
    assert (found[small].size, found[small].header_octets) == (len(SMALL), 18)
    assert found[complex_].parts
