"""What the outbound queue still holds, by SQL."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from mailserver.cli.context import Given, node
from storage.connect import connect

_PAUSE_SECONDS = 0.25
_RECIPIENTS = """
SELECT q.trace_id, r.recipient, r.state, r.attempts, r.report, r.last_code, r.last_text,
    r.next_attempt_at - now() AS due, r.lease_until - now() AS lease
FROM queue_recipients r LEFT JOIN queue_messages q ON q.account_id = r.account_id AND q.queue_id = r.queue_id
ORDER BY r.next_attempt_at
"""
_MESSAGES = "SELECT trace_id, open FROM queue_messages WHERE done_at IS NULL OR open <> 0"


async def await_empty(data: Path, settings: Path, seconds: float) -> list[str]:
    """Waits until nobody is in the queue; a line for each recipient, or message, that still is after so long."""
    left: list[str] = []
    async with node(Given(data, settings)) as found:
        conn = await connect(found.dsn, timeout=seconds)
        try:
            for _ in range(round(seconds / _PAUSE_SECONDS)):
                left = await _left(conn)
                if not left:
                    break
                await asyncio.sleep(_PAUSE_SECONDS)
        finally:
            await conn.close()
    return left


async def _left(conn: Any) -> list[str]:
    recipients = await conn.fetch(_RECIPIENTS)
    messages = [] if recipients else await conn.fetch(_MESSAGES)
    return [f"queue: {', '.join(f'{name} {value}' for name, value in row.items())}" for row in (*recipients, *messages)]
