"""What a client shows to say who calls, and how it is renewed before it ends."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from steward_client.client.values import User, value_of

RENEW_BEFORE_S = 30
"""An access token with less than this left is renewed before a call."""


@dataclass(frozen=True, slots=True)
class SignIn:
    """Somebody's pair of tokens: one to show, one to get the next pair with."""

    access_token: str = field(repr=False)
    refresh_token: str = field(repr=False)
    expires_at_s: float
    """When the access token ends, in seconds since 1970 by this machine's clock."""
    user: User
    must_change_password: bool = False
    """Whether nothing else can be done before; known of a login only."""

    def is_ending(self, now_s: float) -> bool:
        return now_s >= self.expires_at_s - RENEW_BEFORE_S


class SignInStore(Protocol):
    """Where a sign-in outlives the client. Several processes may share one."""

    def load(self) -> SignIn | None: ...

    def save(self, sign_in: SignIn | None) -> None:
        """Keep it in place of the one before; None forgets it."""
        ...


class Memory:
    """A store that lasts as long as the client."""

    def __init__(self) -> None:
        self._sign_in: SignIn | None = None

    def load(self) -> SignIn | None:
        return self._sign_in

    def save(self, sign_in: SignIn | None) -> None:
        self._sign_in = sign_in


class Credentials:
    """A fixed token, or a sign-in that is renewed."""

    def __init__(self, token: str | None, store: SignInStore, clock: Callable[[], float]) -> None:
        self._token = token
        self._store = store
        self._clock = clock

    @property
    def shown(self) -> str:
        """The token to show now; empty for none."""
        if self._token is not None:
            return self._token
        sign_in = self._store.load()
        return sign_in.access_token if sign_in else ""

    def ends_within(self, time_s: float) -> bool:
        """Whether the token shown is not good for so long, and a moment more."""
        sign_in = None if self._token is not None else self._store.load()
        return sign_in is not None and sign_in.is_ending(self._clock() + time_s)

    @property
    def refresh_token(self) -> str:
        """What a new pair is got with; empty if there is no way to get one."""
        sign_in = None if self._token is not None else self._store.load()
        return sign_in.refresh_token if sign_in else ""

    def keep(self, answer: Any) -> SignIn:
        """Take the pair of an answer to a login or a refresh."""
        sign_in = SignIn(
            access_token=answer.access_token,
            refresh_token=answer.refresh_token,
            expires_at_s=self._clock() + answer.expires_in,
            user=value_of(User, answer.user),
            must_change_password=getattr(answer, "must_change_password", False),
        )
        self._token = None
        self._store.save(sign_in)
        return sign_in

    def forget(self) -> None:
        self._token = None
        self._store.save(None)
