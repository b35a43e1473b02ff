"""People beside the administrator, put straight into the database."""

from __future__ import annotations

import sqlite3
from pathlib import Path


def add_person(data_dir: Path, username: str, role: str, *, email: str | None = None) -> str:
    """Someone with the first administrator's password; their id."""
    user_id = f"user_{username}"
    connection = sqlite3.connect(data_dir / "steward.db")
    with connection:
        connection.execute(
            "INSERT INTO app_user (user_id, username, email, password_hash, role, state,"
            " failed_logins, locked_until_us, created_at_us, search_text)"
            " SELECT ?, ?, ?, password_hash, ?, 'active', 0, 0, 1, ?"
            " FROM app_user WHERE username = 'admin'",
            (user_id, username, email, role, f"{username}\n{email or ''}".lower()),
        )
    connection.close()
    return user_id
