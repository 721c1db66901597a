"""What a route is: one table of them makes the application and the OpenAPI document.

A handler is called with what was checked already: who asks, a body and parameters that fit their models. It returns a
response, or raises what `problems.py` knows.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from aiohttp import web
from pydantic import BaseModel, ConfigDict

from admin_api import bodies, problems
from admin_api.problems import Problem

if TYPE_CHECKING:
    from admin_api.auth import Bearer
    from admin_api.service import Api

PREFIX = "/api/v1"
MAX_OF_STRANGERS = 32 * 1024
"""Octets of a JSON document that is sent without a login."""

_JSON = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))


@dataclass(frozen=True, slots=True)
class Call:
    """One request. bearer: whose it is, for routes that need a login; body, query: of the route's models."""

    api: Api
    request: web.Request
    bearer: Bearer | None = None
    body: Any = None
    query: Any = None

    @property
    def account_id(self) -> Any:
        assert self.bearer is not None
        return self.bearer.account.account_id

    @property
    def peer(self) -> str:
        """The client's address."""
        return peer_of(self.request)

    def path(self, name: str) -> str:
        return self.request.match_info[name]


class Nothing(BaseModel):
    """The query of a route that takes none."""

    model_config = ConfigDict(extra="forbid")


Handler = Callable[[Call], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True)
class Answer:
    """What a route may answer beside problems. media: where it is no JSON document of a model."""

    description: str
    model: type[BaseModel] | None = None
    media: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Route:
    """path: as in OpenAPI; parameters: its parameters' patterns. problems: statuses of its own, with what they mean.

    body: the model of a JSON body; form: of a multipart body that it takes as well: then the handler reads the body
    itself. headers: request headers that mean something here.
    """

    method: str
    path: str
    name: str
    summary: str
    handler: Handler
    answers: Mapping[int, Answer]
    tag: str
    login: bool = True
    body: type[BaseModel] | None = None
    form: type[BaseModel] | None = None
    query: type[BaseModel] | None = None
    parameters: Mapping[str, str] = field(default_factory=dict)
    problems: Mapping[int, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    description: str = ""


def web_routes(api: Api, routes: list[Route]) -> list[web.RouteDef]:
    """Every route, at the root and under the prefix; HEAD wherever there is GET (RFC 9110 §9.1)."""
    return [
        web.route(route.method, prefix + route.path, _handle(api, route)) for prefix in ("", PREFIX) for route in routes
    ]


def _handle(api: Api, route: Route) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def handle(request: web.Request) -> web.StreamResponse:
        bearer = await api.tokens.bearer(request) if route.login else None
        query = bodies.fit_query(route.query or Nothing, _parameters(request))
        body = None
        if route.body is not None and route.form is None:
            settings = api.config.http
            limit = settings.max_json_octets if route.login else min(settings.max_json_octets, MAX_OF_STRANGERS)
            data = await bodies.read_json(request, limit, settings.body_seconds)
            body = bodies.fit(route.body, data)
        return await route.handler(Call(api, request, bearer, body, query))

    return handle


def _parameters(request: web.Request) -> Mapping[str, str]:
    """Problem: 422 where one stands twice."""
    found = dict(request.query)
    if len(found) < len(request.query):
        twice = next(name for name in request.query if len(request.query.getall(name)) > 1)
        raise Problem(422, "the parameter stands twice", twice[:100])
    return found


def json_response(
    document: Mapping[str, Any], status: int = 200, headers: Mapping[str, str] | None = None
) -> web.Response:
    body = _JSON.encode(document).encode()
    return web.Response(body=body, status=status, content_type="application/json", headers=headers)


def peer_of(request: web.Request) -> str:
    peer = request.transport.get_extra_info("peername") if request.transport else None
    return str(peer[0]) if peer else ""


@web.middleware
async def answer_problems(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Whatever goes wrong is answered in one form, aiohttp's own refusals (404, 405 …) among it."""
    try:
        return await handler(request)
    except web.HTTPException as refusal:
        if refusal.status < 400:
            raise
        headers = {name: value for name, value in refusal.headers.items() if name == "Allow"}
        return problems.response(Problem(refusal.status, refusal.reason, headers=headers))
    except (ConnectionError, web.GracefulExit):
        raise
    except Exception as error:
        return problems.response(problems.problem_of(error))
