"""The seam between the gateway and the core: how a method is called, whatever lies between."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import NamedTuple, Protocol, TypeAlias

import grpc
from google.protobuf.message import Message
from google.rpc import status_pb2

Metadata: TypeAlias = tuple[tuple[str, str | bytes], ...]
"""Lower-case keys; bytes only under keys ending in `-bin`."""

DEADLINE_EXCEEDED_TEXT = "the call did not end within its deadline"


class Reply(NamedTuple):
    """What a unary call answered."""

    message: Message
    initial_metadata: Metadata = ()
    trailing_metadata: Metadata = ()


class RpcFailure(Exception):
    """A call ended with a status other than OK.

    Attributes:
        code: never `StatusCode.OK`.
        message: for people; already fit to be shown to the caller.
        details: the status with its typed details (`ErrorInfo`, `BadRequest`, `RetryInfo`), if any.
        initial_metadata: what was sent before the failure.
        trailing_metadata: what came with it, without `grpc-status-details-bin`.
    """

    def __init__(
        self,
        code: grpc.StatusCode,
        message: str = "",
        details: status_pb2.Status | None = None,
        trailing_metadata: Metadata = (),
        initial_metadata: Metadata = (),
    ) -> None:
        super().__init__(f"{code.name}: {message}")
        self.code = code
        self.message = message
        self.details = details
        self.trailing_metadata = trailing_metadata
        self.initial_metadata = initial_metadata


class Stream(Protocol):
    """A streaming call under way. Iterate it once, from one task."""

    def __aiter__(self) -> AsyncIterator[Message]: ...

    async def __anext__(self) -> Message:
        """Give the next response.

        Raises:
            StopAsyncIteration: the call ended with OK.
            RpcFailure: it ended with another status, the deadline's included.
        """
        ...

    async def initial_metadata(self) -> Metadata:
        """Wait until the call is accepted: its metadata, its first response or its end with OK.

        May be called once, before or beside the first `__anext__`; takes no response away.

        Raises:
            RpcFailure: the call was refused before any of these.
        """
        ...

    def trailing_metadata(self) -> Metadata:
        """What came with the end of the call; empty before."""
        ...

    async def aclose(self) -> None:
        """Cancel the call if it has not ended and wait until it has let go; safe to repeat."""
        ...


class Transport(Protocol):
    """Calls methods of the core.

    `method` is the full name with a leading slash: "/steward.budget.v1.BudgetService/Report".
    Messages are instances of the generated classes, on both ways. Cancelling the awaiting task
    cancels the call. `timeout_s` counts from now; None is no deadline.
    """

    async def unary(
        self, method: str, request: Message, *, metadata: Metadata, timeout_s: float | None
    ) -> Reply:
        """Call a method without streams.

        Raises:
            RpcFailure: it ended with another status than OK, the deadline's included.
        """
        ...

    def stream(
        self,
        method: str,
        requests: Message | AsyncIterator[Message],
        *,
        metadata: Metadata,
        timeout_s: float | None,
    ) -> Stream:
        """Start a method with a stream in either direction; with one response it yields that.

        A message stands for a method without a request stream. The transport reads `requests` from
        a task of its own, no faster than the method takes them, and stops when the call ends.
        """
        ...
