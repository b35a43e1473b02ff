"""How the proxy refuses a call: status, code and sentence, in the caller's dialect. Pure.

A refusal for lack of money is 402 and says `x-should-retry: false`: the providers' own clients try
429 again by themselves, and would hammer.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Protocol

import orjson
from aiohttp import web

from steward_client.allowance import LimitReached
from steward_client.lending import NotLent, NotSpending, OutOfMoney
from steward_client.money import usd_text
from steward_client.wallet import Refusal

RETRY_WORTH_S = 60.0
"""The providers' own clients wait this long at most before they try again by themselves."""


class Dialect(Protocol):
    """How a provider's clients expect a refusal."""

    def refusal(self, *, code: str, message: str) -> dict[str, Any]: ...


@dataclass(eq=False)
class Refused(Exception):
    """A call that is not made."""

    status: int
    code: str
    message: str
    retry_after_s: float | None = None
    final: bool = True
    """The same call will be refused again; clients are told not to try."""

    def response(self, dialect: Dialect) -> web.Response:
        headers = {"content-type": "application/json"}
        if self.final:
            headers["x-should-retry"] = "false"
        if self.retry_after_s is not None:
            headers["retry-after"] = str(max(1, math.ceil(self.retry_after_s)))
        body = orjson.dumps(dialect.refusal(code=self.code, message=self.message))
        return web.Response(status=self.status, body=body, headers=headers)


def out_of_money(error: OutOfMoney) -> Refused:
    needed, available = usd_text(error.needed_nanousd), usd_text(error.available_nanousd)
    if error.refusal is Refusal.IN_FLIGHT:
        return Refused(
            402,
            "budget_exceeded",
            f"in_flight: the call may cost up to {needed} and {available} is free while other "
            "calls are under way; try again when they have ended",
            retry_after_s=1.0,
        )
    whose, remedy = (
        ("the agent's budget", "have it raised (steward budget request)")
        if error.raise_helps
        else ("the runtime's own budget", "start it with a larger one")
    )
    return Refused(
        402,
        "budget_exceeded",
        f"too_large: the call may cost up to {needed} and {available} is left of {whose}; "
        f"send less, lower the output limit, or {remedy}",
    )


def limit_reached(error: LimitReached) -> Refused:
    """A limit other than the budget; one that passes soon may be tried again by itself."""
    if error.is_money:
        return Refused(402, "budget_exceeded", error.message)
    wait_s = error.retry_after_s or 1.0
    return Refused(
        429,
        "rate_limit_exceeded",
        error.message,
        retry_after_s=wait_s,
        final=wait_s > RETRY_WORTH_S,
    )


def not_lent(error: NotLent) -> Refused:
    needed, available = usd_text(error.needed_nanousd), usd_text(error.available_nanousd)
    return Refused(
        503,
        "ledger_unavailable",
        f"the call may cost up to {needed} and {available} is left of what was lent; "
        "the server cannot be asked for more now, and is asked again with the next call",
        retry_after_s=2.0,
        final=False,
    )


def not_spending(error: NotSpending) -> Refused:
    if error.refusal is Refusal.EXPIRED:
        return Refused(
            503,
            "lease_expired",
            f"no call is started: {error.reason}; the server is asked for a new lease",
            retry_after_s=2.0,
            final=False,
        )
    return Refused(403, "stopped", f"the agent was told to stop: {error.reason}")


def unpriced(model: str) -> Refused:
    return Refused(
        400,
        "unpriced_model",
        f"model {model!r} has no price, so its cost cannot be bounded; "
        "have an administrator set one",
    )


def not_metered(method: str, path: str, open_routes: str) -> Refused:
    return Refused(
        403,
        "not_metered",
        f"{method} {path} is not metered, so it is closed; open are {open_routes}",
    )
