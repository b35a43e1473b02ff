"""What callers send piece by piece: it begins with `start`, and is whole with its `eof` only."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine
from typing import Any, TypeVar

from steward_server.completion import complete_from
from steward_server.errors import InvalidArgument

MAX_PIECE_BYTES = 1024 * 1024

T = TypeVar("T")


async def first_of(requests: AsyncIterator[Any], name: str) -> Any:
    """The first message of a stream, which must be of one kind.

    Raises:
        InvalidArgument: it is another, or there is none.
    """
    async for request in requests:
        if request.HasField(name):
            return request
        break
    raise InvalidArgument.of({name: "must be the first message of the stream"})


async def pieces_of(requests: AsyncIterator[Any]) -> AsyncGenerator[bytes, None]:
    """The `data` that follows `start`, as far as `eof`.

    A call that is cancelled ends for its servicer like one that is whole, and it learns of the
    cancellation only afterwards: so the sender has to say that it was all.

    Raises:
        InvalidArgument: another message comes, a piece is too large, or there is no `eof`.
    """
    async for request in requests:
        match request.WhichOneof("part"):
            case "data":
                if len(request.data) > MAX_PIECE_BYTES:
                    raise InvalidArgument.of(
                        {"data": f"has {len(request.data)} bytes; at most {MAX_PIECE_BYTES} fit"}
                    )
                yield request.data
            case "eof":
                return
            case _:
                raise InvalidArgument.of({"start": "was given already, or nothing was"})
    raise InvalidArgument.of({"eof": "must be the last message; without it nothing is kept"})


async def taken(
    content: AsyncIterator[bytes], take: Callable[[AsyncIterator[bytes]], Coroutine[Any, Any, T]]
) -> T:
    """What `take` makes of content: given up with its sender, until it has all of it.

    From there on it goes to its end, whether its sender waits or not.
    """
    is_whole = False

    async def told() -> AsyncIterator[bytes]:
        nonlocal is_whole
        async for piece in content:
            yield piece
        is_whole = True

    return await complete_from(take(told()), lambda: is_whole)
