from __future__ import annotations

from storage import membership, moving


def test_removing_positions_from_a_page() -> None:
    (page,) = membership.new_pages(10, 2, 5, ([1, 2, 3, 4], [0, 1, 2, 3], [5, 6, 7, 8], [9, 9, 9, 9]))
    moving.remove(page, [0, 2], 7)
    assert (page.uids, page.message_ids, page.flags, page.sizes) == ([11, 13], [2, 4], [1, 3], [6, 8])
    assert page.modseq == 7 and page.modseqs == [2, 2]
    moving.remove(page, [0, 1], 8)
    assert page.uids == [] == page.saved
