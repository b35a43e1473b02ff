"""`Client`: each method returns when the server has answered."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import grpc
from google.protobuf.message import Message

from steward_client.client.aside import Aside, L
from steward_client.client.calls import Blocking, Call
from steward_client.client.conversation import Conversation, Read, Say, Send, Step, Wait
from steward_client.client.credentials import Credentials, Memory, SignInStore
from steward_client.client.server import Server, Stubs, address_of
from steward_client.client.talk import Talk
from steward_client.errors import StewardError, Unavailable, error_of

if TYPE_CHECKING:
    from steward_client.client.awaiting import AsyncClient

ENDING_S = 1.0
"""How long the calls of a client that is closed may take to end; they take milliseconds."""


class Client(Server[Blocking]):
    """A server's interface; its methods return when the server has answered.

    >>> with Client() as client:  # doctest: +SKIP
    ...     client.login("admin", password)
    ...     agent = client.agents.create("scout", budget_usd="2.50")
    ...     client.budget.status(agent.id).available_usd
    Decimal('2.500000000')

    May be used from several threads.

    Args:
        address: `host:port`, or `https://host:port` for TLS; else `STEWARD_SERVER`, else
            127.0.0.1:50051.
        token: an access token or an API key to show, for callers that do not sign in.
        ca_file: PEM certificates the server's must be signed by; TLS is used if it is given.
        timeout_s: how long the server may take to answer one request.
        patience_s: how long a call is tried again, if it is safe to repeat, while the server is
            away; and any call that the server refuses with the time after which it will not.
        attempts: how often a call is made at the most; else as often as patience allows.
        store: where a sign-in is kept; else it lasts as long as the client.
        clock: the time in seconds since 1970.
    """

    def __init__(
        self,
        address: str | None = None,
        *,
        token: str | None = None,
        ca_file: str | None = None,
        timeout_s: float = 30.0,
        patience_s: float = 10.0,
        attempts: int | None = None,
        store: SignInStore | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(
            self,
            Credentials(token, store or Memory(), clock),
            patience_s=patience_s,
            attempts=attempts,
        )
        self._address = address_of(address, ca_file)
        self._channel = self._address.open()
        self._stubs = Stubs(self._channel)
        self._timeout_s = timeout_s
        self._streams = 0
        self._fewer = threading.Condition()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; open subscriptions end."""
        self._channel.close()
        # grpc ends calls in a thread of its own. If the interpreter ends while that thread holds a
        # call's lock, the collection of the call waits for the lock for ever.
        with self._fewer:
            self._fewer.wait_for(lambda: not self._streams, ENDING_S)

    def perform(self, call: Call[Any]) -> Any:
        return self.hold(self.manners.converse(call))

    def opened(self, build: Callable[[AsyncClient], L], aside: Callable[..., Aside[L]]) -> Aside[L]:
        """Open what lives on an event loop, on a thread."""
        from steward_client.client.awaiting import AsyncClient  # an event loop that few need

        return aside(
            lambda: AsyncClient(
                self._address,
                timeout_s=self._timeout_s,
                patience_s=self.manners.patience_s,
                attempts=self.manners.attempts,
                credentials=self._credentials,
            ),
            build,
        )

    def hold(self, conversation: Conversation[Any]) -> Any:
        """Carry a conversation to its end."""
        try:
            step = next(conversation)
            while True:
                try:
                    result = self._take(step)
                except grpc.RpcError as error:
                    step = conversation.throw(error_of(error))
                except StewardError as error:
                    step = conversation.throw(error)
                else:
                    step = conversation.send(result)
        except StopIteration as ended:
            return ended.value

    def _take(self, step: Step) -> Any:
        match step:
            case Send(call, metadata) if call.streams or call.talks:
                method = self._stubs.method(call)
                if call.talks:
                    stream = Talk(method, call.request, metadata)
                else:
                    stream = method(call.request, metadata=metadata)
                self._count(stream)
                if call.streams:
                    stream.initial_metadata()
                    if stream.done() and stream.code() is not grpc.StatusCode.OK:
                        raise _refusal(stream)
                return stream
            case Send(call, metadata, left_s):
                method = self._stubs.method(call)
                request = call.request if isinstance(call.request, Message) else iter(call.request)
                timeout_s = max(self._timeout_s, call.takes_s) if left_s is None else left_s
                return method(request, metadata=metadata, timeout=timeout_s)
            case Wait(delay_s):
                return time.sleep(delay_s)
            case Read(stream, may_end):
                answer = next(stream, None)
                if answer is None and not may_end:
                    raise Unavailable("the server ended the stream")
                return answer
            case Say(stream, message, until_sent):
                return stream.say(message, until_sent=until_sent)

    def _count(self, stream: Any) -> None:
        def ended() -> None:
            with self._fewer:
                self._streams -= 1
                self._fewer.notify_all()

        with self._fewer:
            self._streams += 1
        if not stream.add_callback(ended):
            ended()


def _refusal(stream: Any) -> grpc.RpcError:
    error: grpc.RpcError = stream.call if isinstance(stream, Talk) else stream
    return error
