"""What a client knows of the server: ports, certificate, people, and how a session begins."""

from __future__ import annotations

import ssl
from dataclasses import dataclass

from survival.imap import Answer, NoAnswer, Session
from survival.ledger import Ledger

DOMAIN = "example.test"
INBOX = "INBOX"
OUTSIDE = "remote.test"
OUTSIDERS = tuple(f"reader{number}@{OUTSIDE}" for number in range(4))
ALIAS = (f"team@{DOMAIN}", f"team@{OUTSIDE}")
"""An address of ours, and the one elsewhere that it leads to."""
MAILBOXES = (INBOX, "Archive", "Work", "Trash")
PATIENCE_SECONDS = 5.0
"""So long a client waits for an answer; some processes are stopped for longer."""


@dataclass(frozen=True, slots=True)
class Person:
    address: str
    password: str


PEOPLE = tuple(Person(f"person{number}@{DOMAIN}", f"correct horse {number}") for number in range(5))


@dataclass(frozen=True, slots=True)
class Place:
    """edited: people in whose mailboxes one client each works, and nobody else but by delivering and appending."""

    offset: int
    tls: ssl.SSLContext
    people: tuple[Person, ...] = PEOPLE
    edited: tuple[Person, ...] = PEOPLE[:3]

    def port(self, standard: int) -> int:
        return standard + self.offset

    def session(self, person: Person, ledger: Ledger | None = None, seconds: float = PATIENCE_SECONDS) -> Session:
        """Logged in; NoAnswer where that is refused for now."""
        session = Session(self.port(993), self.tls, seconds)
        try:
            answer = session.run(f'LOGIN {person.address} "{person.password}"')
            if not answer.is_ok:
                if ledger is not None:
                    self.note(ledger, "LOGIN", answer)
                raise NoAnswer(answer.text)
        except BaseException:
            session.close()
            raise
        return session

    @staticmethod
    def note(ledger: Ledger, command: str, answer: Answer) -> None:
        """While services are away only UNAVAILABLE may be said (RFC 5530)."""
        if not answer.is_ok and answer.code("UNAVAILABLE") is None:
            ledger.surprise(f"{command}: {answer.status} {answer.text}")
