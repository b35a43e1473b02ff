"""How limits refuse: money as 402, calls and tokens as 429 with the time to come back. Pure."""

from __future__ import annotations

from steward_client.money import usd_text
from steward_server.errors import ResourceExhausted


def no_requests(scope: str, limit: int, *, retry_after_s: float) -> ResourceExhausted:
    """Nothing is left of a limit on requests."""
    return ResourceExhausted(
        f"the limit of {limit} requests per minute on {scope!r} is used up; "
        f"try again in {retry_after_s:.0f} s",
        reason="LIMIT_REQUESTS_PER_MINUTE",
        retry_after_s=retry_after_s,
        facts={"scope": scope, "limit": str(limit)},
    )


def no_tokens(scope: str, limit: int, used: int, *, retry_after_s: float) -> ResourceExhausted:
    """Nothing is left of a limit on tokens."""
    return ResourceExhausted(
        f"the limit of {limit} tokens per day on {scope!r} is used up: {used} are used, the rest "
        "is allotted to open leases; days are UTC's",
        reason="LIMIT_TOKENS_PER_DAY",
        retry_after_s=retry_after_s,
        facts={"scope": scope, "limit": str(limit), "used": str(used)},
    )


def no_money(
    scope: str, limit_nanousd: int, *, spent_nanousd: int, leased_nanousd: int
) -> ResourceExhausted:
    """Too little is left of a limit on money."""
    return ResourceExhausted(
        f"the limit of {usd_text(limit_nanousd)} per month on {scope!r} leaves too little: "
        f"{usd_text(spent_nanousd)} are spent and {usd_text(leased_nanousd)} are lent; "
        "have the limit raised, or wait for the next month",
        reason="LIMIT_COST_PER_MONTH",
        facts={
            "scope": scope,
            "limit_nanousd": str(limit_nanousd),
            "spent_nanousd": str(spent_nanousd),
            "leased_nanousd": str(leased_nanousd),
        },
    )
