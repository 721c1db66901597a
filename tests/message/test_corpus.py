"""Every message of the corpus against the answers worked out for it."""

from __future__ import annotations

import pytest

from mailserver.delivery import take_apart
from mailserver.message import bodystructure, structure, summary
from storage import layout
from tests.message import generated, imap_reader
from tests.message.corpus_reader import Case, all_cases, split_section

CASES = all_cases() + generated.cases()


def ids(case: Case) -> str:
    return case.name


def test_the_corpus_is_there() -> None:
    assert len(CASES) >= 115


@pytest.mark.parametrize("case", CASES, ids=ids)
def test_envelope(case: Case) -> None:
    text = summary.envelope(structure.parse(case.message))
    read = imap_reader.envelope(text)
    if case.envelope is not None:
        assert read == case.envelope


@pytest.mark.parametrize("case", CASES, ids=ids)
def test_bodystructure(case: Case) -> None:
    tree = structure.parse(case.message)
    text = summary.bodystructure(tree)
    read = imap_reader.body(text)
    if case.bodystructure is not None:
        assert read == case.bodystructure
    plain = bodystructure.without_extensions(text)
    assert imap_reader.body(plain, extended=False) == imap_reader.body(text, shown=False)


@pytest.mark.parametrize("case", CASES, ids=ids)
def test_sections(case: Case) -> None:
    tree = structure.parse(case.message)
    stored = structure.unpack(structure.pack(tree), len(case.message), tree.header_end)
    for name, expected in case.sections.items():
        if "<" in name:  # tests/imap/test_corpus.py asks for these
            continue
        path, kind = split_section(name)
        place = structure.locate(tree, path, kind)
        octets = None if place is None else case.message[slice(*place)]
        assert octets == expected, f"BODY[{name}]"
        assert structure.locate(stored, path, kind) == place, f"BODY[{name}] by the stored offsets"


@pytest.mark.parametrize("case", CASES, ids=ids)
@pytest.mark.parametrize("threshold", [1, 40, 65_536])
def test_content_is_rebuilt_exactly(case: Case, threshold: int) -> None:
    split = take_apart.split(case.message, structure.parse(case.message), threshold)
    assert b"".join(layout.rebuild(split.layout, split.front, b"".join(split.inline), split.blobs)) == case.message
