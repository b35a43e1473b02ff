"""A webhook, a delivery to it, and what follows from an answer. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

GONE = 410
"""The answer of a receiver that wants nothing more, ever."""

GRACE_US = 24 * 60 * 60 * 1_000_000
"""How long a secret that was replaced signs beside the new one."""

PENDING, DELIVERED, DEAD = "pending", "delivered", "dead"


@dataclass(frozen=True, slots=True)
class Webhook:
    """Where alerts are sent. Its secrets are sealed."""

    webhook_id: str
    url: str
    events: tuple[str, ...]
    """Empty: all."""
    description: str
    enabled: bool
    disabled_reason: str
    sealed_secret: bytes = field(repr=False)
    previous_secret: bytes | None = field(repr=False)
    previous_until_us: int | None
    since_lsn: int
    created_at_us: int
    updated_at_us: int

    def rotated(self, sealed_secret: bytes, now_us: int) -> Webhook:
        """With another secret; the present one signs on for a day."""
        return replace(
            self,
            sealed_secret=sealed_secret,
            previous_secret=self.sealed_secret,
            previous_until_us=now_us + GRACE_US,
            updated_at_us=now_us,
        )

    def secrets_at(self, now_us: int) -> list[bytes]:
        """The sealed secrets that sign now, the newest first."""
        secrets = [self.sealed_secret]
        if self.previous_secret is not None and now_us < (self.previous_until_us or 0):
            secrets.append(self.previous_secret)
        return secrets


@dataclass(frozen=True, slots=True)
class Delivery:
    """One alert on its way to one webhook."""

    delivery_id: str
    webhook_id: str
    lsn: int
    event_type: str
    topic: str
    body: bytes = field(repr=False)
    status: str
    attempts: int
    created_at_us: int
    next_attempt_at_us: int
    delivered_at_us: int | None
    last_status_code: int
    last_error: str


@dataclass(frozen=True, slots=True)
class Patience:
    """How often, and how far apart, a delivery is tried."""

    max_attempts: int
    backoff_us: int
    backoff_limit_us: int

    def pause_us(self, attempts: int, jitter: float) -> int:
        """How long to wait after so many failures; `jitter` is from 0 to 1 and takes up to half."""
        longest = min(self.backoff_limit_us, self.backoff_us << min(attempts - 1, 60))
        return int(longest * (1 - jitter / 2))


def answered(
    delivery: Delivery,
    *,
    status_code: int,
    error: str,
    patience: Patience,
    jitter: float,
    now_us: int,
) -> Delivery:
    """A delivery after an attempt: answered with `status_code`, or failed with `error` (then 0)."""
    tried = replace(
        delivery, attempts=delivery.attempts + 1, last_status_code=status_code, last_error=error
    )
    if 200 <= status_code < 300:
        return replace(tried, status=DELIVERED, delivered_at_us=now_us, last_error="")
    if not error:
        tried = replace(tried, last_error=f"the receiver answered {status_code}")
    if status_code == GONE:
        why = "the receiver answered 410: it wants nothing more"
        return replace(tried, status=DEAD, last_error=why)
    if tried.attempts >= patience.max_attempts:
        why = f"given up after {tried.attempts} attempts; the last: {tried.last_error}"
        return replace(tried, status=DEAD, last_error=why)
    pause_us = patience.pause_us(tried.attempts, jitter)
    return replace(tried, next_attempt_at_us=now_us + pause_us)
