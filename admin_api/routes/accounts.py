"""Registration, login and logout."""

from __future__ import annotations

import logging

from aiohttp import web

from admin_api import schemas
from admin_api.route import Answer, Call, Route, json_response
from mailserver.administration.registration import register

log = logging.getLogger(__name__)


async def post_register(call: Call) -> web.StreamResponse:
    account = await register(
        call.api.store,
        call.api.logins,
        username=call.body.username,
        email=call.body.email,
        password=call.body.password,
        peer=call.peer,
        reserved=call.api.config.auth.reserved_names,
    )
    log.info("registered account=%s address=<%s> peer=%s", account.account_id, account.primary_address, call.peer)
    return json_response({"username": account.username, "email": account.primary_address}, 201)


async def post_login(call: Call) -> web.StreamResponse:
    account = await call.api.logins.check(call.body.username, call.body.password, peer=call.peer, service="api")
    token, seconds = await call.api.tokens.issue(account)
    return json_response({"token": token, "token_type": "Bearer", "expires_in": seconds})


async def post_logout(call: Call) -> web.StreamResponse:
    assert call.bearer is not None
    await call.api.tokens.revoke(call.bearer)
    return web.Response(status=204)


ROUTES = [
    Route(
        "POST",
        "/register",
        "register",
        "Make an account for yourself",
        post_register,
        {201: Answer("The account is there.", schemas.AccountDocument)},
        "accounts",
        login=False,
        body=schemas.Registration,
        problems={
            403: "The domain is not open for registration.",
            409: "The address or the user name is taken.",
            429: "Too many accounts were registered from this address.",
        },
        description="In domains that are open for registration: `pillarbox admin domain add NAME --registration open`.",
    ),
    Route(
        "POST",
        "/login",
        "login",
        "Get a token",
        post_login,
        {200: Answer("A token for the account.", schemas.Token)},
        "accounts",
        login=False,
        body=schemas.Credentials,
        problems={
            401: "Wrong name or password.",
            403: "The password is right, and the account is disabled.",
            429: "Too many failed logins; they are counted together with those of IMAP and SMTP.",
        },
    ),
    Route(
        "POST",
        "/logout",
        "logout",
        "Take the token back",
        post_logout,
        {204: Answer("The token is of no use any more.")},
        "accounts",
    ),
]
