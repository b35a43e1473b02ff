"""How a call's hold ends: with what the answer says it used, with an assumption, or with nothing.

It ends once; what comes after is ignored, so that every way out of a call may say what it knows.
"""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import dataclass, field

from steward.budget.v1 import budget_pb2 as pb
from steward_client.meters import Ask, Reading
from steward_client.pii import PiiKind
from steward_client.prices import Tariff, TokenUsage
from steward_client.purse import ASSUMED, COUNTED, MEASURED, Hold, Purse

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Tally:
    """What one run of an agent did and cost."""

    calls: int = 0
    """Sent to the provider."""
    refused: int = 0
    """Not sent, for want of money or any other reason."""
    failed: int = 0
    """Refused or broken off by the provider."""
    spent_nanousd: int = 0
    usage: TokenUsage = field(default_factory=TokenUsage)
    pii: Counter[PiiKind] = field(default_factory=Counter)
    last_refusal: str = ""


class Settlement:
    """One call's hold, to be ended by `settle`, `end_unknown` or `release`."""

    def __init__(
        self, hold: Hold, reading: Reading, *, ask: Ask, tariff: Tariff, purse: Purse, tally: Tally
    ) -> None:
        self._hold = hold
        self._reading = reading
        self._ask = ask
        self._tariff = tariff
        self._purse = purse
        self._tally = tally
        self._ended = False

    def settle(self) -> None:
        """End the hold by what the answer says it used."""
        reading = self._reading
        if reading.unpriced:
            log.error("call %s cannot be priced: %s", self._hold.call_id, reading.unpriced)
            self._charge(self._hold.bound_nanousd, reading.usage or TokenUsage(), ASSUMED)
            return
        if reading.usage is not None:
            cost_nanousd = self._tariff.cost_nanousd(reading.usage)
            if cost_nanousd == 0 and reading.usage.total > 0:
                log.error(
                    "call %s of %r used %d tokens and costs nothing: its price looks wrong",
                    self._hold.call_id,
                    self._ask.model,
                    reading.usage.total,
                )
            if cost_nanousd > self._hold.bound_nanousd:
                log.error(
                    "call %s cost %d nano-dollars, more than its bound of %d: an overrun",
                    self._hold.call_id,
                    cost_nanousd,
                    self._hold.bound_nanousd,
                )
            self._charge(cost_nanousd, reading.usage, MEASURED)
            return
        if not reading.complete or self._ask.thinks_unseen:
            self.end_unknown()
            return
        counted = TokenUsage(input=self._ask.input_tokens, output=reading.output_bytes)
        cost_nanousd = self._tariff.bound_nanousd(
            input_tokens=counted.input,
            output_tokens=counted.output,
            hour_writes=self._ask.hour_writes,
        )
        self._charge(min(cost_nanousd, self._hold.bound_nanousd), counted, COUNTED)

    def end_unknown(self) -> None:
        """End the hold, if it has not ended, without knowing what was billed."""
        if self._ended:
            return
        if self._reading.usage is not None:
            self.settle()
            return
        self._charge(self._hold.bound_nanousd, TokenUsage(), ASSUMED)

    def release(self) -> None:
        """End the hold: nothing was charged."""
        if not self._ended:
            self._ended = True
            self._purse.release(self._hold)

    def _charge(
        self, cost_nanousd: int, usage: TokenUsage, certainty: pb.Certainty.ValueType
    ) -> None:
        if self._ended:
            return
        self._ended = True
        tally = self._tally
        tally.spent_nanousd += cost_nanousd
        tally.usage += usage
        self._purse.settle(self._hold, cost_nanousd=cost_nanousd, usage=usage, certainty=certainty)
