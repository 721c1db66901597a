"""What an empty installation begins with: its first domain, and the superadmin who makes everything else."""

from __future__ import annotations

from mailserver.administration import accounts, domains
from mailserver.administration.accounts import Added, Wish
from mailserver.passwords import Hasher
from storage import SYSTEM, Store, mailboxes
from storage import accounts as stored

USERNAME = "admin"


async def begin(store: Store, hasher: Hasher, domain: str) -> Added | None:
    """Makes the domain and `admin@domain` with a password made up; None where there is an account already.

    Several nodes may begin on one database at the same time: one of them makes the account, and only it knows the
    password. Refused: the domain cannot be one.
    """
    await mailboxes.create_account_state(store, SYSTEM)
    if await is_done(store):
        return None
    made = await domains.add(store, domain)
    added = await accounts.add(store, hasher, Wish(f"{USERNAME}@{made.domain.name}", USERNAME, role="superadmin"))
    return added if added.created else None


async def is_done(store: Store) -> bool:
    """Is there an account?"""
    return bool(await stored.list_page(store, limit=1))
