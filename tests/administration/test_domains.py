"""What administrators do with domains."""

from __future__ import annotations

import pytest

from mailserver.administration import Refused, domains
from storage.records import Domain
from storage.store import Store


async def test_adding_again_changes_only_what_is_asked_for(store: Store) -> None:
    first = await domains.add(store, "Example.net", "open")
    assert (first.domain, first.created) == (Domain("example.net", "open"), True)
    again = await domains.add(store, "example.net")
    assert (again.domain.registration, again.created, again.changed) == ("open", False, False)
    closed = await domains.add(store, "example.net", "closed")
    assert (closed.domain.registration, closed.created, closed.changed) == ("closed", False, True)
    assert [domain.name for domain in await domains.list_all(store)] == ["example.net", "example.org"]


async def test_a_domain_is_shown_as_people_write_it(store: Store) -> None:
    await domains.add(store, "bücher.example")
    shown = await domains.show(store, "BÜCHER.example")
    assert (shown.domain.name, shown.readable) == ("xn--bcher-kva.example", "bücher.example")
    assert (shown.addresses, shown.aliases) == (0, 0)
    assert (await domains.show(store, "example.org")).addresses == 1


@pytest.mark.parametrize("name", ["", "a b", "[127.0.0.1]", "a..b"])
async def test_bad_names_are_refused(store: Store, name: str) -> None:
    with pytest.raises(Refused) as refusal:
        await domains.add(store, name)
    assert refusal.value.field == "name"


async def test_removing(store: Store) -> None:
    with pytest.raises(Refused, match="still has 1 address"):
        await domains.remove(store, "example.org")
    await domains.add(store, "example.net")
    await domains.remove(store, "example.net")
    for act in (domains.remove, domains.show):
        with pytest.raises(Refused, match=r"the domain example\.net does not exist"):
            await act(store, "example.net")
    with pytest.raises(Refused) as refusal:
        await domains.add(store, "example.net", "maybe")
    assert refusal.value.field == "registration"
