"""The clients, each a thread that goes on whatever happens to its connection, until it is told to stop."""

from __future__ import annotations

import random
import smtplib
import ssl
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from survival.editor import Editor
from survival.imap import NoAnswer, Session
from survival.ledger import Ledger
from survival.octets import message
from survival.place import ALIAS, INBOX, MAILBOXES, OUTSIDERS, PATIENCE_SECONDS, Person, Place
from survival.status import status

SENDER = "someone@example.org"
_PAUSE_SECONDS = 0.1
_MX, _SUBMISSION, _APPEND = 3, 2, 2
"""Clients of a kind."""
_ABROAD = 0.3
"""How often mail that comes in leads out again."""


@dataclass
class Load:
    """All clients together. failures: a client that ended by a fault of its own."""

    place: Place
    ledger: Ledger
    stopped: threading.Event = field(default_factory=threading.Event)
    failures: list[str] = field(default_factory=list)

    # SMTP -------------------------------------------------------------------------------------------------------------

    def deliver(self, chance: random.Random) -> None:
        """Some messages by one connection to port 25, each to some recipients, now and then by way of an alias."""
        with smtplib.SMTP(
            "localhost", self.place.port(25), timeout=PATIENCE_SECONDS, local_hostname="mx.example.org"
        ) as client:
            for _ in range(chance.randrange(1, 8)):
                to = chance.sample(self.place.people, chance.choice((1, 1, 1, 2, 4)))
                outside = [ALIAS] if chance.random() < _ABROAD else []
                self._send(client, "mx", SENDER, [] if outside and chance.random() < 0.5 else to, outside)
                self._rest(chance)

    def submit(self, chance: random.Random) -> None:
        """The same by a user, logged in, on 587 (STARTTLS) or 465 (TLS), to people here and elsewhere."""
        person = chance.choice(self.place.people)
        with self._submission(chance.random() < 0.5) as client:
            self._log_in(client, person)
            for _ in range(chance.randrange(1, 5)):
                to = chance.sample(self.place.people, chance.choice((0, 1, 2)))
                abroad = chance.sample(OUTSIDERS, chance.choice((0, 1, 1, 3)) if to else 1)
                self._send(client, "submission", person.address, to, [(address, address) for address in abroad])
                self._rest(chance)

    def _submission(self, by_starttls: bool) -> smtplib.SMTP:
        context, name, seconds = self.place.tls, "client.example.org", PATIENCE_SECONDS
        if not by_starttls:
            return smtplib.SMTP_SSL("localhost", self.place.port(465), name, context=context, timeout=seconds)
        client = smtplib.SMTP("localhost", self.place.port(587), name, seconds)
        client.starttls(context=context)
        return client

    def _log_in(self, client: smtplib.SMTP, person: Person) -> None:
        try:
            client.login(person.address, person.password)
        except smtplib.SMTPAuthenticationError as error:
            self._note_refusal("AUTH", error.smtp_code, error.smtp_error)
            raise

    def _send(
        self, client: smtplib.SMTP, kind: str, sender: str, to: Sequence[Person], outside: Sequence[tuple[str, str]]
    ) -> None:
        """outside: addresses to say, each with the one elsewhere that it leads to."""
        here = [(person.address, INBOX) for person in to]
        number = self.ledger.begin_arrival(kind, sender, here, outside=outside)
        said_to = [said for said, _ in (*here, *outside)]
        try:
            absent, said = _transaction(client, sender, said_to, message(self.ledger.seed, number, sender))
        except smtplib.SMTPResponseException as refusal:
            if not 400 <= refusal.smtp_code < 600:  # smtplib calls a lost connection -1
                self.ledger.end(number, "unknown", str(refusal))
                raise
            self._note_refusal(kind, refusal.smtp_code, refusal.smtp_error)
            self.ledger.end(number, "refused", f"{refusal.smtp_code} {_text(refusal.smtp_error)}")
            raise
        except (OSError, smtplib.SMTPException) as error:
            self.ledger.end(number, "unknown", str(error))
            raise
        self.ledger.end(number, "acknowledged", said, absent=absent)

    def _note_refusal(self, what: str, code: int, text: bytes | str) -> None:
        """No fault excuses a refusal for good."""
        if code >= 500:
            self.ledger.surprise(f"{what}: {code} {_text(text)}")

    # IMAP -------------------------------------------------------------------------------------------------------------

    def append(self, chance: random.Random) -> None:
        person = chance.choice(self.place.people)
        with self.place.session(person, self.ledger) as session:
            for _ in range(chance.randrange(1, 12)):
                self._append_one(session, person, chance)
                self._rest(chance)

    def _append_one(self, session: Session, person: Person, chance: random.Random) -> None:
        mailbox = chance.choice(("Archive", "Work"))
        flags = chance.choice(((), ("\\Seen",), ("\\Flagged", "$Forwarded")))
        number = self.ledger.begin_arrival("append", person.address, [(person.address, mailbox)], flags)
        octets = message(self.ledger.seed, number, person.address)
        try:
            answer = session.run(f"APPEND {mailbox} ({' '.join(flags)})", octets)
        except NoAnswer as error:
            self.ledger.end(number, "unknown", str(error))
            raise
        uid = (answer.code("APPENDUID") or "").rpartition(" ")[2]
        self.place.note(self.ledger, "APPEND", answer)
        uids = {number: int(uid)} if uid else None
        self.ledger.end(number, "acknowledged" if answer.is_ok else "refused", answer.text, uids)

    def watch(self, chance: random.Random) -> None:
        """STATUS of every mailbox, again and again."""
        for person in self.place.people:
            with self.place.session(person, self.ledger) as session:
                for mailbox in MAILBOXES:
                    began_at = self.ledger.now()
                    values = status(session, mailbox)
                    if values:
                        self.ledger.observe(person.address, mailbox, began_at, values)
                    self._rest(chance)

    # Threads ----------------------------------------------------------------------------------------------------------

    def _rest(self, chance: random.Random) -> None:
        self.stopped.wait(chance.uniform(0, _PAUSE_SECONDS))

    def keep_doing(self, work: Callable[[random.Random], None], chance: random.Random) -> None:
        while not self.stopped.is_set():
            try:
                work(chance)
            except (OSError, smtplib.SMTPException, NoAnswer, ssl.SSLError):
                self.stopped.wait(_PAUSE_SECONDS)
            except Exception as error:
                self.failures.append(f"{work.__name__}: {type(error).__name__}: {error}")
                raise

    def threads(self) -> Iterator[threading.Thread]:
        work: list[Callable[[random.Random], None]] = [*[self.deliver] * _MX, *[self.submit] * _SUBMISSION]
        work += [self.append] * _APPEND + [self.watch]
        work += [Editor(self.place, self.ledger, person, self.stopped).work for person in self.place.edited]
        for number, task in enumerate(work):
            chance = random.Random(f"{self.ledger.seed}.client.{number}")
            yield threading.Thread(target=self.keep_doing, args=(task, chance), daemon=True)


@contextmanager
def running(place: Place, ledger: Ledger) -> Iterator[Load]:
    """The clients work until the end of `with`, and have stopped then."""
    load = Load(place, ledger)
    threads = list(load.threads())
    for thread in threads:
        thread.start()
    try:
        yield load
    finally:
        load.stopped.set()
        for thread in threads:
            thread.join(timeout=6 * PATIENCE_SECONDS)
        load.failures += [f"a client does not stop: {thread.name}" for thread in threads if thread.is_alive()]


def _transaction(client: smtplib.SMTP, sender: str, to: Sequence[str], octets: bytes) -> tuple[list[str], str]:
    """Recipients that were refused, and the reply to the message; smtplib's exceptions where all are refused."""
    client.ehlo_or_helo_if_needed()
    _must_accept(*client.mail(sender, ["body=8bitmime", f"size={len(octets)}"]))
    answers = [(address, *client.rcpt(address)) for address in to]
    if not any(code == 250 for _, code, _ in answers):
        _must_accept(*answers[0][1:])
    code, reply = client.data(octets)
    _must_accept(code, reply)
    return [address for address, code, _ in answers if code != 250], f"{code} {_text(reply)}"


def _must_accept(code: int, reply: bytes) -> None:
    if code != 250:
        raise smtplib.SMTPResponseException(code, reply)


def _text(reply: bytes | str) -> str:
    return reply if isinstance(reply, str) else reply.decode("utf-8", "replace")
