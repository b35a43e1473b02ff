"""What a start makes and refuses: administrator, signing key, static token."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import structlog

from steward_server.auth import store, user_store
from steward_server.auth.access_tokens import Claims
from steward_server.auth.accounts import Role
from steward_server.auth.administrator import ensure_first_administrator
from steward_server.auth.authenticator import check_static_token
from steward_server.auth.keys import load_signer
from steward_server.auth.passwords import Passwords
from steward_server.auth.tasks import KEPT_US, sweep
from steward_server.config import BadSetting
from steward_server.db.migrate import migrate
from steward_server.db.sqlite import Sqlite
from steward_server.errors import Unauthenticated
from steward_server.vault import Vault

VAULT = Vault({1: bytes(32)})
CLAIMS = Claims("session_1", "user_1", "admin", 1_000, 4_600)
NOW_US = 2_000_000_000


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Sqlite]:
    opened = await Sqlite.open(tmp_path / "steward.db")
    await migrate(opened, [f"steward_server.{room}" for room in ("events", "audit", "auth")])
    yield opened
    await opened.close()


@pytest.fixture
def passwords() -> Iterator[Passwords]:
    made = Passwords(workers=1, queue=8)
    yield made
    made.close()


async def ensure(
    database: Sqlite,
    passwords: Passwords,
    *,
    username: str = "admin",
    password: str | None = None,
    development: bool = False,
) -> str | None:
    return await ensure_first_administrator(
        database,
        passwords,
        username=username,
        password=password,
        development=development,
        clock=lambda: NOW_US,
    )


async def test_the_first_start_makes_an_administrator_and_shows_the_password_once(
    database: Sqlite, passwords: Passwords
) -> None:
    shown = await ensure(database, passwords)
    assert shown is not None
    assert len(shown) >= 20
    assert await ensure(database, passwords) is None
    user = await user_store.first_administrator(database)
    assert user is not None
    assert (user.username, user.role) == ("admin", Role.ADMIN)
    assert await passwords.matches(user.password_hash, shown)


async def test_a_password_that_was_given_is_not_shown(
    database: Sqlite, passwords: Passwords
) -> None:
    assert await ensure(database, passwords, password="a long enough one") is None
    user = await user_store.first_administrator(database)
    assert user is not None
    assert await passwords.matches(user.password_hash, "a long enough one")


async def test_a_weak_password_is_refused_outside_the_development_profile(
    database: Sqlite, passwords: Passwords
) -> None:
    for weak in ("short", "password", "changeme", "administrator"):
        with pytest.raises(BadSetting, match="STEWARD_ADMIN_PASSWORD") as caught:
            await ensure(database, passwords, password=weak)
        assert weak not in str(caught.value).removeprefix("STEWARD_ADMIN_PASSWORD")
    assert not await user_store.has_users(database)
    await ensure(database, passwords, password="admin", development=True)
    assert await user_store.has_users(database)


@pytest.mark.parametrize("username", ["", "a" * 256, "a\nb", "ops@example.com", " root"])
async def test_the_administrators_name_has_bounds(
    database: Sqlite, passwords: Passwords, username: str
) -> None:
    with pytest.raises(BadSetting, match="STEWARD_ADMIN_USER"):
        await ensure(database, passwords, username=username)


async def test_the_signing_key_is_made_once_and_kept_sealed(database: Sqlite) -> None:
    first = await load_signer(database, VAULT, NOW_US)
    second = await load_signer(database, VAULT, NOW_US)
    assert second.read(first.sign(CLAIMS), NOW_US) == CLAIMS
    ((_, sealed),) = await store.signing_keys(database)
    assert first._private.private_bytes_raw() not in sealed


async def test_a_lost_signing_key_is_told_of_and_replaced(database: Sqlite) -> None:
    lost = await load_signer(database, VAULT, NOW_US)
    with structlog.testing.capture_logs() as lines:
        fresh = await load_signer(database, Vault({1: bytes([7] * 32)}), NOW_US + 1)
    assert [line["event"] for line in lines] == ["auth.signing_key_lost"]
    with pytest.raises(Unauthenticated):
        fresh.read(lost.sign(CLAIMS), NOW_US)


async def test_expired_sessions_are_forgotten_a_day_later(database: Sqlite) -> None:
    user_sql = (
        "INSERT INTO app_user (user_id, username, password_hash, role, state, failed_logins,"
        " locked_until_us, created_at_us) VALUES ('user_1', 'a', 'x', 'user', 'active', 0, 0, 0)"
    )
    session_sql = (
        "INSERT INTO session (session_id, family_id, user_id, created_at_us, expires_at_us)"
        " VALUES (?, 'family_1', 'user_1', 1, ?)"
    )

    async def fill(transaction: object) -> None:
        await transaction.execute(user_sql)  # type: ignore[attr-defined]
        await transaction.execute(session_sql, "session_1", 10)  # type: ignore[attr-defined]
        await transaction.execute(session_sql, "session_2", 11)  # type: ignore[attr-defined]

    await database.run(fill)
    assert await sweep(database, KEPT_US + 10) == 0
    assert await sweep(database, KEPT_US + 11) == 1
    assert await store.session(database, "session_2") is not None


@pytest.mark.parametrize(
    "token", ["", "fifteen-letters", "cyborgmind-secret", "Cyborg-Secret-v2", "0123456789abcdef"]
)
def test_a_static_token_that_can_be_guessed_is_refused(token: str) -> None:
    with pytest.raises(BadSetting, match="STEWARD_STATIC_TOKEN"):
        check_static_token(token, development=False)
    check_static_token(token, development=True)


def test_a_good_static_token_or_none_is_accepted() -> None:
    check_static_token("3b2f8e0c9a7d41d6", development=False)
    check_static_token(None, development=False)
