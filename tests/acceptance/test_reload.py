"""Settings, certificates and workers of a running server are changed, and it is stopped, with clients in the midst of
everything.
"""

from __future__ import annotations

import json
import os
import re
import select
import signal
import smtplib
import socket
import ssl
import subprocess
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.mail import deliver, deliver_on, imap, message, octets_of, ok, status
from tests.acceptance.server import DOMAIN, HOST, PROGRAM, Account, Pillarbox, eventually
from tests.acceptance.test_processes import fingerprint

ALICE = Account(f"alice@{DOMAIN}", "correct horse battery")
PATIENCE = 60
USUAL = "insecure_loopback_auth = true"
LARGE = "0123456789abcdef0123456789abcdef\r\n" * 500_000


class Client:
    """A socket and its lines. slow: hardly anything is received before it is read."""

    def __init__(self, server: Pillarbox, port: int, *, slow: bool = False) -> None:
        self.socket = socket.socket()
        if slow:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16_384)
        self.socket.settimeout(PATIENCE)
        self.socket.connect((HOST, server.port(port)))
        self._reader = self.socket.makefile("rb")

    def line(self) -> bytes:
        """The next one; b"" at the end."""
        return self._reader.readline()

    def read(self, octets: int) -> bytes:
        return self._reader.read(octets)

    def ask(self, command: bytes, begin: bytes = b"2") -> bytes:
        """Sends a command; the line of the answer that begins so, which has to come."""
        self.socket.sendall(command + b"\r\n")
        return self.until(begin)

    def until(self, begin: bytes) -> bytes:
        while line := self.line():
            if line.startswith(begin) and line[3:4] != b"-":
                return line
        raise AssertionError(f"no {begin!r} before the end")

    def close(self) -> None:
        self._reader.close()
        self.socket.close()


def smtp(server: Pillarbox) -> Client:
    """Ready for a message to Alice."""
    client = Client(server, 25)
    assert client.line().startswith(b"220")
    client.ask(b"EHLO x", b"250 ")
    return client


def in_data(server: Pillarbox) -> Client:
    """In the midst of one."""
    client = smtp(server)
    client.ask(b"MAIL FROM:<a@example.org>")
    client.ask(f"RCPT TO:<{ALICE.address}>".encode())
    client.ask(b"DATA", b"354")
    client.socket.sendall(b"Subject: half\r\n\r\nfirst half\r\n")
    return client


def logged_in(server: Pillarbox, *, slow: bool = False) -> Client:
    client = Client(server, 143, slow=slow)
    client.ask(f'l LOGIN {ALICE.username} "{ALICE.password}"'.encode(), b"l OK")
    return client


def idling(server: Pillarbox) -> Client:
    client = logged_in(server)
    client.ask(b"s SELECT INBOX", b"s OK")
    client.ask(b"i IDLE", b"+")
    return client


def write(running: Pillarbox, /, **sections: str) -> None:
    """The settings file: the usual ones, and these."""
    sections = {**sections, "server": f"{USUAL}\n{sections.get('server', 'shutdown_seconds = 30')}"}
    text = "".join(f"[{name}]\n{body}\n" for name, body in sections.items())
    (running.home / "p.toml").write_text(text)


def begin(running: Pillarbox, /, **sections: str) -> None:
    write(running, **sections)
    running.start("--config", str(running.home / "p.toml"), "--workers", "2")
    running.run("admin", "domain", "add", DOMAIN)
    running.run("admin", "account", "add", ALICE.address, "--password", ALICE.password)


@pytest.fixture(scope="module")
def reloading(program: Path) -> Iterator[Pillarbox]:
    """One server for all reloads."""
    server = Pillarbox("reload")
    try:
        begin(server)
        yield server
    finally:
        server.end()


@pytest.fixture
def running(reloading: Pillarbox) -> Iterator[Pillarbox]:
    """It, with the usual settings."""
    yield reloading
    write(reloading)
    assert reloading.run("reload", "--workers").returncode == 0


def greetings(server: Pillarbox) -> set[bytes]:
    """Those of both workers, with some luck: each connection is given to one of them by its port.

    Without the id of the installation, the last word.
    """
    found = set()
    for _ in range(12):
        client = Client(server, 25)
        found.add(client.line().split(b" ", 2)[2].rpartition(b" ")[0])
        client.close()
    return found


# Reload -----------------------------------------------------------------------------------------------------------


def test_settings_are_taken_up_and_no_connection_is_dropped(running: Pillarbox) -> None:
    watcher, sender = idling(running), smtp(running)
    workers = running.processes()["worker"]
    write(running, smtp='greeting = "ESMTP Other"', mail="max_message_octets = 100000")
    said = running.run("reload").stdout.splitlines()
    assert said == ["taken up: mail.max_message_octets, smtp.greeting", "the same certificate"]
    assert running.processes()["worker"] == workers
    assert greetings(running) == {b"ESMTP Other"}
    sender.socket.sendall(b"EHLO x\r\n")
    lines: list[bytes] = []
    while not lines or not lines[-1].startswith(b"250 "):
        lines.append(sender.line())
    assert b"250-SIZE 100000\r\n" in lines
    deliver(running, message(ALICE.address), ALICE.address)
    assert b" EXISTS" in watcher.until(b"* ")
    watcher.ask(b"DONE", b"i OK")
    for client in (watcher, sender):
        client.close()
    assert running.run("reload").stdout.splitlines() == ["no setting has changed", "the same certificate"]


def test_a_mistake_leaves_the_old_settings_in_force(running: Pillarbox) -> None:
    before = greetings(running)
    write(running, smtp='greeting = "ESMTP Wrong"\nmax_erors = 5', mail='separator = "x"')
    done = running.run("reload", check=False)
    assert done.returncode == 1
    assert "old ones stay in force" in done.stderr and "did you mean max_errors?" in done.stderr
    assert "p.toml: mail.separator" in done.stderr
    write(running, smtp='greeting = "ESMTP Wrong"', tls=f'certificate = "{running.home}/none.crt"\nkey = "none.key"')
    for words in (("reload",), ("reload", "--workers")):
        done = running.run(*words, check=False)
        assert done.returncode == 1 and "none.crt" in done.stderr
    assert greetings(running) == before


def test_what_takes_more_than_a_reload_waits_for_it(running: Pillarbox) -> None:
    """A worker that is started in between has what the others have."""
    write(running, smtp='greeting = "ESMTP Third"', mail='separator = "."', storage="pool_size = 5")
    told = running.json("reload")
    assert told["changed"] == {
        "reload": ["smtp.greeting"],
        "workers": ["mail.separator"],
        "restart": ["storage.pool_size"],
    }
    victim = running.processes()["worker"][0]
    os.kill(victim, signal.SIGKILL)
    eventually(lambda: len(set(running.processes()["worker"]) - {victim}) == 2, 20, "another worker")
    running.run("ready", "--wait", "20")
    assert greetings(running) == {b"ESMTP Third"}

    def separator() -> bytes:
        client = logged_in(running)
        found = re.search(rb'"([/.])"', client.ask(b'a LIST "" ""', b"* LIST"))
        client.close()
        assert found
        return found[1]

    assert {separator() for _ in range(6)} == {b"/"}
    said = running.run("reload", "--workers").stdout
    assert "taken up: mail.separator\n" in said and "all workers have been replaced" in said
    assert "needs a restart of the server: storage.pool_size" in said
    assert {separator() for _ in range(6)} == {b"."}


def renew_certificate(server: Pillarbox) -> None:
    tls = server.data / "tls"
    owner = (tls / "server.key").stat()
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-days",
        "30",
    ]
    command += ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    command += ["-keyout", str(tls / "server.key"), "-out", str(tls / "server.crt")]
    subprocess.run(command, check=True, capture_output=True)
    for name in ("server.crt", "server.key"):
        os.chown(tls / name, owner.st_uid, owner.st_gid)


def test_a_new_certificate_on_every_port_and_in_workers_to_come(running: Pillarbox) -> None:
    old = fingerprint(running)
    renew_certificate(running)
    told = running.json("reload")
    assert told["certificate"] and told["ok"]
    new = fingerprint(running)
    assert new != old
    victim = running.processes()["worker"][0]
    os.kill(victim, signal.SIGKILL)
    eventually(lambda: len(set(running.processes()["worker"]) - {victim}) == 2, 20, "another worker")
    running.run("ready", "--wait", "20")
    assert {fingerprint(running) for _ in range(8)} == {new}
    url = f"https://localhost:{running.port(443)}/healthz"
    for _ in range(4):  # trusted is the new one alone
        with urllib.request.urlopen(url, timeout=20, context=running.tls()) as answer:
            assert answer.status == 200
    assert running.json("reload")["certificate"] is None


def test_an_address_is_counted_on_all_workers_together(running: Pillarbox) -> None:
    write(running, server="trusted_networks = []", smtp="max_connections_per_address = 5")
    running.run("reload")
    clients = []
    for answer in [b"220"] * 5 + [b"421"]:
        clients.append(Client(running, 25))
        assert clients[-1].line()[:3] == answer
    for pid in running.processes()["worker"]:
        os.kill(pid, signal.SIGKILL)
    for client in clients:
        client.close()
    running.run("ready", "--wait", "20")
    for _ in range(5):  # what killed workers had counted is forgotten
        clients.append(Client(running, 25))
        assert clients[-1].line()[:3] == b"220"
    for client in clients[6:]:
        client.close()


# Workers are replaced -------------------------------------------------------------------------------------------------


def test_workers_are_replaced_and_nobody_is_refused(running: Pillarbox) -> None:
    before = set(running.processes()["worker"])
    with imap(running, ALICE) as client:
        had = status(client, "INBOX")
    watchers = [idling(running) for _ in range(4)]
    senders = [in_data(running) for _ in range(4)]
    failures: list[str] = []
    acknowledged: list[str] = []
    over = threading.Event()

    def knock(port: int, greeting: bytes) -> None:
        while not over.is_set():
            try:
                client = Client(running, port)
                if not client.line().startswith(greeting):
                    failures.append(f"port {port}: no greeting")
                client.close()
            except OSError as error:
                failures.append(f"port {port}: {error}")
            over.wait(0.01)

    def send() -> None:
        while not over.is_set():
            try:
                client = smtplib.SMTP(HOST, running.port(25), timeout=PATIENCE, local_hostname="client.example.org")
                acknowledged.append(deliver_on(client, message(ALICE.address), ALICE.address))
                client.close()
            except (smtplib.SMTPException, OSError) as refusal:
                if "421" not in str(refusal) and "closed" not in str(refusal):
                    failures.append(repr(refusal))
            over.wait(0.01)

    threads = [threading.Thread(target=knock, args=a, daemon=True) for a in ((25, b"220"), (143, b"* OK"))]
    threads += [threading.Thread(target=send, daemon=True) for _ in range(2)]
    for thread in threads:
        thread.start()
    with subprocess.Popen(
        [str(PROGRAM), "--data", str(running.data), "reload", "--workers"],
        stdout=subprocess.PIPE,
        text=True,
    ) as reload:
        # The first worker waits for its messages; the second one has its turn after that.
        assert select.select([watcher.socket for watcher in watchers], [], [], PATIENCE)[0]
        for sender in senders:
            sender.ask(b"second half\r\n.", b"250")
        for sender in senders:
            assert sender.line().startswith(b"421 4.3.2")
            assert sender.line() == b""
        for watcher in watchers:
            assert watcher.until(b"* BYE")
            assert watcher.line() == b""
        said, _ = reload.communicate(timeout=120)
    over.set()
    for thread in threads:
        thread.join(60)
    for client in (*watchers, *senders):
        client.close()
    assert reload.returncode == 0 and "all workers have been replaced" in said
    assert failures == []
    assert not before & set(running.processes()["worker"])
    assert len(running.processes()["worker"]) == 2
    with imap(running, ALICE) as client:
        assert status(client, "INBOX") == had + len(senders) + len(acknowledged)


# What goes wrong with it ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sections", "said"),
    [
        (
            {"tls": 'certificate = "~nosuchuser/c"\nkey = "k"'},
            "tls.certificate: ~nosuchuser is not known: no such user",
        ),
        ({"storage": 'blobs = "~nosuchuser/blobs"'}, "storage.blobs: ~nosuchuser is not known"),
        ({"storage": 'install_key_file = "~nosuchuser/k"'}, "storage.install_key: the file that holds it: ~nosuchuser"),
        ({"http": 'metrics_token = "file:a\\u0000b"'}, "http.metrics_token: the file that holds it: is no path"),
    ],
)
def test_a_path_that_cannot_be_one_is_a_mistake_like_others(
    running: Pillarbox, sections: dict[str, str], said: str
) -> None:
    supervisor = running.process
    write(running, **sections)
    for words in (("reload",), ("--config", str(running.home / "p.toml"), "config", "check")):
        done = running.run(*words, check=False)
        assert done.returncode == 1 and said in done.stderr and "Traceback" not in done.stderr
    assert supervisor is not None and supervisor.poll() is None
    assert greetings(running)


def ask(server: Pillarbox) -> None:
    """For a reload, not for its report."""
    assert server.process is not None
    server.process.send_signal(signal.SIGHUP)


def problems(server: Pillarbox, *words: str) -> list[str]:
    done = server.run(*words, "--json", check=False)
    assert done.returncode == 1
    found: list[str] = json.loads(done.stdout)["problems"]
    return found


def test_a_report_that_cannot_be_written_is_logged(running: Pillarbox) -> None:
    assert running.process is not None
    report, about = running.data / "run" / "reload.json", running.data / "run" / "server.json"
    report.unlink(missing_ok=True)
    report.mkdir()
    ask(running)
    eventually(lambda: f"{report} cannot be written" in running.log_tail(), 20, "a word in the log")
    report.rmdir()
    about.unlink()
    about.mkdir()
    assert problems(running, "reload") == [f"{about} cannot be written: Is a directory"]
    about.rmdir()
    assert running.json("reload")["ok"] and running.server_json()["pid"] == running.process.pid
    assert not [path.name for path in about.parent.iterdir() if path.name.startswith(".")]


def allow(pid: int, what: str, most: int | None) -> None:
    """Limits a process, or lets it have what it may have; as its own user, who needs no privilege for that."""
    user, group = map(int, re.findall(r"^[UG]id:\t(\d+)", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE))
    me: dict[str, Any] = {"user": user, "group": group, "extra_groups": []} if os.geteuid() == 0 else {}
    command = ["prlimit", f"--pid={pid}", f"--{what}"]
    if most is None:
        told = subprocess.run([*command, "-o", "HARD", "--noheadings"], capture_output=True, text=True, **me)
        most = int(told.stdout.strip().replace("unlimited", "-1"))
    subprocess.run([*command[:-1], f"{command[-1]}={most}:"], check=True, **me)


def test_a_reload_without_descriptors_and_processes_ends_nothing(running: Pillarbox) -> None:
    assert running.process is not None
    supervisor = running.process.pid
    first = set(running.processes()["worker"])
    before = len(running.log_tail(1 << 22))
    allow(supervisor, "nofile", 3)
    ask(running)
    eventually(lambda: "cannot be read: Too many open files" in running.log_tail(1 << 22)[before:], 20, "a refusal")
    victim = first.pop()
    os.kill(victim, signal.SIGKILL)
    eventually(lambda: "cannot be started: Too many open files" in running.log_tail(1 << 22)[before:], 20, "a failure")
    os.kill(running.processes()["postgres"][0], signal.SIGKILL)
    eventually(lambda: "embedded postgres: [Errno 24]" in running.log_tail(1 << 22)[before:], 20, "another")
    allow(supervisor, "nofile", None)
    eventually(lambda: len(running.processes()["worker"]) == 2, 30, "two workers")
    running.run("ready", "--wait", "60", seconds=90)
    second = set(running.processes()["worker"])

    allow(supervisor, "nproc", 0)
    assert problems(running, "reload", "--workers") == ["worker 0 cannot be started: Resource temporarily unavailable"]
    allow(supervisor, "nproc", None)
    assert set(running.processes()["worker"]) == second


def tls_version(server: Pillarbox, port: int, most: ssl.TLSVersion) -> str | None:
    context = server.tls()
    context.maximum_version = most
    with (
        socket.create_connection((HOST, server.port(port)), 20) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as client,
    ):
        return client.version()


def test_the_oldest_version_of_tls(running: Pillarbox) -> None:
    """Taken up by new workers, on all ports."""
    write(running, tls='minimum = "1.3"')
    assert "needs `reload --workers`: tls.minimum" in running.run("reload").stdout
    for port in (465, 993, 443):
        assert tls_version(running, port, ssl.TLSVersion.TLSv1_2) == "TLSv1.2"
    assert "taken up: tls.minimum" in running.run("reload", "--workers").stdout
    for port in (465, 993, 443):
        with pytest.raises(ssl.SSLError):
            tls_version(running, port, ssl.TLSVersion.TLSv1_2)
        assert tls_version(running, port, ssl.TLSVersion.TLSv1_3) == "TLSv1.3"


# The end --------------------------------------------------------------------------------------------------------------


def refused(server: Pillarbox, port: int = 25) -> bool:
    try:
        Client(server, port).close()
    except ConnectionRefusedError:
        return True
    except ConnectionResetError:
        pass
    return False


def test_a_stop_lets_everybody_finish(own_server: Pillarbox) -> None:
    """A message half sent, IDLE, a slow reader of a large one, an idle session, a connection of HTTP; and messages
    whose commit is under way.
    """
    begin(own_server)
    large = message(ALICE.address, body=LARGE)
    deliver(own_server, large, ALICE.address)
    sender, watcher, reader, idle = (
        in_data(own_server),
        idling(own_server),
        logged_in(own_server, slow=True),
        logged_in(own_server),
    )
    http = Client(own_server, 80)
    http.socket.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert http.until(b"HTTP/1.1 200")
    reader.ask(b"s SELECT INBOX", b"s OK")
    found = re.search(rb"\{(\d+)\}", reader.ask(b"f FETCH 1 BODY.PEEK[]", b"* 1 FETCH"))
    assert found
    crowd = [in_data(own_server) for _ in range(20)]
    for client in crowd:
        client.socket.sendall(b".\r\n")
    assert own_server.process is not None
    own_server.process.send_signal(signal.SIGTERM)
    assert watcher.until(b"* BYE") and idle.until(b"* BYE")
    eventually(lambda: all(refused(own_server, port) for port in (25, 143, 80)), 20, "no listener")
    while http.line():
        pass
    assert reader.read(int(found[1])).endswith(large)
    reader.until(b"f OK")
    assert reader.until(b"* BYE") and reader.line() == b""
    sender.ask(b"second half\r\n.", b"250")
    assert sender.line().startswith(b"421 4.3.2") and sender.line() == b""
    replies = [client.line() for client in crowd]
    assert own_server.process.wait(60) == 0
    for client in (sender, watcher, reader, idle, http, *crowd):
        client.close()
    own_server.start("--config", str(own_server.home / "p.toml"), "--workers", "1")
    with imap(own_server, ALICE) as client:
        ok(client.select("INBOX"))
        assert status(client, "INBOX") == 2 + sum(reply.startswith(b"250") for reply in replies)
        assert any(b"second half" in octets_of(client, n) for n in range(2, status(client, "INBOX") + 1))


def test_a_stop_is_bounded_and_a_second_signal_cuts_it_short(own_server: Pillarbox) -> None:
    begin(own_server)
    write(own_server, server="shutdown_seconds = 1")
    assert "server.shutdown_seconds" in own_server.run("reload").stdout
    client = in_data(own_server)
    assert own_server.stop() == 0
    assert client.line().startswith(b"421 4.3.2") and client.line() == b""
    client.close()
    write(own_server, server="shutdown_seconds = 3600")
    own_server.start("--config", str(own_server.home / "p.toml"), "--workers", "1")
    client = in_data(own_server)
    assert own_server.process is not None
    own_server.process.send_signal(signal.SIGTERM)
    eventually(lambda: refused(own_server), 20, "no listener")
    assert own_server.process.poll() is None
    own_server.process.send_signal(signal.SIGTERM)
    assert own_server.process.wait(60) == 0
    client.close()


def test_a_second_server_on_the_directory_is_refused(running: Pillarbox) -> None:
    assert running.process is not None
    done = running.run("serve", "--port-offset", "0", check=False, seconds=60)
    assert done.returncode == 1
    assert f"in use by process {running.process.pid}" in done.stderr
    assert f"--data {running.data} stop" in done.stderr
    assert running.run("ready").returncode == 0


def test_without_a_server_there_is_nothing_to_reload(own_server: Pillarbox) -> None:
    done = own_server.run("reload", check=False)
    assert done.returncode == 3 and "no server is running" in done.stderr
