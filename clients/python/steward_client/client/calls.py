"""What a call to the server is before it is made. Pure: nothing here sends anything.

A resource says once, for the blocking and for the waiting client, which request a method makes and
how its answer is read; `@rpc` turns that into a method of either client with the right type.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass
from functools import update_wrapper
from typing import Any, Concatenate, Generic, ParamSpec, Protocol, TypeVar, overload

from google.protobuf.message import Message

P = ParamSpec("P")
T = TypeVar("T")


class Blocking:
    """Marks resources whose methods return their answer."""


class Awaiting:
    """Marks resources whose methods are awaited."""


Manner = TypeVar("Manner", Blocking, Awaiting)


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """One rpc with its request, and what becomes of the answer."""

    service: type[Any]
    """The generated stub."""
    method: str
    request: Message | Iterable[Message]
    """One message; or, where requests are a stream that is sent to its end, all of them."""
    read: Callable[[Sequence[Any]], T]
    """Reads the answer: one message, or one for each page."""
    next_page: Callable[[Any], Message | None] = lambda _: None
    """The request for the page after this answer; None after the last."""
    repeatable: bool = False
    """Doing it twice has the effect of doing it once, so it may be tried again."""
    public: bool = False
    """No credential is shown."""
    streams: bool = False
    """The answer is a stream, and there once the server has let the caller in."""
    talks: bool = False
    """Requests are a stream as well as answers, and `request` is the first of them. Without
    `streams` nobody waits for the server to let the caller in."""
    lasts_s: float = 0.0
    """How long the sign-in is to be good for from then on: an open stream ends with it."""
    takes_s: float = 0.0
    """How long the server may take, if that is longer than what the client allows every call."""
    within_s: float | None = None
    """How long it may take in all, with every attempt; None: as long as the client allows."""


class Performer(Protocol):
    """Makes calls: returns the answer, or a coroutine of it."""

    def perform(self, call: Call[Any]) -> Any: ...


class Resource(Generic[Manner]):
    """A group of methods, called through one client."""

    def __init__(self, performer: Performer) -> None:
        self._performer = performer

    def perform(self, call: Call[Any]) -> Any:
        return self._performer.perform(call)


class Rpc(Generic[P, T]):
    """A method of a resource, blocking or awaited as the resource is marked."""

    def __init__(self, build: Callable[Concatenate[Any, P], Call[T]]) -> None:
        self._build = build
        self.__doc__ = build.__doc__

    @overload
    def __get__(self, resource: Resource[Blocking], owner: Any) -> Callable[P, T]: ...
    @overload
    def __get__(
        self, resource: Resource[Awaiting], owner: Any
    ) -> Callable[P, Coroutine[Any, Any, T]]: ...
    @overload
    def __get__(self, resource: None, owner: Any) -> Rpc[P, T]: ...
    def __get__(self, resource: Resource[Any] | None, owner: Any) -> Any:
        if resource is None:
            return self

        def method(*args: P.args, **kwargs: P.kwargs) -> Any:
            return resource.perform(self._build(resource, *args, **kwargs))

        return update_wrapper(method, self._build)


def rpc(build: Callable[Concatenate[Any, P], Call[T]]) -> Rpc[P, T]:
    """Make a method of a function that builds a call."""
    return Rpc(build)


def first(read: Callable[[Any], T]) -> Callable[[Sequence[Any]], T]:
    """Read an answer that has one page."""
    return lambda answers: read(answers[0])


def every(read: Callable[[Any], Sequence[T]]) -> Callable[[Sequence[Any]], tuple[T, ...]]:
    """Read the items of all pages."""
    return lambda answers: tuple(item for answer in answers for item in read(answer))


def nothing(_answers: Sequence[Any]) -> None:
    """Read an answer that says only that it was done."""
