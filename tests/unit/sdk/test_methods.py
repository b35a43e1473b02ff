"""What a method's contract says of a call of it, by the method's name alone."""

from __future__ import annotations

import pytest

from steward.agents.v1 import agents_pb2
from steward.auth.v1 import auth_pb2
from steward.budget.v1 import budget_pb2
from steward.events.v1 import events_pb2
from steward_client.client.methods import call_of

AGENTS = "steward.agents.v1.AgentService"
BUDGET = "steward.budget.v1.BudgetService"


def test_what_only_reads_may_be_tried_again() -> None:
    call = call_of(f"{AGENTS}/GetAgent", agents_pb2.GetAgentRequest(agent_id="agent_1"))

    assert call.repeatable
    assert not call.streams


def test_what_has_an_identity_may_be_tried_again_and_is_given_one() -> None:
    request = agents_pb2.CreateAgentRequest(name="scout")
    first = call_of(f"{AGENTS}/CreateAgent", request)
    second = call_of(f"{AGENTS}/CreateAgent", request)

    assert first.repeatable
    assert isinstance(first.request, agents_pb2.CreateAgentRequest)
    assert isinstance(second.request, agents_pb2.CreateAgentRequest)
    assert first.request.name == "scout"
    assert first.request.request_id
    assert first.request.request_id != second.request.request_id
    assert not request.request_id


def test_an_identity_of_the_callers_own_is_kept() -> None:
    request = budget_pb2.HandshakeRequest(request_id="lease-1")
    call = call_of(f"{BUDGET}/Handshake", request)

    assert call.request == request


def test_what_has_no_identity_is_not_tried_again() -> None:
    request = budget_pb2.ReturnRequest(lease_id="lease_1")

    assert not call_of(f"{BUDGET}/Return", request).repeatable


def test_a_public_method_is_shown_no_credential() -> None:
    assert call_of("steward.auth.v1.AuthService/Login", auth_pb2.LoginRequest()).public
    assert not call_of("steward.auth.v1.AuthService/GetMe", auth_pb2.GetMeRequest()).public


def test_a_method_that_streams_is_known_as_one() -> None:
    request = events_pb2.SubscribeRequest()

    assert call_of("steward.events.v1.EventService/Subscribe", request).streams


@pytest.mark.parametrize("name", ["GetAgent", f"{AGENTS}/Heal", "steward.none.v1.None/Get"])
def test_a_method_that_is_not_there_is_named(name: str) -> None:
    with pytest.raises(LookupError, match=name):
        call_of(name, agents_pb2.GetAgentRequest())


def test_what_a_method_does_not_take_is_named_with_what_it_takes() -> None:
    wanted = "takes a steward.agents.v1.GetAgentRequest, not "
    with pytest.raises(TypeError, match=f"{wanted}{{'agent_id': 'agent_1'}}"):
        call_of(f"{AGENTS}/GetAgent", {"agent_id": "agent_1"})  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=f"{wanted}steward.auth.v1.GetMeRequest"):
        call_of(f"{AGENTS}/GetAgent", auth_pb2.GetMeRequest())
