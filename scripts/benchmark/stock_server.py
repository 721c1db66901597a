"""The yardstick: aiosmtpd as it comes, with a handler that drops every message, on uvloop. Takes its port."""

from __future__ import annotations

import asyncio
import sys

import uvloop
from aiosmtpd.smtp import SMTP, Envelope, Session

from benchmark.ports import LOOPBACK

_MAX_MESSAGE_OCTETS = 50 * 1024 * 1024


class Null:
    """Accepts everything, keeps nothing."""

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802
        return "250 OK"


def _protocol() -> SMTP:
    # A host name must be given: without it each connection would ask the resolver for it, blocking.
    return SMTP(Null(), hostname="bench.example.test", data_size_limit=_MAX_MESSAGE_OCTETS)


async def _serve(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(_protocol, LOOPBACK, port, backlog=1024)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(_serve(int(sys.argv[1])))
