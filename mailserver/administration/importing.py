"""Accounts from a CSV file: `address,password,quota_mib`.

A quota of 0, or none, is no limit. A first line that begins with `address` names the columns and may put them in
another order. A password may be a hash of another system, see mailserver/passwords.py; it is replaced at the first
login.

Each line stands for itself: a bad one is reported with its number and its reason, the good ones are made. An account
that exists is left as it is and counts as good, so that an import can be repeated. Lines are taken in batches: while
the database writes one, the next is being hashed on all cores, which is what takes the time.
"""

from __future__ import annotations

import asyncio
import csv
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice

from mailserver import passwords
from mailserver.administration import Refused
from mailserver.administration.accounts import check_quota
from mailserver.passwords import Hasher
from storage import Account, AlreadyExists, NotFound, Store, accounts, addresses
from storage.accounts import NewAccount

BATCH = 100
MAX_LINE_OCTETS = 16_384
MIB = 1024 * 1024
COLUMNS = ("address", "password", "quota_mib")


@dataclass(frozen=True, slots=True)
class Problem:
    """A line that was not taken. address: what stands in its first column, as far as it could be read."""

    line: int
    address: str
    reason: str


@dataclass(slots=True)
class Report:
    created: int = 0
    existing: list[tuple[int, str]] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    weak: list[tuple[int, str]] = field(default_factory=list)


@dataclass(slots=True)
class _Row:
    """A line on its way in."""

    line: int
    address: str
    password: str
    quota_octets: int
    hashed: str = ""


async def run(
    store: Store,
    hasher: Hasher,
    lines: Iterable[bytes],
    *,
    progress: Callable[[int], None] = lambda _: None,
    threads: int | None = None,
) -> Report:
    """Makes the accounts. progress is called with the octets of the lines that are done."""
    report = Report()
    rows = _rows(lines, report)
    with ThreadPoolExecutor(threads or os.cpu_count() or 1, thread_name_prefix="hash") as pool:
        coming = await _prepare(store, hasher, pool, rows, report)
        while coming is not None:
            batch, octets = coming
            preparing = asyncio.ensure_future(_prepare(store, hasher, pool, rows, report))
            try:
                await _write(store, batch, report)
                progress(octets)
            finally:
                coming = await preparing
    report.problems.sort(key=lambda problem: problem.line)
    report.existing.sort()
    report.weak.sort()
    return report


async def _prepare(
    store: Store, hasher: Hasher, pool: ThreadPoolExecutor, rows: Iterator[tuple[_Row | None, int]], report: Report
) -> tuple[list[_Row], int] | None:
    """The next batch, hashed, without accounts that exist; and how many octets of the file it stands for."""
    taken = list(islice(rows, BATCH))
    if not taken:
        return None
    batch = [row for row, _ in taken if row is not None]
    there = await accounts.taken(store, [row.address for row in batch])
    fresh = [row for row in batch if row.address not in there]
    for row in batch:
        if row.address in there:
            await _judge_existing(store, row, report)
    loop = asyncio.get_running_loop()
    await asyncio.gather(*(loop.run_in_executor(pool, _hash, hasher, row, report) for row in fresh))
    return [row for row in fresh if row.hashed], sum(octets for _, octets in taken)


async def _write(store: Store, batch: list[_Row], report: Report) -> None:
    wanted = [NewAccount(row.address, row.hashed, quota_octets=row.quota_octets) for row in batch]
    if not wanted:
        return
    for row, outcome in zip(batch, await accounts.add_many(store, wanted), strict=True):
        if isinstance(outcome, Account):
            report.created += 1
        else:
            report.problems.append(Problem(row.line, row.address, _reason(outcome)))


def _reason(outcome: Exception) -> str:
    if isinstance(outcome, NotFound):
        return f"{outcome} is not one of ours"
    return f"{outcome} exists already" if isinstance(outcome, AlreadyExists) else str(outcome)


async def _judge_existing(store: Store, row: _Row, report: Report) -> None:
    try:
        account = await accounts.find(store, row.address)
    except NotFound:
        report.problems.append(Problem(row.line, row.address, "the address is an alias"))
        return
    if account.status == "removing":
        report.problems.append(Problem(row.line, row.address, "the account is being removed"))
        return
    await accounts.ensure_state(store, account.account_id, row.quota_octets)
    report.existing.append((row.line, row.address))


def _hash(hasher: Hasher, row: _Row, report: Report) -> None:
    """Runs in a thread; appending to a list is safe there."""
    try:
        hashed = passwords.imported(row.password)
        if hashed is None:
            text = passwords.plain(row.password)
            hashed = hasher.hash(text)
            if hasher.weakness(text, [row.address, addresses.local_text(row.address)]):
                report.weak.append((row.line, row.address))
        row.hashed = hashed
    except ValueError as error:
        report.problems.append(Problem(row.line, row.address, str(error)))


def _rows(lines: Iterable[bytes], report: Report) -> Iterator[tuple[_Row | None, int]]:
    """Each line as a row, or None where it is empty, the header or bad; and its octets."""
    columns: tuple[str, ...] = COLUMNS
    seen: dict[str, int] = {}
    for number, octets in enumerate(lines, 1):
        row = None
        try:
            cells = _cells(octets, first=number == 1)
            if number == 1 and cells and cells[0].lower() == "address":
                columns = _columns(cells)
            elif cells:
                row = _row(number, dict(zip(columns, cells, strict=False)), len(cells) - len(columns))
                if row.address in seen:
                    raise ValueError(f"the address stands in line {seen[row.address]} already")
                seen[row.address] = number
        except (ValueError, Refused, csv.Error) as error:
            row = None
            report.problems.append(Problem(number, _first_cell(octets), str(error)))
        yield row, len(octets)


def _cells(octets: bytes, *, first: bool) -> list[str]:
    """The line's cells. No cell goes over its line, so that a lost quote costs one line and not all that follow."""
    if len(octets) > MAX_LINE_OCTETS:
        raise ValueError("the line is too long")
    try:
        text = octets.decode("utf-8-sig" if first else "utf-8").rstrip("\r\n")
    except UnicodeDecodeError:
        raise ValueError("the line is not UTF-8") from None
    if not text.strip():
        return []
    try:
        [cells] = csv.reader([text], strict=True)
    except csv.Error as error:
        raise ValueError(f"the line is not CSV: {error}") from None
    return [cells[0].strip(), *cells[1:]]


def _columns(cells: list[str]) -> tuple[str, ...]:
    names = tuple(cell.strip().lower() for cell in cells)
    unknown = [name for name in names if name not in COLUMNS]
    if unknown or "password" not in names or len(set(names)) < len(names):
        raise ValueError(f"the header must be {','.join(COLUMNS)}")
    return names


def _row(line: int, cells: dict[str, str], surplus: int) -> _Row:
    if surplus > 0:
        raise ValueError("the line has too many columns; a comma in a password needs quotes around it")
    address = addresses.canonical(cells["address"])
    password = cells.get("password", "")
    if not password:
        raise ValueError("the password is missing")
    quota = cells.get("quota_mib", "").strip() or "0"
    if not (quota.isascii() and quota.isdigit() and len(quota) < 20):
        raise ValueError(f"the quota {quota!r} is not a number of MiB")
    check_quota(int(quota) * MIB, 0)
    return _Row(line, address, password, int(quota) * MIB)


def _first_cell(octets: bytes) -> str:
    return octets[:200].decode("utf-8", "replace").partition(",")[0].strip().lstrip("\ufeff")
