"""Processes of a server: side by side, killed one by one, stopped, started again. Each on a server of its own."""

from __future__ import annotations

import json
import os
import shutil
import signal
import smtplib
import socket
import ssl
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.mail import deliver, imap, message, status
from tests.acceptance.server import DOMAIN, HOST, PROGRAM, Account, Pillarbox, children, descendants, eventually

ALICE = Account(f"alice@{DOMAIN}", "correct horse battery")


@pytest.fixture
def running(own_server: Pillarbox) -> Pillarbox:
    """A server with two workers and Alice."""
    own_server.start("--workers", "2", "--insecure-loopback-auth")
    own_server.run("admin", "domain", "add", DOMAIN)
    own_server.run("admin", "account", "add", ALICE.address, "--password", ALICE.password)
    return own_server


@pytest.fixture
def second(program: Path) -> Iterator[Pillarbox]:
    server = Pillarbox("second")
    try:
        yield server
    finally:
        server.end()


def greeting(server: Pillarbox, port: int) -> bytes:
    with socket.create_connection((HOST, server.port(port)), 20) as client:
        client.settimeout(20)
        return client.recv(100)


def gone(pids: list[int]) -> bool:
    return not any(Path(f"/proc/{pid}/cwd").exists() for pid in pids)


def taken(server: Pillarbox) -> bool:
    """Offers a message for Alice once; False where the server says "try again later"."""
    try:
        deliver(server, message(ALICE.address), ALICE.address)
    except smtplib.SMTPResponseException as refusal:
        if refusal.smtp_code // 100 != 4:
            raise
        return False
    return True


def supervisor(server: Pillarbox) -> int:
    assert server.process is not None
    return server.process.pid


# Side by side -----------------------------------------------------------------------------------------------------


def test_two_instances_side_by_side(running: Pillarbox, second: Pillarbox) -> None:
    second.start("--workers", "1")
    assert second.run("status").returncode == running.run("status").returncode == 0
    assert DOMAIN in running.run("admin", "domain", "list").stdout
    assert DOMAIN not in second.run("admin", "domain", "list").stdout
    assert second.stop() == 0
    assert running.run("ready").returncode == 0


def test_a_taken_port_is_named_and_nothing_is_begun(running: Pillarbox, second: Pillarbox) -> None:
    second.offset = running.offset
    second.serve()
    assert second.process is not None
    assert second.process.wait(30) == 1
    said = second.log_tail()
    assert str(running.port(143)) in said and "--port-offset" in said and "Traceback" not in said
    assert not (second.data / "postgres" / "data").exists()
    assert running.run("ready").returncode == 0


# Kill -9 ----------------------------------------------------------------------------------------------------------


def test_a_killed_worker_is_replaced_and_what_waits_is_served(running: Pillarbox) -> None:
    before = running.processes()["worker"]
    assert len(before) == 2
    os.kill(supervisor(running), signal.SIGSTOP)  # nobody is replaced yet
    for pid in before:
        os.kill(pid, signal.SIGKILL)
    waiting = [socket.create_connection((HOST, running.port(25)), 20) for _ in range(20)]
    os.kill(supervisor(running), signal.SIGCONT)
    for client in waiting:
        client.settimeout(30)
        assert client.recv(100).startswith(b"220")
        client.close()
    eventually(lambda: len(running.processes()["worker"]) == 2, 10, "two workers")
    assert not set(running.processes()["worker"]) & set(before)
    assert running.run("ready", "--wait", "20").returncode == 0


def test_a_killed_supervisor_leaves_nothing_behind(running: Pillarbox) -> None:
    deliver(running, message(ALICE.address), ALICE.address)
    below = descendants(supervisor(running))
    assert len(below) > 4
    os.kill(supervisor(running), signal.SIGKILL)
    assert running.process is not None
    running.process.wait(10)
    eventually(lambda: gone(below), 30, "workers and services end")
    assert running.run("status", check=False).returncode == 3
    running.start("--workers", "1", "--insecure-loopback-auth")
    with imap(running, ALICE) as client:
        assert status(client, "INBOX") == 1


@pytest.mark.parametrize("kind", ["postgres", "redis"])
def test_a_killed_service_heals(running: Pillarbox, kind: str) -> None:
    for _ in range(3):
        (pid,) = running.processes()[kind]
        os.kill(pid, signal.SIGKILL)
        eventually(lambda pid=pid: pid not in running.processes()[kind] and running.processes()[kind], 10, kind)
        eventually(lambda: taken(running), 20, "mail is taken again", every=0.2)
    with imap(running, ALICE) as client:
        assert status(client, "INBOX") == 3


def test_while_the_database_is_away_readyz_says_so(running: Pillarbox) -> None:
    os.kill(supervisor(running), signal.SIGSTOP)
    os.kill(running.processes()["postgres"][0], signal.SIGKILL)
    url = f"http://{HOST}:{running.port(80)}/readyz"

    def answer() -> tuple[int, bool]:
        """The status, and whether the database is named."""
        try:
            with urllib.request.urlopen(url, timeout=20) as response:
                return response.status, "postgres" in json.loads(response.read()).get("problems", {})
        except urllib.error.HTTPError as error:
            return error.code, "postgres" in json.loads(error.read())["problems"]

    eventually(lambda: answer() == (503, True), 15, "503")
    with smtplib.SMTP(HOST, running.port(25), timeout=20) as client:
        client.ehlo()
        client.mail("someone@example.org")
        assert client.rcpt(ALICE.address)[0] // 100 == 4
    os.kill(supervisor(running), signal.SIGCONT)
    eventually(lambda: answer() == (200, False), 15, "200")


# The end ------------------------------------------------------------------------------------------------------------


def test_an_orderly_stop_says_goodbye_and_leaves_nothing(running: Pillarbox) -> None:
    below = descendants(supervisor(running))
    smtp = socket.create_connection((HOST, running.port(25)), 20)
    imap_ = socket.create_connection((HOST, running.port(143)), 20)
    for client in (smtp, imap_):
        client.settimeout(20)
        client.recv(1000)
    assert running.stop() == 0
    assert smtp.recv(1000).startswith(b"421")
    assert imap_.recv(1000).startswith(b"* BYE")
    for client in (smtp, imap_):
        assert client.recv(1000) == b""
        client.close()
    assert gone(below)
    assert not (running.data / "run" / "server.json").exists()
    with pytest.raises(ConnectionRefusedError):
        greeting(running, 25)


def test_a_second_start_finds_everything(running: Pillarbox) -> None:
    deliver(running, message(ALICE.address), ALICE.address)
    first_login = (running.data / "first-login").read_text()
    certificate = running.certificate.read_bytes()
    assert running.stop() == 0
    running.start("--workers", "2")
    with imap(running, ALICE) as client:
        assert status(client, "INBOX") == 1
    assert (running.data / "first-login").read_text() == first_login
    assert running.certificate.read_bytes() == certificate


def test_a_stop_while_it_starts(own_server: Pillarbox) -> None:
    own_server.serve()
    assert own_server.process is not None
    time.sleep(1.5)
    below = descendants(own_server.process.pid)
    own_server.process.send_signal(signal.SIGTERM)
    assert own_server.process.wait(30) == 0
    assert gone(below)
    own_server.start("--workers", "1")


# Rights, keys, certificates, parts ----------------------------------------------------------------------------------


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_nothing_runs_as_root(running: Pillarbox) -> None:
    for pid in (supervisor(running), *descendants(supervisor(running))):
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        ids = next(line for line in lines if line.startswith("Uid:")).split()[1:]
        assert "0" not in ids, Path(f"/proc/{pid}/cmdline").read_bytes()
        groups = next(line for line in lines if line.startswith("Groups:")).split()[1:]
        assert "0" not in groups


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_as_root_in_a_closed_folder(own_server: Pillarbox) -> None:
    """Such as root's home, or what mktemp -d makes: nothing in it is opened to others."""
    own_server.home.chmod(0o700)
    own_server.start("--workers", "1", "--insecure-loopback-auth")
    own_server.run("admin", "domain", "add", DOMAIN)
    own_server.run("admin", "account", "add", ALICE.address, "--password", ALICE.password)
    large = message(ALICE.address, body="0123456789abcdef\r\n" * 10_000)
    deliver(own_server, large, ALICE.address)
    os.kill(own_server.processes()["postgres"][0], signal.SIGKILL)
    own_server.run("ready", "--wait", "20")
    deliver(own_server, large, ALICE.address)
    with imap(own_server, ALICE) as client:
        assert status(client, "INBOX") == 2
    assert own_server.stop() == 0
    assert own_server.home.stat().st_mode & 0o777 == 0o700


def test_another_master_key_is_refused(running: Pillarbox) -> None:
    assert running.stop() == 0
    key = running.data / "secrets" / "master.key"
    right = key.read_text()
    key.write_text("ab" * 32 + "\n")
    running.serve()
    assert running.process is not None and running.process.wait(60) == 1
    assert "master_key" in running.log_tail(1000) and right.strip() not in running.log_tail(10_000)
    key.write_text(right)
    running.start("--workers", "1")


def fingerprint(server: Pillarbox) -> bytes:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with (
        socket.create_connection((HOST, server.port(993)), 20) as plain,
        context.wrap_socket(plain) as client,
    ):
        return client.getpeercert(binary_form=True) or b""


def test_only_the_roles_that_were_asked_for(own_server: Pillarbox) -> None:
    own_server.start("--workers", "1", "--roles", "imap,api", "--redis", "off")
    assert set(own_server.server_json()["ports"]) == {"imap", "imaps", "http", "https"}
    with pytest.raises(ConnectionRefusedError):
        greeting(own_server, 25)
    assert own_server.processes()["redis"] == []


def test_on_a_database_of_others(own_server: Pillarbox, database: str, redis_url: str) -> None:
    """Named servers are used, not stopped; commands find them by server.json alone."""
    options = ("--workers", "1", "--postgres", database, "--redis", redis_url, "--insecure-loopback-auth")
    own_server.start(*options)
    assert own_server.processes()["postgres"] == own_server.processes()["redis"] == []
    own_server.run("admin", "domain", "add", DOMAIN)
    own_server.run("admin", "account", "add", ALICE.address, "--password", ALICE.password)
    deliver(own_server, message(ALICE.address), ALICE.address)
    with imap(own_server, ALICE) as client:
        assert status(client, "INBOX") == 1
    assert own_server.stop() == 0
    assert not (own_server.data / "postgres" / "data").exists()
    own_server.start(*options)
    assert DOMAIN in own_server.run("admin", "domain", "list").stdout


def test_metrics_are_the_sum_of_all_workers(running: Pillarbox) -> None:
    for _ in range(8):
        deliver(running, message(ALICE.address), ALICE.address)
        with imap(running, ALICE):
            pass
    url = f"http://{HOST}:{running.port(80)}/metrics"

    def metric(line: str) -> float:
        with urllib.request.urlopen(url, timeout=20) as response:
            found = [text for text in response.read().decode().splitlines() if text.startswith(line + " ")]
        return float(found[0].split()[1]) if found else 0.0

    eventually(lambda: metric("pillarbox_delivered_messages_total") == 8, 10, "deliveries of both workers")
    assert metric('pillarbox_logins_total{result="ok",service="imap"}') == 8
    os.kill(running.processes()["worker"][0], signal.SIGKILL)
    running.run("ready", "--wait", "20")
    assert metric("pillarbox_delivered_messages_total") == 8, "what a dead worker counted stays"
    assert metric("pillarbox_worker_starts_total") == 3


def test_port_80_sends_to_tls_unless_clear_text_is_allowed(own_server: Pillarbox) -> None:
    own_server.start("--workers", "1")

    class Stay(urllib.request.HTTPRedirectHandler):
        def redirect_request(self, *_: object) -> None:
            return None

    opener = urllib.request.build_opener(Stay)
    with pytest.raises(urllib.error.HTTPError) as answer:
        opener.open(f"http://localhost:{own_server.port(80)}/api/v1", timeout=20)
    assert answer.value.code == 308
    assert answer.value.headers["Location"] == f"https://localhost:{own_server.port(443)}/api/v1"
    with urllib.request.urlopen(
        f"https://localhost:{own_server.port(443)}/healthz", timeout=20, context=own_server.tls()
    ) as response:
        assert response.status == 200


def test_commands_at_the_same_time_without_a_server_wait_for_each_other(own_server: Pillarbox) -> None:
    own_server.run("migrate", seconds=120)
    failures: list[str] = []

    def add(name: str) -> None:
        done = own_server.run("admin", "domain", "add", name, check=False, seconds=120)
        if done.returncode:
            failures.append(done.stderr)

    names = [f"d{n}.example" for n in range(4)]
    threads = [threading.Thread(target=add, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert set(own_server.run("admin", "domain", "list").stdout.split()) >= set(names)
    assert not children_of_folder(own_server.data)


def children_of_folder(folder: Path) -> list[int]:
    """Processes that work below a folder."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if str(folder) in str((entry / "cwd").readlink()):
                    found.append(int(entry.name))
            except OSError:
                continue
    return found


def test_on_a_terminal_the_first_password_is_shown(own_server: Pillarbox) -> None:
    if shutil.which("script") is None:
        pytest.skip("script is not installed")
    command = f"'{PROGRAM}' --data '{own_server.data}' serve --port-offset {own_server.offset} --workers 1"
    with own_server.log.open("wb") as log:
        shell = subprocess.Popen(
            ["script", "-qfec", command, "/dev/null"],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONPATH": str(Path(sys.executable).parents[2])},
        )
    own_server.process = shell
    own_server.wait_ready()
    said = own_server.log_tail(20_000)
    assert "password" in said and "admin@" in said
    assert not (own_server.data / "first-login").exists()
    assert own_server.run("stop").returncode == 0
    shell.wait(20)
    assert children(shell.pid) == []
