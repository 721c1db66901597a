"""What clients tried, and what they were told: each attempt is written down before it is made and after it is answered.

An attempt that was answered 250 or OK must be found exactly once, one that got no answer at most once, one that was
refused not at all. Each attempt has octets of its own.
"""

from __future__ import annotations

import imaplib
import random
import re
import smtplib
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

from tests.acceptance.mail import all_octets, deliver_on, exact, imap, message
from tests.acceptance.server import HOST, Account, Pillarbox, eventually

Outcome = Literal["acknowledged", "refused", "unknown"]


@dataclass
class Attempt:
    octets: bytes
    account: Account
    mailbox: str
    outcome: Outcome = "unknown"


@dataclass
class Ledger:
    people: Sequence[Account]
    attempts: dict[bytes, Attempt] = field(default_factory=dict)
    stopped: threading.Event = field(default_factory=threading.Event)
    failures: list[BaseException] = field(default_factory=list)

    def begin(self, account: Account, mailbox: str, chooser: random.Random) -> Attempt:
        """Note an attempt before it is made."""
        body = "".join(f"{chooser.getrandbits(256):064x}\r\n" for _ in range(chooser.choice((2, 40, 1600))))
        attempt = Attempt(message(account.address, body=body), account, mailbox)
        self.attempts[_id(attempt.octets)] = attempt
        return attempt

    def count(self, outcome: Outcome) -> int:
        return sum(attempt.outcome == outcome for attempt in list(self.attempts.values()))


def _id(octets: bytes) -> bytes:
    found = re.findall(rb"(?m)^Message-ID: <(\w+)@", octets)
    return bytes(found[-1])


def _sends(server: Pillarbox, ledger: Ledger, seed: int) -> None:
    """Brings mail by SMTP until told to stop, a few messages a connection."""
    chooser = random.Random(seed)
    while not ledger.stopped.is_set():
        try:
            with smtplib.SMTP(HOST, server.port(25), timeout=30, local_hostname="client.example.org") as client:
                for _ in range(5):
                    _send_one(client, ledger.begin(chooser.choice(ledger.people), "INBOX", chooser))
        except (OSError, smtplib.SMTPException):
            time.sleep(0.1)


def _send_one(client: smtplib.SMTP, attempt: Attempt) -> None:
    try:
        deliver_on(client, attempt.octets, attempt.account.address)
        attempt.outcome = "acknowledged"
    except smtplib.SMTPServerDisconnected:
        raise
    except smtplib.SMTPResponseException as refused:
        # smtplib reports a lost connection as reply -1.
        if 400 <= refused.smtp_code < 600:
            attempt.outcome = "refused"
        raise


def _appends(server: Pillarbox, ledger: Ledger, seed: int) -> None:
    """Appends by IMAP until told to stop."""
    chooser = random.Random(seed)
    account = ledger.people[seed % len(ledger.people)]
    while not ledger.stopped.is_set():
        try:
            with imap(server, account) as client:
                while not ledger.stopped.is_set():
                    attempt = ledger.begin(account, "Archive", chooser)
                    code, _ = client.append("Archive", "", None, attempt.octets)
                    attempt.outcome = "acknowledged" if code == "OK" else "refused"
        except (OSError, imaplib.IMAP4.error):  # abort is an error too
            time.sleep(0.1)


@contextmanager
def writing(people: Sequence[Account], *servers: Pillarbox) -> Iterator[Ledger]:
    """A ledger that five clients are writing into, at one server or at several in turn."""
    kept = Ledger(people)
    work: list[tuple[Callable[[Pillarbox, Ledger, int], None], int]] = [(_sends, 1), (_sends, 2), (_sends, 3)]
    work += [(_appends, 4), (_appends, 5)]
    threads = [
        threading.Thread(target=_guarded, args=(task, servers[seed % len(servers)], kept, seed)) for task, seed in work
    ]
    for thread in threads:
        thread.start()
    try:
        yield kept
    finally:
        _stop(kept, threads)


def _guarded(task: Callable[[Pillarbox, Ledger, int], None], server: Pillarbox, ledger: Ledger, seed: int) -> None:
    try:
        task(server, ledger, seed)
    except BaseException as failure:
        ledger.failures.append(failure)


def _stop(ledger: Ledger, threads: list[threading.Thread]) -> None:
    ledger.stopped.set()
    for thread in threads:
        thread.join(timeout=60)
    assert not any(thread.is_alive() for thread in threads)


def await_progress(ledger: Ledger, more: int, seconds: float = 60) -> None:
    goal = ledger.count("acknowledged") + more
    eventually(lambda: ledger.count("acknowledged") >= goal, seconds, f"{more} more messages acknowledged")


def judge(server: Pillarbox, ledger: Ledger) -> None:
    """Compare the ledger with what is there."""
    assert not ledger.failures, ledger.failures
    found = Counter(
        _checked(octets, ledger, account, mailbox)
        for account in ledger.people
        for mailbox in ("INBOX", "Archive")
        for octets in _read(server, account, mailbox)
    )
    allowed: dict[Outcome, tuple[int, ...]] = {"acknowledged": (1,), "unknown": (0, 1), "refused": (0,)}
    wrong = {
        name: (attempt.outcome, found[name])
        for name, attempt in ledger.attempts.items()
        if found[name] not in allowed[attempt.outcome]
    }
    assert not wrong, f"{len(wrong)} of {len(ledger.attempts)}: {list(wrong.items())[:5]}"


def _read(server: Pillarbox, account: Account, mailbox: str) -> list[bytes]:
    with imap(server, account) as client:
        return all_octets(client, mailbox)


def _checked(octets: bytes, ledger: Ledger, account: Account, mailbox: str) -> bytes:
    """The attempt that these octets come from; they must be its octets in its place."""
    attempt = ledger.attempts[_id(octets)]
    assert (attempt.account, attempt.mailbox) == (account, mailbox)
    assert exact(octets, attempt.octets), "octets differ from those that were sent"
    return _id(octets)


def settle(server: Pillarbox, ledger: Ledger) -> None:
    ledger.stopped.set()
    time.sleep(1)
    server.wait_ready()
