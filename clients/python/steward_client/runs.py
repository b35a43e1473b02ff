"""What is known of a run: its name and how it is."""

from __future__ import annotations

from decimal import Decimal
from typing import Literal, TypedDict

Status = Literal["running", "stopping", "stopped", "failed"]


class RunId(str):
    """Names one run: `<agent id>/<number>`, the number counting the runtime's runs from 1."""

    __slots__ = ()

    @property
    def agent_id(self) -> str:
        """The agent, as the server knows it."""
        return self.rpartition("/")[0]


class UnknownRun(KeyError):
    """No run of this runtime has that id."""


class Tokens(TypedDict):
    """Token counts; `input` excludes cached ones."""

    input: int
    output: int
    cache_read: int
    cache_write: int
    total: int


class Metrics(TypedDict):
    """How a run is. Money is in dollars, exactly."""

    agent_id: str
    run_id: str
    script: str
    status: Status
    exit_code: int | None
    budget: Decimal
    """Of the whole runtime."""
    spent: Decimal
    """By this run."""
    remaining: Decimal
    """Of the runtime's budget, after all its runs."""
    calls: int
    """Sent to the provider."""
    refused: int
    """Not sent: for want of money or another reason, the newest of which is `last_refusal`."""
    failed: int
    """Refused or broken off by the provider."""
    last_refusal: str
    tokens: Tokens
    pii: dict[str, int]
    """How much personal data was seen, by kind."""
    duration_s: float
