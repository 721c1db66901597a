"""The words that other programs rely on: commands, files, exit codes. Each on a server of its own."""

from __future__ import annotations

import imaplib
import json
import re
import signal
import smtplib
import ssl
import stat
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cryptography import x509

from tests.acceptance.mail import deliver, imap, message, status
from tests.acceptance.server import DOMAIN, HOST, PROGRAM, Account, Pillarbox, eventually

GROUPS = ("admin", "config")


@pytest.fixture(scope="module")
def shared(program: Path) -> Iterator[Pillarbox]:
    """A server with clear-text login on loopback, for the tests that leave it running."""
    server = Pillarbox("the data")
    try:
        server.start("--workers", "2", "--insecure-loopback-auth")
        server.run("admin", "domain", "add", DOMAIN)
        yield server
    finally:
        server.end()


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_data_may_stand_before_or_after(shared: Pillarbox) -> None:
    before = shared.run_bare("--data", str(shared.data), "admin", "domain", "list", "--json").stdout
    after = shared.run_bare("admin", "domain", "list", "--json", "--data", str(shared.data)).stdout
    assert json.loads(before) == json.loads(after)
    assert DOMAIN in before


def test_running_server_describes_itself(shared: Pillarbox) -> None:
    path = shared.data / "run" / "server.json"
    assert _mode(path) == 0o600
    found = shared.server_json()
    assert shared.process is not None and found["pid"] == shared.process.pid
    assert "postgres" in json.dumps(found).lower()
    assert str(shared.port(143)) in json.dumps(found["ports"])


def test_status_and_ready(shared: Pillarbox) -> None:
    assert shared.run("ready", "--wait", "10").returncode == 0
    assert shared.run("status").stdout.strip()
    assert isinstance(shared.json("status"), dict)


def test_not_running(own_server: Pillarbox) -> None:
    """Neither hangs nor claims."""
    assert own_server.run("ready", "--wait", "1", check=False).returncode != 0
    assert own_server.run("status", check=False).returncode != 0
    own_server.run("stop", check=False)


def test_version(shared: Pillarbox) -> None:
    assert re.search(r"\d+\.\d+\.\d+", shared.run_bare("version").stdout)


def test_migrate_is_repeatable(shared: Pillarbox) -> None:
    shared.run("migrate")


def test_config_describe_and_check(shared: Pillarbox, tmp_path: Path) -> None:
    described = shared.run("config", "describe").stdout
    assert "[server]" in described and "trusted_networks" in described
    bad = tmp_path / "bad.toml"
    bad.write_text('[server]\nworkers = "many"\n[smtp]\nno_such_setting = 1\n')
    done = shared.run_bare("--config", str(bad), "config", "check", check=False)
    assert done.returncode != 0
    said = done.stdout + done.stderr
    assert "workers" in said and "no_such_setting" in said and "bad.toml" in said
    good = tmp_path / "good.toml"
    good.write_text("[server]\nworkers = 1\n")
    assert shared.run_bare("config", "check", "--config", str(good)).returncode == 0


def test_certificate_names(shared: Pillarbox) -> None:
    """localhost, the host name, mail.DOMAIN and both loopback addresses; the key is nobody else's."""
    tls = shared.data / "tls"
    assert sorted(path.name for path in tls.iterdir() if path.suffix in (".crt", ".pem", ".cert")) == ["server.crt"]
    assert _mode(tls / "server.key") & 0o077 == 0
    certificate = x509.load_pem_x509_certificate((tls / "server.crt").read_bytes())
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    dns = names.get_values_for_type(x509.DNSName)
    assert "localhost" in dns and any(name.startswith("mail.") for name in dns), dns
    assert {str(address) for address in names.get_values_for_type(x509.IPAddress)} == {"127.0.0.1", "::1"}


def test_banner(shared: Pillarbox) -> None:
    log = shared.log.read_text()
    for port in (25, 143, 465, 587, 993):
        assert str(shared.port(port)) in log
    der = ssl.PEM_cert_to_DER_cert((shared.data / "tls" / "server.crt").read_text())
    import hashlib

    fingerprint = hashlib.sha256(der).hexdigest()
    assert fingerprint in re.sub(r"[: ]", "", log).lower(), "the certificate's SHA-256 fingerprint"


def test_first_login(shared: Pillarbox) -> None:
    """Where there is no terminal, the administrator's random password is in a file that only he may read."""
    path = shared.data / "first-login"
    assert _mode(path) == 0o600
    words = re.findall(r"\S+", path.read_text())
    assert not [word for word in words if len(word) >= 12 and word in shared.log.read_text() and "@" not in word], (
        "the password must not be in the log"
    )
    assert _can_log_in_with_some_pair(shared, words)


def _can_log_in_with_some_pair(server: Pillarbox, words: list[str]) -> bool:
    names = [word for word in words if "@" in word][:3]
    for password in reversed([word for word in words if len(word) >= 10]):
        for name in names:
            if _logs_in(server, Account(name, password)):
                return True
    return False


def _logs_in(server: Pillarbox, account: Account) -> bool:
    client = imaplib.IMAP4(HOST, server.port(143), timeout=20)
    try:
        client.login(account.address, account.password)
    except imaplib.IMAP4.error:
        return False
    finally:
        client.shutdown()
    return True


def test_clear_text_login_only_where_it_was_allowed(shared: Pillarbox, accounts: Callable[[], Account]) -> None:
    account = accounts()
    assert _logs_in(shared, account)
    with smtplib.SMTP(HOST, shared.port(587), timeout=20) as client:
        client.login(account.address, account.password)


@pytest.fixture(scope="module")
def _names() -> Iterator[int]:
    return iter(range(1000))


@pytest.fixture
def accounts(shared: Pillarbox, _names: Iterator[int]) -> Callable[[], Account]:
    """Adds accounts one by one, the password from standard input or the options, whichever the command takes."""

    def add() -> Account:
        account = Account(f"cli{next(_names)}@{DOMAIN}", "correct horse battery")
        shared.run("admin", "account", "add", account.address, "--password", account.password)
        return account

    return add


def test_adding_again_says_so_and_is_fine(shared: Pillarbox, accounts: Callable[[], Account]) -> None:
    account = accounts()
    again = shared.run("admin", "account", "add", account.address, "--password", "another password")
    assert "already" in (again.stdout + again.stderr).lower() or "exists" in (again.stdout + again.stderr).lower()
    assert _logs_in(shared, account), "and it changes nothing"
    assert shared.run("admin", "domain", "add", DOMAIN).returncode == 0


def test_account_list_and_show(shared: Pillarbox, accounts: Callable[[], Account]) -> None:
    account = accounts()
    assert account.address in json.dumps(shared.json("admin", "account", "list"))
    shown = json.dumps(shared.json("admin", "account", "show", account.address))
    assert account.address in shown and "$argon2" not in shown.lower() and account.password not in shown


def test_unknown_account_is_an_error(shared: Pillarbox) -> None:
    done = shared.run("admin", "account", "show", f"nobody@{DOMAIN}", check=False)
    assert done.returncode != 0
    assert "Traceback" not in done.stderr and done.stderr.strip()


def test_weak_password_is_reported_and_taken(shared: Pillarbox) -> None:
    done = shared.run("admin", "account", "add", f"weak@{DOMAIN}", "--password", "pw")
    assert "weak" in (done.stdout + done.stderr).lower().replace(f"weak@{DOMAIN}", "")
    assert _logs_in(shared, Account(f"weak@{DOMAIN}", "pw"))


def test_alias(shared: Pillarbox, accounts: Callable[[], Account]) -> None:
    one, two = accounts(), accounts()
    alias = f"team-{one.username}@{DOMAIN}"
    shared.run("admin", "alias", "add", alias, one.address, two.address)
    assert alias in json.dumps(shared.json("admin", "alias", "list"))
    deliver(shared, message(alias), alias)
    for account in (one, two):
        with imap(shared, account) as client:
            assert status(client, "INBOX") == 1
    shared.run("admin", "alias", "remove", alias)
    eventually(lambda: _refused(shared, alias), 3, "the alias is forgotten")


def _refused(server: Pillarbox, address: str) -> bool:
    with smtplib.SMTP(HOST, server.port(25), timeout=20) as client:
        client.ehlo()
        client.mail("someone@example.org")
        return client.rcpt(address)[0] == 550


def test_import_names_bad_lines_and_takes_good_ones(shared: Pillarbox, tmp_path: Path) -> None:
    listing = tmp_path / "accounts.csv"
    listing.write_text(
        "address,password,quota_mib\n"
        f"imported1@{DOMAIN},correct horse 1,0\n"
        "not an address,correct horse 2,0\n"
        f"imported3@{DOMAIN},correct horse 3,many\n"
        "someone@nodomain.example,correct horse 4,0\n"
        f"imported5@{DOMAIN},correct horse 5,10\n"
    )
    done = shared.run("admin", "account", "import", str(listing), check=False, seconds=120)
    said = done.stdout + done.stderr
    for line in (3, 4, 5):
        assert re.search(rf"\b{line}\b", said), said
    assert _logs_in(shared, Account(f"imported1@{DOMAIN}", "correct horse 1"))
    assert _logs_in(shared, Account(f"imported5@{DOMAIN}", "correct horse 5"))


@pytest.mark.parametrize(
    ("name", "hash_"),
    [
        ("argon", "{ARGON2ID}$argon2id$v=19$m=65536,t=3,p=4$wGBvbW9uc2FsdHNhbHQ$"),
        ("bcrypt", "{BCRYPT}"),
        ("crypt", "{SHA512-CRYPT}"),
    ],
)
def test_import_of_hashes(shared: Pillarbox, tmp_path: Path, name: str, hash_: str) -> None:
    """Foreign hashes are verified, and still work after the first login has replaced them."""
    password = "correct horse battery"
    account = Account(f"hashed-{name}@{DOMAIN}", password)
    listing = tmp_path / "accounts.csv"
    listing.write_text(f'{account.address},"{_hashed(name, password)}",0\n')
    shared.run("admin", "account", "import", str(listing))
    assert _logs_in(shared, account)
    assert _logs_in(shared, account)
    assert not _logs_in(shared, Account(account.address, "correct horse batteries"))


def _hashed(kind: str, password: str) -> str:
    if kind == "argon":
        import argon2

        return "{ARGON2ID}" + argon2.PasswordHasher(time_cost=3, memory_cost=8192, parallelism=2).hash(password)
    if kind == "bcrypt":
        import bcrypt

        return "{BCRYPT}" + bcrypt.hashpw(password.encode(), bcrypt.gensalt(6)).decode()
    command = ["openssl", "passwd", "-6", "-salt", "saltsalt", password]
    return "{SHA512-CRYPT}" + subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def _session(server: Pillarbox, account: Account) -> imaplib.IMAP4:
    client = imaplib.IMAP4(HOST, server.port(143), timeout=20)
    client.login(account.address, account.password)
    return client


def _has_ended(client: imaplib.IMAP4) -> bool:
    try:
        client.noop()
    except (imaplib.IMAP4.abort, OSError):
        return True
    return False


def _check_sessions_end(server: Pillarbox, account: Account, *words: str) -> None:
    """Sessions on both workers end within two seconds, and the old password is good nowhere."""
    sessions = [_session(server, account) for _ in range(6)]
    server.run("admin", "account", *words)
    began = time.monotonic()
    eventually(lambda: all(_has_ended(client) for client in sessions), 2, f"sessions end after {words[0]}")
    eventually(
        lambda: not any(_logs_in(server, account) for _ in range(4)), 2 - (time.monotonic() - began) + 0.5, "no login"
    )


def test_disable_and_enable(shared: Pillarbox, accounts: Callable[[], Account]) -> None:
    """A disabled account cannot log in or send; mail still arrives."""
    account = accounts()
    _check_sessions_end(shared, account, "disable", account.address)
    deliver(shared, message(account.address), account.address)
    shared.run("admin", "account", "enable", account.address)
    eventually(lambda: _logs_in(shared, account), 2, "login after enable")
    with imap(shared, account) as client:
        assert status(client, "INBOX") == 1


def test_passwd(shared: Pillarbox, accounts: Callable[[], Account]) -> None:
    account = accounts()
    _check_sessions_end(shared, account, "passwd", account.address, "--password", "entirely new words")
    assert _logs_in(shared, Account(account.address, "entirely new words"))


def test_remove(shared: Pillarbox, accounts: Callable[[], Account]) -> None:
    account = accounts()
    _check_sessions_end(shared, account, "remove", account.address, "--yes")
    eventually(lambda: _refused(shared, account.address), 2, "mail to a removed account is refused")


@pytest.mark.parametrize(
    "words",
    [
        (),
        *[(word,) for word in ("serve", "ready", "stop", "status", "migrate", "config", "version", "admin")],
        *[("config", word) for word in ("describe", "check")],
        *[("admin", word) for word in ("domain", "account", "alias")],
        *[("admin", "domain", word) for word in ("add", "list", "show", "remove")],
        *[("admin", "account", w) for w in ("add", "list", "show", "passwd", "enable", "disable", "remove", "import")],
        *[("admin", "alias", word) for word in ("add", "list", "remove")],
    ],
    ids=lambda words: "-".join(words) or "pillarbox",
)
def test_help_with_an_example(program: Path, words: tuple[str, ...]) -> None:
    done = subprocess.run([str(PROGRAM), *words, "--help"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0
    assert "pillarbox " in done.stdout.replace("Usage: pillarbox", ""), "an example"


def test_admin_works_without_a_server_and_stop_is_clean(own_server: Pillarbox) -> None:
    """The same commands on a stopped data directory; then a start that finds what they made; then a stop."""
    account = Account(f"early@{DOMAIN}", "correct horse battery")
    own_server.run("admin", "domain", "add", DOMAIN, seconds=120)
    own_server.run("admin", "account", "add", account.address, "--password", account.password, seconds=120)
    own_server.start("--workers", "1")
    with imap(own_server, account) as client:
        assert status(client, "INBOX") == 0
    deliver(own_server, message(account.address), account.address)
    assert own_server.stop() == 0
    assert not (own_server.data / "run" / "server.json").exists()
    own_server.start("--workers", "1")
    with imap(own_server, account) as client:
        assert status(client, "INBOX") == 1


def test_sigterm_is_an_orderly_stop(own_server: Pillarbox) -> None:
    own_server.start("--workers", "1")
    assert own_server.process is not None
    own_server.process.send_signal(signal.SIGTERM)
    assert own_server.process.wait(timeout=30) == 0


def test_second_server_on_the_same_directory_is_refused(shared: Pillarbox) -> None:
    done = shared.run("serve", "--port-offset", "9000", check=False, seconds=60)
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    assert shared.run("ready", "--wait", "5").returncode == 0, "and the first one is unharmed"
