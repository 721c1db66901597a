"""imaplib, every public method of its class: a case that uses it, or that the server lacks what it is for.

A case is a function of a logged-in client whose selected mailbox, named like the method, holds three messages: UIDs 1
to 3, subjects "one" to "three".
"""

from __future__ import annotations

import imaplib
import inspect
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.acceptance.mail import message, ok
from tests.acceptance.server import DOMAIN, Account, Pillarbox

ACCOUNT = Account(f"imaplib@{DOMAIN}", "correct horse")
SUBJECTS = ("one", "two", "three")


class Client(imaplib.IMAP4_SSL):
    """Notes which of its public methods were called."""

    def __init__(self, server: Pillarbox) -> None:
        self.called: set[str] = set()
        self.mailbox = ""
        super().__init__("localhost", server.port(993), ssl_context=server.tls(), timeout=60)

    def __getattribute__(self, name: str) -> Any:
        found = super().__getattribute__(name)
        if not name.startswith("_") and callable(found):
            self.called.add(name)
        return found


Case = Callable[[Client], object]


@pytest.fixture(scope="module")
def account(server: Pillarbox) -> Account:
    server.add_accounts([ACCOUNT])
    return ACCOUNT


@pytest.fixture
def client(server: Pillarbox, account: Account, request: pytest.FixtureRequest) -> Iterator[Client]:
    with Client(server) as made:
        made.login(account.address, account.password)
        made.mailbox = request.node.callspec.params["name"]
        ok(made.create(made.mailbox))
        for subject in SUBJECTS:
            ok(made.append(made.mailbox, "", "", message(account.address, subject)))  # type: ignore[arg-type]
        ok(made.select(made.mailbox))
        made.called.clear()
        yield made


def _named(c: Client, pattern: str) -> list[bytes]:
    return [line.rpartition(b" ")[2] for line in ok(c.list('""', pattern)) if line]


def _all(c: Client, mailbox: str) -> bytes:
    ok(c.select(mailbox, readonly=True))
    found: bytes = ok(c.search(None, "ALL"))[0]
    return found


def append(c: Client) -> None:
    octets = message(ACCOUNT.address)
    ok(c.append(c.mailbox, r"(\Seen)", '"29-Feb-2020 12:30:00 +0000"', octets))
    answer = ok(c.fetch("4", "(FLAGS INTERNALDATE BODY.PEEK[])"))[0]
    assert answer[1] == octets and b'"29-Feb-2020 12:30:00 +0000"' in answer[0]


def capability(c: Client) -> None:
    assert b"IMAP4rev1" in ok(c.capability())[0].split()


def check(c: Client) -> None:
    ok(c.check())


def close(c: Client) -> None:
    ok(c.store("2", "+FLAGS", r"(\Deleted)"))
    ok(c.close())
    assert _all(c, c.mailbox) == b"1 2"


def copy(c: Client) -> None:
    ok(c.create("copied"))
    ok(c.copy("1,3", "copied"))
    assert _all(c, "copied") == b"1 2"


def create(c: Client) -> None:
    ok(c.create("made/child"))
    assert c.create("made")[0] == "NO"
    assert _named(c, "made*") == [b"made", b"made/child"]


def delete(c: Client) -> None:
    ok(c.create("gone"))
    ok(c.delete("gone"))
    assert _named(c, "gone") == []


def enable(c: Client) -> None:
    """Its APPEND is not used here: with UTF8=ACCEPT it sends a wrong message before Python 3.14."""
    ok(c.append(c.mailbox, "", "", "Subject: Größe\r\n\r\nHöhe\r\n".encode()))  # type: ignore[arg-type]
    ok(c.close())
    ok(c.enable("UTF8=ACCEPT"))
    ok(c.create('"Entwürfe"'))
    assert '"Entwürfe"'.encode() in ok(c.list('""', '"Entw%"'))[0]
    ok(c.select(c.mailbox))
    assert ok(c.search(None, "SUBJECT", '"größe"', "BODY", '"HÖHE"')) == [b"4"]
    ok(c.copy("4", '"Entwürfe"'))
    assert _all(c, '"Entwürfe"') == b"1"


def expunge(c: Client) -> None:
    ok(c.store("1,3", "+FLAGS", r"(\Deleted)"))
    assert len(ok(c.expunge())) == 2
    assert _all(c, c.mailbox) == b"1"


def fetch(c: Client) -> None:
    assert ok(c.fetch("2", "(BODY.PEEK[TEXT]<0.3>)"))[0][1] == b"Hel"


def list_(c: Client) -> None:
    assert rb'(\HasNoChildren \Sent) "/" Sent' in ok(c.list())


def lsub(c: Client) -> None:
    assert any(line.endswith(b"INBOX") for line in ok(c.lsub()))


def namespace(c: Client) -> None:
    assert ok(c.namespace()) == [b'(("" "/")) NIL NIL']


def noop(c: Client) -> None:
    ok(c.noop())


def recent(c: Client) -> None:
    assert ok(c.recent()) == [b"3"]


def rename(c: Client) -> None:
    ok(c.create("before"))
    ok(c.rename("before", "after"))
    assert _named(c, "%f%re") == [] and _named(c, "after") == [b"after"]


def response(c: Client) -> None:
    assert c.response("UIDNEXT") == ("UIDNEXT", [b"4"])


def search(c: Client) -> None:
    assert ok(c.search("UTF-8", "OR", "SUBJECT", "one", "SUBJECT", "TWO")) == [b"1 2"]


def select(c: Client) -> None:
    assert ok(c.select(c.mailbox)) == [b"3"]
    assert c.select("Nothing")[0] == "NO"


def status(c: Client) -> None:
    assert b"MESSAGES 3" in ok(c.status(c.mailbox, "(MESSAGES UIDNEXT UNSEEN)"))[0]


def store(c: Client) -> None:
    assert rb"\Flagged" in ok(c.store("1", "+FLAGS", r"(\Flagged)"))[0]


def subscribe(c: Client) -> None:
    ok(c.subscribe(c.mailbox))
    assert ok(c.lsub('""', c.mailbox))[0].endswith(c.mailbox.encode())


def unsubscribe(c: Client) -> None:
    ok(c.subscribe(c.mailbox))
    ok(c.unsubscribe(c.mailbox))
    assert ok(c.lsub('""', c.mailbox)) == [None]


def uid(c: Client) -> None:
    ok(c.uid("STORE", "1", "+FLAGS", r"(\Deleted)"))
    ok(c.expunge())
    assert ok(c.uid("SEARCH", "ALL")) == [b"2 3"]


def unselect(c: Client) -> None:
    ok(c.store("2", "+FLAGS", r"(\Deleted)"))
    ok(c.unselect())
    assert _all(c, c.mailbox) == b"1 2 3"


def xatom(c: Client) -> None:
    ok(c.xatom("ID", "NIL"))
    with pytest.raises(c.error, match="BAD"):
        c.xatom("XIDLING")


def logout(c: Client) -> None:
    assert c.logout()[0] == "BYE"


CASES: dict[str, Case] = {
    case.__name__.rstrip("_"): case
    for case in (
        *(append, capability, check, close, copy, create, delete, enable, expunge, fetch, list_, lsub, namespace, noop),
        *(recent, rename, response, search, select, status, store, subscribe, unsubscribe, uid, unselect, xatom),
        logout,
    )
}
LOGIN = {"login", "authenticate", "starttls", "open", "shutdown", "read", "readline", "send", "socket"}
# IDLE is a context manager from Python 3.14 on; `print_log` exists for debugging and asks the server nothing.
ASIDE = {"print_log", "idle"}

# Commands that the server does not know.
LACKING: dict[str, Case] = {
    "deleteacl": lambda c: c.deleteacl("INBOX", "anyone"),
    "getacl": lambda c: c.getacl("INBOX"),
    "getannotation": lambda c: c.getannotation("INBOX", "/comment", "value"),
    "getquota": lambda c: c.getquota("user"),
    "getquotaroot": lambda c: c.getquotaroot("INBOX"),
    "myrights": lambda c: c.myrights("INBOX"),
    "partial": lambda c: c.partial("1", "RFC822", "0", "10"),
    "proxyauth": lambda c: c.proxyauth("somebody"),
    "setacl": lambda c: c.setacl("INBOX", "anyone", "lr"),
    "setannotation": lambda c: c.setannotation("INBOX", "/comment", '("value.priv" "x")'),
    "setquota": lambda c: c.setquota("user", "(STORAGE 5)"),
    "sort": lambda c: c.sort("(ARRIVAL)", "UTF-8", "ALL"),
    "thread": lambda c: c.thread("REFERENCES", "UTF-8", "ALL"),
    "login_cram_md5": lambda c: c.login_cram_md5("somebody", "word"),
}


@pytest.mark.parametrize("name", CASES)
def test_method(client: Client, name: str) -> None:
    CASES[name](client)
    assert name in client.called


def _answer(client: Client, case: Case) -> str:
    """The condition of the tagged answer; some methods raise it."""
    try:
        return str(case(client)[0])  # type: ignore[index]
    except client.error as error:
        return "BAD" if "BAD" in str(error) or "illegal in state" in str(error) else str(error)


@pytest.mark.parametrize("name", LACKING)
def test_unknown_command(client: Client, name: str) -> None:
    """It is called bad, and the session goes on."""
    assert _answer(client, LACKING[name]) in ("BAD", "NO")
    ok(client.noop())
    assert name in client.called


@pytest.mark.parametrize("way", ["login", "PLAIN", "LOGIN"])
def test_logs_in_after_starttls(server: Pillarbox, account: Account, way: str) -> None:
    with imaplib.IMAP4("localhost", server.port(143), timeout=60) as client:
        ok(client.starttls(server.tls()))
        words = iter([account.address.encode(), account.password.encode()])
        match way:
            case "login":
                ok(client.login(account.address, account.password))
            case "PLAIN":
                ok(client.authenticate("PLAIN", lambda _: b"\0" + b"\0".join(words)))
            case "LOGIN":
                ok(client.authenticate("LOGIN", lambda _: next(words)))
        ok(client.select())


def test_every_method_is_here() -> None:
    methods = {name for name, _ in inspect.getmembers(imaplib.IMAP4, inspect.isfunction) if not name.startswith("_")}
    assert methods - {*CASES, *LACKING, *LOGIN, *ASIDE} == set()
