"""People who may sign in, and when their account is locked. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import Enum

LEAST_PASSWORD = 8
"""Characters of a password, NIST SP 800-63B §5.1.1.2."""

WELL_KNOWN = frozenset(
    {
        "admin",
        "admin123",
        "adminadmin",
        "administrator",
        "changeit",
        "changeme",
        "changeme123",
        "default",
        "letmein",
        "letmein123",
        "password",
        "password1",
        "password123",
        "passw0rd",
        "qwerty123",
        "secret123",
        "steward",
        "steward123",
        "stewardadmin",
        "test1234",
        "welcome1",
        "12345678",
        "123456789",
        "1234567890",
    }
)
"""What is tried first by anyone who guesses."""


class Role(Enum):
    """What a person may do."""

    ADMIN = "admin"
    USER = "user"
    VIEWER = "viewer"


class UserState(Enum):
    """Whether a person may sign in."""

    ACTIVE = "active"
    SUSPENDED = "suspended"


@dataclass(frozen=True, slots=True)
class LockPolicy:
    """How many guesses an account bears."""

    failures: int
    lock_us: int


@dataclass(frozen=True, slots=True)
class Attempts:
    """Wrong passwords in a row, and the lock they led to."""

    failed: int = 0
    locked_until_us: int = 0

    def is_locked(self, now_us: int) -> bool:
        """Whether not even the right password helps now."""
        return now_us < self.locked_until_us

    def after_failure(self, now_us: int, policy: LockPolicy) -> Attempts:
        """One more; the one that locks starts the count anew, for when the lock is over."""
        failed = self.failed + 1
        if failed < policy.failures:
            return replace(self, failed=failed)
        return Attempts(0, now_us + policy.lock_us)


@dataclass(frozen=True, slots=True)
class User:
    """A person."""

    user_id: str
    username: str
    email: str | None
    password_hash: str = field(repr=False)
    role: Role
    state: UserState
    attempts: Attempts
    created_at_us: int
    must_change_password: bool = False
    """Whether they can do nothing else before."""
    last_login_at_us: int | None = None
    suspended_at_us: int | None = None
    suspend_reason: str = ""
    version: int = 1

    @property
    def is_active_admin(self) -> bool:
        return self.role is Role.ADMIN and self.state is UserState.ACTIVE

    def with_password(self, password_hash: str, *, must_change: bool) -> User:
        """Another password; a lock of the account is over with it."""
        return replace(
            self,
            password_hash=password_hash,
            must_change_password=must_change,
            attempts=Attempts(),
        )


class BadName(Exception):
    """A name that nobody can sign in by; the message says why."""


def check_name(username: str) -> None:
    """Refuse a name that is no user name.

    Raises:
        BadName: it looks like an address, or begins or ends with a space.
    """
    if "@" in username:
        raise BadName('holds "@", which only addresses do')
    if username != username.strip():
        raise BadName("begins or ends with a space")


class WeakPassword(Exception):
    """A password is too easy to guess; the message says why."""


def check_strength(password: str, username: str) -> None:
    """Refuse what is tried first: anybody's, as anybody may be made an administrator later.

    Raises:
        WeakPassword: it is short, well known or the user's own name.
    """
    if len(password) < LEAST_PASSWORD:
        raise WeakPassword(f"has {len(password)} characters; it needs {LEAST_PASSWORD} or more")
    if password.lower() in WELL_KNOWN or password.lower() == username.lower():
        raise WeakPassword("is one of those tried first; choose another")
