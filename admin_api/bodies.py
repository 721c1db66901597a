"""What requests bring: JSON within bounds of size, depth and time, and the models it must fit."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from aiohttp import web
from pydantic import BaseModel, ValidationError

from admin_api.problems import Problem

M = TypeVar("M", bound=BaseModel)

MAX_DEPTH = 20
MAX_ERRORS = 20

# A string, ended or not, or a bracket: one pass, without going back.
_TOKEN = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)|[\[\]{}]', re.DOTALL)
_PLAIN_ENCODINGS = ("", "identity")


async def read_json(request: web.Request, limit: int, seconds: float) -> Any:
    """The JSON document of a request. Problem: 400, 408, 413, 415."""
    if request.content_type != "application/json":
        raise Problem(415, "the body must be application/json")
    return parse_json(await read_octets(request, limit, seconds))


async def read_octets(request: web.Request, limit: int, seconds: float) -> bytes:
    """The body, if it is not larger than `limit` and arrives within so many seconds. Problem: 408, 413, 415."""
    check_head(request, limit)
    body = bytearray()
    async with arriving(seconds):
        async for piece in request.content.iter_any():
            body += piece
            if len(body) > limit:
                raise too_large(limit)
    return bytes(body)


def check_head(request: web.Request, limit: int) -> None:
    """What the head says of the body. Problem: 413, 415."""
    if request.headers.get("Content-Encoding", "").strip().lower() not in _PLAIN_ENCODINGS:
        raise Problem(415, "an encoded body is not taken")
    if request.content_length is not None and request.content_length > limit:
        raise too_large(limit)


@asynccontextmanager
async def arriving(seconds: float) -> AsyncIterator[None]:
    """While a body is read: it may take so long. Problem: 400 where it breaks off, 408."""
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError:
        raise Problem(408, "the body took too long to arrive", headers={"Connection": "close"}) from None
    except web.RequestPayloadError:
        raise Problem(400, "the body is malformed", headers={"Connection": "close"}) from None


def too_large(limit: int) -> Problem:
    return Problem(413, f"the request is larger than {limit} octets", headers={"Connection": "close"})


def parse_json(octets: bytes) -> Any:
    """A document of UTF-8, no deeper than MAX_DEPTH, without keys that stand twice. Problem: 400."""
    try:
        text = octets.decode("utf-8")
        if _depth(text) > MAX_DEPTH:
            raise Problem(400, f"the document is nested deeper than {MAX_DEPTH} levels")
        return json.loads(text, object_pairs_hook=_object, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        raise Problem(400, "the body is no JSON document in UTF-8") from None


def _depth(text: str) -> int:
    """How deep brackets stand in each other, outside of strings."""
    deepest = depth = 0
    if text.count("[") + text.count("{") <= MAX_DEPTH:
        return deepest
    for token in _TOKEN.findall(text):
        if token in "[{":
            depth += 1
            deepest = max(deepest, depth)
        elif token in "]}":
            depth -= 1
    return deepest


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        raise Problem(400, "a key stands twice in an object")
    return made


def _no_constant(name: str) -> None:
    raise ValueError(name)


def fit(model: type[M], data: Any) -> M:
    """The data as a model. Problem: 422, with the fields named."""
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise _unfit(error) from None


def fit_query(model: type[M], query: Mapping[str, str]) -> M:
    """The parameters of a URL, which are text, as a model. Problem: 422."""
    try:
        return model.model_validate(dict(query), strict=False)
    except ValidationError as error:
        raise _unfit(error) from None


def _unfit(error: ValidationError) -> Problem:
    """The values themselves are not repeated: they may be passwords."""
    errors = [
        (".".join(_names(item["loc"])), item["msg"].removeprefix("Value error, "))
        for item in error.errors(include_url=False, include_input=False, include_context=False)[:MAX_ERRORS]
    ]
    return Problem(422, "the request is not as it should be", errors=errors)


def _names(place: tuple[int | str, ...]) -> list[str]:
    """Keys and indices; the kinds that pydantic tries for a union are none of the client's words."""
    return [str(name)[:100] for name in place if isinstance(name, int) or not re.search(r"[\[(]|^str$", name)]
