"""People as rows; those who were deleted are not there. No rule lives here."""

from __future__ import annotations

from steward_server.auth.accounts import Attempts, Role, User, UserState
from steward_server.db import Reader, Row, Transaction

_SELECT = (
    "SELECT user_id, username, email, password_hash, role, state, failed_logins, locked_until_us,"
    " created_at_us, must_change_password, last_login_at_us, suspended_at_us, suspend_reason,"
    " version FROM app_user WHERE deleted_at_us IS NULL"
)


async def user_by_username(reader: Reader, username: str) -> User | None:
    row = await reader.fetch_one(f"{_SELECT} AND username = ?", username)
    return _user(row) if row else None


async def user_by_email(reader: Reader, email: str) -> User | None:
    """`email` in lower case, as all are stored."""
    row = await reader.fetch_one(f"{_SELECT} AND email = ?", email)
    return _user(row) if row else None


async def user_by_id(reader: Reader, user_id: str) -> User | None:
    row = await reader.fetch_one(f"{_SELECT} AND user_id = ?", user_id)
    return _user(row) if row else None


async def first_administrator(reader: Reader) -> User | None:
    """The administrator who has been there longest, and may sign in."""
    row = await reader.fetch_one(
        f"{_SELECT} AND role = ? AND state = ? ORDER BY created_at_us, user_id LIMIT 1",
        Role.ADMIN.value,
        UserState.ACTIVE.value,
    )
    return _user(row) if row else None


async def count_active_administrators(reader: Reader) -> int:
    [row] = await reader.fetch_all(
        "SELECT count(*) AS admin_count FROM app_user"
        " WHERE role = ? AND state = ? AND deleted_at_us IS NULL",
        Role.ADMIN.value,
        UserState.ACTIVE.value,
    )
    return int(row["admin_count"])


async def has_administrator_beside(reader: Reader, user_id: str) -> bool:
    """Whether there is an administrator who may sign in, other than this user."""
    row = await reader.fetch_one(
        "SELECT user_id FROM app_user WHERE role = ? AND state = ? AND user_id <> ?"
        " AND deleted_at_us IS NULL LIMIT 1",
        Role.ADMIN.value,
        UserState.ACTIVE.value,
        user_id,
    )
    return row is not None


async def has_users(reader: Reader) -> bool:
    """Whether there ever was anybody."""
    return await reader.fetch_one("SELECT user_id FROM app_user LIMIT 1") is not None


async def is_username_taken(reader: Reader, username: str) -> bool:
    """Whether anybody has or had this name."""
    row = await reader.fetch_one("SELECT user_id FROM app_user WHERE username = ?", username)
    return row is not None


async def page(
    reader: Reader,
    *,
    role: Role | None,
    state: UserState | None,
    search: str,
    before: tuple[int, str] | None,
    limit: int,
) -> list[User]:
    """People, the newest first, after the last of the page before."""
    sql, parameters = _SELECT, list[object]()
    if role is not None:
        sql += " AND role = ?"
        parameters.append(role.value)
    if state is not None:
        sql += " AND state = ?"
        parameters.append(state.value)
    if search:
        sql += " AND search_text LIKE ? ESCAPE '!'"
        parameters.append(f"%{_escaped(search.lower())}%")
    if before is not None:
        sql += " AND (created_at_us, user_id) < (?, ?)"
        parameters.extend(before)
    rows = await reader.fetch_all(
        f"{sql} ORDER BY created_at_us DESC, user_id DESC LIMIT ?", *parameters, limit
    )
    return [_user(row) for row in rows]


async def insert_user(transaction: Transaction, user: User) -> None:
    await transaction.execute(
        "INSERT INTO app_user (user_id, username, email, password_hash, role, state,"
        " failed_logins, locked_until_us, created_at_us, must_change_password, search_text)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        user.user_id,
        user.username,
        user.email,
        user.password_hash,
        user.role.value,
        user.state.value,
        user.attempts.failed,
        user.attempts.locked_until_us,
        user.created_at_us,
        int(user.must_change_password),
        f"{user.username}\n{user.email or ''}".lower(),
    )


async def save(transaction: Transaction, user: User) -> None:
    """Write what may change of a person; name and address do not, the version by itself."""
    await transaction.execute(
        "UPDATE app_user SET password_hash = ?, role = ?, state = ?, failed_logins = ?,"
        " locked_until_us = ?, must_change_password = ?, last_login_at_us = ?,"
        " suspended_at_us = ?, suspend_reason = ? WHERE user_id = ?",
        user.password_hash,
        user.role.value,
        user.state.value,
        user.attempts.failed,
        user.attempts.locked_until_us,
        int(user.must_change_password),
        user.last_login_at_us,
        user.suspended_at_us,
        user.suspend_reason,
        user.user_id,
    )


async def delete(transaction: Transaction, user_id: str, now_us: int) -> None:
    """Hide a person for good. The row stays, and with it the name; the address is free."""
    await transaction.execute(
        "UPDATE app_user SET deleted_at_us = ?, email = NULL, password_hash = '', search_text = ''"
        " WHERE user_id = ?",
        now_us,
        user_id,
    )


def _escaped(text: str) -> str:
    """The text as a LIKE pattern that matches itself."""
    return text.replace("!", "!!").replace("%", "!%").replace("_", "!_")


def _user(row: Row) -> User:
    return User(
        row["user_id"],
        row["username"],
        row["email"],
        row["password_hash"],
        Role(row["role"]),
        UserState(row["state"]),
        Attempts(row["failed_logins"], row["locked_until_us"]),
        row["created_at_us"],
        bool(row["must_change_password"]),
        row["last_login_at_us"],
        row["suspended_at_us"],
        row["suspend_reason"],
        row["version"],
    )
