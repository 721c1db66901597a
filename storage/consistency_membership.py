"""The part of storage/consistency.py that looks at mailboxes, their pages, what vanished from them, and the sums."""

from __future__ import annotations

from array import array
from dataclasses import dataclass
from typing import Any

from storage import mailboxes, membership
from storage.consistency_contents import check_held
from storage.findings import Findings, Mend
from storage.packed import INT8, UINT4, fit, unpack
from storage.pages import PAGE_BITS, Page
from storage.records import INBOX, KEYWORDS_AT, Flag, Mailbox

_BOXES_AT_ONCE = 500
_PAGES_AT_ONCE = 50
_VANISHED_AT_ONCE = 20

_STATE = """
SELECT modseq, used_octets, used_messages, undelete_octets, next_mailbox, next_uidvalidity
FROM account_state WHERE account_id = $1
"""
_BOXES = f"""
SELECT {mailboxes.COLUMNS}, deleted_at IS NOT NULL FROM mailboxes
WHERE account_id = $1 AND mailbox_id > $2 ORDER BY mailbox_id LIMIT {_BOXES_AT_ONCE}
"""
_PAGES = f"""
SELECT mailbox_id, page, modseq, uids, message_ids, flags, modseqs, sizes, received, saved FROM mailbox_pages
WHERE account_id = $1 AND (mailbox_id, page) > ($2, $3) ORDER BY mailbox_id, page LIMIT {_PAGES_AT_ONCE}
"""
_VANISHED_TYPECODES = (UINT4, INT8, INT8, UINT4, INT8)
_VANISHED = f"""
SELECT mailbox_id, modseq, uids, message_ids, flags, sizes, received FROM vanished
WHERE account_id = $1 AND (mailbox_id, modseq) > ($2, $3) ORDER BY mailbox_id, modseq LIMIT {_VANISHED_AT_ONCE}
"""
_BACK = """
SELECT uids FROM mailbox_pages WHERE account_id = $1 AND mailbox_id = $2 AND page = ANY($3)
"""
# \\Recent may be claimed meanwhile without the account's lock.
_SET_MAILBOX = """
UPDATE mailboxes SET uidnext = $3, highestmodseq = $4, modseq = $4, messages = $5, unseen = $6, deleted = $7,
    octets = $8, deleted_octets = $9, recent = CASE WHEN recent_uid = $10 THEN $11 ELSE recent END
WHERE account_id = $1 AND mailbox_id = $2
"""
_SET_STATE = """
UPDATE account_state SET modseq = $2, used_octets = $3, used_messages = $4, undelete_octets = $5, next_mailbox = $6,
    next_uidvalidity = $7
WHERE account_id = $1
"""


@dataclass(slots=True)
class _Box:
    """A mailbox's row and what its pages add up to. whole: all its pages can be read."""

    row: Mailbox
    gone: bool
    messages: int = 0
    unseen: int = 0
    deleted: int = 0
    octets: int = 0
    deleted_octets: int = 0
    recent: int = 0
    max_uid: int = 0
    modseq: int = 0
    whole: bool = True

    @property
    def name(self) -> str:
        return "/".join(self.row.name)


@dataclass(slots=True)
class _Sums:
    """What an account's mailboxes and undelete windows add up to."""

    modseq: int = 0
    octets: int = 0
    messages: int = 0
    undelete_octets: int = 0
    next_mailbox: int = 1
    next_uidvalidity: int = 0
    whole: bool = True


async def examine(conn: Any, findings: Findings) -> int:
    """Checks all of it; the highest modseq of the account, 0 where it has no mail state."""
    state = await conn.fetchrow(_STATE, findings.account_id)
    if state is None:
        return 0
    boxes = await _boxes(conn, findings)
    await _walk_pages(conn, findings, boxes)
    undelete_octets = await _walk_vanished(conn, findings, boxes)
    for box in boxes.values():
        _check_box(findings, box)
    sums = _sums(boxes, undelete_octets)
    _check_sums(findings, state, sums)
    return max(sums.modseq, int(state["modseq"]))


async def _boxes(conn: Any, findings: Findings) -> dict[int, _Box]:
    boxes: dict[int, _Box] = {}
    last = -1
    while rows := await conn.fetch(_BOXES, findings.account_id, last):
        for row in rows:
            *columns, gone = row
            boxes[row[0]] = _Box(mailboxes.record(findings.account_id, columns), gone)
        last = rows[-1][0]
    if INBOX not in boxes or boxes[INBOX].gone:
        findings.fault("mailbox", "INBOX", "there is no INBOX")
    findings.looked_at["mailboxes"] += len(boxes)
    return boxes


# Pages ----------------------------------------------------------------------------------------------------------------


async def _walk_pages(conn: Any, findings: Findings, boxes: dict[int, _Box]) -> None:
    last = (-1, -1)
    while rows := await conn.fetch(_PAGES, findings.account_id, *last):
        held: list[tuple[int, int, str]] = []
        for mailbox_id, *columns in rows:
            number, _, *octets = columns
            box = boxes.get(mailbox_id)
            if box is None:
                findings.fault("page", f"mailbox {mailbox_id}, page {number}", "there is no such mailbox")
            elif fit(membership.TYPECODES, octets):
                (page,) = membership.pages_of([columns])
                held += _add_page(findings, box, page)
            else:
                box.whole = False
                findings.fault("page", f"{box.name}, page {number}", "its columns do not fit each other")
        await check_held(conn, findings, held)
        last = (rows[-1][0], rows[-1][1])


def _add_page(findings: Findings, box: _Box, page: Page) -> list[tuple[int, int, str]]:
    """Checks one page and adds it up; the message, size and place of each of its UIDs."""
    where = f"{box.name}, page {page.number}"
    if not page.uids:
        findings.fault("page", where, "it is empty")
    if sorted(set(page.uids)) != page.uids.tolist():
        findings.fault("uids", where, "its UIDs do not ascend")
    if any(uid >> PAGE_BITS != page.number for uid in page.uids):
        findings.fault("uids", where, "it holds UIDs of another page")
    if page.modseqs and page.modseq < max(page.modseqs):
        text = f"a message has modseq {max(page.modseqs)}, the page {page.modseq}"
        findings.fault("modseq", where, text, _page_mend(findings, box, page, 0))
    _check_keywords(findings, box, page, where)
    _count(box, page)
    findings.looked_at["pages"] += 1
    findings.looked_at["messages"] += len(page.uids)
    return [
        (message_id, size, f"{box.name}, UID {uid}")
        for message_id, size, uid in zip(page.message_ids, page.sizes, page.uids, strict=True)
    ]


def _check_keywords(findings: Findings, box: _Box, page: Page, where: str) -> None:
    named = sum(1 << (KEYWORDS_AT + i) for i, name in enumerate(box.row.keywords) if name)
    nameless = ~(named | (1 << KEYWORDS_AT) - 1)
    uids = [str(uid) for uid, flags in zip(page.uids, page.flags, strict=True) if flags & nameless]
    if uids:
        text = f"flags without a name: UID {', '.join(uids)}"
        findings.fault("keywords", where, text, _page_mend(findings, box, page, nameless))


def _page_mend(findings: Findings, box: _Box, page: Page, nameless: int) -> Mend:
    """Writes the page's flags without these bits, under the modseq of the repair."""
    findings.mended_mailboxes.add(box.row.mailbox_id)

    async def mend(conn: Any, modseq: int) -> None:
        for i, flags in enumerate(page.flags):
            if flags & nameless:
                page.flags[i], page.modseqs[i] = flags & ~nameless, modseq
        await membership.write_flags(conn, box.row, modseq, [(page.number, 0, len(page))], page.flags, page.modseqs)
        await _write_box(conn, box, modseq)

    return mend


def _count(box: _Box, page: Page) -> None:
    box.messages += len(page.uids)
    box.octets += sum(page.sizes)
    box.unseen += sum(1 for flags in page.flags if not flags & Flag.SEEN)
    deleted = [size for flags, size in zip(page.flags, page.sizes, strict=True) if flags & Flag.DELETED]
    box.deleted += len(deleted)
    box.deleted_octets += sum(deleted)
    box.recent += sum(1 for uid in page.uids if uid >= box.row.recent_uid)
    box.max_uid = max(box.max_uid, *page.uids, 0)
    box.modseq = max(box.modseq, page.modseq, *page.modseqs)


# Mailboxes ------------------------------------------------------------------------------------------------------------


def _check_box(findings: Findings, box: _Box) -> None:
    """The row against what its pages add up to; one statement mends all of it."""
    row, wrong = box.row, len(findings.faults) + findings.more_faults
    if box.whole:
        for name in ("messages", "unseen", "deleted", "octets", "deleted_octets", "recent"):
            said, counted = getattr(row, name), getattr(box, name)
            if said != counted:
                findings.fault("counters", box.name, f"{name} is {said}, counted {counted}")
    if row.uidnext <= box.max_uid:
        findings.fault("uidnext", box.name, f"UID {box.max_uid} is in use, uidnext is {row.uidnext}")
    if row.highestmodseq < box.modseq or row.modseq < row.highestmodseq:
        text = f"highestmodseq is {row.highestmodseq}, modseq {row.modseq}, the highest of its messages {box.modseq}"
        findings.fault("modseq", box.name, text)
    if len(findings.faults) + findings.more_faults > wrong:
        findings.mends.append(lambda conn, modseq: _write_box(conn, box, modseq))
        findings.mended_mailboxes.add(row.mailbox_id)


async def _write_box(conn: Any, box: _Box, modseq: int) -> None:
    """The row anew; where a page cannot be read, its counters stay as they are."""
    counted: Mailbox | _Box = box if box.whole else box.row
    await conn.execute(
        _SET_MAILBOX,
        box.row.account_id,
        box.row.mailbox_id,
        max(box.row.uidnext, box.max_uid + 1),
        modseq,
        counted.messages,
        counted.unseen,
        counted.deleted,
        counted.octets,
        counted.deleted_octets,
        box.row.recent_uid,
        counted.recent,
    )


# What vanished --------------------------------------------------------------------------------------------------------


async def _walk_vanished(conn: Any, findings: Findings, boxes: dict[int, _Box]) -> int:
    """Checks what was expunged; the octets that wait for undelete."""
    octets = 0
    last = (-1, -1)
    while rows := await conn.fetch(_VANISHED, findings.account_id, *last):
        held: list[tuple[int, int, str]] = []
        for row in rows:
            octets += _check_vanished(findings, boxes.get(row["mailbox_id"]), row, held)
        await check_held(conn, findings, held)
        last = (rows[-1][0], rows[-1][1])
        for row in rows:
            await _find_back(conn, findings, boxes.get(row["mailbox_id"]), row)
    return octets


async def _find_back(conn: Any, findings: Findings, box: _Box | None, row: Any) -> None:
    """Names those UIDs of a row that a page has."""
    gone = set(_elements(UINT4, row["uids"]))
    numbers = sorted({uid >> PAGE_BITS for uid in gone})
    for page in await conn.fetch(_BACK, findings.account_id, row["mailbox_id"], numbers):
        for uid in sorted(gone.intersection(_elements(UINT4, page["uids"]))):
            name = f"mailbox {row['mailbox_id']}" if box is None else box.name
            findings.fault("vanished", f"{name}, UID {uid}", "it was expunged and is there")


def _check_vanished(findings: Findings, box: _Box | None, row: Any, held: list[tuple[int, int, str]]) -> int:
    """One row: adds what it holds to `held`, and says how many octets that is."""
    _, modseq, *columns = row
    uids = _elements(UINT4, row["uids"])
    if box is None:
        findings.garbage["expunges of no mailbox"] += 1
        name = f"mailbox {row['mailbox_id']}"
    else:
        name = box.name
        box.modseq = max(box.modseq, modseq)
        box.max_uid = max(box.max_uid, *uids, 0)
    findings.looked_at["expunges"] += 1
    if row["message_ids"] is None:
        return 0
    where = f"{name}, expunged at modseq {modseq}"
    sizes = _elements(UINT4, row["sizes"])
    if not fit(_VANISHED_TYPECODES, columns):
        findings.fault("vanished", where, "its columns do not fit each other")
        return sum(sizes)
    held += [
        (message_id, size, f"{name}, expunged UID {uid}")
        for message_id, size, uid in zip(unpack(INT8, row["message_ids"]), sizes, uids, strict=True)
    ]
    return sum(sizes)


def _elements(typecode: str, octets: bytes | None) -> array[int]:
    """As many elements of a column as are whole."""
    octets = octets or b""
    return unpack(typecode, octets[: len(octets) - len(octets) % array(typecode).itemsize])


# The account ----------------------------------------------------------------------------------------------------------


def _sums(boxes: dict[int, _Box], undelete_octets: int) -> _Sums:
    sums = _Sums(undelete_octets=undelete_octets)
    for box in boxes.values():
        sums.modseq = max(sums.modseq, box.modseq, box.row.modseq, box.row.highestmodseq)
        sums.next_mailbox = max(sums.next_mailbox, box.row.mailbox_id + 1)
        sums.next_uidvalidity = max(sums.next_uidvalidity, box.row.uidvalidity + 1)
        sums.whole = sums.whole and box.whole
        if not box.gone:
            sums.octets += box.octets
            sums.messages += box.messages
    return sums


def _check_sums(findings: Findings, state: Any, sums: _Sums) -> None:
    """The account's row; it is written anew by every repair, whose modseq it has to know."""
    wrong = [
        ("sums", sums.whole and state["used_octets"] != sums.octets, "used_octets", sums.octets),
        ("sums", sums.whole and state["used_messages"] != sums.messages, "used_messages", sums.messages),
        ("sums", state["undelete_octets"] != sums.undelete_octets, "undelete_octets", sums.undelete_octets),
        ("modseq", state["modseq"] < sums.modseq, "modseq", sums.modseq),
        ("next", state["next_mailbox"] < sums.next_mailbox, "next_mailbox", sums.next_mailbox),
        ("next", state["next_uidvalidity"] < sums.next_uidvalidity, "next_uidvalidity", sums.next_uidvalidity),
    ]
    for kind, is_wrong, name, should in wrong:
        if is_wrong:
            bound = "at least " if kind in ("modseq", "next") else ""
            findings.fault(kind, "account", f"{name} is {state[name]}, should be {bound}{should}")

    async def mend(conn: Any, modseq: int) -> None:
        await conn.execute(
            _SET_STATE,
            findings.account_id,
            modseq,
            sums.octets if sums.whole else state["used_octets"],
            sums.messages if sums.whole else state["used_messages"],
            sums.undelete_octets,
            max(state["next_mailbox"], sums.next_mailbox),
            max(state["next_uidvalidity"], sums.next_uidvalidity),
        )

    findings.mends.append(mend)
