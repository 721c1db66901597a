"""What administrators do with aliases."""

from __future__ import annotations

import pytest

from mailserver.administration import Refused, aliases
from storage.aliases import Alias
from storage.store import Store


async def test_adding_showing_removing(store: Store) -> None:
    made = await aliases.add(store, "sales@example.org", ["root@example.org"])
    assert (made.added, made.warnings) == (("root@example.org",), ())
    again = await aliases.add(store, "sales@example.org", ["root@example.org"])
    assert again.added == ()
    more = await aliases.add(store, "sales@example.org", ["x@elsewhere.org", "nobody@example.org"])
    assert more.added == ("nobody@example.org", "x@elsewhere.org")
    assert more.warnings == ("nobody@example.org leads nowhere",)
    assert await aliases.show(store, "sales@example.org") == more.alias
    assert await aliases.remove(store, "sales@example.org", ["nobody@example.org"]) == ("nobody@example.org",)
    assert await aliases.list_all(store, "example.org") == [
        Alias("sales@example.org", ("root@example.org", "x@elsewhere.org"))
    ]
    assert len(await aliases.remove(store, "sales@example.org")) == 2
    assert await aliases.list_all(store) == []


async def test_a_catch_all(store: Store) -> None:
    made = await aliases.add(store, "@Example.org", ["root@example.org"])
    assert made.alias.address == "@example.org"


async def test_aliases_that_are_nested_too_deep_are_reported(store: Store) -> None:
    for number in range(25):
        made = await aliases.add(store, f"c{number + 1}@example.org", [f"c{number}@example.org"])
    assert "nested deeper" in made.warnings[0]


@pytest.mark.parametrize(
    ("address", "targets", "field", "reason"),
    [
        ("root@example.org", ["x@elsewhere.org"], "address", "exists already"),
        ("a@elsewhere.org", ["root@example.org"], "address", "does not exist"),
        ("a@example.org", ["A@example.org"], "targets", "itself"),
        ("a@example.org", ["root"], "targets", "not an address"),
        ("a", ["root@example.org"], "address", "not an address"),
        ("a@example.org", [], "address", "needs a target"),
    ],
)
async def test_refusals_name_the_field(store: Store, address: str, targets: list[str], field: str, reason: str) -> None:
    with pytest.raises(Refused, match=reason) as refusal:
        await aliases.add(store, address, targets)
    assert refusal.value.field == field


async def test_removing_what_is_not_there(store: Store) -> None:
    for attempt in (aliases.remove(store, "a@example.org"), aliases.remove(store, "root@example.org")):
        with pytest.raises(Refused, match="does not exist"):
            await attempt
