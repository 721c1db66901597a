"""Certificates and the contexts of our listeners.

A context is made once and shared by all connections. Files are read into a Pem, which is also what one process hands to
another: who looks at the files again (`read`) does so for all of them, and what cannot be used is refused there, before
anybody has taken it up (`use`). Connections that come from then on get a new context; those that are open keep theirs.
Who keeps a context itself takes a lasting one. Settings that a worker keeps for life change for those that are forked
later (`reconfigure`).
"""

from __future__ import annotations

import datetime
import hashlib
import ipaddress
import os
import ssl
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
    from cryptography.x509 import GeneralName

    from config.schema import TlsConfig

MINIMUM = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}

SELF_SIGNED_DAYS = 3650


class CertificateError(Exception):
    """The certificate or its key cannot be used; the text says which file and why."""


@dataclass(frozen=True, slots=True)
class Pem:
    """A certificate chain and its private key, as the files have them."""

    chain: bytes = field(repr=False)
    key: bytes = field(repr=False)

    def fingerprint(self) -> str:
        """SHA-256 of the server's own certificate, as mail clients show it."""
        text = self.chain.decode("ascii", "replace")
        begin, end = text.index("-----BEGIN CERTIFICATE-----"), text.index("-----END CERTIFICATE-----") + 25
        return hashlib.sha256(ssl.PEM_cert_to_DER_cert(text[begin:end])).digest().hex(":").upper()


class Certificates:
    """The certificate of this server, from the settings or from `tls/` in the data directory."""

    def __init__(self, config: TlsConfig, data_dir: Path) -> None:
        self._data_dir = data_dir
        self._config = config
        self._minimum = MINIMUM[config.minimum]
        self._pem: Pem | None = None
        self._contexts: dict[tuple[str, ...], ssl.SSLContext] = {}

    def server_context(self, *alpn: str) -> ssl.SSLContext:
        """The context of today, the same object until another is due. alpn: protocol names to offer (RFC 7301)."""
        context = self._contexts.get(alpn)
        if context is None:
            context = self._contexts[alpn] = self._make(self._now(), alpn)
        return context

    def lasting_context(self, *alpn: str) -> ssl.SSLContext:
        """A context for a listener that keeps it: each handshake is that of server_context at its moment."""

        def of_today(connection: ssl.SSLObject, _name: str | None, _context: ssl.SSLContext) -> None:
            connection.context = self.server_context(*alpn)

        context = self._make(self._now(), alpn)
        # Asked at every handshake, whether or not the client names a server (OpenSSL, final_server_name).
        context.sni_callback = of_today
        return context

    def read(self, config: TlsConfig) -> Pem:
        """What the files of these settings hold. CertificateError where it cannot be used."""
        certificate = config.certificate or self._data_dir / "tls" / "server.crt"
        key = config.key or self._data_dir / "tls" / "server.key"
        try:
            pem = Pem(certificate.read_bytes(), key.read_bytes())
            self._make(pem, ())
            pem.fingerprint()
        except (OSError, ValueError) as error:
            raise CertificateError(f"{certificate}, {key}: {error}") from error
        return pem

    def use(self, pem: Pem) -> bool:
        """Connections get this one from now on; False where it is the one that they got before."""
        if pem == self._pem:
            return False
        self._contexts = {alpn: self._make(pem, alpn) for alpn in self._contexts}
        self._pem = pem
        return True

    def reconfigure(self, config: TlsConfig) -> None:
        """Contexts are made by other settings from now on, for the certificate that is in use."""
        self._minimum = MINIMUM[config.minimum]
        self._contexts.clear()

    def fingerprint(self) -> str:
        """SHA-256 of the server's own certificate, as mail clients show it."""
        return self._now().fingerprint()

    def _now(self) -> Pem:
        if self._pem is None:
            self._pem = self.read(self._config)
        return self._pem

    def _make(self, pem: Pem, alpn: tuple[str, ...]) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = self._minimum
        # RFC 9325 §3.3, §3.4: no compression, no renegotiation. CPython sets the first; said here all the same.
        context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE
        if alpn:
            context.set_alpn_protocols(list(alpn))
        # OpenSSL wants files by name.
        with ExitStack() as stack:
            chain, key = (stack.enter_context(_in_memory(octets)) for octets in (pem.chain, pem.key))
            context.load_cert_chain(chain, key, password=_no_password)
        return context


@contextmanager
def _in_memory(octets: bytes) -> Iterator[str]:
    """The path of a file that nobody else can open, and that is gone afterwards."""
    with os.fdopen(os.memfd_create("pem"), "wb") as file:
        file.write(octets)
        file.flush()
        yield f"/proc/self/fd/{file.fileno()}"


def make_self_signed(certificate: Path, key: Path, names: Iterable[str]) -> None:
    """Writes a key (0600) and a certificate signed by itself for the names; names may be IP addresses.

    The certificate is no authority: clients take it as what it is, a server's own. Files that exist are replaced.
    """
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    private = ec.generate_private_key(ec.SECP256R1())
    made = _self_signed(private, tuple(dict.fromkeys(names)))
    key_octets = private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    for path in (certificate, key):
        path.parent.mkdir(parents=True, exist_ok=True)
    _write(key, key_octets, 0o600)
    _write(certificate, made, 0o644)


def _self_signed(private: EllipticCurvePrivateKey, names: tuple[str, ...]) -> bytes:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    now = datetime.datetime.now(datetime.UTC)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0][:64])])
    usage = x509.KeyUsage(True, False, False, False, False, False, False, False, False)  # digitalSignature
    public = private.public_key()
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=SELF_SIGNED_DAYS))
        .add_extension(x509.SubjectAlternativeName([_general_name(name) for name in names]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(public), critical=False)
    )
    return builder.sign(private, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def _general_name(name: str) -> GeneralName:
    from cryptography import x509

    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _write(path: Path, octets: bytes, mode: int) -> None:
    """Whole or not at all, and never readable by more than `mode` says."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.new")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "wb") as file:
        os.fchmod(descriptor, mode)
        file.write(octets)
        file.flush()
        os.fsync(descriptor)
    temporary.replace(path)


def _no_password() -> str:
    """Instead of a question on the terminal."""
    raise ValueError("the key is encrypted")
