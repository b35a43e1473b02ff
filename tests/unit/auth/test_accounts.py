"""Locks and passwords of accounts."""

from __future__ import annotations

import pytest

from steward_server.auth.accounts import (
    WELL_KNOWN,
    Attempts,
    LockPolicy,
    WeakPassword,
    check_strength,
)

POLICY = LockPolicy(failures=3, lock_us=100)


def after(count: int, now_us: int = 0) -> Attempts:
    attempts = Attempts()
    for _ in range(count):
        attempts = attempts.after_failure(now_us, POLICY)
    return attempts


def test_it_locks_at_the_last_allowed_failure_and_not_before() -> None:
    assert not after(2).is_locked(0)
    assert after(3).is_locked(0)


def test_a_lock_ends_to_the_microsecond() -> None:
    locked = after(3, now_us=50)
    assert locked.is_locked(149)
    assert not locked.is_locked(150)


def test_after_a_lock_the_count_starts_anew() -> None:
    again = after(3).after_failure(100, POLICY).after_failure(100, POLICY)
    assert not again.is_locked(100)
    assert again.after_failure(100, POLICY).is_locked(100)


@pytest.mark.parametrize(
    "password", ["", "1234567", *sorted(WELL_KNOWN), "ChangeMe123", "root-user"]
)
def test_weak_passwords_are_refused(password: str) -> None:
    with pytest.raises(WeakPassword):
        check_strength(password, "Root-User")


@pytest.mark.parametrize("password", ["eightchr", "correct horse battery staple", "пароль-длинный"])
def test_others_are_accepted(password: str) -> None:
    check_strength(password, "admin")
