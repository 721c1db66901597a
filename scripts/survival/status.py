"""STATUS (RFC 3501 §6.3.10, RFC 7162 §3.1.7)."""

from __future__ import annotations

import re

from survival.imap import Session

ITEMS = ("MESSAGES", "UNSEEN", "UIDNEXT", "UIDVALIDITY", "HIGHESTMODSEQ")


def status(session: Session, mailbox: str) -> dict[str, int]:
    """The values by name; nothing where the server refuses."""
    answer = session.run(f"STATUS {mailbox} ({' '.join(ITEMS)})")
    text = b" ".join(line for line in answer.untagged if line.startswith(b"STATUS ")).decode()
    return {name: int(value) for name, value in re.findall(r"\b([A-Z]+) (\d+)", text)} if answer.is_ok else {}
