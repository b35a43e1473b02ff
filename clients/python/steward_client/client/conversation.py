"""How a call is brought to its answer: who calls, renewal, and what is tried again. Pure.

A conversation is a generator: it says what to send or how long to wait, and is told what came of
it. The two clients differ only in how they do these two things.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from google.protobuf.message import Message

from steward.auth.v1 import auth_pb2
from steward.auth.v1.auth_pb2_grpc import AuthServiceStub
from steward_client.client.calls import Call, first
from steward_client.client.credentials import Credentials
from steward_client.errors import (
    CircuitOpen,
    RateLimited,
    StewardError,
    Unauthorized,
    Unavailable,
)

T = TypeVar("T")

Metadata = tuple[tuple[str, str], ...]

FIRST_DELAY_S = 0.1
LONGEST_DELAY_S = 5.0


@dataclass(frozen=True, slots=True)
class Send:
    """Make this call and tell the conversation its answer, or throw its error into it."""

    call: Call[Any]
    metadata: Metadata
    timeout_s: float | None = None
    """How much is left of the time that the call was given; None: what the client allows."""


@dataclass(frozen=True, slots=True)
class Wait:
    """Let this much time pass."""

    delay_s: float


@dataclass(frozen=True, slots=True)
class Read:
    """Wait for the next message of an open stream."""

    stream: Any
    may_end: bool = False
    """The stream has an end, which is told as None; else its end is an error."""


@dataclass(frozen=True, slots=True)
class Say:
    """Send another message over an open stream that goes both ways."""

    stream: Any
    message: Message
    until_sent: bool = False
    """Wait until it has gone, however crowded the stream is."""


Step = Send | Wait | Read | Say
Conversation = Generator[Step, Any, T]


@dataclass(frozen=True, slots=True)
class Manners:
    """What every conversation of one client keeps to."""

    credentials: Credentials
    patience_s: float
    """How long a repeatable call is tried again for, in all."""
    delays_s: Callable[[], Iterator[float]]
    """Waits before the second attempt, the third, …"""
    attempts: int | None = None
    """How often a call is made at the most; None: as often as patience allows."""
    clock: Callable[[], float] = time.monotonic

    def converse(self, call: Call[T]) -> Conversation[T]:
        """Bring a call to its answer, page after page."""
        answers = [(yield from self.ask(call))]
        while (request := call.next_page(answers[-1])) is not None:
            answers.append((yield from self.ask(replace(call, request=request))))
        return call.read(answers)

    def ask(self, call: Call[Any]) -> Conversation[Any]:
        """One request and its answer: a message, or an open stream."""
        if not call.public and self.credentials.ends_within(call.lasts_s):
            yield from self._renew(self.credentials.shown)
        ends_s = None if call.within_s is None else self.clock() + call.within_s
        delays_s, waited_s, renewed, made = self.delays_s(), 0.0, False, 0
        while True:
            shown = "" if call.public else self.credentials.shown
            left_s = None if ends_s is None else max(0.0, ends_s - self.clock())
            try:
                return (yield Send(call, bearer(shown), left_s))
            except Unauthorized:
                if renewed or not shown or not (yield from self._renew(shown)):
                    raise
                renewed = True
            except (Unavailable, RateLimited, CircuitOpen) as error:
                made += 1
                delay_s = max(next(delays_s), error.retry_after_s or 0.0)
                if (
                    not _helps(call, error)
                    or made == self.attempts
                    or waited_s + delay_s > self.patience_s
                    or (ends_s is not None and self.clock() + delay_s >= ends_s)
                ):
                    raise
                waited_s += delay_s
                yield Wait(delay_s)

    def _renew(self, shown: str) -> Conversation[bool]:
        """Get another token than the one shown; False if there is no way to."""
        if self.credentials.shown != shown:
            return True  # whoever shares the sign-in has renewed it meanwhile
        if not self.credentials.refresh_token:
            return False
        try:
            yield from self.converse(renewal(self.credentials))
        except Unauthorized:
            self.credentials.forget()
            return False
        return True


def _helps(call: Call[Any], error: StewardError) -> bool:
    """Whether the same call may be made again, and is worth it."""
    if error.retry_after_s is not None:
        return True  # the server refused it, so nothing was done, and says when it will not
    if isinstance(error, RateLimited):
        return False  # a quota, which waiting does not change
    return call.repeatable


def renewal(credentials: Credentials) -> Call[Any]:
    """The call that exchanges the refresh token for a new pair, and keeps it."""
    return Call(
        AuthServiceStub,
        "Refresh",
        auth_pb2.RefreshRequest(refresh_token=credentials.refresh_token),
        read=first(credentials.keep),
        repeatable=True,  # for ten seconds a spent token gives its successor again
        public=True,
    )


def bearer(token: str) -> Metadata:
    return (("authorization", f"Bearer {token}"),) if token else ()


def growing_delays_s() -> Iterator[float]:
    """Twice as long each time, spread so that many clients do not come back at once."""
    delay_s = FIRST_DELAY_S
    while True:
        yield delay_s * random.uniform(0.5, 1.0)  # noqa: S311 - spreads load, guards nothing
        delay_s = min(delay_s * 2, LONGEST_DELAY_S)
