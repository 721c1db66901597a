"""Certificates and the contexts of our listeners.

A context is made once and shared by all connections. reload() reads the files again and makes a new one for the
connections that come from then on; those that are open keep theirs. Files that cannot be used leave the old context in
force.
"""

from __future__ import annotations

import datetime
import hashlib
import ipaddress
import os
import ssl
from collections.abc import Iterable
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


class Certificates:
    """The certificate of this server, from the settings or from `tls/` in the data directory."""

    def __init__(self, config: TlsConfig, data_dir: Path) -> None:
        self.certificate = config.certificate or data_dir / "tls" / "server.crt"
        self.key = config.key or data_dir / "tls" / "server.key"
        self._minimum = MINIMUM[config.minimum]
        self._contexts: dict[tuple[str, ...], ssl.SSLContext] = {}

    def server_context(self, *alpn: str) -> ssl.SSLContext:
        """The context of today, the same object until reload(). alpn: protocol names to offer (RFC 7301)."""
        context = self._contexts.get(alpn)
        if context is None:
            context = self._contexts[alpn] = self._load(alpn)
        return context

    def reload(self) -> None:
        """CertificateError, and nothing changed, where the files cannot be used."""
        self._contexts = {alpn: self._load(alpn) for alpn in self._contexts or ((),)}

    def fingerprint(self) -> str:
        """SHA-256 of the server's own certificate, as mail clients show it."""
        try:
            text = self.certificate.read_text("ascii")
            begin = text.index("-----BEGIN CERTIFICATE-----")
            end = text.index("-----END CERTIFICATE-----") + 25
            der = ssl.PEM_cert_to_DER_cert(text[begin:end])
        except (OSError, ValueError) as error:
            raise CertificateError(f"{self.certificate}: {error}") from error
        return hashlib.sha256(der).digest().hex(":").upper()

    def _load(self, alpn: tuple[str, ...]) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = self._minimum
        # RFC 9325 §3.3, §3.4: no compression, no renegotiation. CPython sets the first; said here all the same.
        context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE
        if alpn:
            context.set_alpn_protocols(list(alpn))
        try:
            context.load_cert_chain(self.certificate, self.key, password=_no_password)
        except (OSError, ValueError) as error:
            raise CertificateError(f"{self.certificate}, {self.key}: {error}") from error
        return context


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
