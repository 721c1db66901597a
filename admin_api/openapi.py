"""The OpenAPI 3.1 document, made from the table of routes and the models of their documents."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import JsonSchemaMode, models_json_schema

from admin_api import problems
from admin_api.route import PREFIX, Answer, Route
from admin_api.schemas import ProblemDocument

_TAGS = {
    "accounts": "Registration, login and logout.",
    "emails": "Sending and reading messages.",
    "contacts": "The address book.",
}
_SCHEMES = {
    "token": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT", "description": "POST /login gives it."}
}
_INTRODUCTION = """\
Every route is there under `/api/v1` and at the root. Errors are documents of `application/problem+json` (RFC 9457) that
name the field which is wrong. Unknown fields and parameters are refused. Ids are opaque texts.
"""
_EVERYWHERE = {
    400: "The request is malformed.",
    422: "The request is not as it should be; `errors` says which field or parameter.",
    503: "The server cannot serve now; `Retry-After` says when to try again.",
}
_WITH_LOGIN = {401: "A token is needed, or the one that was sent is not good."}
_WITH_BODY = {
    408: "The body took too long to arrive.",
    413: "The body is too large.",
    415: "The body is of a type that is not taken.",
}


def document(routes: Sequence[Route]) -> dict[str, Any]:
    """The document of these routes."""
    references, schemas = _schemas(routes)
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, references)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Pillarbox",
            "version": _version(),
            "description": _INTRODUCTION,
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": PREFIX}, {"url": "/"}],
        "tags": [{"name": name, "description": text} for name, text in _TAGS.items()],
        "paths": paths,
        "components": {"schemas": schemas, "securitySchemes": _SCHEMES},
    }


References = Mapping[Any, dict[str, Any]]
"""By model and mode."""


def _schemas(routes: Iterable[Route]) -> tuple[References, dict[str, Any]]:
    """A reference for each model, and what they refer to."""
    wanted: dict[tuple[type[BaseModel], JsonSchemaMode], None] = {(ProblemDocument, "serialization"): None}
    for route in routes:
        for taken in (route.body, route.form, route.query):
            if taken is not None:
                wanted[taken, "validation"] = None
        for answer in route.answers.values():
            if answer.model is not None:
                wanted[answer.model, "serialization"] = None
    references, whole = models_json_schema(list(wanted), by_alias=True, ref_template="#/components/schemas/{model}")
    return references, whole["$defs"]


def _operation(route: Route, references: References) -> dict[str, Any]:
    made: dict[str, Any] = {
        "operationId": route.name,
        "summary": route.summary,
        "tags": [route.tag],
        "security": [{"token": []}] if route.login else [],
        "parameters": list(_parameters(route)),
        "responses": dict(sorted(_responses(route, references).items())),
    }
    if route.description:
        made["description"] = route.description
    content = {
        media: {"schema": references[model, "validation"]}
        for media, model in (("application/json", route.body), ("multipart/form-data", route.form))
        if model is not None
    }
    if content:
        made["requestBody"] = {"required": True, "content": content}
    return made


def _parameters(route: Route) -> Iterable[dict[str, Any]]:
    for name, pattern in route.parameters.items():
        yield {"name": name, "in": "path", "required": True, "schema": {"type": "string", "pattern": pattern}}
    for name, text in route.headers.items():
        schema = {"type": "string", "pattern": "^[!-~]{1,255}$"}
        yield {"name": name, "in": "header", "required": False, "description": text, "schema": schema}
    if route.query is not None:
        properties = route.query.model_json_schema(by_alias=True)["properties"]
        for name, about in properties.items():
            text = about.pop("description", "")
            about.pop("title", None)
            yield {"name": name, "in": "query", "required": False, "description": text, "schema": _one_type(about)}


def _one_type(schema: dict[str, Any]) -> dict[str, Any]:
    """A parameter is there or not; it is never null."""
    kinds = [kind for kind in schema.get("anyOf", ()) if kind != {"type": "null"}]
    return kinds[0] if len(kinds) == 1 else schema


def _responses(route: Route, references: References) -> dict[str, Any]:
    said = dict(_EVERYWHERE)
    if route.login:
        said |= _WITH_LOGIN
    if route.body is not None:
        said |= _WITH_BODY
    said |= route.problems
    problem = {"schema": references[ProblemDocument, "serialization"]}
    made = {
        str(status): {"description": text, "content": {problems.MEDIA_TYPE: problem}} for status, text in said.items()
    }
    return made | {str(status): _answer(answer, references) for status, answer in route.answers.items()}


def _answer(answer: Answer, references: References) -> dict[str, Any]:
    made: dict[str, Any] = {"description": answer.description}
    if answer.model is not None:
        made["content"] = {"application/json": {"schema": references[answer.model, "serialization"]}}
    elif answer.media:
        made["content"] = {answer.media: {}}
    if answer.headers:
        made["headers"] = {
            name: {"description": text, "schema": {"type": "string"}} for name, text in answer.headers.items()
        }
    return made


def _version() -> str:
    try:
        return version("pillarbox")
    except PackageNotFoundError:  # run from a folder that was not installed
        return "0"
