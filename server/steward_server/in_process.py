"""The gateway's door to the methods when it lives in the server's process: without a socket."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import grpc
from google.protobuf.message import Message
from google.rpc import code_pb2, status_pb2

from steward_gateway.transport import Metadata, Reply, RpcFailure
from steward_server.calls import Call, Refused
from steward_server.codes import CODES
from steward_server.dispatch import Dispatcher, Method

DEADLINE = status_pb2.Status(code=code_pb2.DEADLINE_EXCEEDED, message="the deadline has passed")


LONG_S = 5.0
"""From here on a deadline may be kept late by `LOOK_S`."""
LOOK_S = 0.25


class Deadline:
    """When a task is to be cancelled."""

    __slots__ = ("at_s", "is_over", "task", "timer")

    def __init__(self, task: asyncio.Task[Any], at_s: float) -> None:
        self.task = task
        self.at_s = at_s
        self.is_over = False
        self.timer: asyncio.TimerHandle | None = None

    def end(self) -> None:
        self.is_over = True
        self.task.cancel()


class Deadlines:
    """Cancels tasks whose time is over.

    Nearly every call has a long deadline and ends far before it: those are looked through a few
    times a second, which costs a call a fifth of what a timer does.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._long: set[Deadline] = set()
        self._looks = False

    def watch(self, task: asyncio.Task[Any], timeout_s: float) -> Deadline:
        """Cancel the task then, unless the deadline is forgotten before."""
        deadline = Deadline(task, self._loop.time() + timeout_s)
        if timeout_s < LONG_S:
            deadline.timer = self._loop.call_later(timeout_s, deadline.end)
        else:
            self._long.add(deadline)
            if not self._looks:
                self._looks = True
                self._loop.call_later(LOOK_S, self._look)
        return deadline

    def forget(self, deadline: Deadline) -> None:
        if deadline.timer is not None:
            deadline.timer.cancel()
        else:
            self._long.discard(deadline)

    def _look(self) -> None:
        now_s = self._loop.time()
        for deadline in [each for each in self._long if each.at_s <= now_s]:
            self._long.discard(deadline)
            deadline.end()
        self._looks = bool(self._long)
        if self._looks:
            self._loop.call_later(LOOK_S, self._look)


class InProcess:
    """The gateway's transport when it lives in the server's process; made on its event loop."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._methods = dispatcher.methods
        # Asking for it costs a system call each time, in Python 3.11.
        self._loop = asyncio.get_running_loop()
        self._deadlines = Deadlines(self._loop)

    async def unary(
        self, method: str, request: Any, *, metadata: Metadata, timeout_s: float | None = None
    ) -> Reply:
        found = self._find(method)
        call = _call_with(metadata, timeout_s, None)
        task = asyncio.current_task(self._loop)
        assert task is not None  # noqa: S101 - a coroutine runs in one
        # `asyncio.timeout` would cost three times as much.
        deadline = None if timeout_s is None else self._deadlines.watch(task, timeout_s)
        try:
            response = await found.open(request, call)
        except Refused as refused:
            raise _failure(refused, call) from None
        except asyncio.CancelledError:
            # Cancelled by its deadline, or by the caller's leaving, which comes first.
            if deadline is not None and deadline.is_over and task.uncancel() == 0:
                raise _failure(Refused(DEADLINE), call) from None
            raise
        finally:
            if deadline is not None:
                self._deadlines.forget(deadline)
        return Reply(response, tuple(call.sent) if call.sent else (), tuple(call.trailing))

    def stream(
        self,
        method: str,
        requests: Any,
        *,
        metadata: Metadata,
        timeout_s: float | None = None,
    ) -> InProcessStream:
        return InProcessStream(self._find(method), requests, metadata, timeout_s)

    def _find(self, method: str) -> Method:
        found = self._methods.get(method)
        if found is None:
            raise RpcFailure(grpc.StatusCode.UNIMPLEMENTED, f"{method} is not served here")
        return found


def _call_with(metadata: Metadata, timeout_s: float | None, send_initial: Any) -> Call:
    deadline_s = None if timeout_s is None else time.monotonic() + timeout_s
    call = Call(metadata, peer="in-process", deadline_s=deadline_s, send_initial=send_initial)
    told = call.metadata.get
    call.request_id = told("x-request-id", "")  # fit to be shown: the gateway has looked
    if peer := told("x-steward-peer"):
        call.came_from(peer)
    return call


def _failure(refused: Refused, call: Call) -> RpcFailure:
    code = CODES.get(refused.status.code, grpc.StatusCode.UNKNOWN)
    return RpcFailure(code, refused.status.message, refused.status, tuple(call.trailing))


class InProcessStream:
    """A streaming call without a socket: the caller's task runs the servicer."""

    def __init__(
        self, method: Method, requests: Any, metadata: Metadata, timeout_s: float | None
    ) -> None:
        loop = asyncio.get_running_loop()
        self._method = method
        self._requests = requests
        self._ends_at_s = None if timeout_s is None else loop.time() + timeout_s
        self._accepted: asyncio.Future[None] = loop.create_future()
        self._initial: Metadata = ()
        self._call = _call_with(metadata, timeout_s, self._accept)
        self._responses: Any = None
        self._first: asyncio.Future[Message] | None = None

    async def _accept(self, metadata: Metadata) -> None:
        self._initial = tuple(metadata)
        if not self._accepted.done():
            self._accepted.set_result(None)

    def __aiter__(self) -> InProcessStream:
        return self

    async def __anext__(self) -> Message:
        if self._first is not None:
            first, self._first = self._first, None
            try:
                return await first
            except asyncio.CancelledError:
                first.cancel()
                raise
        return await self._next()

    async def initial_metadata(self) -> Metadata:
        self._first = asyncio.ensure_future(self._next())
        await asyncio.wait((self._first, self._accepted), return_when=asyncio.FIRST_COMPLETED)
        if not self._accepted.done() and isinstance(error := self._first.exception(), RpcFailure):
            raise error
        return self._initial

    def trailing_metadata(self) -> Metadata:
        return tuple(self._call.trailing)

    async def aclose(self) -> None:
        if self._first is not None:
            self._first.cancel()
            await asyncio.gather(self._first, return_exceptions=True)
        if self._responses is not None:
            await self._responses.aclose()

    async def _next(self) -> Message:
        try:
            if self._ends_at_s is None:
                return await self._following()
            async with asyncio.timeout_at(self._ends_at_s):
                return await self._following()
        except TimeoutError:
            raise _failure(Refused(DEADLINE), self._call) from None
        except Refused as refused:
            raise _failure(refused, self._call) from None

    async def _following(self) -> Message:
        if self._responses is None:
            self._responses = await self._open()
        response: Message = await anext(self._responses)
        return response

    async def _open(self) -> Any:
        opened = await self._method.open(self._requests, self._call)
        return opened if self._method.signature.streams_responses else _once(opened)


async def _once(response: Message) -> AsyncIterator[Message]:
    yield response
