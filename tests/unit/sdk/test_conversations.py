"""What is sent, renewed, tried again and given up, without a server."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from steward.agents.v1 import agents_pb2
from steward.agents.v1.agents_pb2_grpc import AgentServiceStub
from steward.auth.v1 import auth_pb2
from steward_client.client.calls import Call, every, first
from steward_client.client.conversation import Conversation, Manners, Send, Step, Wait
from steward_client.client.credentials import Credentials, Memory, SignIn
from steward_client.client.values import User
from steward_client.errors import (
    Conflict,
    RateLimited,
    StewardError,
    Unauthorized,
    Unavailable,
)

SOMEBODY = User("user_1", "admin", "", "admin")


def delays_s() -> Iterator[float]:
    while True:
        yield 1.0


def manners(credentials: Credentials, *, patience_s: float = 10, **named: Any) -> Manners:
    return Manners(credentials, patience_s, delays_s, **named)


def signed_in(*, until_s: float = 1_000) -> tuple[Credentials, Memory]:
    store = Memory()
    store.save(SignIn("access-1", "refresh-1", until_s, SOMEBODY))
    return Credentials(None, store, lambda: 0.0), store


def call(**named: Any) -> Call[str]:
    request = agents_pb2.GetAgentRequest(agent_id="agent_1")
    read = first(lambda answer: str(answer.agent.name))
    return Call(AgentServiceStub, "GetAgent", request, read=read, **named)


ANSWER = agents_pb2.GetAgentResponse(agent=agents_pb2.Agent(name="scout"))
RENEWED = auth_pb2.RefreshResponse(
    access_token="access-2", refresh_token="refresh-2", expires_in=3600
)


def play(conversation: Conversation[Any], *results: Any) -> tuple[list[Step], Any]:
    """Give each step its result, or throw it; the steps, and what came of it all."""
    steps = [next(conversation)]
    waiting = list(results)
    try:
        while True:
            result = waiting.pop(0)
            if isinstance(result, StewardError):
                steps.append(conversation.throw(result))
            else:
                steps.append(conversation.send(result))
    except StopIteration as ended:
        assert not waiting
        return steps, ended.value
    except StewardError as error:
        assert not waiting
        return steps, error


def shown(step: Step) -> str:
    assert isinstance(step, Send)
    return dict(step.metadata).get("authorization", "")


def methods(steps: list[Step]) -> list[str]:
    return [step.call.method if isinstance(step, Send) else type(step).__name__ for step in steps]


def test_a_call_shows_the_token_and_reads_its_answer() -> None:
    steps, value = play(manners(signed_in()[0]).converse(call()), ANSWER)

    assert [shown(step) for step in steps] == ["Bearer access-1"]
    assert value == "scout"


def test_a_public_call_shows_nothing() -> None:
    steps, _ = play(manners(signed_in()[0]).converse(call(public=True)), ANSWER)

    assert [shown(step) for step in steps] == [""]


def test_a_token_about_to_end_is_renewed_first() -> None:
    credentials, store = signed_in(until_s=20)
    steps, value = play(manners(credentials).converse(call()), RENEWED, ANSWER)

    assert methods(steps) == ["Refresh", "GetAgent"]
    assert [shown(step) for step in steps] == ["", "Bearer access-2"]
    assert value == "scout"
    kept = store.load()
    assert kept is not None
    assert (kept.refresh_token, kept.expires_at_s) == ("refresh-2", 3600)


def test_a_token_the_server_refuses_is_renewed_once() -> None:
    refused = Unauthorized("expired")
    steps, error = play(
        manners(signed_in()[0]).converse(call()), refused, RENEWED, Unauthorized("suspended")
    )

    assert methods(steps) == ["GetAgent", "Refresh", "GetAgent"]
    assert isinstance(error, Unauthorized)
    assert error.message == "suspended"


def test_a_sign_in_that_cannot_be_renewed_is_forgotten() -> None:
    credentials, store = signed_in()
    steps, error = play(
        manners(credentials).converse(call()), Unauthorized("expired"), Unauthorized("reused")
    )

    assert methods(steps) == ["GetAgent", "Refresh"]
    assert error.message == "expired"
    assert store.load() is None


def test_a_fixed_token_is_not_renewed() -> None:
    credentials = Credentials("ic_fixed", Memory(), lambda: 0.0)
    steps, error = play(manners(credentials).converse(call()), Unauthorized("revoked"))

    assert methods(steps) == ["GetAgent"]
    assert isinstance(error, Unauthorized)


def test_what_another_process_renewed_is_used_as_it_is() -> None:
    credentials, store = signed_in()
    conversation = manners(credentials).converse(call())
    assert shown(next(conversation)) == "Bearer access-1"
    store.save(SignIn("access-9", "refresh-9", 1_000, SOMEBODY))
    again = conversation.throw(Unauthorized("expired"))

    assert methods([again]) == ["GetAgent"]
    assert shown(again) == "Bearer access-9"


def test_a_repeatable_call_is_tried_again_until_patience_ends() -> None:
    away = [Unavailable("away"), None] * 3
    steps, error = play(
        manners(signed_in()[0], patience_s=3).converse(call(repeatable=True)),
        *away,
        Unavailable("still away"),
    )

    assert methods(steps) == ["GetAgent", "Wait"] * 3 + ["GetAgent"]
    assert error.message == "still away"


def test_the_servers_wish_to_wait_is_kept() -> None:
    limited = RateLimited("slow down", retry_after_s=4.5)
    steps, value = play(
        manners(signed_in()[0]).converse(call(repeatable=True)), limited, None, ANSWER
    )

    assert steps[1] == Wait(4.5)
    assert value == "scout"


@pytest.mark.parametrize(
    "refusal", [RateLimited("slow down", retry_after_s=4.5), Unavailable("away", retry_after_s=4.5)]
)
def test_a_refusal_that_says_when_to_try_again_is_kept_to_whatever_the_call_does(
    refusal: StewardError,
) -> None:
    steps, value = play(manners(signed_in()[0]).converse(call()), refusal, None, ANSWER)

    assert steps[1] == Wait(4.5)
    assert value == "scout"


def test_a_call_is_made_so_often_at_the_most() -> None:
    away = [Unavailable("away"), None] * 2
    steps, error = play(
        manners(signed_in()[0], attempts=3).converse(call(repeatable=True)),
        *away,
        Unavailable("still away"),
    )

    assert methods(steps) == ["GetAgent", "Wait", "GetAgent", "Wait", "GetAgent"]
    assert error.message == "still away"


def test_an_attempt_has_what_is_left_of_the_time_that_the_call_was_given() -> None:
    now_s = iter([100.0, 100.0, 101.5, 102.5])
    steps, value = play(
        manners(signed_in()[0], clock=lambda: next(now_s)).converse(
            call(repeatable=True, within_s=5)
        ),
        Unavailable("away"),
        None,
        ANSWER,
    )

    assert [step.timeout_s for step in steps if isinstance(step, Send)] == [5.0, 2.5]
    assert value == "scout"


def test_a_wait_that_would_pass_the_deadline_is_not_begun() -> None:
    refusal = RateLimited("slow down", retry_after_s=5.0)
    steps, error = play(
        manners(signed_in()[0], clock=lambda: 100.0).converse(call(within_s=5)), refusal
    )

    assert methods(steps) == ["GetAgent"]
    assert error is refusal


@pytest.mark.parametrize(
    ("repeatable", "refusal"),
    [
        (False, Unavailable("away")),
        (True, RateLimited("the month's money is spent")),
        (True, Conflict("in use")),
        (True, RateLimited("locked", retry_after_s=1800)),
    ],
)
def test_what_would_not_help_or_not_be_safe_is_not_tried_again(
    *, repeatable: bool, refusal: StewardError
) -> None:
    steps, error = play(manners(signed_in()[0]).converse(call(repeatable=repeatable)), refusal)

    assert methods(steps) == ["GetAgent"]
    assert error is refusal


def test_pages_are_asked_for_until_the_last() -> None:
    def page(token: str) -> agents_pb2.ListAgentsRequest:
        return agents_pb2.ListAgentsRequest(page_token=token)

    listing = Call(
        AgentServiceStub,
        "ListAgents",
        page(""),
        read=every(lambda answer: [each.id for each in answer.agents]),
        next_page=lambda answer: page(answer.next_page_token) if answer.next_page_token else None,
    )
    steps, ids = play(
        manners(signed_in()[0]).converse(listing),
        agents_pb2.ListAgentsResponse(agents=[agents_pb2.Agent(id="a")], next_page_token="2"),
        agents_pb2.ListAgentsResponse(agents=[agents_pb2.Agent(id="b")]),
    )

    requests: list[Any] = [step.call.request for step in steps if isinstance(step, Send)]
    assert [request.page_token for request in requests] == ["", "2"]
    assert ids == ("a", "b")
