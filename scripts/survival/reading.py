"""Everything that is there at the end, read by IMAP."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from survival.errors import ChaosError
from survival.imap import Answer, NoAnswer, Session, fetched
from survival.ledger import Copy, Ledger
from survival.octets import attempt_of, is_exact, message
from survival.place import MAILBOXES, Person, Place
from survival.status import status

_SECONDS = 60.0
_AT_ONCE = 100
"""UIDs of one FETCH."""


@dataclass(slots=True)
class Found:
    """copies: by attempt and account, each with whether its octets are those that were sent."""

    copies: dict[tuple[int, str], list[tuple[Copy, bool]]] = field(default_factory=dict)
    strangers: list[str] = field(default_factory=list)
    miscounted: list[str] = field(default_factory=list)
    mailboxes: int = 0
    messages: int = 0


def read(place: Place, ledger: Ledger) -> Found:
    """ChaosError where the server does not let itself be read."""
    found = Found()
    for person in place.people:
        try:
            with place.session(person, seconds=_SECONDS) as session:
                for mailbox in MAILBOXES:
                    _read_mailbox(session, person, mailbox, ledger, found)
        except NoAnswer as error:
            raise ChaosError(f"the mail of {person.address} cannot be read: {error}") from error
    return found


def _read_mailbox(session: Session, person: Person, mailbox: str, ledger: Ledger, found: Found) -> None:
    began_at = ledger.now()
    values = status(session, mailbox)
    ledger.observe(person.address, mailbox, began_at, values)
    exists = re.search(rb"(\d+) EXISTS", b" ".join(_must(session, f"EXAMINE {mailbox}").untagged))
    copies = [
        _note(person, mailbox, octets, uid, flags, ledger, found) for uid, flags, octets in _messages(session, values)
    ]
    unseen = sum("\\Seen" not in copy.flags for copy in copies)
    highest = max((copy.uid or 0 for copy in copies), default=0)
    told = (values.get("MESSAGES"), int(exists[1]) if exists else None, values.get("UNSEEN"))
    if told != (len(copies), len(copies), unseen) or highest >= values.get("UIDNEXT", 0):
        found.miscounted.append(
            f"{person.address} {mailbox}: holds {len(copies)} messages, {unseen} unseen, highest UID {highest}; "
            f"STATUS says {values}, EXISTS {told[1]}"
        )
    found.mailboxes += 1
    found.messages += len(copies)


def _messages(session: Session, values: dict[str, int]) -> Iterator[tuple[int, frozenset[str], bytes]]:
    for first in range(1, values.get("UIDNEXT", 1), _AT_ONCE):
        answer = _must(session, f"UID FETCH {first}:{first + _AT_ONCE - 1} (UID FLAGS BODY.PEEK[])")
        for item in fetched(answer):
            yield item.uid, item.flags, item.octets


def _note(
    person: Person, mailbox: str, octets: bytes, uid: int, flags: frozenset[str], ledger: Ledger, found: Found
) -> Copy:
    copy = Copy(mailbox, flags, uid)
    number = attempt_of(octets)
    item = None if number is None else ledger.items.get((number, person.address))
    if item is None:
        found.strangers.append(f"{person.address} {mailbox} UID {uid}: no attempt has sent it")
        return copy
    sent = message(ledger.seed, item.attempt, item.sender)
    exact = is_exact(octets, sent, appended=item.kind == "append")
    found.copies.setdefault((item.attempt, person.address), []).append((copy, exact))
    return copy


def _must(session: Session, command: str) -> Answer:
    answer = session.run(command)
    if not answer.is_ok:
        raise ChaosError(f"{command}: {answer.status} {answer.text}")
    return answer
