"""`AsyncClient`: the same methods as `Client`, awaited."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

import grpc
import grpc.aio

from steward_client.channels import Address
from steward_client.client.aside import L
from steward_client.client.calls import Awaiting, Call
from steward_client.client.conversation import Conversation, Read, Say, Send, Step, Wait
from steward_client.client.credentials import Credentials, Memory, SignInStore
from steward_client.client.server import Server, Stubs, address_of
from steward_client.errors import StewardError, Unavailable, error_of


class AsyncClient(Server[Awaiting]):
    """`Client` for code with an event loop: the same methods, awaited."""

    def __init__(
        self,
        address: str | Address | None = None,
        *,
        token: str | None = None,
        ca_file: str | None = None,
        timeout_s: float = 30.0,
        patience_s: float = 10.0,
        attempts: int | None = None,
        store: SignInStore | None = None,
        clock: Callable[[], float] = time.time,
        credentials: Credentials | None = None,
    ) -> None:
        """As `Client`; `credentials` are those of another client, in place of a token or store."""
        shown = credentials or Credentials(token, store or Memory(), clock)
        super().__init__(self, shown, patience_s=patience_s, attempts=attempts)
        self._channel = address_of(address, ca_file).open_async()
        self._stubs = Stubs(self._channel)
        self._timeout_s = timeout_s

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """As `Client.close`."""
        await self._channel.close()

    async def perform(self, call: Call[Any]) -> Any:
        return await self.hold(self.manners.converse(call))

    async def opened(self, build: Callable[[AsyncClient], L], aside: Any) -> L:  # noqa: ARG002
        """Open what lives on an event loop."""
        made = build(self)
        try:
            await made.open()
        except BaseException:
            await made.close()
            raise
        return made

    async def hold(self, conversation: Conversation[Any]) -> Any:
        """Carry a conversation to its end."""
        try:
            step = next(conversation)
            while True:
                try:
                    result = await self._take(step)
                except grpc.aio.AioRpcError as error:
                    step = conversation.throw(error_of(error))
                except StewardError as error:
                    step = conversation.throw(error)
                else:
                    step = conversation.send(result)
        except StopIteration as ended:
            return ended.value

    async def _take(self, step: Step) -> Any:
        match step:
            case Send(call, metadata) if call.streams or call.talks:
                method = self._stubs.method(call)
                if call.talks:
                    stream = method(metadata=metadata)
                    await _say(stream, call.request)
                else:
                    stream = method(call.request, metadata=metadata)
                if call.streams:
                    await stream.initial_metadata()
                    await stream.wait_for_connection()
                return stream
            case Send(call, metadata, left_s):
                method = self._stubs.method(call)
                timeout_s = max(self._timeout_s, call.takes_s) if left_s is None else left_s
                return await method(call.request, metadata=metadata, timeout=timeout_s)
            case Wait(delay_s):
                return await asyncio.sleep(delay_s)
            case Read(stream, may_end):
                answer = await stream.read()
                if answer is not grpc.aio.EOF:
                    return answer
                if not may_end:
                    raise Unavailable("the server ended the stream")
                return None
            case Say(stream, message):
                return await _say(stream, message)


async def _say(stream: Any, message: Any) -> None:
    try:
        await stream.write(message)
    except asyncio.InvalidStateError:
        raise Unavailable("the stream has ended") from None
