"""Certificates as clients see them."""

from __future__ import annotations

import ssl
import stat
import warnings
from pathlib import Path

import pytest

from config.schema import TlsConfig
from mailserver.net.tls import CertificateError, Certificates, make_self_signed

NAMES = ["localhost", "mail.example.org", "127.0.0.1", "::1"]


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    make_self_signed(tmp_path / "tls" / "server.crt", tmp_path / "tls" / "server.key", NAMES)
    return tmp_path


def handshake(server: ssl.SSLContext, client: ssl.SSLContext, name: str | None) -> ssl.SSLObject:
    """Both sides in memory; raises what either side raises. The client's view is returned."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ours = server.wrap_bio(to_server, to_client, server_side=True)
    theirs = client.wrap_bio(to_client, to_server, server_hostname=name)
    done = [False, False]
    for _ in range(10):
        for i, side in enumerate((theirs, ours)):
            try:
                side.do_handshake()
                done[i] = True
            except ssl.SSLWantReadError:
                pass
        if all(done):
            return theirs
    raise AssertionError("no end of the handshake")


def trusting(data_dir: Path, *, strict: bool = False) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(data_dir / "tls" / "server.crt"))
    if strict:
        context.verify_flags |= ssl.VERIFY_X509_STRICT  # the default from Python 3.13 on
    return context


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_self_signed_certificate_is_good_for_its_names(data_dir: Path, name: str, strict: bool) -> None:
    context = Certificates(TlsConfig(), data_dir).server_context()
    assert handshake(context, trusting(data_dir, strict=strict), name).version() == "TLSv1.3"


def test_other_names_and_strangers_are_refused(data_dir: Path) -> None:
    context = Certificates(TlsConfig(), data_dir).server_context()
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(context, trusting(data_dir), "other.example.org")
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(context, ssl.create_default_context(), "localhost")


@pytest.mark.parametrize(
    ("minimum", "version", "accepted"), [("1.2", "TLSv1_1", False), ("1.2", "TLSv1_2", True), ("1.3", "TLSv1_2", False)]
)
def test_oldest_version(data_dir: Path, minimum: str, version: str, accepted: bool) -> None:
    context = Certificates(TlsConfig(minimum=minimum), data_dir).server_context()
    client = trusting(data_dir)
    client.set_ciphers("ALL:@SECLEVEL=0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        client.minimum_version = client.maximum_version = ssl.TLSVersion[version]
    if accepted:
        handshake(context, client, "localhost")
    else:
        with pytest.raises(ssl.SSLError):
            handshake(context, client, "localhost")


def test_another_oldest_version_counts_for_contexts_to_come(data_dir: Path) -> None:
    certificates = Certificates(TlsConfig(), data_dir)
    before = certificates.server_context()
    client = trusting(data_dir)
    client.maximum_version = ssl.TLSVersion.TLSv1_2
    (data_dir / "tls" / "server.key").unlink()  # what is in use stays so
    certificates.reconfigure(TlsConfig(minimum="1.3"))
    for context in (certificates.server_context(), certificates.lasting_context("http/1.1")):
        with pytest.raises(ssl.SSLError):
            handshake(context, client, "localhost")
        handshake(context, trusting(data_dir), "localhost")
    handshake(before, client, "localhost")
    certificates.reconfigure(TlsConfig())
    handshake(certificates.server_context(), client, "localhost")


def test_key_is_for_its_owner_only(data_dir: Path) -> None:
    assert stat.S_IMODE((data_dir / "tls" / "server.key").stat().st_mode) == 0o600
    assert stat.S_IMODE((data_dir / "tls" / "server.crt").stat().st_mode) == 0o644
    assert sorted(path.name for path in (data_dir / "tls").iterdir()) == ["server.crt", "server.key"]


def renewed(data_dir: Path, name: str = "new.example.org") -> None:
    make_self_signed(data_dir / "tls" / "server.crt", data_dir / "tls" / "server.key", [name])


def test_renewed_files_count_from_their_use_on(data_dir: Path) -> None:
    certificates = Certificates(TlsConfig(), data_dir)
    before = certificates.server_context()
    old_fingerprint = certificates.fingerprint()
    assert certificates.server_context() is before
    old_client = trusting(data_dir)
    renewed(data_dir)
    pem = certificates.read(TlsConfig())
    assert certificates.server_context() is before, "reading is not using"
    assert certificates.use(pem)
    assert certificates.server_context() is not before
    assert certificates.fingerprint() == pem.fingerprint() != old_fingerprint
    handshake(certificates.server_context(), trusting(data_dir), "new.example.org")
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(certificates.server_context(), old_client, "localhost")
    handshake(before, old_client, "localhost")  # who has the old context keeps it


def test_files_as_they_were_change_nothing(data_dir: Path) -> None:
    certificates = Certificates(TlsConfig(), data_dir)
    before = certificates.server_context()
    assert not certificates.use(certificates.read(TlsConfig()))
    assert certificates.server_context() is before


def test_a_lasting_context_is_always_of_today(data_dir: Path) -> None:
    """Whether or not the client says whom it wants to reach, and with the names that were offered."""
    certificates = Certificates(TlsConfig(), data_dir)
    lasting = certificates.lasting_context("http/1.1")
    handshake(lasting, trusting(data_dir), "localhost")
    renewed(data_dir)
    certificates.use(certificates.read(TlsConfig()))
    client = trusting(data_dir)
    client.set_alpn_protocols(["http/1.1"])
    assert handshake(lasting, client, "new.example.org").selected_alpn_protocol() == "http/1.1"
    client.check_hostname = False
    handshake(lasting, client, None)


def test_other_files_by_other_settings(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    certificates = Certificates(TlsConfig(), data_dir)
    certificates.server_context()
    other = tmp_path_factory.mktemp("other")
    make_self_signed(other / "a.crt", other / "a.key", ["a.example.org"])
    assert certificates.use(certificates.read(TlsConfig(certificate=other / "a.crt", key=other / "a.key")))
    handshake(certificates.server_context(), ssl.create_default_context(cafile=str(other / "a.crt")), "a.example.org")


def test_bad_files_leave_the_old_context(data_dir: Path) -> None:
    certificates = Certificates(TlsConfig(), data_dir)
    before = certificates.server_context()
    (data_dir / "tls" / "server.key").write_text("rubbish")
    with pytest.raises(CertificateError, match=r"server\.key"):
        certificates.read(TlsConfig())
    (data_dir / "tls" / "server.crt").unlink()
    with pytest.raises(CertificateError, match=r"server\.crt"):
        certificates.read(TlsConfig())
    with pytest.raises(CertificateError):
        Certificates(TlsConfig(), data_dir).fingerprint()
    assert certificates.server_context() is before


def test_a_key_is_not_printed(data_dir: Path) -> None:
    assert "PRIVATE" not in repr(Certificates(TlsConfig(), data_dir).read(TlsConfig()))


def test_fingerprint_is_the_one_openssl_prints(data_dir: Path) -> None:
    import subprocess

    certificate = data_dir / "tls" / "server.crt"
    command = ["openssl", "x509", "-in", str(certificate), "-noout", "-fingerprint", "-sha256"]
    try:
        printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    except FileNotFoundError:
        pytest.skip("openssl is not installed")
    assert printed.strip().endswith("=" + Certificates(TlsConfig(), data_dir).fingerprint())


def test_alpn(data_dir: Path) -> None:
    context = Certificates(TlsConfig(), data_dir).server_context("http/1.1")
    client = trusting(data_dir)
    client.set_alpn_protocols(["h2", "http/1.1"])
    assert handshake(context, client, "localhost").selected_alpn_protocol() == "http/1.1"
