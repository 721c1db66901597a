"""Large parts in S3, from mail coming in to mail being read, with the S3 server going away and coming back."""

from __future__ import annotations

import base64
import imaplib
import json
import random
import smtplib
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.mail import deliver, exact, imap, message, octets_of, ok
from tests.acceptance.server import DOMAIN, HOST, PROGRAM, Account, Pillarbox, eventually
from tests.support.s3 import KEY_ID, SECRET, S3Server

ALICE = Account(f"alice@{DOMAIN}", "correct horse")
RANDOM = random.Random(1)


@pytest.fixture
def s3_server(program: Path, seaweedfs: S3Server) -> Iterator[Pillarbox]:
    """Not started yet."""
    settings = {
        "S3_ENDPOINT_URL": seaweedfs.url,
        "S3_ACCESS_KEY_ID": KEY_ID,
        "S3_SECRET_ACCESS_KEY": SECRET,
        "S3_TIMEOUT_SECONDS": "3",
    }
    server = Pillarbox("data s3", **{f"PILLARBOX_STORAGE__{key}": value for key, value in settings.items()})
    try:
        yield server
    finally:
        server.end()
        if not seaweedfs.runs:
            seaweedfs.start()


def large(octets: int = 900_000) -> bytes:
    """A message with an attachment that nobody else has."""
    attachment = base64.encodebytes(RANDOM.randbytes(octets)).replace(b"\n", b"\r\n")
    head = message(ALICE.address).replace(b"\r\n\r\nHello.", b'\r\nContent-Type: multipart/mixed; boundary="b"\r\n\r\n')
    part = b"Content-Type: image/png\r\nContent-Transfer-Encoding: base64\r\n\r\n" + attachment
    return head + b"--b\r\n\r\nSee there.\r\n--b\r\n" + part + b"--b--\r\n"


def refusal_of(server: Pillarbox, octets: bytes) -> int:
    with pytest.raises(smtplib.SMTPResponseException) as refused:
        deliver(server, octets, ALICE.address)
    return refused.value.smtp_code


def health(server: Pillarbox) -> dict[str, Any]:
    try:
        with urllib.request.urlopen(f"http://{HOST}:{server.port(80)}/readyz", timeout=30) as answer:
            body = answer.read()
    except urllib.error.HTTPError as error:
        body = error.read()
    found: dict[str, Any] = json.loads(body)
    return found


def empty_cache(server: Pillarbox) -> int:
    files = list((server.data / "blob-cache").glob("??/*"))
    for path in files:
        path.unlink()
    return len(files)


def read_back(server: Pillarbox, sent: list[bytes]) -> None:
    """Every message in order, exactly."""
    with imap(server, ALICE) as client:
        assert int(ok(client.select("INBOX"))[0]) == len(sent)
        for number, octets in enumerate(sent, 1):
            assert exact(octets_of(client, number), octets)


def test_a_mistake_is_said_at_the_first_start(s3_server: Pillarbox) -> None:
    s3_server.serve("--blobs", "s3://no-such-bucket", "--workers", "1")
    assert s3_server.process is not None
    assert s3_server.process.wait(timeout=90) != 0
    assert "has no bucket no-such-bucket: make it, or correct storage.blobs" in s3_server.log_tail()
    assert "Traceback" not in s3_server.log_tail()
    assert not (s3_server.data / "first-login").exists()


def test_large_mail_in_s3(s3_server: Pillarbox, seaweedfs: S3Server) -> None:
    s3_server.start("--blobs", f"s3://mail/acceptance-{time.time_ns()}", "--workers", "2")
    s3_server.run("admin", "domain", "add", DOMAIN)
    s3_server.add_accounts([ALICE])
    sent = [message(ALICE.address), large(), large(3_000_000)]
    for octets in sent:
        deliver(s3_server, octets, ALICE.address)
    read_back(s3_server, sent)
    assert empty_cache(s3_server) == 2
    read_back(s3_server, sent)
    assert not list((s3_server.data / "blobs").rglob("*"))

    with imap(s3_server, ALICE) as client:
        ok(client.select("INBOX"))
        seaweedfs.kill()
        read_back(s3_server, sent)  # from the cache
        assert empty_cache(s3_server) == 2
        _serves_what_it_can(s3_server, client, sent)
        seaweedfs.start()
        eventually(lambda: health(s3_server)["status"] == "ok", 30, "health sees that S3 is back", every=0.5)
        assert exact(octets_of(client, 2), sent[1])  # the same session
        sent += [large(), large()]
        deliver(s3_server, sent[-2], ALICE.address)
        assert client.append("INBOX", "", None, sent[-1])[0] == "OK"
    read_back(s3_server, sent)
    _is_checked_from_another_shell(s3_server)

    metrics = urllib.request.urlopen(f"http://{HOST}:{s3_server.port(80)}/metrics", timeout=30).read().decode()
    assert 'pillarbox_blob_requests_total{operation="put_object"}' in metrics
    assert 'pillarbox_blob_cache_total{what="hits"}' in metrics
    assert s3_server.stop() == 0
    s3_server.serve("--blobs", "s3://mail/elsewhere")
    assert s3_server.process is not None
    assert s3_server.process.wait(timeout=90) != 0
    assert "s3://mail/elsewhere does not hold what messages refer to" in s3_server.log_tail()
    _says_no_secret(s3_server)


def _is_checked_from_another_shell(server: Pillarbox) -> None:
    """A command learns from the running server where S3 is."""
    command = [str(PROGRAM), "--data", str(server.data), "admin", "fsck", "--octets", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=server.home)
    assert done.returncode == 0 and json.loads(done.stdout)["clean"], done.stdout + done.stderr


def _serves_what_it_can(server: Pillarbox, client: imaplib.IMAP4, sent: list[bytes]) -> None:
    """S3 is away: what needs it is refused for now, everything else goes on, and no session loses step."""
    assert refusal_of(server, large()) // 100 == 4
    assert exact(octets_of(client, 1), sent[0])
    for items in ("BODY.PEEK[]", "BODY.PEEK[2]", "BODY.PEEK[2]<100.100>", "(FLAGS BODY.PEEK[])"):
        code, text = client.fetch("1:*", items)
        assert (code, b"[UNAVAILABLE]" in text[-1]) == ("NO", True), (items, text)
        ok(client.noop())
    assert b"See there." in ok(client.fetch("2", "(ENVELOPE BODY.PEEK[1])"))[0][1]
    code, text = client.append("INBOX", "", None, large())
    assert (code, b"[UNAVAILABLE]" in text[0]) == ("NO", True), text
    sent.append(message(ALICE.address))
    deliver(server, sent[-1], ALICE.address)
    found = health(server)
    assert found["status"] == "unavailable"
    assert "does not answer" in found["problems"]["blobs"]


def _says_no_secret(server: Pillarbox) -> None:
    texts = [server.log_tail(10**7), server.run("config", "describe").stdout]
    texts += [path.read_text(errors="replace") for path in (server.data / "run").glob("*") if path.is_file()]
    assert not any(SECRET in text for text in texts)
