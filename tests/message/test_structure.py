from __future__ import annotations

import pytest
from hypothesis import given

from mailserver.message import structure
from mailserver.message.structure import LEAF, MESSAGE, MULTIPART, Part
from tests.message.messages import SETTINGS, Model, soup, well_formed

MIXED = b"Content-Type: multipart/mixed; boundary=b\r\n\r\n"


def walk(part: Part) -> list[Part]:
    found = [part]
    for child in (*part.children, *([part.message] if part.message else [])):
        found += walk(child)
    return found


def shape(part: Part) -> tuple[object, ...]:
    inner = shape(part.message) if part.message else None
    return part.kind, part.start, part.header_end, part.end, tuple(map(shape, part.children)), inner


@SETTINGS
@given(soup)
def test_parts_lie_inside_each_other_and_in_order(octets: bytes) -> None:
    tree = structure.parse(octets)
    assert (tree.start, tree.end) == (0, len(octets))
    for part in walk(tree):
        assert part.start <= part.header_end <= part.end
        at = part.header_end
        for child in part.children:
            assert at <= child.start and child.end <= part.end
            at = child.end
        if part.message:
            assert (part.message.start, part.message.end) == (part.header_end, part.end)


@SETTINGS
@given(soup)
def test_a_header_ends_at_the_first_empty_line(octets: bytes) -> None:
    end = 0
    for line in octets.split(b"\n"):
        end = min(end + len(line) + 1, len(octets))
        if line in (b"", b"\r"):
            break
    else:
        end = len(octets)
    assert structure.parse(octets).header_end == end


@SETTINGS
@given(soup)
def test_stored_offsets_are_those_of_the_tree(octets: bytes) -> None:
    tree = structure.parse(octets)
    packed = structure.pack(tree)
    assert (packed is None) == (tree.kind == LEAF)
    assert shape(structure.unpack(packed, len(octets), tree.header_end)) == shape(tree)


@SETTINGS
@given(well_formed)
def test_bodies_of_well_formed_messages_are_found(model: Model) -> None:
    tree = structure.parse(model.octets)
    for path, body in model.bodies.items():
        place = structure.locate(tree, path)
        assert place is not None
        assert model.octets[slice(*place)] == body, path


@SETTINGS
@given(soup)
def test_every_section_is_inside_the_message_or_absent(octets: bytes) -> None:
    tree = structure.parse(octets)
    for path in ((), (1,), (2,), (1, 1), (1, 2), (2, 1), (1, 1, 1), (0,), (99,)):
        for kind in ("", "HEADER", "TEXT", "MIME"):
            place = structure.locate(tree, path, kind)
            if place is not None:
                assert 0 <= place[0] <= place[1] <= len(octets)
    assert structure.locate(tree, (), "MIME") is None
    assert structure.locate(tree, (0,)) is None
    assert structure.locate(tree, (1,)) is not None, "every message has a part 1 (RFC 3501 §6.4.5)"


def test_any_buffer_is_taken() -> None:
    octets = MIXED + b"--b\r\n\r\nx\r\n--b--"
    assert shape(structure.parse(memoryview(octets))) == shape(structure.parse(bytearray(octets)))
    assert shape(structure.parse(octets)) == shape(structure.parse(bytearray(octets)))


def test_what_a_part_tells() -> None:
    tree = structure.parse(
        b"Content-Type: Image/GIF; NAME=x.gif\r\nContent-Transfer-Encoding: BASE64\r\n"
        b"Content-Disposition: Inline; FileName=y\r\nFrom: a@b\r\n\r\nQQ=="
    )
    assert (tree.type, tree.subtype, tree.params) == (b"image", b"gif", ((b"name", b"x.gif"),))
    assert (tree.encoding, tree.param(b"name"), tree.param(b"charset")) == (b"base64", b"x.gif", None)
    assert tree.disposition == (b"inline", ((b"filename", b"y"),))
    assert tree.fields[b"from"] == b"a@b"
    assert structure.find(tree, ()) is tree and structure.find(tree, (1,)) is tree
    assert structure.find(tree, (2,)) is None


def test_ten_thousand_parts_are_found_and_no_more() -> None:
    for count in (structure.MAX_PARTS, structure.MAX_PARTS + 5000):
        octets = MIXED + b"--b\r\n\r\nx\r\n" * count + b"--b--"
        tree = structure.parse(octets)
        assert len(tree.children) == structure.MAX_PARTS
        whole = tree.children if count == structure.MAX_PARTS else tree.children[:-1]
        assert {child.end - child.header_end for child in whole} == {1}
        assert structure.locate(tree, (structure.MAX_PARTS,)) is not None
        assert structure.locate(tree, (structure.MAX_PARTS + 1,)) is None
    assert tree.children[-1].end == len(octets), "what is beyond the bound stays in the last part"


@pytest.mark.parametrize("levels", [99, 100, 200, 5000])
def test_levels_of_multiparts(levels: int) -> None:
    octets = b"".join(b"Content-Type: multipart/mixed; boundary=b%d\r\n\r\n--b%d\r\n" % (n, n) for n in range(levels))
    octets += b"\r\nx" + b"".join(b"\r\n--b%d--" % n for n in reversed(range(levels)))
    tree = structure.parse(octets)
    parts = walk(tree)
    assert len(parts) <= structure.MAX_DEPTH + 1
    if levels <= structure.MAX_DEPTH:
        assert len(parts) == levels + 1
        assert octets[slice(*structure.locate(tree, (1,) * levels) or ())] == b"x"
    elif levels < 1000:  # the bound was met: a multipart without children, whose part 1 is all that it holds
        assert len(parts) == structure.MAX_DEPTH + 1
        assert (parts[-1].kind, parts[-1].children) == (MULTIPART, ())
        assert structure.locate(tree, (1,) * (structure.MAX_DEPTH + 1)) == (parts[-1].header_end, parts[-1].end)


@pytest.mark.parametrize("levels", [99, 100, 200, 5000])
def test_levels_of_messages(levels: int) -> None:
    octets = b"Content-Type: message/rfc822\r\n\r\n" * levels + b"Subject: x\r\n\r\nbody"
    tree = structure.parse(octets)
    parts = walk(tree)
    if levels < 1000:  # beyond, the effort for the whole message is the narrower bound
        assert len(parts) == min(levels, structure.MAX_DEPTH) + 1
    if levels <= structure.MAX_DEPTH:
        assert octets[slice(*structure.locate(tree, (1,) * levels, "HEADER") or ())] == b"Subject: x\r\n\r\n"
    else:
        assert (parts[-1].kind, parts[-1].message) == (MESSAGE, None)
        deepest = (1,) * len(parts)
        assert structure.locate(tree, deepest) == (parts[-1].header_end, parts[-1].end)
        assert structure.locate(tree, deepest, "HEADER") is None


def test_fields_beyond_the_bound_count_as_absent() -> None:
    filler = b"X-Filler: %b\r\n" % (b"x" * (structure.MAX_HEADER - 100))
    tree = structure.parse(b"Subject: seen\r\n" + filler + filler + b"From: unseen@x.example\r\n\r\nbody")
    assert tree.fields == {b"subject": b"seen"}
    assert tree.end - tree.header_end == 4
    many = structure.parse(MIXED + (b"--b\r\nContent-Type: text/html\r\n" + filler + b"\r\nx\r\n") * 8)
    assert [child.subtype for child in many.children] == [b"html"] * 5 + [b"plain"] * 3


def test_the_effort_for_near_misses_is_bounded() -> None:
    octets = MIXED + b"--b\r\n\r\nx\r\n" + b"--bx\r\n" * 200_000
    tree = structure.parse(octets)
    assert len(tree.children) == 1 and tree.children[0].end == len(octets)


def test_unknown_versions_are_refused() -> None:
    with pytest.raises(ValueError):
        structure.unpack(b"\x7f\x01", 10, 2)
