"""Programs and libraries that people read mail with, against the running server, each over TLS."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

import aioimaplib  # type: ignore[import-untyped]
import pytest
from imapclient import IMAPClient  # type: ignore[import-untyped]

from tests.acceptance.mail import all_octets, deliver, exact, imap, message, ok, status, subjects
from tests.acceptance.server import Account, Pillarbox, eventually

Tool = Callable[[str], str]


def test_imapclient(server: Pillarbox, alice: Account) -> None:
    with IMAPClient("localhost", server.port(143), ssl=False, timeout=30) as client:
        client.starttls(server.tls())
        client.login(alice.address, alice.password)
        assert client.namespace().personal[0][1] == "/"
        assert client.find_special_folder(b"\\Sent") == "Sent"
        client.create_folder("Bücher/Neu")
        assert "Bücher/Neu" in [name for _, _, name in client.list_folders()]
        uid = _appended_uid(client.append("INBOX", message(alice.address, "One"), [b"\\Seen"]))
        client.append("INBOX", message(alice.address, "Two"))
        assert client.select_folder("INBOX")[b"EXISTS"] == 2
        assert client.search(["UNSEEN"]) == [uid + 1]
        envelope = client.fetch([uid], ["ENVELOPE", "FLAGS", "BODYSTRUCTURE"])[uid][b"ENVELOPE"]
        assert envelope.subject == b"One"
        client.add_flags([uid], ["$Important"])
        assert b"$Important" in client.get_flags([uid])[uid]
        client.move([uid], "Bücher/Neu")
        assert client.folder_status("Bücher/Neu", ["MESSAGES"])[b"MESSAGES"] == 1
        client.delete_messages(client.search())
        client.expunge()
        assert client.search() == []
        client.unselect_folder()


def _appended_uid(answer: bytes) -> int:
    found = re.search(rb"APPENDUID \d+ (\d+)", answer)
    assert found, answer
    return int(found[1])


async def test_aioimaplib(server: Pillarbox, alice: Account) -> None:
    client = aioimaplib.IMAP4_SSL("localhost", server.port(993), ssl_context=server.tls(), timeout=30)
    await client.wait_hello_from_server()
    assert (await client.login(alice.address, alice.password)).result == "OK"
    assert (await client.select("INBOX")).result == "OK"
    await client.idle_start(timeout=30)
    octets = message(alice.address)
    await asyncio.to_thread(deliver, server, octets, alice.address)
    assert b"1 EXISTS" in b" ".join(await client.wait_server_push(timeout=5))
    client.idle_done()
    await asyncio.sleep(0.2)
    answer = await client.fetch("1", "(BODY.PEEK[])")
    assert answer.result == "OK"
    assert exact(bytes(answer.lines[1]), octets)
    assert (await client.uid("store", "1", "+FLAGS", "(\\Answered)")).result == "OK"
    assert (await client.uid_search("ANSWERED")).lines[0].split() == [b"1"]
    assert (await client.logout()).result == "OK"


def _curl(server: Pillarbox, account: Account, program: str, path: str, *more: str) -> bytes:
    scheme = [f"imaps://localhost:{server.port(993)}", f"imap://localhost:{server.port(143)}"]
    answers = []
    for base in scheme:
        command = [program, "--silent", "--show-error", "--max-time", "60", "--ssl-reqd"]
        command += ["--cacert", str(server.certificate), "--user", f"{account.address}:{account.password}"]
        done = subprocess.run([*command, *more, base + path], capture_output=True, timeout=90)
        assert done.returncode == 0, done.stderr.decode()
        answers.append(done.stdout)
    assert answers[0] == answers[1]
    return answers[0]


def test_curl(server: Pillarbox, alice: Account, tool: Tool) -> None:
    octets = message(alice.address, "for curl")
    deliver(server, octets, alice.address)
    program = tool("curl")
    assert b"INBOX" in _curl(server, alice, program, "/")
    assert b"MESSAGES 1" in _curl(server, alice, program, "/", "--request", "STATUS INBOX (MESSAGES)")
    assert exact(_curl(server, alice, program, "/INBOX;MAILINDEX=1"), octets)
    assert b"* SEARCH 1" in _curl(server, alice, program, "/INBOX?SUBJECT%20curl")


def test_curl_uploads(server: Pillarbox, alice: Account, tool: Tool, tmp_path: Path) -> None:
    octets = message(alice.address)
    (tmp_path / "message").write_bytes(octets)
    _curl(server, alice, tool("curl"), "/Archive", "--upload-file", str(tmp_path / "message"))
    with imap(server, alice) as client:
        assert all_octets(client, "Archive") == [octets, octets]


def _mutt(program: str, home: Path, rc: str, *words: str, seconds: int = 90) -> None:
    """Run mutt on a terminal of its own."""
    (home / "rc").write_text(rc)
    ours, theirs = os.openpty()
    environment = {**os.environ, "TERM": "xterm", "HOME": str(home)}
    command = [program, "-n", "-F", str(home / "rc"), *words]
    try:
        process = subprocess.Popen(
            command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment, cwd=home, start_new_session=True
        )
    finally:
        os.close(theirs)
    screen = _Screen(ours)
    try:
        process.wait(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(timeout=10)
        pytest.fail(f"mutt did not end; its screen: {screen.text[-2000:]!r}")
    finally:
        screen.close()
    assert process.returncode == 0, screen.text[-2000:]


class _Screen:
    """Reads what a program writes to its terminal, so that it never waits."""

    def __init__(self, descriptor: int) -> None:
        self.text = b""
        self._descriptor = descriptor
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        try:
            while octets := os.read(self._descriptor, 4096):
                self.text += octets
        except OSError:
            pass

    def close(self) -> None:
        self._thread.join(timeout=5)
        os.close(self._descriptor)


def _mutt_rc(server: Pillarbox, account: Account) -> str:
    return f"""
set imap_user="{account.address}" imap_pass="{account.password}"
set folder="imaps://localhost:{server.port(993)}/" spoolfile="+INBOX" record="+Sent" postponed="+Drafts"
set smtp_url="smtps://{account.username}@localhost:{server.port(465)}/" smtp_pass="{account.password}"
set smtp_authenticators="plain"
set from="{account.address}" use_from=yes realname="A Person"
set certificate_file="{server.certificate}" ssl_force_tls=yes
unset mark_old wait_key pipe_decode confirmappend header_cache
set quit=yes delete=yes move=no sort=date copy=yes timeout=5 sleep_time=0
"""


@pytest.mark.parametrize("name", ["mutt", "neomutt"])
def test_mutt_reads_flags_and_moves(server: Pillarbox, alice: Account, tool: Tool, tmp_path: Path, name: str) -> None:
    program = tool(name)
    octets = message(alice.address, "for mutt")
    deliver(server, octets, alice.address)
    push = "<flag-message><pipe-message>cat > got<enter><save-message>=Archive<enter><sync-mailbox><quit>"
    _mutt(program, tmp_path, _mutt_rc(server, alice), "-e", f"push '{push}'")
    got = (tmp_path / "got").read_bytes()
    assert octets.partition(b"\r\n\r\n")[2].replace(b"\r\n", b"\n") in got.replace(b"\r\n", b"\n")
    with imap(server, alice) as client:
        assert status(client, "INBOX") == 0
        assert subjects(client, "Archive") == ["for mutt"]
        ok(client.select("Archive"))
        assert ok(client.search(None, "FLAGGED")) == [b"1"]


@pytest.mark.parametrize("name", ["mutt", "neomutt"])
def test_mutt_sends_and_keeps_a_copy(
    server: Pillarbox, alice: Account, bob: Account, tool: Tool, tmp_path: Path, name: str
) -> None:
    program = tool(name)
    (tmp_path / "body").write_text("By mutt.\n")
    (tmp_path / "list.txt").write_text("an attachment\n")
    (tmp_path / "rc").write_text(_mutt_rc(server, alice))
    command = [program, "-n", "-F", str(tmp_path / "rc"), "-s", "sent by mutt", "-a", str(tmp_path / "list.txt")]
    with (tmp_path / "body").open() as body:  # without a terminal mutt sends at once
        done = subprocess.run(
            [*command, "--", bob.address],
            stdin=body,
            capture_output=True,
            text=True,
            timeout=90,
            env={**os.environ, "HOME": str(tmp_path)},
            cwd=tmp_path,
        )
    assert done.returncode == 0, done.stdout + done.stderr
    with imap(server, bob) as client:
        assert subjects(client) == ["sent by mutt"]
        assert b"an attachment" in all_octets(client)[0]
    if name == "mutt":  # the other one keeps copies of what is written on its screen only
        with imap(server, alice) as client:
            eventually(lambda: status(client, "Sent") == 1, 5, "the copy in Sent")


def test_neomutt_keeps_headers_by_mod_sequence(server: Pillarbox, alice: Account, tool: Tool, tmp_path: Path) -> None:
    """With a header cache and CONDSTORE it asks for what has changed since it last looked."""
    program = tool("neomutt")
    for number in range(3):
        deliver(server, message(alice.address, f"number {number}"), alice.address)
    (tmp_path / "cache").mkdir()
    log = tmp_path / "log0"
    rc = _mutt_rc(server, alice).replace("header_cache", "imap_idle")
    rc += f'set header_cache="{tmp_path}/cache" imap_condstore=yes\n'
    _mutt(program, tmp_path, rc, "-e", "push '<quit>'")
    with imap(server, alice) as client:
        ok(client.select("INBOX"))
        ok(client.store("2", "+FLAGS", r"(\Flagged)"))
    push = "<limit>~F<enter><pipe-message>cat > got<enter><quit>"
    _mutt(program, tmp_path, rc, "-d", "3", "-l", str(tmp_path / "log"), "-e", f"push '{push}'")
    assert b"Subject: number 1" in (tmp_path / "got").read_bytes()
    said = log.read_text(errors="replace")
    assert 'SELECT "INBOX" (CONDSTORE)' in said and "(CHANGEDSINCE" in said


def test_mbsync_both_ways(server: Pillarbox, alice: Account, tool: Tool, tmp_path: Path) -> None:
    program = tool("mbsync")
    for number in range(5):
        deliver(server, message(alice.address, f"number {number}"), alice.address)
    (tmp_path / "mail").mkdir()
    (tmp_path / "rc").write_text(f"""
IMAPAccount there
Host localhost
Port {server.port(993)}
User {alice.address}
Pass "{alice.password}"
SSLType IMAPS
CertificateFile {server.certificate}

IMAPStore far
Account there

MaildirStore near
Path {tmp_path}/mail/
Inbox {tmp_path}/mail/INBOX
SubFolders Verbatim

Channel all
Far :far:
Near :near:
Patterns *
Create Both
Expunge Both
Sync All
SyncState *
""")
    _mbsync(program, tmp_path)
    near = sorted((tmp_path / "mail" / "INBOX").glob("[nc]*/*"))
    assert len(near) == 5
    assert {name.name for name in (tmp_path / "mail").iterdir()} >= {"Drafts", "Sent", "Junk", "Trash", "Archive"}
    near[0].rename(near[0].parents[1] / "cur" / (near[0].name.partition(":")[0] + ":2,FS"))
    near[1].unlink()
    (tmp_path / "mail" / "Archive" / "new" / "1.mine").write_bytes(message("x@example.org", "mine").replace(b"\r", b""))
    _mbsync(program, tmp_path)
    with imap(server, alice) as client:
        assert subjects(client, "Archive") == ["mine"]
        ok(client.select("INBOX"))
        assert len(subjects(client)) == 4
        assert ok(client.search(None, "FLAGGED SEEN")) != [b""]
    _mbsync(program, tmp_path)
    assert len(list((tmp_path / "mail" / "INBOX").glob("[nc]*/*"))) == 4


def _mbsync(program: str, home: Path) -> None:
    environment = {**os.environ, "HOME": str(home)}
    command = [program, "--config", str(home / "rc"), "--all"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=90, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
