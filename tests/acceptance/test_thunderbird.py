"""Thunderbird against the running server: what it shows is what is there, and what it does is what others see.

One Thunderbird serves all tests of this file; each works in a folder of its own, by TLS and by STARTTLS.
"""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from email.message import EmailMessage
from email.policy import SMTP
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.mail import all_octets, deliver, exact, imap, message, ok, status, subjects
from tests.acceptance.server import DOMAIN, Account, Pillarbox, eventually
from tests.acceptance.thunderbird import SECONDS, Thunderbird

ACCOUNTS = {name: Account(f"thunderbird-{name}@{DOMAIN}", f"correct horse {name}") for name in ("tls", "starttls")}
_REST_SECONDS = 1.0
FOLDERS = {name: name for name in ("Drafts", "Sent", "Trash", "Junk", "Archive")} | {"INBOX": "Inbox"}


@pytest.fixture(scope="module")
def thunderbird(server: Pillarbox, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Thunderbird]:
    programs = {name: shutil.which(name) for name in ("thunderbird", "Xvfb")}
    if missing := [name for name, path in programs.items() if path is None]:
        pytest.skip(f"{' and '.join(missing)} not installed")
    server.add_accounts(list(ACCOUNTS.values()))
    running = Thunderbird(tmp_path_factory.mktemp("thunderbird"), server, ACCOUNTS["tls"], ACCOUNTS["starttls"])
    try:
        running.start(str(programs["thunderbird"]), str(programs["Xvfb"]))
        for account in ACCOUNTS.values():
            running.ask("discover", account.address)
        yield running
    finally:
        running.end()


@dataclass(frozen=True)
class User:
    """One of the two accounts, seen by Thunderbird and, with `imap`, by others."""

    thunderbird: Thunderbird
    account: Account

    def ask(self, name: str, *words: Any) -> Any:
        return self.thunderbird.ask(name, self.account.address, *words)

    def messages(self, path: str) -> dict[str, Any]:
        """What Thunderbird's database holds, by subject."""
        return {found["subject"]: found for found in self.ask("messages", path)}

    def sees(self, path: str, *subjects: str) -> dict[str, Any]:
        """The same, as soon as it is these messages and no others; Thunderbird is told to look."""
        soon(lambda: set(self._looks(path)) == set(subjects), f"{subjects} in {path}")
        return self.messages(path)

    def sees_also(self, path: str, subject: str) -> dict[str, Any]:
        """This message, as soon as it is there, whatever else is."""
        soon(lambda: subject in self._looks(path), f"{subject} in {path}")
        found: dict[str, Any] = self.messages(path)[subject]
        return found

    def _looks(self, path: str) -> dict[str, Any]:
        self.ask("update", path)
        return self.messages(path)

    def rests(self) -> None:
        """Thunderbird has come to the end of what it was doing, and has written down what it knows."""
        said = -1
        while said != (now := len(self.thunderbird.commands())):
            said = now
            time.sleep(_REST_SECONDS)

    def source(self, path: str, uid: int) -> bytes:
        """A message's octets, without the lines that Thunderbird's own file has in front of them."""
        octets = self.ask("source", path, uid).encode("latin-1")
        return re.sub(rb"\A(?:X-Mozilla-[^\n]*\n)+", b"", octets)

    def create(self, parent: str, name: str) -> str:
        """A folder made by Thunderbird; its path."""
        self.ask("create", parent, name)
        path = f"{parent}/{name}" if parent else name
        soon(lambda: path in self.ask("folders"), f"the folder {path}")
        return path


def soon(condition: Callable[[], object], what: str) -> None:
    eventually(condition, SECONDS, what, every=0.1)


@pytest.fixture(params=ACCOUNTS)
def user(thunderbird: Thunderbird, request: pytest.FixtureRequest) -> User:
    return User(thunderbird, ACCOUNTS[request.param])


@pytest.fixture
def other(thunderbird: Thunderbird, user: User) -> User:
    return User(thunderbird, next(account for account in ACCOUNTS.values() if account != user.account))


@pytest.fixture
def folder(user: User) -> str:
    return user.create("", f"Work {time.monotonic_ns()}")


def _append(server: Pillarbox, user: User, folder: str, *messages: bytes) -> None:
    with imap(server, user.account) as client:
        for octets in messages:
            ok(client.append(f'"{folder}"', "", "", octets))  # type: ignore[arg-type]


def _flags(server: Pillarbox, user: User, folder: str) -> set[str]:
    """The flags of the only message there, as another client sees them."""
    with imap(server, user.account) as client:
        ok(client.select(f'"{folder}"', readonly=True))
        answer = ok(client.fetch("1", "(FLAGS)"))[-1]
    found = re.search(rb"FLAGS \((.*?)\)", answer)
    assert found, answer
    return set(found[1].decode().split()) - {r"\Recent"}


def test_the_folders_of_an_account(user: User) -> None:
    assert user.ask("folders").items() >= FOLDERS.items()


def _awkward(to: str) -> dict[str, bytes]:
    """Messages by their decoded subjects."""
    letter = EmailMessage(policy=SMTP)
    letter["From"], letter["To"], letter["Subject"] = "Jürgen Müller <j@example.org>", to, "Grüße, 日本語 und 😀"
    letter["Message-ID"] = "<letter@example.org>"
    letter.set_content("Schöne Grüße\n" * 50)
    letter.add_alternative("<p>Schöne Grüße</p>", subtype="html")
    letter.add_attachment(
        bytes(range(256)) * 8000, maintype="application", subtype="octet-stream", filename="Größe.bin"
    )
    return {
        "plain": message(to, "plain"),
        "no body": message(to, "no body", body=""),
        "long lines": message(to, "long lines", body=f"{'x' * 990}\r\n" * 100),
        "no end of line": message(to, "no end of line", body="the end"),
        "8bit": message(to, "8bit", body="MIME sagt nichts, gr\u00fc\u00dft aber\r\n"),
        str(letter["Subject"]): bytes(letter),
    }


def test_reads_what_is_there(server: Pillarbox, user: User, folder: str) -> None:
    sent = _awkward(user.account.address)
    _append(server, user, folder, *sent.values())
    shown = user.sees(folder, *sent)
    assert shown["Grüße, 日本語 und 😀"]["author"] == "Jürgen Müller <j@example.org>"
    for subject, octets in sent.items():
        # Thunderbird's own file ends every line, and so does the size it shows once the message is there.
        expected = octets if octets.endswith(b"\r\n") else octets + b"\r\n"
        assert shown[subject]["octets"] in (len(octets), len(expected)), subject
        assert user.source(folder, shown[subject]["uid"]) == expected, subject


def test_flags_go_both_ways(server: Pillarbox, user: User, folder: str) -> None:
    _append(server, user, folder, message(user.account.address, "flagged"))
    uid = user.sees(folder, "flagged")["flagged"]["uid"]
    for what, flag in [("read", r"\Seen"), ("flagged", r"\Flagged"), ("$label1", "$label1"), ("mine", "mine")]:
        user.ask("mark", folder, [uid], what, True)
        soon(lambda flag=flag: flag in _flags(server, user, folder), f"{flag} is set")  # type: ignore[misc]
    for what, flag in [("read", r"\Seen"), ("mine", "mine")]:
        user.ask("mark", folder, [uid], what, False)
        soon(lambda flag=flag: flag not in _flags(server, user, folder), f"{flag} is taken away")  # type: ignore[misc]
    assert _flags(server, user, folder) == {r"\Flagged", "$label1"}
    with imap(server, user.account) as client:
        ok(client.select(f'"{folder}"'))
        ok(client.store("1", "FLAGS", r"(\Seen \Answered theirs)"))
    soon(lambda: user.sees(folder, "flagged")["flagged"]["replied"], "the flags of another client")
    shown = user.messages(folder)["flagged"]
    assert (shown["read"], shown["flagged"], shown["keywords"]) == (True, False, "theirs")


def test_moves_copies_and_deletes(server: Pillarbox, user: User, folder: str) -> None:
    names = ["stays", "moved", "copied", "deleted"]
    _append(server, user, folder, *(message(user.account.address, name) for name in names))
    target = user.create(folder, "Bücher & 日本")
    uids = {name: found["uid"] for name, found in user.sees(folder, *names).items()}
    user.ask("copy", folder, [uids["copied"]], target, False)
    user.ask("copy", folder, [uids["moved"]], target, True)
    user.ask("remove", folder, [uids["deleted"]])
    user.sees(target, "copied", "moved")
    user.sees(folder, "stays", "copied")
    user.sees_also("Trash", "deleted")
    user.ask("compact", folder)
    with imap(server, user.account) as client:
        assert sorted(subjects(client, f'"{folder}"')) == ["copied", "stays"]
        assert sorted(subjects(client, f'"{folder}/B&APw-cher &- &ZeVnLA-"')) == ["copied", "moved"]
        assert "deleted" in subjects(client, "Trash")
        ok(client.select(f'"{folder}"'))
        assert ok(client.search(None, "DELETED")) == [b""]
    user.ask("emptyTrash")
    with imap(server, user.account) as client:
        soon(lambda: status(client, "Trash") == 0, "the trash is empty")


def test_expunge_by_another_client(server: Pillarbox, user: User, folder: str) -> None:
    _append(server, user, folder, *(message(user.account.address, name) for name in ("one", "two", "three")))
    user.sees(folder, "one", "two", "three")
    with imap(server, user.account) as client:
        ok(client.select(f'"{folder}"'))
        ok(client.store("2", "+FLAGS", r"(\Deleted)"))
        ok(client.expunge())
    user.sees(folder, "one", "three")


def test_learns_what_changed_while_it_was_away(server: Pillarbox, user: User, folder: str) -> None:
    """CONDSTORE: back in the folder it asks for no more than the changes since it was there."""
    _append(server, user, folder, *(message(user.account.address, name) for name in ("one", "two", "three", "four")))
    user.sees(folder, "one", "two", "three", "four")
    user.rests()
    user.ask("disconnect")
    with imap(server, user.account) as client:
        ok(client.select(f'"{folder}"'))
        ok(client.store("1", "+FLAGS", r"(\Deleted)"))
        ok(client.expunge())
        ok(client.store("1", "+FLAGS", r"(\Flagged theirs)"))
        ok(client.store("2", "+FLAGS", r"(\Seen)"))
    before = len(user.thunderbird.commands())
    shown = user.sees(folder, "two", "three", "four")
    seen = {name: (found["flagged"], found["read"], found["keywords"]) for name, found in shown.items()}
    assert seen == {"two": (True, False, "theirs"), "three": (False, True, ""), "four": (False, False, "")}
    said = "\n".join(user.thunderbird.commands()[before:])
    asked = re.search(r"(\d+) UID fetch 1:\* \(FLAGS\) \(CHANGEDSINCE [1-9]\d*\)\n(.*?)\n\1 OK ", said, re.DOTALL)
    assert asked, said
    assert re.findall(r"FETCH \(UID (\d+) ", asked[2]) == ["2", "3"], asked[2]


def test_renames_and_removes_folders(server: Pillarbox, user: User, folder: str) -> None:
    child = user.create(folder, "Child")
    _append(server, user, child, message(user.account.address, "inside"))
    user.ask("rename", folder, f"{folder}, Ärger")
    soon(lambda: f"{folder}, Ärger/Child" in user.ask("folders"), "the renamed folder")
    user.sees(f"{folder}, Ärger/Child", "inside")
    with imap(server, user.account) as client:
        assert subjects(client, f'"{folder}, &AMQ-rger/Child"') == ["inside"]
    user.ask("removeFolder", f"{folder}, Ärger/Child")
    soon(lambda: "Trash/Child" in user.ask("folders"), "the folder in the trash")
    with imap(server, user.account) as client:
        assert subjects(client, '"Trash/Child"') == ["inside"]
    user.ask("removeFolder", "Trash/Child")
    soon(lambda: "Trash/Child" not in user.ask("folders"), "the folder is gone")
    with imap(server, user.account) as client:
        soon(lambda: ok(client.list('""', "Trash/*")) == [None], "the folder is gone on the server")
        soon(lambda: ok(client.lsub('""', "Trash/*")) == [None], "nor is it subscribed to")


def test_hears_of_changes_by_itself(server: Pillarbox, user: User) -> None:
    """IDLE: nothing asks Thunderbird to look once it has opened the folder."""
    user.ask("update", "INBOX")
    name = f"heard {time.monotonic_ns()}"
    octets = message(user.account.address, name)
    deliver(server, octets, user.account.address)
    soon(lambda: name in user.messages("INBOX"), "the new message")
    uid = user.messages("INBOX")[name]["uid"]
    assert exact(user.source("INBOX", uid), octets)
    with imap(server, user.account) as client:
        ok(client.select("INBOX"))
        ok(client.uid("STORE", str(uid), "+FLAGS", r"(\Flagged)"))
        soon(lambda: user.messages("INBOX")[name]["flagged"], "the new flag")
        ok(client.uid("STORE", str(uid), "+FLAGS", r"(\Deleted)"))
        ok(client.uid("EXPUNGE", str(uid)))
        soon(lambda: name not in user.messages("INBOX"), "the expunged message goes")


def test_searches_on_the_server(server: Pillarbox, user: User, folder: str) -> None:
    found = message(user.account.address, "Lunch", body="Die Größe stimmt.\r\n", sender="anna@example.org")
    other = message(user.account.address, "Dinner", body="Nothing.\r\n", sender="otto@example.org")
    _append(server, user, folder, other, found)
    shown = user.sees(folder, "Lunch", "Dinner")
    lunch, dinner = shown["Lunch"]["uid"], shown["Dinner"]["uid"]
    for terms, uids in [
        ([["Subject", "Contains", "unch"]], [lunch]),
        ([["Sender", "Contains", "otto"]], [dinner]),
        ([["Body", "Contains", "GRÖSSE"]], [lunch]),
        ([["Subject", "Contains", "unch"], ["Sender", "Contains", "otto"]], []),
        ([["Subject", "DoesntContain", "unch"]], [dinner]),
    ]:
        assert user.ask("search", folder, terms) == uids, terms


def test_sends_and_answers(server: Pillarbox, user: User, other: User, tmp_path: Path) -> None:
    subject = f"Größe {time.monotonic_ns()}"
    (tmp_path / "Liste.txt").write_text("an attachment\n")
    letter = {"to": other.account.address, "subject": subject, "body": "Wie groß?\n"}
    user.ask("send", letter | {"attach": str(tmp_path / "Liste.txt")})
    came, kept = other.sees_also("INBOX", subject), user.sees_also("Sent", subject)
    octets = other.source("INBOX", came["uid"])
    assert "Wie groß?".encode() in octets and b'filename="Liste.txt"' in octets
    assert kept["read"] and exact(octets, user.source("Sent", kept["uid"]))
    answer = {"to": user.account.address, "subject": f"Re: {subject}", "body": "So.\n"}
    other.ask("send", answer | {"answering": ["INBOX", came["uid"]]})
    with imap(server, user.account) as client:
        soon(lambda: f"In-Reply-To: <{kept['id']}>".encode() in b"".join(all_octets(client)), "the answer")
    with imap(server, other.account) as client:
        ok(client.select("INBOX"))
        soon(lambda: str(came["uid"]).encode() in ok(client.uid("SEARCH", "ANSWERED"))[0].split(), r"\Answered")


def test_saves_drafts(server: Pillarbox, user: User, other: User) -> None:
    first = {"to": other.account.address, "subject": "first", "body": "One.\n", "draft": True}
    user.ask("send", first)
    uid = user.sees("Drafts", "first")["first"]["uid"]
    user.ask("send", first | {"subject": "second", "replacing": uid})
    user.sees("Drafts", "second")
    with imap(server, user.account) as client:
        ok(client.select("Drafts", readonly=True))
        assert len(ok(client.search(None, "DRAFT UNDELETED"))[0].split()) == 1


def test_no_command_was_refused(thunderbird: Thunderbird) -> None:
    """Over all that the tests of this file did; a folder that was just renamed may be asked for by its old name."""
    lines = thunderbird.commands()
    assert sum(" OK " in line for line in lines) > 10
    refused = [line for line in lines if re.match(r"(?:\d+|\*) (?:BAD|NO|BYE)\b", line)]
    assert [line for line in refused if "NO [NONEXISTENT]" not in line] == []
    announced = {word for line in lines if "CAPABILITY " in line for word in line.split()}
    said = "\n".join(lines).lower()
    uses = [("IDLE", "idle"), ("MOVE", "uid move"), ("ID", "id ("), ("CONDSTORE", "changedsince")]
    for capability, used in uses:
        assert capability not in announced or used in said, capability
