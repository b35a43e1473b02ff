"""One lease's share of the limits on its agent, as its runtime keeps to it. Pure.

Calls are counted over any 60 seconds, tokens from the beginning of the lease on. Time is a
monotonic clock's seconds and comes in as an argument. What is counted without a limit is there
when one comes.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import NamedTuple

WINDOW_S = 60.0
NOTHING_SHARED_S = 5.0
"""When to try again where the share is nothing, for now."""

STARTING_S = 1.0
"""When to try again where calls that are just being started have taken the share."""


class Told(NamedTuple):
    """What the server tells a lease; None is no limit."""

    version: int
    requests: int | None = None
    tokens: int | None = None
    requests_scope: str = ""
    requests_limit: int = 0
    tokens_scope: str = ""
    tokens_limit: int = 0
    tokens_reset_at_s: float = 0.0
    """When the day's tokens are counted anew, by the runtime's clock."""


class LimitReached(Exception):
    """A limit does not let the call be started; `is_money` if it is one on what may be spent."""

    def __init__(self, message: str, *, retry_after_s: float | None, is_money: bool) -> None:
        super().__init__(message)
        self.message = message
        self.retry_after_s = retry_after_s
        self.is_money = is_money


@dataclass(slots=True)
class Allowance:
    """What one lease may start and use."""

    told: Told = Told(0)
    tokens_used: int = 0
    tokens_held: int = 0
    _starting: int = 0
    _started_s: deque[float] = field(default_factory=deque)

    def obey(self, told: Told) -> bool:
        """Keep to this from now on; False if something newer is known already."""
        if told.version < self.told.version:
            return False
        self.told = told
        return True

    # Requests.

    def calls_in_window(self, now_s: float) -> int:
        """Calls started in the last 60 seconds."""
        while self._started_s and now_s - self._started_s[0] >= WINDOW_S:
            self._started_s.popleft()
        return self._starting + len(self._started_s)

    def requests_held(self, now_s: float) -> int:
        """What others may not have yet: the share, or what was started within it before."""
        return max(self.told.requests or 0, self.calls_in_window(now_s))

    def gives_back(self, now_s: float) -> bool:
        """Whether more was started than the share allows now."""
        share = self.told.requests
        return share is not None and self.calls_in_window(now_s) > share

    def next_leaves_s(self, now_s: float) -> float:
        """How long until the oldest call counts no more."""
        if not self._started_s:
            return STARTING_S
        return max(0.0, self._started_s[0] + WINDOW_S - now_s)

    def begin(self, now_s: float) -> None:
        """Count a call that is about to be sent; `sent` or `cancel` must follow.

        Raises:
            LimitReached: the share is used up.
        """
        share = self.told.requests
        if share is not None and self.calls_in_window(now_s) >= share:
            wait_s = self._wait_s(share, now_s)
            raise LimitReached(
                f"the limit of {self.told.requests_limit} requests per minute on "
                f"{self.told.requests_scope!r} is reached: {share} of them are this runtime's "
                f"share, and they are used; try again in {wait_s:.0f} s",
                retry_after_s=wait_s,
                is_money=False,
            )
        self._starting += 1

    def sent(self, now_s: float) -> None:
        """The call is being sent now."""
        self._starting -= 1
        self._started_s.append(now_s)

    def cancel(self) -> None:
        """The call will not be sent."""
        self._starting -= 1

    def _wait_s(self, share: int, now_s: float) -> float:
        if share == 0:
            return NOTHING_SHARED_S
        leaving = self.calls_in_window(now_s) - share
        if leaving >= len(self._started_s):
            return STARTING_S
        return self._started_s[leaving] + WINDOW_S - now_s

    # Tokens.

    @property
    def available_tokens(self) -> int | None:
        """What a new call may use; None: any number."""
        if self.told.tokens is None:
            return None
        return max(0, self.told.tokens - self.tokens_used - self.tokens_held)

    @property
    def tokens_claimed(self) -> int:
        """What others may not have: what is allotted, or was used and held within it before."""
        return max(self.told.tokens or 0, self.tokens_used + self.tokens_held)

    def hold_tokens(self, count: int) -> None:
        """Set the most a call can use aside; `settle_tokens` must follow."""
        self.tokens_held += count

    def settle_tokens(self, held: int, used: int) -> None:
        """End a hold with what the call used: a fact, even above the hold."""
        self.tokens_held -= held
        self.tokens_used += used

    def no_tokens(self, needed: int, now_s: float) -> LimitReached:
        """Why a call is refused that may use so many."""
        told = self.told
        left = (told.tokens or 0) - self.tokens_used
        wait_s = STARTING_S if needed <= left else max(1.0, told.tokens_reset_at_s - now_s)
        return LimitReached(
            f"the limit of {told.tokens_limit} tokens per day on {told.tokens_scope!r} does not "
            f"allow it: the call may use up to {needed}, and {self.available_tokens} are left for "
            "this runtime; send less, lower the output limit, or wait",
            retry_after_s=wait_s,
            is_money=False,
        )
