"""IMAPClient, every public method of its class: a case that uses it, or the capability that the server lacks for it.

A method that a later release brings makes a test fail until it has its case. A case is a function of a logged-in client
whose selected folder, named like the method, holds three messages: UIDs 1 to 3, subjects "one" to "three".
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime
from typing import Any

import pytest
from imapclient import IMAPClient  # type: ignore[import-untyped]
from imapclient.exceptions import CapabilityError, LoginError  # type: ignore[import-untyped]

from tests.acceptance.api import SUBJECTS, Noting, public
from tests.acceptance.mail import deliver, message
from tests.acceptance.server import DOMAIN, Account, Pillarbox

ACCOUNT = Account(f"imapclient@{DOMAIN}", "correct horse")

Case = Callable[["Client"], object]


class Client(Noting, IMAPClient):  # type: ignore[misc]
    def __init__(self, server: Pillarbox, *, tls: bool = True) -> None:
        self.server = server
        self.folder = ""
        port, context = (server.port(993), server.tls()) if tls else (server.port(143), None)
        super().__init__("localhost", port, ssl=tls, ssl_context=context, timeout=60)


@pytest.fixture(scope="module")
def account(server: Pillarbox) -> Account:
    server.add_accounts([ACCOUNT])
    return ACCOUNT


@pytest.fixture
def client(server: Pillarbox, account: Account, request: pytest.FixtureRequest) -> Iterator[Client]:
    with Client(server) as made:
        made.login(account.address, account.password)
        made.folder = request.node.callspec.params["name"]
        made.create_folder(made.folder)
        for subject in SUBJECTS:
            made.append(made.folder, message(account.address, subject))
        made.select_folder(made.folder)
        made.used.clear()
        yield made


# Cases ---------------------------------------------------------------------------------------------------------------


def _uids(client: Client, folder: str) -> list[int]:
    client.select_folder(folder, readonly=True)
    found: list[int] = client.search()
    return found


def append(c: Client) -> None:
    octets = message(ACCOUNT.address, "four")
    came = datetime(2020, 2, 29, 12, 30, tzinfo=UTC)
    assert b"APPENDUID" in c.append(c.folder, octets, [r"\Seen", "$Mine"], came)
    found = c.fetch([4], ["BODY.PEEK[]", "FLAGS", "INTERNALDATE"])[4]
    assert found[b"BODY[]"] == octets
    assert {rb"\Seen", b"$Mine"} <= set(found[b"FLAGS"])
    c.normalise_times = False
    assert c.fetch([4], ["INTERNALDATE"])[4][b"INTERNALDATE"] == came


def fetch(c: Client) -> None:
    items = ["UID", "ENVELOPE", "BODYSTRUCTURE", "BODY", "RFC822.SIZE", "BODY.PEEK[HEADER.FIELDS (SUBJECT)]"]
    found = c.fetch([1, 3], [*items, "BODY.PEEK[TEXT]<0.3>", "RFC822.HEADER"])
    assert set(found) == {1, 3}
    assert found[3][b"SEQ"] == 3
    assert found[3][b"ENVELOPE"].subject == b"three"
    assert found[3][b"ENVELOPE"].date.isoformat(" ", "minutes").startswith("2026-11-24")
    assert [word.lower() for word in found[3][b"BODYSTRUCTURE"][:2]] == [b"text", b"plain"]
    assert found[1][b"BODY[HEADER.FIELDS (SUBJECT)]"] == b"Subject: one\r\n\r\n"
    assert found[1][b"BODY[TEXT]<0>"] == b"Hel"
    assert len(found[1][b"RFC822.HEADER"]) < found[1][b"RFC822.SIZE"]
    modseq = c.fetch([1, 2, 3], ["MODSEQ"])
    c.add_flags([2], [r"\Flagged"])
    changed = c.fetch([1, 2, 3], ["FLAGS"], [f"CHANGEDSINCE {max(m[b'MODSEQ'][0] for m in modseq.values())}"])
    assert set(changed) == {2}
    c.use_uid = False
    assert c.fetch("2", ["UID"])[2][b"UID"] == 2


def search(c: Client) -> None:
    c.append(c.folder, "Subject: Größe\r\n\r\nHöhe".encode())
    for criteria, charset, uids in [
        ("ALL", None, [1, 2, 3, 4]),
        (["SUBJECT", "o"], None, [1, 2, 4]),
        (["NOT", ["SUBJECT", "o", "UNSEEN"]], None, [3]),
        (["SENTON", date(2026, 11, 24), "OR", ["SUBJECT", "one"], ["SUBJECT", "two"]], None, [1, 2]),
        (["BODY", "höhe"], "UTF-8", [4]),
        ('TEXT "Hello." LARGER 10', None, [1, 2, 3]),
    ]:
        assert c.search(criteria, charset) == uids, criteria
    assert c.search(["MODSEQ", "1"]).modseq > 0
    with pytest.raises(c.Error):
        c.search("NONSENSE")


def get_flags(c: Client) -> None:
    assert set(c.get_flags([1, 2])) == {1, 2}


def add_flags(c: Client) -> None:
    assert {rb"\Seen", b"$Mine"} <= set(c.add_flags([1], [r"\Seen", "$Mine"])[1])
    assert c.add_flags([1], "more", silent=True) is None
    assert b"more" in c.get_flags([1])[1]


def remove_flags(c: Client) -> None:
    c.add_flags([1], [r"\Seen", "$Mine"])
    flags = c.remove_flags([1], [r"\Seen"])[1]
    assert rb"\Seen" not in flags and b"$Mine" in flags


def set_flags(c: Client) -> None:
    c.add_flags([1], [r"\Seen", "$Mine"])
    assert set(c.set_flags([1], [r"\Draft"])[1]) - {rb"\Recent"} == {rb"\Draft"}


def delete_messages(c: Client) -> None:
    assert set(c.delete_messages([1, 2])) == {1, 2}
    assert c.search("DELETED") == [1, 2]


def expunge(c: Client) -> None:
    c.delete_messages([1, 3])
    _, answers = c.expunge()
    assert sorted(kind for _, kind, *_ in answers if kind == b"EXPUNGE") == [b"EXPUNGE"] * 2
    assert c.search() == [2]


def uid_expunge(c: Client) -> None:
    c.delete_messages([1, 3])
    c.uid_expunge([3])
    assert c.search() == [1, 2]


def copy(c: Client) -> None:
    c.create_folder("copied")
    c.copy([1, 3], "copied")
    assert _uids(c, "copied") == [1, 2]
    assert _uids(c, c.folder) == [1, 2, 3]


def move(c: Client) -> None:
    c.create_folder("moved")
    c.move([1, 3], "moved")
    assert c.search() == [2]
    assert _uids(c, "moved") == [1, 2]


def close_folder(c: Client) -> None:
    c.delete_messages([2])
    c.close_folder()
    assert _uids(c, c.folder) == [1, 3]


def unselect_folder(c: Client) -> None:
    c.delete_messages([2])
    c.unselect_folder()
    assert _uids(c, c.folder) == [1, 2, 3]


def select_folder(c: Client) -> None:
    found = c.select_folder(c.folder)
    assert (found[b"EXISTS"], found[b"UIDNEXT"], found[b"READ-WRITE"]) == (3, 4, True)
    assert rb"\*" in found[b"PERMANENTFLAGS"] and rb"\Answered" in found[b"FLAGS"]
    assert found[b"HIGHESTMODSEQ"] > 0
    assert b"READ-WRITE" not in c.select_folder(c.folder, readonly=True)
    with pytest.raises(c.Error):
        c.select_folder("Nothing")


def folder_status(c: Client) -> None:
    found = c.folder_status(c.folder)
    assert (found[b"MESSAGES"], found[b"UIDNEXT"], found[b"UNSEEN"]) == (3, 4, 3)
    assert set(c.folder_status(c.folder, ["SIZE", "HIGHESTMODSEQ"])) == {b"SIZE", b"HIGHESTMODSEQ"}


def create_folder(c: Client) -> None:
    c.create_folder("Bücher/日本/&")
    assert {"Bücher", "Bücher/日本", "Bücher/日本/&"} <= {name for *_, name in c.list_folders()}
    with pytest.raises(c.Error):
        c.create_folder("Bücher/日本/&")


def rename_folder(c: Client) -> None:
    c.create_folder("before/child")
    c.rename_folder("before", "after")
    assert [name for *_, name in c.list_folders("", "after*")] == ["after", "after/child"]


def delete_folder(c: Client) -> None:
    c.create_folder("gone")
    c.delete_folder("gone")
    assert not c.folder_exists("gone")


def folder_exists(c: Client) -> None:
    assert c.folder_exists(c.folder) and c.folder_exists("inbox") and not c.folder_exists("Nothing")


def list_folders(c: Client) -> None:
    found = {name: (flags, separator) for flags, separator, name in c.list_folders()}
    assert found["Sent"] == ((rb"\HasNoChildren", rb"\Sent"), b"/")
    assert [name for *_, name in c.list_folders("", "INB%")] == ["INBOX"]


def list_sub_folders(c: Client) -> None:
    assert "INBOX" in [name for *_, name in c.list_sub_folders()]


def subscribe_folder(c: Client) -> None:
    c.subscribe_folder(c.folder)
    assert [name for *_, name in c.list_sub_folders("", c.folder)] == [c.folder]


def unsubscribe_folder(c: Client) -> None:
    c.subscribe_folder(c.folder)
    c.unsubscribe_folder(c.folder)
    assert c.list_sub_folders("", c.folder) == []


def find_special_folder(c: Client) -> None:
    for flag in (rb"\Sent", rb"\Drafts", rb"\Trash", rb"\Junk", rb"\Archive"):
        assert c.find_special_folder(flag) == flag[1:].decode()


def namespace(c: Client) -> None:
    assert c.namespace() == ((("", "/"),), None, None)


def id_(c: Client) -> None:
    name, *_ = c.id_({"name": "IMAPClient", "version": "4"})
    assert b"Pillarbox" in name


def enable(c: Client) -> None:
    c.unselect_folder()
    assert set(c.enable("UTF8=ACCEPT", "CONDSTORE", "NONSENSE")) == {b"UTF8=ACCEPT", b"CONDSTORE"}
    c.select_folder(c.folder)
    with Client(c.server) as other:
        other.login(ACCOUNT.address, ACCOUNT.password)
        other.select_folder(c.folder)
        other.add_flags([1], [r"\Flagged"])
    (answer,) = (answer for answer in c.noop()[1] if b"FETCH" in answer)
    assert answer[0] == 1 and b"MODSEQ" in answer[2]


def capabilities(c: Client) -> None:
    assert {b"IMAP4REV1", b"IDLE", b"UIDPLUS", b"MOVE"} <= set(c.capabilities())
    assert b"STARTTLS" not in c.capabilities()


def has_capability(c: Client) -> None:
    assert c.has_capability("idle") and not c.has_capability("STARTTLS")


def noop(c: Client) -> None:
    with Client(c.server) as other:
        other.login(ACCOUNT.address, ACCOUNT.password)
        other.append(c.folder, message(ACCOUNT.address))
    text, answers = c.noop()
    assert b"completed" in text and (4, b"EXISTS") in answers


def idle(c: Client) -> None:
    c.select_folder("INBOX")
    count = len(c.search())
    deliver(c.server, message(ACCOUNT.address), ACCOUNT.address)
    c.idle()  # what came before is told behind the continuation
    deliver(c.server, message(ACCOUNT.address), ACCOUNT.address)
    told: list[Any] = []
    while (count + 2, b"EXISTS") not in told:
        found = c.idle_check(timeout=30)
        assert found, told
        told += found
    text, _ = c.idle_done()
    assert b"completed" in text


def socket(c: Client) -> None:
    assert c.socket().getpeername()[1] == c.server.port(993)


CASES: dict[str, Case] = {
    case.__name__: case
    for case in (
        *(append, fetch, search, get_flags, add_flags, remove_flags, set_flags, delete_messages, expunge, uid_expunge),
        *(copy, move, close_folder, unselect_folder, select_folder, folder_status, create_folder, rename_folder),
        *(delete_folder, folder_exists, list_folders, list_sub_folders, subscribe_folder, unsubscribe_folder),
        *(find_special_folder, namespace, id_, enable, capabilities, has_capability, noop, idle, socket),
    )
}
WITHIN = {"idle_check": "idle", "idle_done": "idle"}
"""Methods whose case is another's."""
LOGIN = {"welcome", "login", "plain_login", "sasl_login", "starttls", "logout", "shutdown"}

# What the server does not announce, with a call that the client refuses to make without it.
LACKING: dict[str, tuple[str, Case]] = {
    "sort": ("SORT", lambda c: c.sort("ARRIVAL")),
    "thread": ("THREAD=REFERENCES", lambda c: c.thread()),
    "getacl": ("ACL", lambda c: c.getacl("INBOX")),
    "setacl": ("ACL", lambda c: c.setacl("INBOX", "anyone", "lr")),
    "get_quota": ("QUOTA", lambda c: c.get_quota()),
    "get_quota_root": ("QUOTA", lambda c: c.get_quota_root("INBOX")),
    "set_quota": ("QUOTA", lambda c: c.set_quota([])),
    "multiappend": ("MULTIAPPEND", lambda c: c.multiappend("INBOX", [b"\r\n"])),
    "xlist_folders": ("XLIST", lambda c: c.xlist_folders()),
    "gmail_search": ("X-GM-EXT-1", lambda c: c.gmail_search("x")),
}
# Gmail's own, which the client does not ask a capability for: the server calls them bad and goes on.
REFUSED: dict[str, Case] = {
    "get_gmail_labels": lambda c: c.get_gmail_labels([1]),
    "add_gmail_labels": lambda c: c.add_gmail_labels([1], ["x"]),
    "remove_gmail_labels": lambda c: c.remove_gmail_labels([1], ["x"]),
    "set_gmail_labels": lambda c: c.set_gmail_labels([1], ["x"]),
}
# Mechanisms that are not announced.
TOKENS: dict[str, tuple[str, Case]] = {
    "oauth2_login": ("AUTH=XOAUTH2", lambda c: c.oauth2_login(ACCOUNT.address, "token")),
    "oauthbearer_login": ("AUTH=OAUTHBEARER", lambda c: c.oauthbearer_login(ACCOUNT.address, "token")),
}


# ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CASES)
def test_method(client: Client, name: str) -> None:
    CASES[name](client)
    assert {name, *(part for part, case in WITHIN.items() if case == name)} <= client.used


@pytest.mark.parametrize("name", LACKING)
def test_without_the_capability(client: Client, name: str) -> None:
    capability, call = LACKING[name]
    assert not client.has_capability(capability), f"{capability} is announced: {name} needs a case"
    with pytest.raises(CapabilityError):
        call(client)
    assert name in client.used


@pytest.mark.parametrize("name", REFUSED)
def test_refused(client: Client, name: str) -> None:
    with pytest.raises(client.Error, match="BAD"):
        REFUSED[name](client)
    assert client.search() == [1, 2, 3]
    assert name in client.used


@pytest.mark.parametrize("name", TOKENS)
def test_unknown_mechanism(server: Pillarbox, account: Account, name: str) -> None:
    capability, call = TOKENS[name]
    with Client(server) as client:
        assert not client.has_capability(capability), f"{capability} is announced: {name} needs a case"
        with pytest.raises(LoginError):
            call(client)
        assert name in client.used
        client.login(account.address, account.password)


@pytest.mark.parametrize("name", sorted(LOGIN))
def test_from_greeting_to_farewell(server: Pillarbox, account: Account, name: str) -> None:
    with Client(server, tls=False) as client:
        assert client.welcome.startswith(b"* OK")
        client.starttls(server.tls())
        match name:
            case "plain_login":
                client.plain_login(account.address, account.password)
            case "sasl_login":
                words = iter([account.address, account.password])
                client.sasl_login("LOGIN", lambda _: next(words))
            case _:
                client.login(account.username, account.password)
        assert client.folder_exists("INBOX")
        assert client.shutdown() is None if name == "shutdown" else client.logout() == b"Logging out"
        assert name in client.used


def test_every_method_is_here() -> None:
    assert public(IMAPClient) == {*CASES, *WITHIN, *LOGIN, *LACKING, *REFUSED, *TOKENS}
