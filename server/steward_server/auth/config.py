"""Settings of the auth room."""

from __future__ import annotations

from dataclasses import dataclass

from steward_server.auth.accounts import LockPolicy
from steward_server.auth.sessions import Lifetimes
from steward_server.config import setting


@dataclass(frozen=True, slots=True)
class AuthConfig:
    """How people sign in, and for how long."""

    access_token_ttl_s: int = setting(
        3_600, "How long an access token is good for, in seconds.", minimum=1
    )
    refresh_token_ttl_s: int = setting(
        7 * 86_400, "How long a refresh token is good for, in seconds.", minimum=1
    )
    refresh_grace_s: float = setting(
        10.0, "How long a spent refresh token gives its successor again, in seconds.", minimum=0
    )
    logins_per_minute: int = setting(
        10, "Attempts to sign in per minute and address; 0: any number.", minimum=0
    )
    lock_after_failures: int = setting(
        10, "Wrong passwords in a row after which an account is locked.", minimum=1
    )
    lock_s: float = setting(1_800.0, "How long an account stays locked, in seconds.", minimum=1)
    password_workers: int = setting(
        2, "Passwords checked at the same time, each on a thread with 19 MiB.", minimum=1
    )
    password_queue: int = setting(
        32, "Passwords that may wait to be checked; more sign-ins are refused.", minimum=0
    )
    sweep_interval_s: float = setting(
        3_600.0, "How often ended sessions are deleted, in seconds.", minimum=1
    )

    def lock_policy(self) -> LockPolicy:
        """The same as the rules take it."""
        return LockPolicy(self.lock_after_failures, round(self.lock_s * 1e6))

    def lifetimes(self) -> Lifetimes:
        """The same as sessions take it."""
        return Lifetimes(
            access_token_us=self.access_token_ttl_s * 1_000_000,
            refresh_token_us=self.refresh_token_ttl_s * 1_000_000,
            grace_us=round(self.refresh_grace_s * 1e6),
        )
