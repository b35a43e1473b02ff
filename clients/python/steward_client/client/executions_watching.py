"""What happens to runs, over as many streams as it takes."""

from __future__ import annotations

import base64
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from google.protobuf.message import Message

from steward.executions.v1 import executions_pb2 as pb
from steward.executions.v1.executions_pb2_grpc import ExecutionServiceStub
from steward_client.client.calls import Call, Manner, nothing
from steward_client.client.conversation import Conversation, Read, Wait
from steward_client.client.executions_values import (
    ExecutionStatus,
    ExecutionUpdate,
    ScreenshotFrame,
)
from steward_client.client.holding import CUTS, Holder, Open
from steward_client.client.values import value_of
from steward_client.errors import StewardError, error_of_status

Happening = ExecutionUpdate | ScreenshotFrame


class _Watching(Open[Manner, Happening]):
    """One thing after the other; after a cut from where it left off."""

    def __init__(
        self,
        holder: Holder,
        request: Message,
        *,
        reconnect_s: float,
        on_cut: Callable[[StewardError], None],
    ) -> None:
        super().__init__(holder)
        self._request: Any = request
        self._reconnecting = replace(holder.manners, patience_s=reconnect_s)
        self._delays_s = holder.manners.delays_s()
        self._on_cut = on_cut

    def open(self) -> Conversation[None]:
        self.stream = yield from self.holder.manners.ask(self._call())

    @abstractmethod
    def _call(self) -> Call[Any]:
        """What is asked for, with the sequence that was read last."""

    def _answer(self, *, may_end: bool) -> Conversation[Any]:
        """The next message; None after the last."""
        while True:
            if self.stream is None:
                yield Wait(next(self._delays_s))
                self.stream = yield from self._reconnecting.ask(self._call())
                self._end_if_closed()
            try:
                answer = yield Read(self.stream, may_end=may_end)
            except CUTS as cut:
                if self.closed:
                    raise
                self.stream = None
                self._on_cut(cut)
                continue
            self._delays_s = self.holder.manners.delays_s()
            return answer

    def _told(self, answer: Any) -> Happening:
        if answer.WhichOneof("message") == "screenshot_frame":
            return _frame(answer.screenshot_frame)
        update = value_of(ExecutionUpdate, answer.execution_update)
        self._request.since = update.sequence
        return update


class Watched(_Watching[Manner]):
    """What happens to one run, until it ends."""

    def next_item(self) -> Conversation[Happening | None]:
        answer = yield from self._answer(may_end=True)
        return None if answer is None else self._told(answer)

    def _call(self) -> Call[Any]:
        return Call(
            ExecutionServiceStub,
            "Watch",
            self._request,
            read=nothing,
            repeatable=True,
            streams=True,
        )


class WatchedAll(_Watching[Manner]):
    """What happens to several runs, until it is closed."""

    def next_item(self) -> Conversation[Happening]:
        answer = yield from self._answer(may_end=False)
        if answer.HasField("refusal"):
            raise error_of_status(answer.refusal)
        return self._told(answer)

    def _call(self) -> Call[Any]:
        return Call(
            ExecutionServiceStub,
            "Exchange",
            pb.ExchangeRequest(subscribe=self._request),
            read=nothing,
            repeatable=True,
            streams=True,
            talks=True,
        )


def status_number(status: ExecutionStatus | None) -> pb.ExecutionStatus.ValueType:
    if status is None:
        return pb.EXECUTION_STATUS_UNSPECIFIED
    return pb.ExecutionStatus.Value(f"EXECUTION_STATUS_{status.upper()}")


def _frame(frame: pb.ScreenshotFrame) -> ScreenshotFrame:
    png = base64.b64decode(frame.frame.partition(",")[2])
    return ScreenshotFrame(
        frame.execution_id, png, datetime.fromtimestamp(frame.timestamp / 1_000, UTC)
    )
