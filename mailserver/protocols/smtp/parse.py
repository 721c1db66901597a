"""The arguments of MAIL, RCPT and BDAT.

Nearly every address is a dot-string at a domain name, and one regular expression takes it; a cursor takes the rest: the
null path, quoted local parts, address literals, source routes (accepted and ignored, RFC 5321 §4.1.1.3),
internationalized addresses (RFC 6531). Dots may stand anywhere in an unquoted local part, against the letter of RFC
5321: addresses such as `a..b@` exist, and their mail is wanted. A space behind the colon is let pass as well.

What is wrong raises `Refused` with the reply.
"""

from __future__ import annotations

import ipaddress
import re
import unicodedata
from collections.abc import Iterator

from mailserver.protocols.smtp import dsn, replies
from mailserver.protocols.smtp.commands import Chunk, Mail, Rcpt
from mailserver.protocols.smtp.replies import Refused, Reply

MAX_LOCAL_OCTETS = 256
"""RFC 5321 §4.5.3.1.1 asks for 64; return paths of forwarders and list servers are longer."""

MAX_DOMAIN_OCTETS = 255
MAX_SIZE_DIGITS = 20  # RFC 1870 §4

_ATOM = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~.-]"
_LABEL = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_FAST = re.compile(rf" ?<({_ATOM}{{1,64}}@{_LABEL}(?:\.{_LABEL}){{0,20}})>")
_ATOMS = re.compile(rf"(?:{_ATOM}|[^\x00-\x7f])+")
_QUOTED = re.compile(r'"(?:[ !#-\[\]-~]|\\[ -~]|[^\x00-\x7f])*"')
_DOMAIN = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
_DOMAIN_UTF8 = re.compile(r"(?:[A-Za-z0-9_-]|[^\x00-\x7f])+(?:\.(?:[A-Za-z0-9_-]|[^\x00-\x7f])+)*")
_LITERAL = re.compile(r"\[[A-Za-z0-9.:-]{1,60}\]")
_ROUTE = re.compile(r"@[^\s:,<>@]{1,255}(?:,@[^\s:,<>@]{1,255}){0,99}:")
_KEYWORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]*")
_VALUE = re.compile(r"[!-<>-~]+")
_VALUE_UTF8 = re.compile(r"(?:[!-<>-~]|[^\x00-\x7f])+")  # ORCPT may have it (RFC 6533 §3)
_XTEXT = re.compile(r"(?:[!-*,-<>-~]|\+[0-9A-F]{2})+")

_NOT_TEXT = ("Cc", "Cs", "Zl", "Zp", "Cn")


def mail(argument: str, *, login_offered: bool = False, dsn_offered: bool = False) -> Mail:
    """What stands behind `MAIL`. login_offered: the AUTH parameter is known (RFC 4954 §5), and has no effect.

    dsn_offered: RET and ENVID are known (RFC 3461 §4.3, §4.4).
    """
    if argument[:5].upper() != "FROM:":
        raise Refused(replies.BAD_SENDER)
    sender, rest = _path(argument[5:], replies.BAD_SENDER, null=True)
    if not rest and sender.isascii():
        return Mail(sender)
    size, body, smtputf8, ret, envid = 0, "7BIT", False, "", ""
    for keyword, value in _parameters(rest):
        if keyword == "SIZE":
            size = _size(value)
        elif keyword == "BODY":
            body = _body(value)
        elif keyword == "SMTPUTF8":
            if value is not None:
                raise Refused(replies.SYNTAX.saying("SMTPUTF8 takes no value"))
            smtputf8 = True
        elif keyword == "RET" and dsn_offered:
            ret = dsn.ret(value)
        elif keyword == "ENVID" and dsn_offered:
            envid = dsn.envid(value)
        elif keyword == "AUTH" and login_offered:
            if value is None or not _XTEXT.fullmatch(value):
                raise Refused(replies.SYNTAX.saying("Syntax: AUTH=mailbox"))
        else:
            raise Refused(replies.UNKNOWN_PARAMETER.saying(f"{keyword} is not recognized or not implemented"))
    if not smtputf8 and not sender.isascii():
        raise Refused(replies.NEEDS_SMTPUTF8)
    return Mail(sender, size, body, smtputf8, ret, envid)


def rcpt(argument: str, *, smtputf8: bool = False, dsn_offered: bool = False) -> Rcpt:
    """What stands behind `RCPT`. smtputf8: the transaction was begun with it (RFC 6531 §3.4).

    dsn_offered: NOTIFY and ORCPT are known (RFC 3461 §4.1, §4.2).
    """
    if argument[:3].upper() != "TO:":
        raise Refused(replies.BAD_RECIPIENT)
    recipient, rest = _path(argument[3:], replies.BAD_RECIPIENT, postmaster=True)
    notify, orcpt = None, ""
    for keyword, value in _parameters(rest, _VALUE_UTF8):
        if keyword == "NOTIFY" and dsn_offered:
            notify = dsn.notify(value)
        elif keyword == "ORCPT" and dsn_offered:
            orcpt = dsn.orcpt(value, smtputf8=smtputf8)
        else:
            raise Refused(replies.UNKNOWN_PARAMETER.saying(f"{keyword} is not recognized or not implemented"))
    if not smtputf8 and not recipient.isascii():
        raise Refused(replies.NEEDS_SMTPUTF8)
    return Rcpt(recipient, notify, orcpt)


def bdat(argument: str) -> tuple[Chunk | None, bool]:
    """The chunk, or None where not even its size can be read; and whether the syntax is right.

    A client may send a chunk with the command, so its size must be known to stay in step (RFC 3030 §2).
    """
    words = [word for word in argument.split(" ") if word]
    if not words or not (words[0].isascii() and words[0].isdigit()) or len(words[0]) > MAX_SIZE_DIGITS:
        return None, False
    last = len(words) > 1 and words[1].upper() == "LAST"
    return Chunk(int(words[0]), last), len(words) == 1 + last and argument.isascii()


def _path(text: str, wrong: Reply, *, null: bool = False, postmaster: bool = False) -> tuple[str, str]:
    """The address between `<` and `>`, and what follows."""
    match = _FAST.match(text)
    if match:
        address, rest = match[1], text[match.end() :]
    elif null and text.startswith(("<>", " <>")):
        address, rest = "", text[text.index(">") + 1 :]
    else:
        address, rest = _slow_path(text.lstrip(" "), wrong, postmaster)
    if rest and rest[0] != " ":
        raise Refused(wrong)
    return address, rest.strip(" ")


def _slow_path(text: str, wrong: Reply, postmaster: bool) -> tuple[str, str]:
    if not text.startswith("<"):
        raise Refused(wrong)
    route = _ROUTE.match(text, 1)
    at = route.end() if route else 1
    if postmaster and text[at : at + 11].lower() == "postmaster>":
        return "postmaster", text[at + 11 :]
    local = (_QUOTED if text[at : at + 1] == '"' else _ATOMS).match(text, at)
    if not local or text[local.end() : local.end() + 1] != "@":
        raise Refused(wrong)
    end = text.find(">", local.end())
    domain = text[local.end() + 1 : end]
    if end < 0 or not _is_local(local[0]) or not _is_domain(domain):
        raise Refused(wrong)
    return f"{local[0]}@{domain}", text[end + 1 :]


def _is_local(text: str) -> bool:
    return len(text.encode("utf-8", "surrogatepass")) <= MAX_LOCAL_OCTETS and (text.isascii() or _is_text(text))


def _is_domain(text: str) -> bool:
    if text.startswith("["):
        return _is_literal(text)
    if len(text.encode("utf-8", "surrogatepass")) > MAX_DOMAIN_OCTETS:
        return False
    if text.isascii():
        return _DOMAIN.fullmatch(text) is not None
    return _is_text(text) and _DOMAIN_UTF8.fullmatch(text) is not None


def _is_literal(text: str) -> bool:
    """RFC 5321 §4.1.3: `[192.0.2.1]`, `[IPv6:2001:db8::1]`."""
    if not _LITERAL.fullmatch(text):
        return False
    try:
        if text[1:6].lower() == "ipv6:":
            ipaddress.IPv6Address(text[6:-1])
        else:
            ipaddress.IPv4Address(text[1:-1])
    except ValueError:
        return False
    return True


def _is_text(text: str) -> bool:
    return all(char.isascii() or unicodedata.category(char) not in _NOT_TEXT for char in text)


def _parameters(text: str, grammar: re.Pattern[str] = _VALUE) -> Iterator[tuple[str, str | None]]:
    """RFC 5321 §4.1.2, esmtp-param; each at most once."""
    seen = set()
    for word in text.split(" "):
        if not word:
            continue
        keyword, equals, value = word.partition("=")
        if not _KEYWORD.fullmatch(keyword) or (equals and not grammar.fullmatch(value)):
            raise Refused(replies.SYNTAX)
        name = keyword.upper()
        if name in seen:
            raise Refused(replies.SYNTAX.saying(f"{name} is given twice"))
        seen.add(name)
        yield name, value if equals else None


def _size(value: str | None) -> int:
    if value is None or not (value.isascii() and value.isdigit()) or len(value) > MAX_SIZE_DIGITS:
        raise Refused(replies.SYNTAX.saying("Syntax: SIZE=octets"))
    return int(value)


def _body(value: str | None) -> str:
    body = (value or "").upper()
    if body == "BINARYMIME":
        raise Refused(replies.UNKNOWN_PARAMETER.saying("BINARYMIME is not implemented"))
    if body not in ("7BIT", "8BITMIME"):
        raise Refused(replies.SYNTAX.saying("Syntax: BODY=7BIT or BODY=8BITMIME"))
    return body
