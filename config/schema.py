"""Every setting of Pillarbox, one line of truth each: type, default, unit and meaning.

A section is a class, a setting is a field made by `setting()`. From these lines come the checks of `config/load.py`,
the annotated example (`config/describe.py`, `config/example.toml`) and `docs/settings.md`. Names end in their unit
(`_octets`, `_seconds`, `_mib`, `_kib`). Each setting says how a change of it gets into a running server (`Change`).

Values are frozen: whoever holds a `Config` may share it between tasks. `Config()` without arguments is the default
configuration and reads neither files nor the environment; `config.load.load` does that.
"""

from __future__ import annotations

import ipaddress
import re
import socket
import unicodedata
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from config.secret import Secret

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB
YEAR = 31_536_000.0

HOSTS_FILE = Path("/etc/hosts")
MAX_MAILBOX_NAME_OCTETS = 255

Role = Literal["smtp", "submission", "imap", "api", "send", "index"]

Change = Literal["reload", "workers", "restart"]
"""What a change of a setting takes: `pillarbox reload`, which workers hear of while they serve; `pillarbox reload
--workers`, which replaces the workers one by one; or a restart of the whole server."""


def setting(
    default: Any,
    doc: str,
    *,
    unit: str = "",
    change: Change = "restart",
    shown_default: str = "",
    example: object = None,
    **constraints: Any,
) -> Any:
    """One setting: its default, what it means, its unit, and how a change of it gets into a running server.

    shown_default is said in words, and example given as a value, where the default is none or depends on the machine.
    constraints are pydantic's (ge, le, …).
    """
    about: dict[str, Any] = {
        "unit": unit,
        "change": change,
        "shown_default": shown_default,
        "example": example,
    }
    if callable(default):
        return Field(default_factory=default, description=doc, json_schema_extra=about, **constraints)
    return Field(default=default, description=doc, json_schema_extra=about, **constraints)


_SIZE = re.compile(r"\s*(\d+)\s*(KiB|MiB|GiB)?\s*", re.IGNORECASE)
_FACTORS = {"": 1, "kib": KIB, "mib": MIB, "gib": GIB}


def _octets(value: object) -> object:
    if not isinstance(value, str):
        return value
    match = _SIZE.fullmatch(value)
    if match is None:
        raise ValueError('must be a number of octets, or a text such as "50 MiB"')
    return int(match[1]) * _FACTORS[(match[2] or "").lower()]


def _one_or_many(value: object) -> object:
    """A list may be written as one text with commas, which is how it comes from the environment."""
    if isinstance(value, str):
        return [item.strip() for item in value.split(",") if item.strip()]
    return value


def _network(value: str) -> str:
    try:
        return str(ipaddress.ip_network(value))
    except ValueError as error:
        raise ValueError(f"is not a network such as 10.0.0.0/8: {error}") from None


_DNS_NAME = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?(?:\.[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?)*"
_PORT = r"(?::([0-9]{1,5}))?"


def _host_port(value: str) -> str:
    match = re.fullmatch(rf"(?:{_DNS_NAME}|\[([0-9A-Fa-f:.]+)\]){_PORT}", value)
    if match is None or not 1 <= int(match[2] or 1) <= 65535:
        raise ValueError("must be a host, host:port or [IPv6 address]:port")
    if match[1]:
        _address(match[1])
    return value


def _address(value: str) -> str:
    try:
        return str(ipaddress.ip_address(value))
    except ValueError:
        raise ValueError("is not an IP address") from None


def _address_port(value: str) -> str:
    match = re.fullmatch(rf"(?:\[([0-9A-Fa-f:.]+)\]|([0-9.]+)){_PORT}", value)
    if match is None:
        return _address(value)
    _address(match[1] or match[2])
    return _host_port(value)


def _route(value: str) -> str:
    domain, equals, host = (part.strip() for part in value.partition("="))
    if not equals or re.fullmatch(rf"\*|(?:\*\.)?{_DNS_NAME}", domain) is None:
        raise ValueError("must be domain = host:port, where the domain may be *.domain or *")
    return f"{domain} = {_host_port(host)}"


def _separator(value: str) -> str:
    if value not in ("/", "."):
        raise ValueError('must be "/" or "."')
    return value


def _mailbox_name(value: str) -> str:
    name = unicodedata.normalize("NFC", value)
    if re.search("[\x00-\x1f\x7f-\x9f\u2028\u2029\ufeff\uf02e\uf02f]", name):
        raise ValueError("has a character that no mailbox name may have")
    if len(name.encode()) > MAX_MAILBOX_NAME_OCTETS:
        raise ValueError(f"is longer than {MAX_MAILBOX_NAME_OCTETS} octets")
    return name


# The messages of these three must not repeat the value.
def _dsn(value: Secret) -> Secret:
    if not value.reveal().startswith(("postgresql://", "postgres://")):
        raise ValueError("must begin with postgresql://")
    return value


def _redis_url(value: Secret) -> Secret:
    if value.reveal() != "off" and not value.reveal().startswith(("redis://", "rediss://", "unix://")):
        raise ValueError('must begin with redis://, rediss:// or unix://, or be "off"')
    return value


def _blob_place(value: str) -> str:
    if "://" not in value:
        return str(user_path(value))
    if re.fullmatch(r"s3://[A-Za-z0-9][A-Za-z0-9._-]{2,62}(/[A-Za-z0-9._/-]*)?", value) is None:
        raise ValueError("must be a directory, or s3://bucket or s3://bucket/prefix, without credentials")
    return value


def _endpoint_url(value: str) -> str:
    if re.fullmatch(r"https?://[A-Za-z0-9._:\[\]-]+/?", value) is None:
        raise ValueError("must be http:// or https://, a host and perhaps a port, without credentials")
    return value


def _key(value: Secret) -> Secret:
    if re.fullmatch(r"[0-9A-Fa-f]{64}", value.reveal()) is None:
        raise ValueError("must be 64 hexadecimal digits")
    return value


def user_path(name: Path | str) -> Path:
    """The path, with ~ or ~user as that home directory. ValueError: there is none, or no file can have this name."""
    path = Path(name)
    if "\0" in str(path):
        raise ValueError("is no path: it has a NUL")
    try:
        return path.expanduser()
    except RuntimeError:
        raise ValueError(f"{path.parts[0]} is not known: no such user, or one without a home directory") from None


def _user_path(value: Path | None) -> Path | None:
    return user_path(value) if value is not None else None


Octets = Annotated[int, BeforeValidator(_octets)]
Texts = Annotated[tuple[str, ...], BeforeValidator(_one_or_many)]
AddressPorts = Annotated[tuple[Annotated[str, AfterValidator(_address_port)], ...], BeforeValidator(_one_or_many)]
IpAddresses = Annotated[tuple[Annotated[str, AfterValidator(_address)], ...], BeforeValidator(_one_or_many)]
HostPort = Annotated[str, AfterValidator(_host_port)]
RouteTexts = Annotated[tuple[Annotated[str, AfterValidator(_route)], ...], BeforeValidator(_one_or_many)]
Numbers = Annotated[tuple[Annotated[float, Field(gt=0, le=YEAR)], ...], BeforeValidator(_one_or_many)]
Roles = Annotated[tuple[Role, ...], BeforeValidator(_one_or_many)]
Networks = Annotated[tuple[Annotated[str, AfterValidator(_network)], ...], BeforeValidator(_one_or_many)]
Dsn = Annotated[Secret, AfterValidator(_dsn)]
RedisUrl = Annotated[Secret, AfterValidator(_redis_url)]
BlobPlace = Annotated[str, AfterValidator(_blob_place)]
EndpointUrl = Annotated[str, AfterValidator(_endpoint_url)]
Key = Annotated[Secret, AfterValidator(_key)]
FilePath = Annotated[Path | None, AfterValidator(_user_path)]


class Section(BaseModel):
    """What all sections have in common: no unknown keys, no change after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=False, hide_input_in_errors=True)


def local_hostname() -> str:
    """The name of this host, whole where /etc/hosts has it so.

    Not socket.getfqdn, which may wait for a name server for half a minute.
    """
    name = socket.gethostname() or "localhost"
    if "." in name:
        return name
    try:
        lines = HOSTS_FILE.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return name
    for line in lines:
        names = line.partition("#")[0].split()[1:]
        if name in names:
            return next((known for known in names if known.startswith(name + ".")), name)
    return name


class ServerConfig(Section):
    """Processes, listeners and who is trusted."""

    host: Texts = setting(
        ("127.0.0.1",), "Addresses to listen on; one, or a list. 0.0.0.0 and :: mean all.", min_length=1
    )
    port_offset: int | None = setting(
        None,
        "Added to every standard port (25, 587, 465, 143, 993, 80, 443).",
        shown_default="0; 20000 where ports below 1024 may not be bound",
        example=20000,
        ge=0,
        le=64000,
    )
    workers: int | None = setting(
        None, "Worker processes.", shown_default="one for each core", example=4, unit="processes", ge=1, le=1024
    )
    roles: Roles = setting(
        ("smtp", "submission", "imap", "api", "send", "index"),
        "What the workers of this node do: smtp (MX), submission, imap, api (HTTP), send (mail to other servers), "
        "index (housekeeping).",
        min_length=1,
    )
    hostname: str = setting(
        local_hostname,
        "Name of this server in greetings, Received: fields and the first certificate.",
        change="reload",
        shown_default="the name of this host",
        example="mail.example.org",
        min_length=1,
        max_length=255,
        pattern=r"^(?:[A-Za-z0-9_.:-]+|\[[A-Za-z0-9.:]+\])$",
    )
    insecure_loopback_auth: bool = setting(
        False,
        "Allows clear-text login to clients on loopback. For trials and tests, never for a network.",
        change="workers",
    )
    trusted_networks: Networks = setting(
        ("127.0.0.0/8", "::1/128"),
        "Networks exempt from connection, rate and login limits; never exempt from authentication or relay rules.",
        change="reload",
    )
    shutdown_seconds: float = setting(
        10,
        "How long an orderly stop waits for sessions to come to an end.",
        unit="seconds",
        change="reload",
        ge=0,
        le=3600,
    )
    system_account: str = setting(
        "pillarbox",
        "System account that workers and embedded services run as when started by root; made where it is missing.",
        pattern=r"^[a-z_][a-z0-9_-]{0,31}$",
    )


class StorageConfig(Section):
    """Database, blobs, change feed and keys."""

    postgres: Dsn | None = setting(
        None,
        "PostgreSQL (15 or newer) as postgresql://…; of several hosts, as in postgresql://user:password@one,two/name"
        "?target_session_attrs=read-write, the one that takes writes is found, also after a failover.",
        shown_default="the embedded one in the data directory",
        example="postgresql://pillarbox:password@db.example.org/pillarbox",
    )
    redis: RedisUrl | None = setting(
        None,
        'Redis or Valkey as redis://… or unix://…; "off" does without, changes then spread by PostgreSQL. '
        "The same on all nodes.",
        shown_default="the embedded one in the data directory",
        example="redis://cache.example.org:6379/0",
    )
    blobs: BlobPlace | None = setting(
        None,
        "Where large message parts are kept: a directory, or S3 as s3://bucket or s3://bucket/prefix. "
        "The same on all nodes.",
        shown_default="blobs/ in the data directory",
        example="/srv/pillarbox/blobs",
    )
    pool_size: int = setting(4, "Database connections of one worker, at most.", unit="connections", ge=2, le=100)
    blob_threshold_octets: Octets | None = setting(
        None,
        "Message parts of this size or more are kept as blobs, once for all messages.",
        unit="octets",
        change="reload",
        shown_default="64 KiB where blobs are in a directory, 256 KiB where they are in S3",
        example=64 * KIB,
        ge=1,
    )
    blob_cache_octets: Octets = setting(
        GIB,
        "Room on local disk, in the data directory, for blobs that were read from S3 or put there; 0 = none.",
        unit="octets",
        change="workers",
        ge=0,
    )
    s3_endpoint_url: EndpointUrl | None = setting(
        None,
        "The S3 server, where it is not Amazon's; by https it must have a certificate that this system trusts.",
        change="workers",
        shown_default="Amazon S3 in s3_region",
        example="https://s3.example.org",
    )
    s3_region: str | None = setting(
        None,
        "Region of the bucket.",
        change="workers",
        shown_default="that of the AWS environment, else us-east-1",
        example="eu-central-1",
        pattern=r"^[A-Za-z0-9-]+$",
    )
    s3_path_style: bool | None = setting(
        None,
        "Names the bucket in the path of a URL, not in its host.",
        change="workers",
        shown_default="true where s3_endpoint_url is set",
        example=True,
    )
    s3_access_key_id: str | None = setting(
        None,
        "Access key of S3; set together with s3_secret_access_key.",
        change="workers",
        shown_default="AWS_ACCESS_KEY_ID in the environment, or the role of the machine",
        example="AKIAEXAMPLE",
        min_length=1,
    )
    s3_secret_access_key: Secret | None = setting(
        None,
        "Its secret.",
        change="workers",
        shown_default="as for s3_access_key_id",
        example="file:/etc/pillarbox/s3.secret",
    )
    s3_timeout_seconds: float = setting(
        10,
        "How long S3 may take to connect, and to answer a request beyond its transfer.",
        unit="seconds",
        change="workers",
        gt=0,
        le=300,
    )
    s3_attempts: int = setting(
        4,
        "How often a request to S3 is tried that fails in a way that may pass.",
        unit="attempts",
        change="workers",
        ge=1,
        le=20,
    )
    s3_connections: int = setting(
        16, "Connections of one worker to S3, at most.", unit="connections", change="workers", ge=1, le=1000
    )
    s3_part_octets: Octets = setting(
        16 * MIB,
        "Larger blobs are sent to S3 in parts of this size, three at a time.",
        unit="octets",
        change="workers",
        ge=5 * MIB,
        le=GIB,
    )
    install_key: Key | None = setting(
        None,
        "Key that names and seals blobs: 64 hexadecimal digits. The same on all nodes; never change it.",
        shown_default="secrets/install.key in the data directory, made at first start",
        example="file:/etc/pillarbox/install.key",
    )
    master_key: Key | None = setting(
        None,
        "Key that wraps the keys of the accounts: 64 hexadecimal digits. Without it the stored mail cannot be read.",
        shown_default="secrets/master.key in the data directory, made at first start",
        example="file:/etc/pillarbox/master.key",
    )
    seal_content: bool = setting(True, "Encrypts stored message contents at rest (AES-256-GCM).", change="workers")
    batch_messages: int = setting(
        200,
        "Messages that one database transaction commits, at most.",
        unit="messages",
        change="reload",
        ge=1,
        le=10000,
    )
    group_commit: Literal["auto", "function", "statements"] = setting(
        "auto",
        "How a batch is written: by one call of a database function, by single statements, as a distributed database "
        "needs it, or by what fits the database that is found.",
        change="workers",
    )
    lock_timeout_seconds: float = setting(
        10,
        "How long a write waits for an account that another write holds.",
        unit="seconds",
        change="workers",
        gt=0,
        le=600,
    )
    statement_timeout_seconds: float = setting(
        60, "How long one database statement may take.", unit="seconds", change="workers", gt=0, le=3600
    )
    undelete_days: int = setting(
        30,
        "Days that expunged messages and deleted mailboxes can be restored.",
        unit="days",
        change="reload",
        ge=0,
        le=3650,
    )
    view_memory_mib: int = setting(
        256,
        "Memory of one worker for what it knows of mailboxes, open ones included, at most.",
        unit="MiB",
        change="workers",
        ge=1,
    )
    sweep_interval_seconds: float = setting(
        3600, "Time between two rounds of housekeeping (purge, unused blobs).", unit="seconds", change="reload", ge=1
    )

    @model_validator(mode="after")
    def _s3_key_pair(self) -> StorageConfig:
        if (self.s3_access_key_id is None) != (self.s3_secret_access_key is None):
            raise ValueError("s3_access_key_id and s3_secret_access_key are set together or not at all")
        return self


class DefaultMailbox(Section):
    """A mailbox that every new account gets."""

    name: Annotated[str, AfterValidator(_mailbox_name)] = Field(min_length=1, description="Its name.")
    use: str = Field(
        default="",
        pattern=r"^(\\(Archive|Drafts|Junk|Sent|Trash))?$",
        description=r"Its special use (RFC 6154), such as \Sent.",
    )


DEFAULT_MAILBOXES = (
    DefaultMailbox(name="Drafts", use="\\Drafts"),
    DefaultMailbox(name="Sent", use="\\Sent"),
    DefaultMailbox(name="Junk", use="\\Junk"),
    DefaultMailbox(name="Trash", use="\\Trash"),
    DefaultMailbox(name="Archive", use="\\Archive"),
)


class MailConfig(Section):
    """Mailboxes and messages, whichever way they come."""

    separator: Annotated[Literal["/", "."], BeforeValidator(_separator)] = setting(
        "/", 'Separates the levels of mailbox names towards clients: "/" or ".".', change="workers"
    )
    default_mailboxes: tuple[DefaultMailbox, ...] = setting(
        DEFAULT_MAILBOXES,
        "Mailboxes that a new account starts with, beside INBOX; they are subscribed.",
        change="reload",
    )
    max_message_octets: Octets = setting(
        50 * MIB,
        "Largest message accepted by SMTP; announced as SIZE (RFC 1870).",
        unit="octets",
        change="reload",
        ge=KIB,
        le=GIB,
    )
    first_domain: str | None = setting(
        None,
        "Domain made at the first start of an empty data directory.",
        shown_default="made from server.hostname",
        example="example.org",
    )
    receive_memory_mib: int = setting(
        512, "Memory of one worker for all messages being received; beyond it, 452.", unit="MiB", change="reload", ge=1
    )

    @model_validator(mode="after")
    def _default_mailboxes(self) -> MailConfig:
        names = [tuple(mailbox.name.split(self.separator)) for mailbox in self.default_mailboxes]
        uses = [mailbox.use for mailbox in self.default_mailboxes if mailbox.use]
        if len(set(names)) < len(names) or len(set(uses)) < len(uses):
            raise ValueError("default_mailboxes: a name or a use stands twice")
        if any("" in name for name in names):
            raise ValueError("default_mailboxes: a name has an empty level")
        if any(name[0].upper() == "INBOX" and (name[0] != "INBOX" or len(name) == 1) for name in names):
            raise ValueError("default_mailboxes: INBOX is there anyway, and is written so in what is below it")
        return self


class SmtpConfig(Section):
    """Bounds of SMTP receiving and submission."""

    max_recipients: int = setting(
        1000, "Recipients of one message.", unit="recipients", change="reload", ge=1, le=100000
    )
    max_line_octets: Octets = setting(
        64 * KIB, "Longest line inside a message; longer ones are refused.", unit="octets", change="reload", ge=1000
    )
    max_header_octets: Octets = setting(MIB, "Largest header of a message.", unit="octets", change="reload", ge=KIB)
    max_header_fields: int = setting(2000, "Fields in the header of a message.", unit="fields", change="reload", ge=1)
    max_errors: int = setting(
        20, "Refused commands after which a connection is closed.", unit="errors", change="reload", ge=1
    )
    max_commands: int = setting(10000, "Commands of one connection; then 421.", unit="commands", change="reload", ge=1)
    max_connections_per_address: int = setting(
        50, "Connections of one client address to this node.", unit="connections", change="reload", ge=1
    )
    max_connections: int = setting(5000, "SMTP connections of one worker.", unit="connections", change="reload", ge=1)
    command_timeout_seconds: float = setting(
        300,
        "Time to wait for the next command (RFC 5321 §4.5.3.2.7 asks for 5 minutes).",
        unit="seconds",
        change="reload",
        gt=0,
    )
    data_timeout_seconds: float = setting(
        600, "Time to wait for more of a message.", unit="seconds", change="reload", gt=0
    )
    login_timeout_seconds: float = setting(
        180, "Time that a client of the submission ports has to log in.", unit="seconds", change="reload", gt=0
    )
    max_hops: int = setting(
        50, "Received: fields from which on a message is taken to loop.", unit="fields", change="reload", ge=1
    )
    greeting: str = setting(
        "ESMTP Pillarbox",
        "Text after the host name in the greeting. An id follows by which the installation knows itself.",
        change="reload",
        pattern=r"^[ -~]*$",
    )


class ImapConfig(Section):
    """Bounds of IMAP sessions."""

    max_command_octets: Octets = setting(
        64 * KIB, "Longest command, the octets of an APPEND left out.", unit="octets", change="reload", ge=KIB
    )
    max_append_octets: Octets | None = setting(
        None,
        "Largest message that APPEND takes.",
        unit="octets",
        change="reload",
        shown_default="mail.max_message_octets",
        example=50 * MIB,
        ge=KIB,
        le=GIB,
    )
    login_timeout_seconds: float = setting(
        180, "Time that a client has to log in.", unit="seconds", change="reload", gt=0
    )
    idle_timeout_seconds: float = setting(
        1860,
        "Time without a command after which a session ends (RFC 3501 §5.4: at least 1800).",
        unit="seconds",
        change="reload",
        gt=0,
    )
    max_connections_per_account: int = setting(
        100, "Sessions of one account on this node.", unit="connections", change="reload", ge=1
    )
    max_connections: int = setting(20000, "IMAP connections of one worker.", unit="connections", change="reload", ge=1)
    backlog_octets: Octets = setting(
        256 * KIB,
        "Answers that may wait for a slow reader before its session pauses.",
        unit="octets",
        change="reload",
        ge=4 * KIB,
    )
    text_memory_mib: int = setting(
        64,
        "Memory of one worker for ready-made answers (ENVELOPE, BODYSTRUCTURE, header fields) and searches, at most.",
        unit="MiB",
        change="reload",
        ge=0,
    )
    max_errors: int = setting(
        50, "Bad commands in a row after which a session ends.", unit="errors", change="reload", ge=1
    )


# RFC 2142, then who speaks for a system or a domain.
RESERVED_NAMES = (
    *("info", "marketing", "sales", "support", "abuse", "noc", "security", "postmaster", "hostmaster", "usenet"),
    *("news", "webmaster", "www", "uucp", "ftp", "admin", "administrator", "root", "mailer-daemon", "ssladmin"),
)


class SendConfig(Section):
    """Mail to other servers."""

    resolvers: AddressPorts = setting(
        (),
        "Name servers to ask, as address or address:port.",
        change="reload",
        shown_default="those of /etc/resolv.conf",
        example=["192.0.2.53"],
    )
    routes: RouteTexts = setting(
        (),
        "Fixed routes: domain = host:port. *.domain is all below it, * every domain; the most specific one holds.",
        change="reload",
        example=["remote.test = 127.0.0.1:2525"],
    )
    smarthost: HostPort | None = setting(
        None,
        "Host that takes all mail for which there is no fixed route, as host:port.",
        change="reload",
        shown_default="none: each domain's mail exchangers",
        example="smtp.provider.example:587",
    )
    smarthost_username: str | None = setting(
        None, "Login at the smarthost.", change="reload", shown_default="none", example="me@provider.example"
    )
    smarthost_password: Secret | None = setting(
        None,
        "Its password.",
        change="reload",
        shown_default="none",
        example="file:/etc/pillarbox/smarthost.password",
    )
    smarthost_tls: Literal["implicit", "required", "opportunistic"] = setting(
        "required",
        "TLS to the smarthost: implicit from the first octet (port 465) or required by STARTTLS, both with a valid "
        "certificate, or opportunistic.",
        change="reload",
    )
    tls: Literal["opportunistic", "required", "never"] = setting(
        "opportunistic",
        "STARTTLS to other servers. opportunistic takes any certificate, and goes on in clear where TLS fails.",
        change="reload",
    )
    source_addresses: IpAddresses = setting(
        (),
        "Own addresses to send from, one IPv4 and one IPv6 at most.",
        change="reload",
        shown_default="the system's choice",
        example=["192.0.2.1", "2001:db8::1"],
        max_length=2,
    )
    hello_name: str | None = setting(
        None,
        "Name said in EHLO; the name that the sending address has in DNS.",
        change="reload",
        shown_default="server.hostname",
        example="mail.example.org",
        pattern=r"^(?:[A-Za-z0-9_.:-]+|\[[A-Za-z0-9.:]+\])$",
    )
    port: int = setting(25, "Port of other servers where no route names one.", change="reload", ge=1, le=65535)
    loopback: bool = setting(
        False,
        "Whether MX records may lead to loopback and link-local addresses, and address literals to private ones, too. "
        "Fixed routes may in any case.",
        change="reload",
    )
    retry_pauses_seconds: Numbers = setting(
        (60.0, 300.0, 900.0, 1800.0, 3600.0, 7200.0, 14400.0),
        "Pause after the first attempt, the second, …; the last one for all that follow.",
        unit="seconds",
        change="reload",
        min_length=1,
    )
    give_up_seconds: float = setting(
        432_000,
        "Age of a message at which it is returned to its sender.",
        unit="seconds",
        change="reload",
        gt=0,
        le=YEAR,
    )
    delay_notice_seconds: float = setting(
        14_400,
        "Age of a message at which its sender is told of the delay.",
        unit="seconds",
        change="reload",
        gt=0,
        le=YEAR,
    )
    first_backoff_seconds: float = setting(
        30,
        "How long a destination is left alone that could not be reached; twice as long each time.",
        unit="seconds",
        change="reload",
        gt=0,
    )
    longest_backoff_seconds: float = setting(
        3600, "The longest such time.", unit="seconds", change="reload", gt=0, le=YEAR
    )
    max_queued_messages: int = setting(
        10_000,
        "Messages of one account that may wait to be sent; the next is refused for the time being. 0 = no limit.",
        unit="messages",
        change="reload",
        ge=0,
    )
    connections: int = setting(
        200, "Connections to other servers at a time, of the node.", change="workers", ge=1, le=10_000
    )
    connections_per_destination: int = setting(
        20, "Connections to one destination at a time, of the node.", change="workers", ge=1, le=1000
    )
    reuse_seconds: float = setting(
        5, "How long a connection waits for another message.", unit="seconds", change="reload", ge=0, le=300
    )
    connect_seconds: float = setting(
        30, "Time for a TCP connection to come about.", unit="seconds", change="reload", gt=0, le=300
    )
    lease_seconds: float = setting(
        120,
        "How long a worker has a recipient for itself unless it renews that; then others take over.",
        unit="seconds",
        change="reload",
        ge=10,
        le=3600,
    )
    rescan_seconds: float = setting(
        60, "How often a worker looks for mail that others have left.", unit="seconds", change="reload", ge=1, le=3600
    )
    memory_mib: int = setting(
        64, "Messages that one worker holds while it sends them.", unit="MiB", change="workers", ge=1
    )
    returned_octets: Octets = setting(
        64 * KIB, "Of a message that is returned, so much is in the report.", unit="octets", change="reload", ge=0
    )

    @property
    def first_act_seconds(self) -> float:
        """Age of a message at which there is something to tell its sender for the first time."""
        return min(self.delay_notice_seconds, self.give_up_seconds)

    @model_validator(mode="after")
    def _consistent(self) -> SendConfig:
        if self.first_backoff_seconds > self.longest_backoff_seconds:
            raise ValueError("first_backoff_seconds is longer than longest_backoff_seconds")
        if (self.smarthost_username is None) != (self.smarthost_password is None):
            raise ValueError("smarthost_username and smarthost_password are set together or not at all")
        if self.smarthost_username is not None and self.smarthost_tls == "opportunistic":
            raise ValueError("smarthost_tls must not be opportunistic where there is a password to protect")
        return self


class AuthConfig(Section):
    """Passwords, logins and registration."""

    argon2_memory_kib: int = setting(
        19456, "Memory of one Argon2id computation.", unit="KiB", change="reload", ge=8, le=GIB // KIB
    )
    argon2_time: int = setting(2, "Passes of one Argon2id computation.", unit="passes", change="reload", ge=1, le=100)
    argon2_threads: int = setting(
        2, "Password checks that one worker computes at a time.", unit="threads", change="workers", ge=1, le=64
    )
    cache_seconds: float = setting(
        60, "How long a checked password is remembered; 0 = not at all.", unit="seconds", change="reload", ge=0, le=3600
    )
    max_failures_per_address: int = setting(
        10,
        "Failed logins from one address to one worker within throttle_seconds; then it waits.",
        unit="failures",
        change="reload",
        ge=1,
    )
    max_failures_per_account: int = setting(
        10,
        "Failed logins to one account on one worker within throttle_seconds; then it waits.",
        unit="failures",
        change="reload",
        ge=1,
    )
    throttle_seconds: float = setting(
        300, "Time over which failed logins are counted.", unit="seconds", change="reload", gt=0
    )
    min_password_length: int = setting(
        8,
        "Shortest password that users may choose; shorter ones set by an administrator are reported.",
        change="reload",
        ge=1,
        le=128,
    )
    token_seconds: int = setting(
        3600, "How long a token of the API is good.", unit="seconds", change="reload", ge=60, le=86400
    )
    token_key_days: int = setting(
        7, "Age at which the key that signs tokens is replaced.", unit="days", change="reload", ge=1, le=365
    )
    reserved_names: Texts = setting(
        RESERVED_NAMES,
        "Names that nobody may register, in any case and with any +tag: those of RFC 2142, and of administrators.",
        change="reload",
    )
    max_registrations_per_address: int = setting(
        10,
        "Accounts that one address may register at one worker within throttle_seconds; then it waits.",
        unit="accounts",
        change="reload",
        ge=1,
    )


class TlsConfig(Section):
    """Certificates."""

    certificate: FilePath = setting(
        None,
        "Certificate chain, a PEM file.",
        change="reload",
        shown_default="tls/server.crt in the data directory, self-signed at first start",
        example="/etc/pillarbox/server.crt",
    )
    key: FilePath = setting(
        None,
        "Its private key, a PEM file.",
        change="reload",
        shown_default="tls/server.key in the data directory",
        example="/etc/pillarbox/server.key",
    )
    minimum: Literal["1.2", "1.3"] = setting("1.2", "Oldest TLS version accepted.", change="workers")

    @model_validator(mode="after")
    def _pair(self) -> TlsConfig:
        if (self.certificate is None) != (self.key is None):
            raise ValueError("certificate and key are set together or not at all")
        return self


class HttpConfig(Section):
    """The HTTP listeners."""

    metrics_token: Secret | None = setting(
        None,
        "Bearer token that opens /metrics to clients outside loopback.",
        change="workers",
        shown_default="loopback only",
        example="file:/etc/pillarbox/metrics.token",
    )
    max_json_octets: Octets = setting(
        MIB, "Largest JSON document that a request may have.", unit="octets", change="reload", ge=KIB, le=64 * MIB
    )
    body_seconds: float = setting(
        300, "How long a request's body may take to arrive.", unit="seconds", change="reload", gt=0, le=3600
    )


class LogConfig(Section):
    """The log, written to standard error."""

    level: Literal["debug", "info", "warning", "error"] = setting(
        "info", "Least level that is written.", change="reload"
    )
    format: Literal["auto", "console", "json"] = setting(
        "auto", "console for people, json for machines; auto: console on a terminal, else json.", change="reload"
    )


class Config(BaseSettings):
    """The whole configuration."""

    model_config = SettingsConfigDict(
        extra="forbid", frozen=True, env_prefix="PILLARBOX_", env_nested_delimiter="__", hide_input_in_errors=True
    )

    server: ServerConfig = Field(default_factory=ServerConfig)
    storage: StorageConfig = Field(default_factory=StorageConfig)
    mail: MailConfig = Field(default_factory=MailConfig)
    smtp: SmtpConfig = Field(default_factory=SmtpConfig)
    imap: ImapConfig = Field(default_factory=ImapConfig)
    send: SendConfig = Field(default_factory=SendConfig)
    auth: AuthConfig = Field(default_factory=AuthConfig)
    tls: TlsConfig = Field(default_factory=TlsConfig)
    http: HttpConfig = Field(default_factory=HttpConfig)
    log: LogConfig = Field(default_factory=LogConfig)

    @property
    def max_append_octets(self) -> int:
        """Largest message that APPEND takes: the IMAP setting, else that of all mail."""
        return self.imap.max_append_octets or self.mail.max_message_octets

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Only what is passed in: `config.load` brings its own sources, which know file and key of every value."""
        return (init_settings,)
