"""What is looked for in one message: in its header fields (`FieldsLook`), in its text (`Look`).

The text goes piece by piece past all the terms that are looked for. Held are the message's octets, a piece of text and
the end of the one before, as long as the longest term, so that a term is found where it lies across their border. A
look ends when the plan is decided, or with the text.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain
from time import monotonic

from mailserver.imap.kept_fields import Texts
from mailserver.imap.search_plan import Facts, HeaderKey, Plan, TextKey
from mailserver.message import decode, headers, structure

_FEW_NAMES = 4


def field_texts(header: bytes, names: Iterable[bytes]) -> Texts:
    """The fields with these names as they are compared; a header of few octets, for it is done at once."""
    return tuple([(name, _text_of(field)) for name in names for field in headers.named(header, name)])


def _text_of(field: bytes) -> str:
    return decode.field_text(field).partition(":")[2] + " "


class Steps:
    """Work on one message in small steps. After `go_on` has said that it is over, the plan can decide by the facts."""

    def __init__(self, steps: Iterator[None]) -> None:
        self._steps = steps

    def go_on(self, seconds: float) -> bool:
        """Works for about so long; whether it is over."""
        until = monotonic() + seconds
        return all(monotonic() <= until for _ in self._steps)


class FieldsLook(Steps):
    """The header of one message, once for all header keys of the plan."""

    def __init__(self, plan: Plan, facts: Facts) -> None:
        self._plan = plan
        self._facts = facts
        super().__init__(self._run(facts.header or b""))

    def _run(self, header: bytes) -> Iterator[None]:
        for name, field in self._fields(header):
            yield from self._through(field, self._plan.fields[name])
        self._facts.header_read = True

    def _fields(self, header: bytes) -> Iterator[tuple[bytes, bytes]]:
        """The fields with one of the names; of few names each is looked for by itself, which is quicker."""
        wanted = self._plan.fields
        if len(wanted) <= _FEW_NAMES:
            yield from ((name, field) for name in wanted for field in headers.named(header, name))
            return
        for field in headers.lines(header):
            name = headers.name_of(field)
            if name and name in wanted:
                yield name, field

    def _through(self, field: bytes, keys: list[HeaderKey]) -> Iterator[None]:
        found = self._facts.found
        plain = field.partition(b":")[2].lower() if field.isascii() and b"=?" not in field else None
        text: str | None = None
        for key in keys:
            if key.index in found:
                continue
            if plain is not None and key.octets is not None:
                is_there = key.octets in plain
            else:
                if text is None:
                    text = _text_of(field)
                    yield
                is_there = key.term in text
            if is_there:
                found.add(key.index)
            yield


class Look(Steps):
    """The text of one message."""

    def __init__(self, plan: Plan, facts: Facts, octets: bytes, piece: int = decode.PIECE) -> None:
        self._plan = plan
        self._facts = facts
        self._piece = piece
        super().__init__(self._run(octets))

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
