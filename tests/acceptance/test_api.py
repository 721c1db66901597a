"""The REST API of a running server, as an application uses it: over TLS, apart from all other roles, and in clear on
loopback where a setting says so."""

from __future__ import annotations

import json
import shutil
import subprocess
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.mail import imap
from tests.acceptance.server import DOMAIN, HOST, Account, Pillarbox, _is_free

PASSWORD = "correct horse battery"


class Application:
    """Speaks JSON to one server."""

    def __init__(self, server: Pillarbox, *, tls: bool = True) -> None:
        self.base = f"https://localhost:{server.port(443)}" if tls else f"http://{HOST}:{server.port(80)}"
        self._context = server.tls() if tls else None
        self.token = ""

    def ask(self, method: str, path: str, document: Any = None) -> tuple[int, Any]:
        data = None if document is None else json.dumps(document).encode()
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {self.token}"}
        request = urllib.request.Request(self.base + path, data, headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=30, context=self._context) as answer:
                return answer.status, self._read(answer.read())
        except urllib.error.HTTPError as error:
            return error.code, self._read(error.read())

    def log_in(self, name: str, password: str) -> None:
        status, answer = self.ask("POST", "/login", {"username": name, "password": password})
        assert status == 200, answer
        self.token = answer["token"]

    @staticmethod
    def _read(octets: bytes) -> Any:
        try:
            return json.loads(octets)
        except ValueError:
            return octets


def test_what_one_sends_by_rest_another_reads_by_imap(server: Pillarbox, new_account: Callable[[], Account]) -> None:
    alice, bob = new_account(), new_account()
    application = Application(server)
    application.log_in(alice.username, alice.password)
    wanted = {"recipients": [bob.address], "subject": "By REST", "body": "Hello"}
    status, accepted = application.ask("POST", "/api/v1/emails", wanted)
    assert status == 202
    with imap(server, bob) as client:
        client.select("INBOX")
        _, found = client.fetch("1", "(BODY.PEEK[])")
        octets = found[0][1]
        assert b"Subject: By REST" in octets and accepted["trace_id"].encode() in octets
    with imap(server, alice) as client:
        _, lines = client.select("Sent")
        _, (flags,) = client.fetch(lines[0].decode(), "(FLAGS)")
        assert b"\\Seen" in flags
    status, found = application.ask("GET", f"/emails/{accepted['id']}")
    assert (status, found["body"]) == (200, "Hello\n")


def test_a_token_of_one_worker_counts_in_all_and_is_taken_back_in_all(
    server: Pillarbox, new_account: Callable[[], Account]
) -> None:
    alice = new_account()
    application = Application(server)
    application.log_in(alice.address, alice.password)
    assert {application.ask("GET", "/contacts")[0] for _ in range(20)} == {200}
    assert application.ask("POST", "/logout")[0] == 204
    assert {application.ask("GET", "/contacts")[0] for _ in range(20)} == {401}


def test_a_new_password_ends_tokens(server: Pillarbox, new_account: Callable[[], Account]) -> None:
    alice = new_account()
    application = Application(server)
    application.log_in(alice.address, alice.password)
    server.run("admin", "account", "passwd", alice.address, "--generate")
    assert {application.ask("GET", "/contacts")[0] for _ in range(20)} == {401}


def test_tls_is_to_be_kept_to(server: Pillarbox) -> None:
    with urllib.request.urlopen(f"https://localhost:{server.port(443)}/docs", timeout=30, context=server.tls()) as page:
        assert page.headers["Strict-Transport-Security"] == "max-age=31536000"
        assert b"Pillarbox" in page.read()


def test_in_clear_there_is_nothing_but_the_way_to_tls(server: Pillarbox) -> None:
    clear = Application(server, tls=False)
    for path in ("/login", "/api/v1/login"):
        status, _ = clear.ask("POST", path, {"username": "x", "password": "y"})
        assert status == 308
    assert clear.ask("GET", "/healthz")[0] == 200


@pytest.fixture(scope="module")
def apart(program: Path) -> Iterator[Pillarbox]:
    """The API alone, in clear on loopback; open.test is open for registration."""
    running = Pillarbox()
    try:
        running.start("--roles", "api", "--insecure-loopback-auth", "--workers", "1")
        running.run("admin", "domain", "add", "open.test", "--registration", "open")
        yield running
    finally:
        running.end()


def test_the_api_runs_apart(apart: Pillarbox) -> None:
    assert _is_free(apart.port(25)) and _is_free(apart.port(143)) and not _is_free(apart.port(443))
    for tls in (False, True):
        name = f"user{tls}".lower()
        application = Application(apart, tls=tls)
        document = {"username": name, "email": f"{name}@open.test", "password": PASSWORD}
        assert application.ask("POST", "/register", document)[0] == 201
        application.log_in(name, PASSWORD)
        message = {"recipients": f"{name}@open.test", "subject": "To myself"}
        assert application.ask("POST", "/emails", message)[0] == 202
        _, inbox = application.ask("GET", "/emails/inbox")
        assert [item["subject"] for item in inbox["items"]] == ["To myself"]
        assert application.ask("POST", "/contacts", {"name": "Me", "email": f"{name}@open.test"})[0] == 201


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_the_flow_of_the_readme(apart: Pillarbox, tmp_path: Path) -> None:
    """The commands of README.md, one after another, as they stand there but for the address."""
    readme = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    section = readme.partition("### REST")[2].partition("\n### ")[0]
    (script,) = [block for block in section.split("```sh\n")[1:] if "curl" in block]
    script = script.partition("```")[0].replace("https://localhost:20443", f"http://{HOST}:{apart.port(80)}")
    assert "open.test" in script
    (tmp_path / "report.pdf").write_bytes(b"%PDF")
    done = subprocess.run(
        ["bash", "-euo", "pipefail"], input=script, cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert "report.pdf" in done.stdout and DOMAIN not in done.stdout
