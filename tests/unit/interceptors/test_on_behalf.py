"""Calls that the server makes itself: their caller is known, and no credential is looked at."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from steward.gateway.v1 import options_pb2 as options
from steward_server.calls import Call
from steward_server.dispatch import Dispatcher, Signature, _call_from
from steward_server.errors import Unauthenticated
from steward_server.in_process import _call_with
from steward_server.interceptors.authentication import Authentication, LiveStreams
from steward_server.principals import Kind, Principal

KIM = Principal(Kind.PERSON, "user_kim")
CLAIMS = tuple((name, "user_kim") for name in (*vars(Call), "on-behalf-of", "x-on-behalf-of"))


class NoCredentials:
    async def authenticate(self, call: Call, ic_token: str) -> Principal:
        raise Unauthenticated("no credential", reason="CREDENTIAL_MISSING")


class Counted:
    """Counts strangers who were refused."""

    def __init__(self) -> None:
        self.count_of_refused = 0

    def count(self, call: Call) -> None:
        self.count_of_refused += 1


def link(counted: Counted) -> Any:
    rule = options.MethodRule(access=options.ACCESS_PEOPLE)
    signature = Signature("/s/M", rule, False, False, frozenset())
    limit: Any = counted
    return Authentication(signature, NoCredentials(), LiveStreams(), limit)


async def served(_: Any, call: Any) -> Principal:
    principal: Principal = call.principal
    return principal


async def kim() -> Principal:
    return KIM


async def gone() -> Principal:
    raise Unauthenticated("suspended", reason="USER_SUSPENDED")


async def test_who_is_known_needs_no_credential() -> None:
    call = Call((), peer="run")
    call.on_behalf_of = kim
    assert await link(Counted()).intercept(served, object(), call, "/s/M") == KIM


async def test_somebody_who_is_gone_is_refused_and_is_no_guess_of_a_stranger() -> None:
    call, counted = Call((), peer="run"), Counted()
    call.on_behalf_of = gone
    with pytest.raises(Unauthenticated, match="suspended"):
        await link(counted).intercept(served, object(), call, "/s/M")
    assert counted.count_of_refused == 0


async def test_a_call_over_grpc_acts_for_nobody_whatever_it_says() -> None:
    context = SimpleNamespace(
        invocation_metadata=lambda: CLAIMS,
        time_remaining=lambda: None,
        peer=lambda: "run",
        send_initial_metadata=None,
    )
    counted = Counted()
    call = _call_from(context, Dispatcher(lambda _: ()).proxies)
    with pytest.raises(Unauthenticated, match="no credential"):
        await link(counted).intercept(served, object(), call, "/s/M")
    assert (call.on_behalf_of, counted.count_of_refused) == (None, 1)


async def test_a_call_of_the_gateway_acts_for_nobody_whatever_it_says() -> None:
    counted = Counted()
    call = _call_with((*CLAIMS, ("x-steward-peer", "run")), None, None)
    with pytest.raises(Unauthenticated, match="no credential"):
        await link(counted).intercept(served, object(), call, "/s/M")
    assert (call.on_behalf_of, counted.count_of_refused) == (None, 1)
