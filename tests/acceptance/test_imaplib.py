"""imaplib, every public method of its class: a case that uses it, or the capability that the server lacks for it.

A method that a later Python brings makes a test fail until it has its case. A case is a function of a logged-in client
whose selected mailbox, named like the method, holds three messages: UIDs 1 to 3, subjects "one" to "three".
"""

from __future__ import annotations

import imaplib
import io
import shlex
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr

import pytest

from tests.acceptance.api import SUBJECTS, Noting, public
from tests.acceptance.mail import all_octets, message, ok
from tests.acceptance.server import DOMAIN, Account, Pillarbox

ACCOUNT = Account(f"imaplib@{DOMAIN}", "correct horse")


class Client(Noting, imaplib.IMAP4_SSL):
    def __init__(self, server: Pillarbox) -> None:
        self.mailbox = ""
        super().__init__("localhost", server.port(993), ssl_context=server.tls(), timeout=60)


class Plain(Noting, imaplib.IMAP4):
    def __init__(self, server: Pillarbox) -> None:
        super().__init__("localhost", server.port(143), timeout=60)


class Stream(Noting, imaplib.IMAP4_stream):
    def __init__(self, server: Pillarbox, program: str) -> None:
        command = [program, "s_client", "-quiet", "-verify_return_error", "-CAfile", str(server.certificate)]
        super().__init__(shlex.join([*command, "-connect", f"localhost:{server.port(993)}"]))


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
        made.used.clear()
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


def socket(c: Client) -> None:
    assert c.socket().getpeername()[0] in ("127.0.0.1", "::1")


def print_log(c: Client) -> None:
    with redirect_stderr(io.StringIO()) as said:
        c.print_log()
    assert "SELECT print_log" in said.getvalue()


def logout(c: Client) -> None:
    assert c.logout()[0] == "BYE"


CASES: dict[str, Case] = {
    case.__name__.rstrip("_"): case
    for case in (
        *(append, capability, check, close, copy, create, delete, enable, expunge, fetch, list_, lsub, namespace, noop),
        *(recent, rename, response, search, select, status, store, subscribe, unsubscribe, uid, unselect, xatom),
        *(socket, print_log, logout),
    )
}
CONNECTION = {"open", "send", "read", "readline", "shutdown"}
"""What every other method uses."""
LOGIN = {"login", "authenticate", "starttls"}

# What the server does not announce, with a call of it.
LACKING: dict[str, tuple[str, Case]] = {
    "getacl": ("ACL", lambda c: c.getacl("INBOX")),
    "setacl": ("ACL", lambda c: c.setacl("INBOX", "anyone", "lr")),
    "deleteacl": ("ACL", lambda c: c.deleteacl("INBOX", "anyone")),
    "myrights": ("ACL", lambda c: c.myrights("INBOX")),
    "getannotation": ("ANNOTATEMORE", lambda c: c.getannotation("INBOX", "/comment", "value")),
    "setannotation": ("ANNOTATEMORE", lambda c: c.setannotation("INBOX", "/comment", '("value.priv" "x")')),
    "getquota": ("QUOTA", lambda c: c.getquota('""')),
    "getquotaroot": ("QUOTA", lambda c: c.getquotaroot("INBOX")),
    "setquota": ("QUOTA", lambda c: c.setquota('""', "(STORAGE 5)")),
    "sort": ("SORT", lambda c: c.sort("(ARRIVAL)", "UTF-8", "ALL")),
    "thread": ("THREAD=REFERENCES", lambda c: c.thread("REFERENCES", "UTF-8", "ALL")),
    "partial": ("IMAP4", lambda c: c.partial("1", "RFC822", "0", "10")),  # RFC 1730 §6.4.6
    "proxyauth": ("X-NETSCAPE", lambda c: (c.unselect(), c.proxyauth("somebody"))[1]),  # not allowed once selected
}
TOKENS: dict[str, tuple[str, Callable[[Plain], object]]] = {
    "login_cram_md5": ("AUTH=CRAM-MD5", lambda c: c.login_cram_md5(ACCOUNT.address, ACCOUNT.password)),
}
"""Mechanisms that are not announced."""


@pytest.mark.parametrize("name", CASES)
def test_method(client: Client, name: str) -> None:
    CASES[name](client)
    assert name in client.used


@pytest.mark.parametrize("name", LACKING)
def test_without_the_capability(client: Client, name: str) -> None:
    """The command is called bad, and the session goes on."""
    capability, call = LACKING[name]
    assert capability not in client.capabilities, f"{capability} is announced: {name} needs a case"
    with pytest.raises(client.error, match="BAD"):
        code, _ = call(client)  # type: ignore[misc]
        raise client.error(code)
    ok(client.noop())
    assert name in client.used


@pytest.mark.parametrize("way", ["login", "PLAIN", "LOGIN", *TOKENS])
def test_from_greeting_to_farewell(server: Pillarbox, account: Account, way: str) -> None:
    with Plain(server) as client:
        ok(client.starttls(server.tls()))
        words = iter([account.address.encode(), account.password.encode()])
        match way:
            case "PLAIN":
                ok(client.authenticate("PLAIN", lambda _: b"\0" + b"\0".join(words)))
            case "LOGIN":
                ok(client.authenticate("LOGIN", lambda _: next(words)))
            case _:
                if way in TOKENS:
                    _is_unknown(client, way)
                ok(client.login(account.address, account.password))
        _goes_in_and_comes_out(client, way)
    assert client.used >= {"starttls", way if way.islower() else "authenticate", *CONNECTION}


def _is_unknown(client: Plain, mechanism: str) -> None:
    capability, call = TOKENS[mechanism]
    assert capability not in client.capabilities, f"{capability} is announced: {mechanism} needs a case"
    with pytest.raises(client.error, match="mechanism"):
        call(client)


def _goes_in_and_comes_out(client: imaplib.IMAP4, mailbox: str) -> None:
    octets = message(ACCOUNT.address)
    ok(client.create(mailbox))
    ok(client.append(mailbox, "", "", octets))  # type: ignore[arg-type]
    assert all_octets(client, mailbox) == [octets]


def test_by_a_program(server: Pillarbox, account: Account, tool: Callable[[str], str]) -> None:
    with Stream(server, tool("openssl")) as client:
        ok(client.login(account.address, account.password))
        _goes_in_and_comes_out(client, "stream")
    assert client.used >= CONNECTION


def test_every_method_is_here() -> None:
    classes = (imaplib.IMAP4, imaplib.IMAP4_SSL, imaplib.IMAP4_stream)
    assert public(*classes) == {*CASES, *CONNECTION, *LOGIN, *LACKING, *TOKENS}
