from __future__ import annotations

from array import array

from storage import membership, moving
from storage.account_state import State
from storage.packed import INT8
from storage.records import MailboxId
from tests.storage.test_pages import mailbox

STATE = State(1, 9, 0, 0, 0, 0, 1, 1, 0)


async def translated(flags: list[int], here: tuple[str, ...], there: tuple[str, ...], target: int = 2) -> list[int]:
    source, other = mailbox(keywords=here), mailbox(keywords=there, mailbox_id=MailboxId(target))
    made, _ = await moving._translated(None, STATE, source, other, array(INT8, flags))
    return made.tolist()


async def test_keywords_become_those_of_the_target() -> None:
    """Bits of keywords that the target has are moved, those without a name dropped; system flags stay."""
    flags = [1, 1 << 5 | 2, 1 << 6, 1 << 5 | 1 << 6, 1 << 7, 0]
    assert await translated(flags, ("Work", "home"), ("HOME", "x", "work")) == [1, 1 << 7 | 2, 1 << 5, 5 << 5, 0, 0]


async def test_nothing_is_translated_where_nothing_has_to_be() -> None:
    assert await translated([1, 1 << 5], ("Work",), (), target=1) == [1, 1 << 5]
    assert await translated([1, 2], ("Work",), ()) == [1, 2]
    assert await translated([1, 2], (), ("Work",)) == [1, 2]
    assert membership.NOTHING == (0, 0, 0, 0, 0)
