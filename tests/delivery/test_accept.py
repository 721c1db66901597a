"""Messages go in by one door and come out as they were."""

from __future__ import annotations

import asyncio
import threading
from base64 import encodebytes
from random import Random
from typing import Any
from uuid import uuid4

import pytest

from mailserver.delivery import accept as module
from mailserver.delivery.accept import accept
from mailserver.message import structure
from storage import (
    INBOX,
    AccountId,
    Flag,
    MailboxId,
    NotFound,
    OverQuota,
    Placed,
    Placement,
    Store,
    account_state,
    reader,
)
from tests.support.rows import MessageRow, message_rows

ARRIVED = 1_764_000_000
PREFIX = b"Return-Path: <>\r\n"

BASE64 = encodebytes(Random(1).randbytes(200_000)).replace(b"\n", b"\r\n")
ATTACHED = (
    b'Subject: hi\r\nContent-Type: multipart/mixed; boundary="b"\r\n\r\n--b\r\n\r\ntext\r\n--b\r\n'
    b"Content-Transfer-Encoding: base64\r\nContent-Type: image/png\r\n\r\n" + BASE64 + b"\r\n--b--\r\n"
)

SHAPES = {
    "empty": b"",
    "no header": b"\r\ntext\r\n",
    "no body": b"Subject: x\r\n",
    "no final line end": b"Subject: x\r\n\r\ntext",
    "8 bit, NUL, bare CR and LF, as APPEND may bring": b"Subject: \xff\xfe\r\n\r\na\0b\rc\nd\r\n",
    "attachment": ATTACHED,
    "large": b"Subject: x\r\n\r\n" + b"0123456789abcdef" * 4 * 20_000,
    "an odd base64": ATTACHED.replace(b"\r\n--b--", b"!\r\n--b--"),
}


async def put(store: Store, octets: bytes, to: list[Placement] | None = None, quota: Any = "refuse") -> list[Placed]:
    placements = to or [Placement(AccountId(1), INBOX, ARRIVED, header_prefix=PREFIX)]
    return await accept(store, octets, placements, trace_id=uuid4(), quota=quota, arrived=ARRIVED)


async def row_of(store: Store, placed: Placed) -> MessageRow:
    found = await message_rows(store, placed.account_id, [placed.message_id])
    return found[placed.message_id]


async def whole(store: Store, placed: Placed) -> bytes:
    return await reader.read(store, placed.account_id, placed.message_id, row=await row_of(store, placed))


@pytest.mark.parametrize("octets", SHAPES.values(), ids=SHAPES)
async def test_what_comes_out_is_what_went_in(store: Store, octets: bytes) -> None:
    [placed] = await put(store, octets)
    assert await whole(store, placed) == PREFIX + octets
    row = await row_of(store, placed)
    assert (row.size, row.header_prefix) == (len(octets), PREFIX)
    tree = structure.unpack(row.parts, row.size, row.header_octets)
    assert structure.locate(tree, (), "HEADER") == structure.locate(structure.parse(octets), (), "HEADER")


async def test_two_accounts_get_one_message_each_with_its_own_prefix(store: Store) -> None:
    to = [Placement(AccountId(i), INBOX, ARRIVED, int(Flag.SEEN), ("$Label",), b"X: %d\r\n" % i) for i in (1, 2)]
    first, second = await put(store, ATTACHED, to)
    assert (first.account_id, second.account_id) == (1, 2)
    assert await whole(store, first) == b"X: 1\r\n" + ATTACHED
    assert await whole(store, second) == b"X: 2\r\n" + ATTACHED


async def test_all_or_none(store: Store) -> None:
    to = [Placement(AccountId(1), INBOX, ARRIVED), Placement(AccountId(2), MailboxId(99), ARRIVED)]
    with pytest.raises(NotFound):
        await put(store, b"x", to)
    assert (await account_state.quota(store, AccountId(1))).used_messages == 0


async def test_quota(store: Store) -> None:
    await account_state.set_quota(store, AccountId(1), 100, 0)
    both = [Placement(AccountId(i), INBOX, ARRIVED) for i in (1, 2)]
    with pytest.raises(OverQuota) as caught:
        await put(store, b"x" * 101, both)
    assert caught.value.never
    await put(store, b"x" * 101, both, quota="share")
    with pytest.raises(OverQuota) as caught:
        await put(store, b"x", quota="share")
    assert not caught.value.never


async def test_large_messages_are_taken_apart_in_a_thread(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    threads = []
    real = module._take_apart

    def take_apart(*args: Any) -> Any:
        threads.append(threading.current_thread() is threading.main_thread())
        return real(*args)

    monkeypatch.setattr(module, "_take_apart", take_apart)
    await put(store, b"x" * 100_000)
    await put(store, b"x" * 200_000)
    await put(store, b"Content-Type: multipart/mixed; boundary=b\r\n\r\n" + b"--b\r\n" * 1000)
    assert threads == [True, False, False]


async def test_trace_id_is_in_the_rows(store: Store) -> None:
    trace_id = uuid4()
    placements = [Placement(AccountId(1), INBOX, ARRIVED)]
    [placed] = await accept(store, b"x", placements, trace_id=trace_id, quota="refuse", arrived=ARRIVED)
    assert (await row_of(store, placed)).trace_id == trace_id


async def test_date_is_the_arrival_where_there_is_none(store: Store) -> None:
    [without] = await put(store, b"Subject: x\r\n\r\n")
    [dated] = await put(store, b"Date: Thu, 1 Jan 1970 00:01:00 +0000\r\n\r\n")
    assert (await row_of(store, without)).sent == ARRIVED
    assert (await row_of(store, dated)).sent == 60


async def test_many_at_once_share_commits(store: Store) -> None:
    before = store.committer.batches
    await asyncio.gather(*[put(store, b"Subject: %d\r\n\r\n" % i) for i in range(50)])
    assert store.committer.batches - before < 25
    assert (await account_state.quota(store, AccountId(1))).used_messages == 50
