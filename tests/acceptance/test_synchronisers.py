"""Programs that keep a Maildir and an account the same, both ways, against the running server over TLS."""

from __future__ import annotations

import email
import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.acceptance.mail import all_octets, deliver, exact, imap, message, ok
from tests.acceptance.server import Account, Pillarbox

DEFAULT = {"INBOX", "Drafts", "Sent", "Junk", "Trash", "Archive"}
_MAILDIR_FLAGS = {"S": r"\Seen", "F": r"\Flagged", "R": r"\Answered", "D": r"\Draft", "T": r"\Deleted"}

Messages = dict[str, frozenset[str]]
"""By Message-ID: the flags."""


class Maildirs:
    """The folders of an account in a directory, and the program that synchronises them."""

    many: int
    """How many messages its first run takes."""

    def __init__(self, home: Path, program: str) -> None:
        self.home = home
        self.mail = home / "mail"
        self.mail.mkdir()
        self._program = program

    def folder(self, name: str) -> Path:
        return self.mail / name

    def folders(self) -> set[str]:
        """Those below the directory, named as on the server."""
        found = {str(path.parent.relative_to(self.mail)) for path in self.mail.rglob("cur")}
        return {name for name in found if name != "."}

    def arguments(self) -> list[str]:
        raise NotImplementedError

    def run(self) -> None:
        environment = {**os.environ, "HOME": str(self.home), "LC_ALL": "C.UTF-8"}
        done = subprocess.run(
            [self._program, *self.arguments()], capture_output=True, text=True, timeout=150, env=environment
        )
        assert done.returncode == 0, done.stdout + done.stderr

    def make(self, name: str) -> None:
        for part in ("cur", "new", "tmp"):
            (self.folder(name) / part).mkdir(parents=True)

    def files(self, name: str) -> list[Path]:
        return sorted(self.folder(name).glob("[nc]*/*"))

    def messages(self, name: str) -> Messages:
        return {_id(path.read_bytes()): _file_flags(path) for path in self.files(name)}

    def file(self, name: str, octets: bytes) -> Path:
        """The one of this message."""
        return next(path for path in self.files(name) if _id(path.read_bytes()) == _id(octets))

    def add(self, name: str, octets: bytes) -> None:
        (self.folder(name) / "new" / f"{len(self.files(name))}.mine.here").write_bytes(octets.replace(b"\r\n", b"\n"))

    def flag(self, name: str, octets: bytes, flags: str) -> None:
        path = self.file(name, octets)
        path.rename(path.parents[1] / "cur" / (path.name.partition(":")[0] + f":2,{flags}"))


class Mbsync(Maildirs):
    many = 200

    def __init__(self, home: Path, program: str, server: Pillarbox, account: Account) -> None:
        super().__init__(home, program)
        (home / "rc").write_text(f"""
IMAPAccount there
Host localhost
Port {server.port(993)}
User {account.address}
Pass "{account.password}"
SSLType IMAPS
CertificateFile {server.certificate}

IMAPStore far
Account there

MaildirStore near
Path {self.mail}/
Inbox {self.mail}/INBOX
SubFolders Verbatim

Channel all
Far :far:
Near :near:
Patterns *
Create Both
Remove Both
Expunge Both
Sync All
SyncState *
""")

    def arguments(self) -> list[str]:
        return ["--config", str(self.home / "rc"), "--all"]


class Offlineimap(Maildirs):
    many = 50

    def __init__(self, home: Path, program: str, server: Pillarbox, account: Account) -> None:
        super().__init__(home, program)
        (home / "rc").write_text(f"""
[general]
accounts = all
metadata = {home}/metadata
ui = quiet

[Account all]
localrepository = near
remoterepository = far

[Repository near]
type = Maildir
localfolders = {self.mail}
sep = /

[Repository far]
type = IMAP
remotehost = localhost
remoteport = {server.port(993)}
remoteuser = {account.address}
remotepass = {account.password}
ssl = yes
sslcacertfile = {server.certificate}
""")

    def arguments(self) -> list[str]:
        return ["-o", "-1", "-c", str(self.home / "rc")]


def _id(octets: bytes) -> str:
    return str(email.message_from_bytes(octets)["Message-ID"])


def _octets(path: Path) -> bytes:
    """As they are on the server."""
    return _without_marks(path.read_bytes().replace(b"\n", b"\r\n"))


def _without_marks(octets: bytes) -> bytes:
    """Both programs put a line into the header by which they know a message again."""
    return re.sub(rb"(?m)^X-(?:TUID|OfflineIMAP): [^\n]*\n", b"", octets)


def _file_flags(path: Path) -> frozenset[str]:
    return frozenset(_MAILDIR_FLAGS[letter] for letter in path.name.partition(":2,")[2] if letter in _MAILDIR_FLAGS)


@pytest.fixture(params=[Mbsync, Offlineimap], ids=["mbsync", "offlineimap"])
def maildirs(
    server: Pillarbox, alice: Account, tool: Callable[[str], str], tmp_path: Path, request: pytest.FixtureRequest
) -> Maildirs:
    made: Maildirs = request.param(tmp_path, tool(request.param.__name__.lower()), server, alice)
    return made


def _messages(server: Pillarbox, account: Account, mailbox: str) -> Messages:
    """What the server has there."""
    with imap(server, account) as client:
        ok(client.select(mailbox, readonly=True))
        data = ok(client.fetch("1:*", "(FLAGS BODY.PEEK[HEADER.FIELDS (MESSAGE-ID)])"))
    found = {}
    for item in data:
        if isinstance(item, tuple):
            flags = re.search(rb"FLAGS \((.*?)\)", item[0])
            assert flags, item
            found[_id(item[1])] = frozenset(flags[1].decode().split()) & set(_MAILDIR_FLAGS.values())
    return found


def _state(server: Pillarbox, account: Account) -> dict[str, bytes]:
    """All that changes when anything does, by mailbox."""
    with imap(server, account) as client:
        names = [line.rpartition(b' "/" ')[2].decode() for line in ok(client.list())]
        return {name: ok(client.status(name, "(MESSAGES UIDNEXT UIDVALIDITY HIGHESTMODSEQ)"))[0] for name in names}


def test_both_ways(server: Pillarbox, alice: Account, maildirs: Maildirs) -> None:
    sent = [
        message(alice.address, f"number {number}", body=f"Line {number}\r\n" * 20) for number in range(maildirs.many)
    ]
    with imap(server, alice) as client:
        for octets in sent:
            ok(client.append("INBOX", "", "", octets))  # type: ignore[arg-type]

    maildirs.run()
    assert maildirs.folders() == DEFAULT
    assert sorted(map(_octets, maildirs.files("INBOX"))) == sorted(sent)

    before = _state(server, alice), maildirs.files("INBOX")
    maildirs.run()
    assert (_state(server, alice), maildirs.files("INBOX")) == before

    # Here: a flag, a deletion, a new message, a new folder. There: the same with other messages.
    here, there = message(alice.address, "from here"), message(alice.address, "from there")
    maildirs.flag("INBOX", sent[0], "FS")
    maildirs.file("INBOX", sent[1]).unlink()
    maildirs.make("Here")
    maildirs.make("Here/Below")
    maildirs.add("Here/Below", here)
    maildirs.add("Archive", here)
    with imap(server, alice) as client:
        ok(client.select("INBOX"))
        ok(client.store("3", "+FLAGS", r"(\Answered)"))
        ok(client.store("4", "+FLAGS", r"(\Deleted)"))
        ok(client.expunge())
        ok(client.create("There/Below"))
        ok(client.append("There/Below", r"(\Flagged)", "", there))  # type: ignore[arg-type]
    deliver(server, there, alice.address)

    maildirs.run()
    expected = {_id(octets): frozenset[str]() for octets in (sent[0], sent[2], *sent[4:], there)}
    expected |= {_id(sent[0]): frozenset({r"\Flagged", r"\Seen"}), _id(sent[2]): frozenset({r"\Answered"})}
    assert maildirs.messages("INBOX") == expected
    assert _messages(server, alice, "INBOX") == expected
    assert maildirs.messages("There/Below") == {_id(there): frozenset({r"\Flagged"})}
    assert exact(_octets(maildirs.file("INBOX", there)), there)
    with imap(server, alice) as client:
        for name in ("Here/Below", "Archive"):
            assert [_without_marks(octets) for octets in all_octets(client, name)] == [here]

    after = _state(server, alice)
    assert {name: _uidvalidity(after[name]) for name in before[0]} == {
        name: _uidvalidity(line) for name, line in before[0].items()
    }
    maildirs.run()
    assert _state(server, alice) == after
    assert maildirs.messages("INBOX") == expected


def _uidvalidity(line: bytes) -> bytes:
    found = re.search(rb"UIDVALIDITY (\d+)", line)
    assert found, line
    return found[1]
