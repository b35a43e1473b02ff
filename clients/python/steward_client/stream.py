"""One stream to the server, for as long as it holds: messages with their answers, and controls."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import grpc.aio

from steward.budget.v1 import budget_pb2 as pb
from steward_client.errors import DeadlineExceeded, Unavailable, error_of_status


class Stream:
    """`ask` as often as wanted while `read` runs; controls go to `on_control`."""

    def __init__(
        self, call: Any, *, answer_timeout_s: float, on_control: Callable[[pb.Control], None]
    ) -> None:
        self._call = call
        self._answer_timeout_s = answer_timeout_s
        self._on_control = on_control
        self._asked = 0
        self._answers: dict[int, asyncio.Future[pb.SessionResponse]] = {}
        self._batches: dict[int, str] = {}
        """Lease ids of the batches of reports among the messages that wait for an answer."""
        self._writing = asyncio.Lock()
        self._is_let_in = False

    async def ask(self, **message: Any) -> pb.SessionResponse:
        """Send one message and wait for its answer.

        Raises:
            StewardError: it was refused, or the stream is cut.
        """
        self._asked += 1
        message_id = self._asked
        answer: asyncio.Future[pb.SessionResponse] = asyncio.get_running_loop().create_future()
        self._answers[message_id] = answer
        if batch := message.get("report_batch"):
            self._batches[message_id] = batch.lease_id
        request = pb.SessionRequest(message_id=message_id, **message)
        try:
            with _as_steward_errors():
                async with asyncio.timeout(self._answer_timeout_s):
                    async with self._writing:
                        await self._be_let_in()
                        await self._call.write(request)
                    response = await answer
        finally:
            self._answers.pop(message_id, None)
            if answer.done() and not answer.cancelled():
                answer.exception()  # seen, even if writing failed first
            self._batches.pop(message_id, None)
        if response.WhichOneof("message") == "refusal":
            raise error_of_status(response.refusal)
        return response

    async def read(self) -> None:
        """Hand out what comes until the stream ends."""
        while (response := await self._call.read()) is not grpc.aio.EOF:
            if response.in_reply_to == 0:
                self._on_control(response.control)
                continue
            for message_id in self._answered_by(response):
                answer = self._answers.pop(message_id, None)
                if answer is not None and not answer.done():
                    answer.set_result(response)

    def cut(self) -> None:
        """End it; whoever waits for an answer is told."""
        self._call.cancel()
        for answer in self._answers.values():
            if not answer.done():
                answer.set_exception(Unavailable("the stream to the server was cut"))

    async def _be_let_in(self) -> None:
        """Write nothing before: to a call that is refused meanwhile, grpc loses why it was."""
        if not self._is_let_in:
            await self._call.initial_metadata()
            await self._call.wait_for_connection()
            self._is_let_in = True

    def _answered_by(self, response: pb.SessionResponse) -> list[int]:
        """The messages a response answers: of batches that were booked together, all."""
        last = response.in_reply_to
        if response.WhichOneof("message") != "report_ack":
            return [last]
        lease_id = response.report_ack.lease_id
        return [each for each, lease in self._batches.items() if each <= last and lease == lease_id]


@contextmanager
def _as_steward_errors() -> Iterator[None]:
    try:
        yield
    except grpc.aio.AioRpcError as error:
        # Why the stream ended is the reader's to know; here it is just gone.
        raise Unavailable("the stream to the server was cut") from error
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        raise Unavailable("the stream to the server was cut") from error  # the call, not the task
    except TimeoutError as error:
        raise DeadlineExceeded("the server did not answer in time") from error
    except (asyncio.InvalidStateError, grpc.aio.UsageError) as error:
        raise Unavailable("the stream to the server was cut") from error
