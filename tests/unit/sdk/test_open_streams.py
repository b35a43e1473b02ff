"""Streams that are opened again after a cut, without a server."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from steward.environments.v1 import environments_pb2 as pb
from steward_client.client.calls import Blocking
from steward_client.client.conversation import Manners, Read, Send, Step, Wait
from steward_client.client.credentials import Credentials, Memory
from steward_client.client.environments_streams import FollowedLogs, Terminal
from steward_client.errors import StewardError, Unavailable


class Stream:
    def __init__(self) -> None:
        self.is_cancelled = False

    def cancel(self) -> None:
        self.is_cancelled = True


class Holder:
    """Has a conversation's steps answered one by one; what is thrown is an answer too."""

    def __init__(self) -> None:
        def delays_s() -> Iterator[float]:
            while True:
                yield 1.0

        credentials = Credentials("token", Memory(), lambda: 0.0)
        self.manners = Manners(credentials, 10, delays_s)
        self.steps: list[Step] = []
        self.answers: list[Any] = []

    def hold(self, conversation: Any) -> Any:
        result: Any = None
        try:
            while True:
                if isinstance(result, StewardError):
                    step = conversation.throw(result)
                else:
                    step = conversation.send(result)
                self.steps.append(step)
                answer = self.answers.pop(0)
                result = answer() if callable(answer) else answer
        except StopIteration as ended:
            return ended.value

    def perform(self, call: Any) -> Any:
        raise NotImplementedError

    def opened(self, build: Any, aside: Any) -> Any:
        raise NotImplementedError


def logs(holder: Holder, *, tail: int | None = None) -> FollowedLogs[Blocking]:
    return FollowedLogs(holder, "env-1", tail=tail, after=0, reconnect_s=60, on_cut=lambda _: None)


def terminal(holder: Holder) -> Terminal[Blocking]:
    opened = pb.AttachOpen(environment_id="env-1", session="mine")
    return Terminal(holder, opened, reconnect_s=60, on_cut=lambda _: None)


@pytest.mark.parametrize("make", [logs, terminal])
def test_what_is_closed_while_it_is_opened_again_ends_and_keeps_no_stream(make: Any) -> None:
    holder, first, second = Holder(), Stream(), Stream()
    opened = make(holder)
    holder.answers = [first]
    holder.hold(opened.open())

    def closed_meanwhile() -> Stream:
        opened.close()
        return second

    holder.answers = [Unavailable("cut"), None, closed_meanwhile, Unavailable("cancelled")]
    assert list(opened) == []

    assert [type(step) for step in holder.steps] == [Send, Read, Wait, Send, Read]
    assert second.is_cancelled


def test_a_log_of_the_last_lines_goes_on_from_the_same_line_after_a_cut() -> None:
    holder = Holder()
    followed = logs(holder, tail=3)
    holder.answers = [pb.GetLogsResponse(last_sequence=10), Stream()]
    holder.hold(followed.open())
    line = pb.FollowLogsResponse(log=pb.LogEntry(stream="stdout", message="8"), sequence=8)
    holder.answers = [Unavailable("cut"), None, Stream(), line, Unavailable("cut"), None]
    holder.answers += [Stream(), pb.FollowLogsResponse(end=pb.LogsEnd(reason="over"))]
    assert [each.sequence for each in followed] == [8]

    asked: list[Any] = [
        step.call.request
        for step in holder.steps
        if isinstance(step, Send) and step.call.method == "FollowLogs"
    ]
    assert [(each.after, each.HasField("tail")) for each in asked] == [
        (7, False),
        (7, False),
        (8, False),
    ]
