"""How many calls a minute are answered: settings, and what has been counted of each category."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from steward.gateway.v1 import options_pb2 as options
from steward_server.config import setting
from steward_server.windows import SlidingWindow

SECOND_US = 1_000_000
MINUTE_US = 60 * SECOND_US


@dataclass(frozen=True, slots=True)
class RatesConfig:
    """How many calls a minute are answered; 0: any number. An API key's calls are its owner's."""

    default_per_minute: int = setting(200, "Calls of a person that count nowhere else.", minimum=0)
    environment_creation_per_minute: int = setting(
        20, "Environments created by a person.", minimum=0
    )
    command_execution_per_minute: int = setting(100, "Commands executed by a person.", minimum=0)
    agent_per_minute: int = setting(
        0, "Calls of an agent; of a stream only its opening counts.", minimum=0
    )
    inference_per_minute: int = setting(
        600_000, "Steps and resets of a caller; of a stream only its opening counts.", minimum=0
    )
    address_per_minute: int = setting(
        100,
        "Calls without a good credential from one address, or one /64 network of IPv6.",
        minimum=0,
    )


class Windows(NamedTuple):
    """What the calls of a method are counted in, by who calls; None: not limited."""

    people: SlidingWindow | None
    agents: SlidingWindow | None
    strangers: SlidingWindow | None
    """Those without a good credential, by their address."""


class Rates:
    """What has been counted, a window for each category."""

    def __init__(self, config: RatesConfig, *, logins_per_minute: int) -> None:
        # A guess is worth counting exactly; of many calls the second they fell into will do.
        self._logins = _window(logins_per_minute, slot_us=1)
        self._strangers = _window(config.address_per_minute)
        self._by_category = {
            options.RATE_CATEGORY_DEFAULT: _window(config.default_per_minute),
            options.RATE_CATEGORY_ENVIRONMENT_CREATION: _window(
                config.environment_creation_per_minute
            ),
            options.RATE_CATEGORY_COMMAND_EXECUTION: _window(config.command_execution_per_minute),
            options.RATE_CATEGORY_AGENT: _window(config.agent_per_minute),
            options.RATE_CATEGORY_INFERENCE: _window(config.inference_per_minute),
        }

    def of(self, category: options.RateCategory.ValueType) -> Windows:
        """The windows of a method of this category."""
        if category == options.RATE_CATEGORY_NONE:
            return Windows(None, None, None)
        if category == options.RATE_CATEGORY_LOGIN:
            return Windows(self._logins, self._logins, self._logins)
        if category == options.RATE_CATEGORY_INFERENCE:
            steps = self._by_category[category]
            return Windows(steps, steps, self._strangers)
        return Windows(
            self._by_category[category or options.RATE_CATEGORY_DEFAULT],
            self._by_category[options.RATE_CATEGORY_AGENT],
            self._strangers,
        )


def _window(per_minute: int, *, slot_us: int = SECOND_US) -> SlidingWindow | None:
    return SlidingWindow(per_minute, MINUTE_US, slot_us=slot_us) if per_minute else None
