"""One call as servicers and interceptors see it, whichever door it came through."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import replace
from typing import Any, NoReturn, TypeAlias, cast

import grpc
from google.rpc import status_pb2

from steward_gateway.forwarding import FORWARDED_KEY
from steward_server.completion import finish
from steward_server.peers import address_of
from steward_server.principals import ANONYMOUS, Origin, Principal

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
Metadata: TypeAlias = "Sequence[tuple[str, str | bytes]]"


MAX_USER_AGENT = 256  # characters, of what is written down

STATUS_DETAILS = "grpc-status-details-bin"  # where gRPC carries a status with its details


class Refused(Exception):
    """A call that ends with a status other than OK; doors put it on their wire."""

    def __init__(self, status: status_pb2.Status) -> None:
        super().__init__(status.message)
        self.status = status


class Call(grpc.aio.ServicerContext):  # type: ignore[type-arg]
    """The context of one call.

    Both doors make one, so that who calls, the request id and the deadline are found in the same
    place, and so that interceptors can leave what they found out without context variables, which
    asynchronous generators lose.
    """

    # What most calls leave as it is, and need not set.
    request_id = ""
    endpoint = ""
    """As log lines name it."""
    agent_id = ""
    """Of the agent it is about, for the log."""
    principal: Principal = ANONYMOUS
    on_behalf_of: Callable[[], Awaitable[Principal]] | None = None
    """Gives who is calling, in place of a credential, where this server calls itself for somebody.

    Doors never set it: nothing that comes over a wire can."""
    bound_to: str = ""
    """The only thing it may be about, where its credential is good for that alone."""
    initial: Metadata = ()
    """What a stream is told when it is let in, before anything of the servicer's."""
    sent: Metadata | None = None
    """What was sent ahead of the answer; None as long as nothing was."""
    _code: Any = None
    _details = ""

    def __init__(
        self,
        metadata: Metadata,
        *,
        peer: str,
        deadline_s: float | None = None,
        send_initial: Callable[[Metadata], Coroutine[Any, Any, None]] | None = None,
    ) -> None:
        self.metadata: Mapping[str, str] = {
            key: value for key, value in metadata if isinstance(value, str)
        }
        self.trailing: list[tuple[str, str | bytes]] = []
        self._metadata = metadata
        self._peer = peer
        self._deadline_s = deadline_s
        self._send_initial = send_initial

    @property
    def ic_token(self) -> str:
        """The IC token among the call's metadata; empty if there is none."""
        if token := self.metadata.get("x-ic-key", ""):
            return token
        scheme, _, credential = self.metadata.get("authorization", "").partition(" ")
        found = scheme.lower() == "bearer" and credential.startswith("ic_")
        return credential if found else ""

    @property
    def forwarded(self) -> str:
        """The addresses that proxies say the call came from, the nearest last; anyone's claim."""
        return self.metadata.get(FORWARDED_KEY, "")

    def stand_for(self, credentials: Mapping[str, str], bound_to: str) -> None:
        """Go on as if the caller had sent these credentials in place of a ticket."""
        told = {key: text for key, text in self.metadata.items() if key != "x-ticket"}
        self.metadata = {**told, **credentials}
        self.bound_to = bound_to

    def came_from(self, peer: str) -> None:
        """Say where the caller is, for a door that learns it from the metadata."""
        self._peer = peer

    # What grpc promises a servicer.

    def invocation_metadata(self) -> Any:
        return tuple(self._metadata)

    def peer(self) -> str:
        return self._peer

    def time_remaining(self) -> float | None:  # type: ignore[override]
        """Seconds until the caller's deadline; None without one."""
        if self._deadline_s is None:
            return None
        return max(0.0, self._deadline_s - time.monotonic())

    async def send_initial_metadata(self, initial_metadata: Any = ()) -> None:
        if self.sent is None:
            self.sent = (*self.initial, *initial_metadata)
            if self._send_initial is not None:
                # Cancelled on its way it would still be under way, and grpc could send no status.
                await finish(self._send_initial(self.sent))

    def set_trailing_metadata(self, trailing_metadata: Any) -> None:
        self.trailing = list(trailing_metadata)

    def trailing_metadata(self) -> Any:
        return tuple(self.trailing)

    async def abort(
        self, code: grpc.StatusCode, details: str = "", trailing_metadata: Any = ()
    ) -> NoReturn:
        self.trailing.extend(trailing_metadata)
        raise Refused(status_pb2.Status(code=code.value[0], message=details))

    async def abort_with_status(self, status: Any) -> NoReturn:
        detailed: status_pb2.Status | None = None
        for key, value in status.trailing_metadata or ():
            if key == STATUS_DETAILS:
                detailed = status_pb2.Status.FromString(value)
            else:
                self.trailing.append((key, value))
        if detailed is not None:
            raise Refused(detailed)
        await self.abort(status.code, status.details)
        raise AssertionError("unreachable")

    def set_code(self, code: Any) -> None:
        self._code = code

    def code(self) -> Any:
        return self._code

    def set_details(self, details: str) -> None:
        self._details = details

    def details(self) -> Any:
        return self._details

    async def read(self) -> Any:
        raise NotImplementedError("iterate the requests")

    async def write(self, message: Any) -> None:
        raise NotImplementedError("yield the responses")

    def cancelled(self) -> bool:
        return False

    def done(self) -> bool:
        return False

    def add_done_callback(self, callback: Any) -> None:
        raise NotImplementedError("use try/finally")

    def set_compression(self, compression: Any) -> None:
        del compression

    def disable_next_message_compression(self) -> None:
        """Answers are not compressed here."""

    def auth_context(self) -> Any:
        return {}

    def peer_identities(self) -> Any:
        return None

    def peer_identity_key(self) -> Any:
        return None


CURRENT: ContextVar[Call | None] = ContextVar("call", default=None)
"""The call under way, for the log; asynchronous generators do not keep it."""


def call_of(context: Context) -> Call:
    """The `Call` behind a servicer's context; every servicer is given one."""
    return cast("Call", context)


def caller(context: Context) -> Principal:
    """Who is calling, and from where; what they call with, a gateway between says for them."""
    call = call_of(context)
    address, told = address_of(call.peer()), call.metadata
    origin = Origin(
        str(address) if address else call.peer().partition(":")[0],
        told.get("x-user-agent", told.get("user-agent", ""))[:MAX_USER_AGENT],
        call.request_id,
        call.endpoint,
    )
    return replace(call.principal, origin=origin)
