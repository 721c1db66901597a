"""Reads tests/message/corpus/*.txt: awkward messages, each with the answers that the RFCs want.

A file is a comment (lines that begin with `#`: what is awkward and which RFC settles it), then `--- message`, the
message, and after it `--- NAME` and the answer, once for each section that is asked for: ENVELOPE, BODYSTRUCTURE, or
what stands in BODY[…].

Messages and sections are written line by line and every line ends in CRLF, except for these marks:
    ␊   at the end of a line: it ends in LF alone
    ∎   at the end of a line: no line end at all
    ␍   a CR, ␀ a NUL, ␉ a tab, \\xE9 the octet E9, \\\\ a backslash followed by x; anything else is UTF-8
A section may be a partial one, as in `1<0.5>`. A section's answer NIL says that there is no such section. Nothing
between two headings is the empty section.

ENVELOPE and BODYSTRUCTURE are written as IMAP text over any number of lines; a string is quoted whatever it holds, with
the same marks. `@1.2` is the number of octets of the answer that the file gives for section 1.2, `#1.2` of its LFs.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "corpus"

_TOKEN = re.compile(r'\s*(?:(\()|(\))|"((?:[^"\\]|\\.)*)"|(NIL)|(\d+)|([@#])([\w.]+))', re.DOTALL)


@dataclass(frozen=True)
class Case:
    name: str
    message: bytes
    envelope: Any
    bodystructure: Any
    sections: dict[str, bytes | None]


def read(path: Path) -> Case:
    blocks: dict[str, list[str]] = {}
    for line in path.read_text(encoding="utf-8").split("\n"):
        if line.startswith("--- "):
            blocks[line[4:]] = []
        elif blocks:
            blocks[list(blocks)[-1]].append(line)
    # The file's own last line end is not a line of the last block.
    last = list(blocks)[-1]
    if blocks[last] and not blocks[last][-1]:
        blocks[last].pop()
    message = _octets(blocks.pop("message"))
    envelope = blocks.pop("ENVELOPE", None)
    structure = blocks.pop("BODYSTRUCTURE", None)
    sections = {name: None if lines == ["NIL"] else _octets(lines) for name, lines in blocks.items()}
    return Case(
        path.stem,
        message,
        _values(envelope, sections) if envelope else None,
        _values(structure, sections) if structure else None,
        sections,
    )


def all_cases() -> list[Case]:
    return [read(path) for path in sorted(FOLDER.glob("*.txt"))]


def split_section(name: str) -> tuple[tuple[int, ...], str]:
    """`1.2.MIME` as (1, 2) and MIME; a partial is left aside."""
    name = name.partition("<")[0]
    words = name.split(".")
    numbers = [int(word) for word in words if word.isdigit()]
    return tuple(numbers), words[-1] if words[-1] and not words[-1].isdigit() else ""


def _octets(lines: list[str]) -> bytes:
    out = []
    for line in lines:
        if line.endswith("␊"):
            out.append(_marks(line[:-1]) + b"\n")
        elif line.endswith("∎"):
            out.append(_marks(line[:-1]))
        else:
            out.append(_marks(line) + b"\r\n")
    return b"".join(out)


def _marks(text: str) -> bytes:
    octets = text.replace("␍", "\r").replace("␀", "\0").replace("␉", "\t").encode()
    return re.sub(rb"\\x([0-9A-F]{2})", lambda found: bytes.fromhex(found[1].decode()), octets)


def _values(lines: list[str], sections: dict[str, bytes | None]) -> Any:
    stack: list[list[Any]] = [[]]
    text = "\n".join(lines).strip()
    at = 0
    while at < len(text):
        token = _TOKEN.match(text, at)
        assert token, f"cannot read {text[at : at + 40]!r}"
        at = token.end()
        opened, closed, string, nil, number, mark, section = token.groups()
        if opened:
            stack.append([])
        elif closed:
            value = tuple(stack.pop())
            stack[-1].append(value)
        elif string is not None:
            stack[-1].append(_marks(re.sub(r'\\(["\\])', r"\1", string)))
        elif nil:
            stack[-1].append(None)
        elif number:
            stack[-1].append(int(number))
        else:
            octets = sections[section]
            assert octets is not None
            stack[-1].append(len(octets) if mark == "@" else octets.count(b"\n"))
    (values,) = stack[0]
    return values
