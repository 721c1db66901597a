"""Blob stores of every kind, for the tests that all of them must pass."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from storage.blobs import BlobStore
from storage.directory_blobs import DirectoryBlobs
from storage.keys import Keys
from storage.s3_blobs import S3Blobs
from tests.support.s3 import BUCKET, S3Server

KINDS = [
    "directory",
    pytest.param("seaweedfs", marks=pytest.mark.real),
    pytest.param("seaweedfs cached", marks=pytest.mark.real),
    pytest.param("ministack", marks=pytest.mark.real),
]


def keys(install: bytes = b"i" * 32) -> Keys:
    return Keys(None, install, b"m" * 32)  # type: ignore[arg-type]


def fresh_place() -> str:
    """A place in the bucket that nobody else uses."""
    return f"s3://{BUCKET}/{uuid.uuid4().hex}"


@asynccontextmanager
async def s3_blobs(
    server: S3Server, where: str | None = None, cache: Path | None = None, install: bytes = b"i" * 32, **settings: Any
) -> AsyncIterator[S3Blobs]:
    held = S3Blobs(where or fresh_place(), keys(install), server.config(**settings), cache)
    try:
        yield held
    finally:
        await held.close()


@asynccontextmanager
async def blobs_of_kind(kind: str, folder: Path, request: pytest.FixtureRequest) -> AsyncIterator[BlobStore]:
    if kind == "directory":
        held = DirectoryBlobs(folder / "b", keys())
        yield held
        await held.close()
        return
    name, _, cached = kind.partition(" ")
    cache = folder / "cache" if cached else None
    async with s3_blobs(request.getfixturevalue(name), cache=cache, s3_part_octets=5 << 20) as s3:
        yield s3


async def all_listed(held: BlobStore, before: int = 10**6) -> list[bytes]:
    return [ref async for page in held.listed(before) for ref in page]
