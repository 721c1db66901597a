"""Texts of header fields of messages that were searched, for the next search: it then opens no message again.

A message never changes, so its texts are right for as long as they are asked of the same id. The longest unused go
first.
"""

from __future__ import annotations

from collections import OrderedDict

Key = tuple[int, int, frozenset[bytes]]
Texts = tuple[tuple[bytes, str], ...]
"""Fields by their names in lower case, decoded and folded as a search compares them."""

_OCTETS_AN_ENTRY = 400
_OCTETS_A_TEXT = 180


class KeptFields:
    """Bounded in octets. names: those of the fields, in lower case; a client chooses them, so they count."""

    def __init__(self, octets: int) -> None:
        self.octets = octets
        self._fields: OrderedDict[Key, tuple[Texts, int]] = OrderedDict()
        self._held = 0

    def get(self, account_id: int, message_id: int, names: frozenset[bytes]) -> Texts | None:
        key = (account_id, message_id, names)
        kept = self._fields.get(key)
        if kept is None:
            return None
        self._fields.move_to_end(key)
        return kept[0]

    def put(self, account_id: int, message_id: int, names: frozenset[bytes], texts: Texts) -> None:
        key = (account_id, message_id, names)
        if key in self._fields:
            return
        size = _OCTETS_AN_ENTRY + sum(map(len, names)) + sum([_OCTETS_A_TEXT + len(text) for _, text in texts])
        self._fields[key] = (texts, size)
        self._held += size
        while self._held > self.octets:
            self._held -= self._fields.popitem(last=False)[1][1]
