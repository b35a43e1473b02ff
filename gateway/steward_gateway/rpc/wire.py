"""What a protocol must know to carry a call: how a request is read and an answer is written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from aiohttp import web

from steward_gateway.rpc.failure import Failure
from steward_gateway.transport import Reply


class Wire(Protocol):
    """One request in one protocol. Made per request; holds what its headers say.

    Attributes:
        coding: "json" or "proto".
    """

    coding: str

    async def payloads(self) -> Sequence[bytes]:
        """Read the messages of the request.

        Raises:
            Refused, FieldErrors: it cannot be read.
        """
        ...

    def timeout_s(self, default_s: float | None) -> float | None:
        """The deadline the caller asks for, in seconds from now.

        Raises:
            FieldErrors: it is not of its form.
        """
        ...

    def refuse(self, failure: Failure) -> web.Response:
        """Tell a failure before which nothing was sent."""
        ...


class UnaryWire(Wire, Protocol):
    """Carries a call without streams."""

    def answer(self, payload: bytes, reply: Reply) -> web.Response:
        """Tell its end."""
        ...


class StreamWire(Wire, Protocol):
    """Carries a call with a stream of answers, or of requests."""

    def opening(self) -> Mapping[str, str]:
        """The headers the stream of answers begins with."""
        ...

    def frame(self, payload: bytes) -> bytes:
        """One message of it."""
        ...

    def end(self, failure: Failure | None, trailers: Mapping[str, str]) -> bytes:
        """The last thing it says."""
        ...
