"""A directory of blobs that is not there, as when its disk is not mounted, is noticed before mail is taken."""

from __future__ import annotations

import base64
import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.mail import deliver, exact, imap, message, octets_of, ok
from tests.acceptance.server import DOMAIN, Account, Pillarbox

ALICE = Account(f"alice@{DOMAIN}", "correct horse battery")
OPTIONS = ("--workers", "1", "--redis", "off", "--insecure-loopback-auth")


def large() -> bytes:
    attachment = base64.encodebytes(random.Random(1).randbytes(200_000)).replace(b"\n", b"\r\n")
    head = message(ALICE.address).replace(b"\r\n\r\nHello.", b'\r\nContent-Type: multipart/mixed; boundary="b"\r\n\r\n')
    part = b"Content-Type: image/png\r\nContent-Transfer-Encoding: base64\r\n\r\n" + attachment
    return head + b"--b\r\n\r\nSee there.\r\n--b\r\n" + part + b"--b--\r\n"


def refused(server: Pillarbox, *options: str) -> str:
    """What it says where it does not start."""
    before = len(server.log_tail(1 << 20)) if server.log.exists() else 0
    server.serve(*OPTIONS, *options)
    assert server.process is not None
    assert server.process.wait(timeout=90) == 1
    said = server.log_tail(1 << 20)[before:]
    assert "Traceback" not in said
    return said


@pytest.fixture
def second(program: Path) -> Iterator[Pillarbox]:
    server = Pillarbox("second")
    try:
        yield server
    finally:
        server.end()


def test_a_directory_that_is_elsewhere(own_server: Pillarbox, second: Pillarbox, database: str) -> None:
    options = ("--postgres", database)
    own_server.start(*OPTIONS, *options)
    own_server.run("admin", "domain", "add", DOMAIN)
    own_server.add_accounts([ALICE])
    assert own_server.stop() == 0
    own_server.start(*OPTIONS, *options)  # with no blobs yet
    sent = large()
    deliver(own_server, sent, ALICE.address)
    assert own_server.stop() == 0

    blobs, away = own_server.data / "blobs", own_server.home / "away"
    blobs.rename(away)
    for _ in range(2):  # the second time it is there, and empty, as a place where nothing is mounted
        said = refused(own_server, *options)
        assert f"storage.blobs: {blobs} does not hold what messages refer to: mount what belongs there" in said
    blobs.rmdir()
    away.rename(blobs)

    (second.data / "secrets").mkdir(parents=True)
    for name in ("install.key", "master.key"):
        shutil.copy(own_server.data / "secrets" / name, second.data / "secrets" / name)
    assert f"{second.data}/blobs does not hold what messages refer to" in refused(second, *options)

    own_server.start(*OPTIONS, *options)
    with imap(own_server, ALICE) as client:
        ok(client.select("INBOX"))
        assert exact(octets_of(client, 1), sent)
