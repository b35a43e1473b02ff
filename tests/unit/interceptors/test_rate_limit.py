"""Whose attempts are counted together."""

from __future__ import annotations

from typing import Any

import pytest

from steward.gateway.v1 import options_pb2 as options
from steward_server.calls import Call
from steward_server.errors import ResourceExhausted
from steward_server.interceptors.rate_limit import RateLimit
from steward_server.principals import Kind, Principal
from steward_server.rates import Rates, RatesConfig, Windows
from steward_server.windows import SlidingWindow


async def let_in(_: Any, __: Any) -> str:
    return "in"


def limited() -> RateLimit:
    window = SlidingWindow(limit=1, window_us=60_000_000)
    return RateLimit(Windows(window, window, window), clock=lambda: 5_500_000)


async def attempt(link: RateLimit, peer: str, subject: str = "") -> Any:
    call = Call((), peer=peer)
    if subject:
        call.principal = Principal(Kind.PERSON, subject)
    return await link.intercept(let_in, None, call, "/a/B")


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("ipv4:10.0.0.1:1000", "ipv4:10.0.0.1:2000"),
        ("ipv6:[2001:db8::1]:1", "ipv6:[2001:db8::2]:2"),
        ("ipv4:10.0.0.1:1000", "ipv6:[::ffff:10.0.0.1]:1"),
        ("10.0.0.1", "ipv4:10.0.0.1:2000"),
    ],
)
async def test_one_address_is_one_caller_whatever_its_port(first: str, second: str) -> None:
    link = limited()
    assert await attempt(link, first) == "in"
    with pytest.raises(ResourceExhausted) as caught:
        await attempt(link, second)
    assert (caught.value.reason, caught.value.retry_after_s) == ("RATE_LIMITED", 60)


async def test_another_address_is_another_caller() -> None:
    link = limited()
    await attempt(link, "ipv4:10.0.0.1:1")
    await attempt(link, "ipv4:10.0.0.2:1")
    await attempt(link, "ipv6:[2001:db8:0:1::1]:1")
    await attempt(link, "ipv6:[2001:db8:0:2::1]:1")


async def test_someone_known_is_counted_by_who_they_are() -> None:
    link = limited()
    await attempt(link, "ipv4:10.0.0.1:1", "user_1")
    await attempt(link, "ipv4:10.0.0.1:1", "user_2")
    with pytest.raises(ResourceExhausted):
        await attempt(link, "ipv4:10.0.0.9:1", "user_1")


async def test_the_headers_tell_the_limit_and_when_it_is_over() -> None:
    call = Call((), peer="ipv4:10.0.0.1:1")
    await limited().intercept(let_in, None, call, "/a/B")
    assert dict(call.trailing) == {
        "x-ratelimit-limit": "1",
        "x-ratelimit-remaining": "0",
        "x-ratelimit-reset": "66",
    }


def limits(category: options.RateCategory.ValueType) -> tuple[int | None, ...]:
    """What people, agents and strangers may a minute; None: not limited."""
    rates = Rates(RatesConfig(agent_per_minute=5), logins_per_minute=10)
    return tuple(window.limit if window else None for window in rates.of(category))


@pytest.mark.parametrize(
    ("category", "allowed"),
    [
        (options.RATE_CATEGORY_UNSPECIFIED, (200, 5, 100)),
        (options.RATE_CATEGORY_DEFAULT, (200, 5, 100)),
        (options.RATE_CATEGORY_LOGIN, (10, 10, 10)),
        (options.RATE_CATEGORY_ENVIRONMENT_CREATION, (20, 5, 100)),
        (options.RATE_CATEGORY_COMMAND_EXECUTION, (100, 5, 100)),
        (options.RATE_CATEGORY_AGENT, (5, 5, 100)),
        (options.RATE_CATEGORY_NONE, (None, None, None)),
    ],
)
def test_each_category_has_its_limits(
    category: options.RateCategory.ValueType, allowed: tuple[int | None, ...]
) -> None:
    assert limits(category) == allowed


def test_methods_of_one_category_share_and_those_of_two_do_not() -> None:
    rates = Rates(RatesConfig(), logins_per_minute=10)
    default = rates.of(options.RATE_CATEGORY_DEFAULT)
    assert rates.of(options.RATE_CATEGORY_UNSPECIFIED).people is default.people
    assert rates.of(options.RATE_CATEGORY_COMMAND_EXECUTION).people is not default.people
    assert default.people is not default.strangers


async def test_agents_are_not_limited_and_not_told_of_a_limit_by_default() -> None:
    link = RateLimit(
        Rates(RatesConfig(), logins_per_minute=10).of(options.RATE_CATEGORY_UNSPECIFIED),
        clock=lambda: 0,
    )
    call = Call((), peer="ipv4:10.0.0.1:1")
    call.principal = Principal(Kind.AGENT, "agent_1")
    for _ in range(100_000):
        link.count(call)
    assert call.trailing == []


def test_where_nobody_is_limited_there_is_nothing_to_do() -> None:
    off = Rates(RatesConfig(0, 0, 0, 0, 0, 0), logins_per_minute=0)
    needed = {
        category: RateLimit(off.of(category), lambda: 0).is_needed
        for category in options.RateCategory.values()
    }
    assert not any(needed.values())
