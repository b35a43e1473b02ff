"""Whose attempts are counted together."""

from __future__ import annotations

from typing import Any

import pytest

from steward_server.calls import Call
from steward_server.errors import ResourceExhausted
from steward_server.interceptors.rate_limit import RateLimit, SlidingWindow
from steward_server.principals import Kind, Principal


async def let_in(_: Any, __: Any) -> str:
    return "in"


def limited() -> RateLimit:
    return RateLimit(SlidingWindow(limit=1, window_us=60_000_000), clock=lambda: 5_500_000)


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
