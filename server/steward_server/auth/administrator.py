"""The first administrator, made when nobody is there yet."""

from __future__ import annotations

import secrets
from collections.abc import Callable

from steward_server.audit import Change, record
from steward_server.auth import user_store as store
from steward_server.auth.accounts import (
    Attempts,
    BadName,
    Role,
    User,
    UserState,
    WeakPassword,
    check_name,
    check_strength,
)
from steward_server.auth.passwords import Passwords
from steward_server.config import BadSetting
from steward_server.db import Database, Transaction
from steward_server.events.store import NewEntry, append
from steward_server.ids import new_id


async def ensure_first_administrator(
    database: Database,
    passwords: Passwords,
    *,
    username: str,
    password: str | None,
    development: bool,
    clock: Callable[[], int],
) -> str | None:
    """Create the administrator if there is no user at all.

    Returns:
        The password that was made for them, to be shown once; None if one was given, or if there
        was a user already.

    Raises:
        BadSetting: the password given is weak, and this is not the development profile; the name is
            empty, too long, or an address.
    """
    if not 1 <= len(username) <= 255 or not username.isprintable():
        raise BadSetting(f"STEWARD_ADMIN_USER is {username!r}; it takes 1 to 255 characters")
    try:
        check_name(username)
    except BadName as error:
        raise BadSetting(f"STEWARD_ADMIN_USER is {username!r}; it {error}") from None
    if password is not None and not development:
        try:
            check_strength(password, username)
        except WeakPassword as error:
            raise BadSetting(
                f"STEWARD_ADMIN_PASSWORD {error}, or leave it out to have one made"
            ) from None
    if await store.has_users(database):
        return None
    chosen = password or secrets.token_urlsafe(18)
    now_us = clock()
    user = User(
        new_id("user"),
        username,
        None,
        await passwords.hash(chosen),
        Role.ADMIN,
        UserState.ACTIVE,
        Attempts(),
        now_us,
    )

    async def work(transaction: Transaction) -> bool:
        if await store.has_users(transaction):
            return False
        await store.insert_user(transaction, user)
        body = {"username": username, "role": user.role.value}
        await append(transaction, now_us, NewEntry("user.created", body, subject=user.user_id))
        await record(transaction, now_us, None, Change("user.created", user.user_id, after=body))
        return True

    created = await database.run(work)
    return chosen if created and password is None else None
