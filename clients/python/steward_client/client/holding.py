"""Methods that are more than one rpc, and streams that stay open, for both clients.

`@held` makes a method of a conversation as `@rpc` makes one of a call. What such a method gives may
be `Open`: something to iterate over, with `for` or `async for` as its client is.
"""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import Callable, Coroutine
from functools import update_wrapper
from types import TracebackType
from typing import (
    TYPE_CHECKING,
    Any,
    Concatenate,
    Generic,
    ParamSpec,
    Protocol,
    Self,
    TypeVar,
    overload,
)

from steward_client.client.aside import Aside, L
from steward_client.client.calls import Awaiting, Blocking, Manner, Performer, Resource
from steward_client.client.conversation import Conversation, Manners
from steward_client.errors import RateLimited, StewardError, Unauthorized, Unavailable

if TYPE_CHECKING:
    from steward_client.client.awaiting import AsyncClient

P = ParamSpec("P")
T = TypeVar("T")

CUTS = (Unavailable, RateLimited, Unauthorized)
"""What a stream that can be had again may end with."""


def no_matter(_cut: StewardError) -> None:
    """What a cut means to a caller who did not ask to be told."""


class Holder(Performer, Protocol):
    """Carries conversations to their end: returns what comes of them, or a coroutine of it."""

    manners: Manners

    def hold(self, conversation: Conversation[Any]) -> Any: ...

    def opened(self, build: Callable[[AsyncClient], L], aside: Callable[..., Aside[L]]) -> Any:
        """Open what lives on an event loop: as `aside`, or a coroutine of itself."""
        ...


class Holding(Resource[Manner]):
    """A group of methods of which some are conversations."""

    def __init__(self, holder: Holder) -> None:
        super().__init__(holder)
        self.holder = holder


class Held(Generic[P, T]):
    """A method that is a conversation, blocking or awaited as its resource is marked."""

    def __init__(self, converse: Callable[Concatenate[Any, P], Conversation[T]]) -> None:
        self._converse = converse
        self.__doc__ = converse.__doc__

    @overload
    def __get__(self, resource: Holding[Blocking], owner: Any) -> Callable[P, T]: ...
    @overload
    def __get__(
        self, resource: Holding[Awaiting], owner: Any
    ) -> Callable[P, Coroutine[Any, Any, T]]: ...
    @overload
    def __get__(self, resource: None, owner: Any) -> Held[P, T]: ...
    def __get__(self, resource: Holding[Any] | None, owner: Any) -> Any:
        if resource is None:
            return self

        def method(*args: P.args, **kwargs: P.kwargs) -> Any:
            return resource.holder.hold(self._converse(resource, *args, **kwargs))

        return update_wrapper(method, self._converse)


def held(converse: Callable[Concatenate[Any, P], Conversation[T]]) -> Held[P, T]:
    """Make a method of a conversation."""
    return Held(converse)


class Open(Holding[Manner], Generic[Manner, T]):
    """A stream of items to iterate over until it ends or is closed."""

    def __init__(self, holder: Holder) -> None:
        super().__init__(holder)
        self.stream: Any = None
        """The open stream; None when there is none."""
        self.closed = False

    @abstractmethod
    def next_item(self) -> Conversation[T | None]:
        """The next item; None after the last."""

    def close(self) -> None:
        """End the stream; whoever waits for an item stops waiting."""
        self.closed = True
        if self.stream is not None:
            self.stream.cancel()

    def _end_if_closed(self) -> None:
        """End a stream that was opened again while somebody closed it; to read it says so."""
        if self.closed:
            self.stream.cancel()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __iter__(self: Open[Blocking, T]) -> Open[Blocking, T]:
        return self

    def __next__(self: Open[Blocking, T]) -> T:
        try:
            item: T | None = self.holder.hold(self.next_item())
        except StewardError:
            if self.closed:
                raise StopIteration from None
            raise
        if item is None:
            raise StopIteration
        return item

    def __aiter__(self: Open[Awaiting, T]) -> Open[Awaiting, T]:
        return self

    async def __anext__(self: Open[Awaiting, T]) -> T:
        try:
            item: T | None = await self.holder.hold(self.next_item())
        except StewardError:
            if self.closed:
                raise StopAsyncIteration from None
            raise
        except asyncio.CancelledError:
            # grpc says so of a stream that was cancelled, too.
            task = asyncio.current_task()
            if self.closed and task is not None and not task.cancelling():
                raise StopAsyncIteration from None
            raise
        if item is None:
            raise StopAsyncIteration
        return item
