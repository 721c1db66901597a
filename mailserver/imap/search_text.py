"""BODY and TEXT of one message: its text piece by piece past all the terms that are looked for.

Held are the message's octets, a piece of text and the end of the one before, as long as the longest term, so that a
term is found where it lies across their border. A look ends when the plan is decided, or with the text.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain
from time import monotonic

from mailserver.imap.search_plan import Facts, Plan, TextKey
from mailserver.message import decode, structure


class Look:
    """One message being looked at. After `go_on` has said that it is over, the plan can decide by `facts`."""

    def __init__(self, plan: Plan, facts: Facts, octets: bytes, piece: int = decode.PIECE) -> None:
        self._plan = plan
        self._facts = facts
        self._piece = piece
        self._steps = self._run(octets)

    def go_on(self, seconds: float) -> bool:
        """Looks for about so long; whether it is over."""
        until = monotonic() + seconds
        return all(monotonic() <= until for _ in self._steps)

    def _run(self, octets: bytes) -> Iterator[None]:
        tree = structure.parse(octets)
        yield
        plan, facts = self._plan, self._facts
        of_header = [key for key in plan.texts if key.header and key.index not in facts.found]
        if of_header:
            yield from self._through(decode.header_texts(octets, tree, self._piece), of_header)
        of_body = [key for key in plan.texts if key.index not in facts.found]
        if of_body and plan.root.decide(facts) is None:
            yield from self._through(decode.body_texts(octets, tree, self._piece), of_body)
        facts.read = True

    def _through(self, texts: Iterable[str], keys: list[TextKey]) -> Iterator[None]:
        """Looks for the keys' terms until all are found, or those that are decide."""
        found = self._facts.found
        overlap = max(len(key.term) for key in keys) - 1
        gathered: list[str] = []
        size = 0
        for text in chain(texts, (None,)):
            if text is not None:
                gathered.append(text)
                size += len(text)
                if size < self._piece:
                    yield
                    continue
            whole = "".join(gathered)
            for key in keys:
                if key.term in whole:
                    found.add(key.index)
                yield
            waiting = [key for key in keys if key.index not in found]
            if not waiting or (len(waiting) < len(keys) and self._plan.root.decide(self._facts) is not None):
                return
            keys = waiting
            gathered = [whole[-overlap:] if overlap else ""]
            size = 0
