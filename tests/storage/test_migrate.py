"""Migrations: applied once, whole, in order, and never changed."""

from __future__ import annotations

import asyncio
from array import array
from pathlib import Path

import asyncpg
import pytest

from storage import membership
from storage import migrate as subject
from storage.errors import Unavailable
from storage.migrate import MigrationError, migrations
from storage.packed import integers, unpack
from storage.pages import Page
from tests.storage.conftest import read_only


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "0001_one.sql").write_text("CREATE TABLE one (a int); INSERT INTO one VALUES (1);")
    (tmp_path / "0002_two.sql").write_text("CREATE TABLE two (a int);")
    return tmp_path


async def apply(dsn: str, folder: Path) -> list[str]:
    return await subject.migrate(dsn, migrations(folder))


async def tables(dsn: str) -> set[str]:
    conn = await asyncpg.connect(dsn)
    try:
        rows = await conn.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
    finally:
        await conn.close()
    return {row[0] for row in rows}


async def test_applies_all_and_then_nothing(empty_database: str, folder: Path) -> None:
    assert await apply(empty_database, folder) == ["0001_one", "0002_two"]
    assert await tables(empty_database) == {"one", "two", "schema_migrations"}
    assert await apply(empty_database, folder) == []


async def test_a_new_file_is_applied_on_top(empty_database: str, folder: Path) -> None:
    await apply(empty_database, folder)
    (folder / "0003_three.sql").write_text("CREATE TABLE three (a int)")
    assert await apply(empty_database, folder) == ["0003_three"]


async def test_a_failing_file_leaves_nothing_of_itself(empty_database: str, folder: Path) -> None:
    (folder / "0002_two.sql").write_text("CREATE TABLE two (a int); SELECT no_such_function();")
    with pytest.raises(MigrationError, match=r"0002_two: .*no_such_function"):
        await apply(empty_database, folder)
    assert await tables(empty_database) == {"one", "schema_migrations"}
    (folder / "0002_two.sql").write_text("CREATE TABLE two (a int);")
    assert await apply(empty_database, folder) == ["0002_two"]


async def test_many_at_once_apply_it_once(empty_database: str, folder: Path) -> None:
    done = await asyncio.gather(*(apply(empty_database, folder) for _ in range(5)))
    assert sorted(done, key=len) == [[], [], [], [], ["0001_one", "0002_two"]]


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda folder: (folder / "0001_one.sql").write_text("SELECT 1"), "0001_one was changed"),
        (lambda folder: (folder / "0002_two.sql").unlink(), "has 0002_two, which this version"),
        (lambda folder: (folder / "0002_b.sql").write_text("SELECT 1"), "have the same number"),
        (lambda folder: (folder / "third.sql").write_text("SELECT 1"), "is not named"),
    ],
)
async def test_what_does_not_fit_is_refused(empty_database: str, folder: Path, change: object, complaint: str) -> None:
    await apply(empty_database, folder)
    change(folder)  # type: ignore[operator]
    with pytest.raises(MigrationError, match=complaint):
        await apply(empty_database, folder)


async def test_a_file_below_the_last_number_came_too_late(empty_database: str, folder: Path) -> None:
    (folder / "0002_two.sql").rename(folder / "0003_two.sql")
    await apply(empty_database, folder)
    (folder / "0002_late.sql").write_text("CREATE TABLE late (a int)")
    with pytest.raises(MigrationError, match="0002_late came too late"):
        await apply(empty_database, folder)


async def test_no_database_is_unavailable(tmp_path: Path) -> None:
    with pytest.raises(Unavailable):
        await subject.migrate(f"postgresql:///x?host={tmp_path}&user=x")


async def test_the_schema_of_this_version_is_whole(empty_database: str) -> None:
    names = [migration.name for migration in migrations()]
    assert names and names[0] == "0001_base"
    assert await subject.migrate(empty_database) == names
    assert {"accounts", "account_state", "messages", "mailbox_pages"} <= await tables(empty_database)


async def test_pages_and_expunges_are_packed(empty_database: str, tmp_path: Path) -> None:
    """A mailbox of the first schema is read by this version, value by value; deliveries go on in its last page."""
    for migration in migrations()[:2]:
        (tmp_path / f"{migration.name}.sql").write_text(migration.text)
    assert len(await apply(empty_database, tmp_path)) == 2
    conn = await asyncpg.connect(empty_database)
    high = 2**62 + 5
    await conn.execute(
        "INSERT INTO mailbox_pages VALUES (7, 1, 0, 9, '{1,63}', $1, $2, '{3,9}', '{0,2147483647}', '{-5,1700000000}',"
        " '{6,8}'), (7, 1, 1, 4, '{64}', '{2}', '{16}', '{4}', '{77}', '{0}', '{1}')",
        [high, 1],
        [high, 0],
    )
    await conn.execute(
        "INSERT INTO vanished VALUES (7, 1, 8, '{2,3}', '{11,12}', '{8,9}', '{5,6}', '{0,-1}', now(), 'expunged'),"
        " (7, 1, 9, '{4}', NULL, NULL, NULL, NULL, now(), 'moved')"
    )
    await conn.close()
    await subject.migrate(empty_database)
    conn = await asyncpg.connect(empty_database)
    pages = membership.pages_of(await conn.fetch(membership.READ_ALL, 7, 1))
    assert [[list(column) for column in columns_of(page)] for page in pages] == [
        [[1, 63], [high, 1], [high, 0], [3, 9], [0, 2147483647], [-5, 1700000000], [6, 8]],
        [[64], [2], [16], [4], [77], [0], [1]],
    ]
    assert [(page.number, page.modseq) for page in pages] == [(0, 9), (1, 4)]
    held, moved = await conn.fetch("SELECT uids, message_ids, flags, sizes, received FROM vanished ORDER BY modseq")
    assert [unpack(*pair).tolist() for pair in zip("IqqIq", held, strict=True)] == [
        [2, 3], [11, 12], [8, 9], [5, 6], [0, -1],
    ]  # fmt: skip
    assert tuple(moved) == (b"\0\0\0\4", None, None, None, None)
    used = await conn.fetch(integers("flags", "mailbox_pages", "account_id = $1"), 7)
    assert sorted(row["n"] for row in used) == [0, 16, high]
    await conn.close()


def columns_of(page: Page) -> tuple[array[int], ...]:
    return (page.uids, page.message_ids, page.flags, page.modseqs, page.sizes, page.received, page.saved)


async def test_a_read_only_database_is_unavailable(database: str) -> None:
    async with read_only(database):
        with pytest.raises(Unavailable):
            await subject.migrate(database)
    assert await subject.migrate(database) == []
