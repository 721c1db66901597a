"""A client that edits one account's messages, and looks whether they are as they were left."""

from __future__ import annotations

import random
import threading
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

from survival.imap import Answer, NoAnswer, Session, fetched, numbers
from survival.ledger import Ledger, Outcome, State, Uids
from survival.octets import attempt_of
from survival.place import MAILBOXES, Person, Place

_FLAGS = ("\\Seen", "\\Flagged", "\\Answered", "\\Draft", "$Label1", "$Label2")
_EDITS = 8
"""So many of them, then another mailbox."""

Seen = dict[int, list[tuple[int, frozenset[str]]]]
"""UID and flags of each copy, by the attempt that brought the message."""


@dataclass
class Editor:
    """It alone edits this account, so it knows what it must find of messages whose state is certain."""

    place: Place
    ledger: Ledger
    person: Person
    stopped: threading.Event

    def work(self, chance: random.Random) -> None:
        with self.place.session(self.person, self.ledger) as session:
            for mailbox in chance.sample(MAILBOXES, len(MAILBOXES)):
                self._edit(session, mailbox, chance)

    def _edit(self, session: Session, mailbox: str, chance: random.Random) -> None:
        before = self.ledger.now()
        seen = self._look(session, mailbox)
        if seen is None:
            return
        known = self.ledger.editable(self.person.address, before)
        self._compare(mailbox, known, seen)
        candidates = [number for number in known if number in seen]
        chance.shuffle(candidates)
        for _ in range(_EDITS):
            chosen, candidates = candidates[:4], candidates[4:]
            if not chosen or self.stopped.is_set():
                return
            chosen = chosen[: chance.randrange(1, 5)]
            self._edit_some(session, mailbox, {number: chance.choice(seen[number])[0] for number in chosen}, chance)
            self.stopped.wait(chance.uniform(0, 0.1))

    def _look(self, session: Session, mailbox: str) -> Seen | None:
        if not self._run(session, f"SELECT {mailbox}").is_ok:
            return None
        answer = self._run(session, "UID FETCH 1:* (UID FLAGS BODY.PEEK[HEADER.FIELDS (MESSAGE-ID)])")
        if not answer.is_ok:
            return None
        seen: Seen = defaultdict(list)
        for message in fetched(answer):
            number = attempt_of(message.octets)
            if number is not None:
                seen[number].append((message.uid, message.flags))
        return seen

    def _compare(self, mailbox: str, known: dict[int, State], seen: Seen) -> None:
        for number, state in known.items():
            wanted = sorted(sorted(copy.flags) for copy in state if copy.mailbox == mailbox)
            found = sorted(sorted(flags) for _, flags in seen.get(number, ()))
            if wanted != found:
                what = f"message {number} of {self.person.address} in {mailbox}"
                self.ledger.surprise(f"FETCH: {what} has {found}, acknowledged were {wanted}")

    # Edits ------------------------------------------------------------------------------------------------------------

    def _edit_some(self, session: Session, mailbox: str, of: Uids, chance: random.Random) -> None:
        kind = chance.choices(("store", "copy", "move", "expunge"), (45, 15, 20, 20))[0]
        uids = ",".join(str(uid) for uid in of.values())
        if kind == "store":
            how = chance.choice(("FLAGS", "+FLAGS", "-FLAGS"))
            self._store(session, mailbox, of, how, chance.sample(_FLAGS, chance.randrange(0, 4)))
        elif kind == "expunge":
            if self._store(session, mailbox, of, "+FLAGS", ["\\Deleted"]):
                self._change(session, f"UID EXPUNGE {uids}", "expunge", mailbox, of)
        else:
            to = chance.choice([name for name in MAILBOXES if name != mailbox])
            self._change(session, f"UID {kind.upper()} {uids} {to}", kind, mailbox, of, to=to)

    def _store(self, session: Session, mailbox: str, of: Uids, how: str, flags: list[str]) -> bool:
        uids = ",".join(str(uid) for uid in of.values())
        command = f"UID STORE {uids} {how} ({' '.join(flags)})"
        return self._change(session, command, "store", mailbox, of, how=how, flags=flags)

    def _change(self, session: Session, command: str, kind: str, mailbox: str, of: Uids, **more: Any) -> bool:
        """One command, written down before and after; was it acknowledged?"""
        number = self.ledger.begin_edit(kind, self.person.address, mailbox, of, **more)
        try:
            answer = self._run(session, command)
        except NoAnswer as error:
            self.ledger.end(number, "unknown", str(error))
            raise
        outcome: Outcome = "acknowledged" if answer.is_ok else "refused"
        self.ledger.end(number, outcome, answer.text, _new_uids(answer, of))
        return answer.is_ok

    def _run(self, session: Session, command: str) -> Answer:
        answer = session.run(command)
        self.place.note(self.ledger, command.removeprefix("UID ").partition(" ")[0], answer)
        return answer


def _new_uids(answer: Answer, of: Uids) -> Uids:
    """COPYUID (RFC 4315): UIDs of the new copies, by the attempt that brought the message."""
    told = (answer.code("COPYUID") or "").split()
    if len(told) != 3:
        return {}
    new = dict(zip(numbers(told[1]), numbers(told[2]), strict=True))
    return {number: new[uid] for number, uid in of.items() if uid in new}
