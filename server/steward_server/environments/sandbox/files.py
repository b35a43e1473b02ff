"""The files of machines: what is opened is opened inside, by a process with its user's rights."""

from __future__ import annotations

import asyncio
import errno
import os
import stat
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from operator import attrgetter
from typing import Any, TypeVar

from steward_server.completion import finish
from steward_server.environments.driver import (
    MOST_LISTED,
    FileFault,
    FileInfo,
    Gone,
    in_calendar,
)
from steward_server.environments.sandbox.channel import Channel
from steward_server.environments.sandbox.inside.packets import close_all
from steward_server.environments.sandbox.worked import Worked

Fds = list[int]  # `list` means something else within the class
_CHUNK_BYTES = 256 * 1024
_MOST_ENTRIES = 1_000_000
"""Of a directory that is listed: more is work without end, for who asks and for the server."""
_MOST_WORDS = 200
"""Characters of what it says went wrong."""
_path = attrgetter("path")
_T = TypeVar("_T")


class SandboxFiles:
    """The sandbox' `Files`."""

    def __init__(self, machine: Callable[[str], Worked]) -> None:
        self._machine = machine

    async def stat(self, environment_id: str, path: str) -> FileInfo:
        return _file(await self._once(environment_id, "stat", path), path)

    async def list(self, environment_id: str, path: str) -> Sequence[FileInfo]:
        found: list[FileInfo] = []
        count = 0
        async with self._work(environment_id, "list", path) as (channel, answer, _):
            told = answer
            while True:
                more = _infos(told, path)
                count += len(more)
                found += more
                is_whole = not told.get("more")
                if is_whole or len(found) > 4 * MOST_LISTED:
                    # Of a directory without end, no more is kept than is shown.
                    found = sorted(found, key=_path)[: MOST_LISTED + 1]
                if is_whole:
                    return found
                if not more:
                    raise _nonsense(path)
                if count > _MOST_ENTRIES:
                    raise FileFault(
                        "EOVERFLOW",
                        f"{path!r} has more than {_MOST_ENTRIES} entries; run a command that "
                        "looks for those that are wanted",
                    )
                told, fds = await channel.receive()
                close_all(fds)
                _check(told, path)

    async def read(
        self, environment_id: str, path: str, *, offset: int = 0
    ) -> AsyncIterator[bytes]:
        async with self._work(environment_id, "read", path) as (_, _, fds):
            fd = os.dup(_content(fds, path))
        try:
            while data := await _aside(os.pread, fd, _CHUNK_BYTES, offset):
                offset += len(data)
                yield data
        except OSError as error:
            raise _fault(error.errno or errno.EIO, error.strerror, path) from None
        finally:
            os.close(fd)

    async def write(
        self, environment_id: str, path: str, content: AsyncIterator[bytes], *, mode: int = 0o644
    ) -> FileInfo:
        async with self._work(environment_id, "write", path, mode=mode) as (channel, _, fds):
            fd = _content(fds, path)
            async for data in content:
                try:
                    await _aside(_write_all, fd, data)
                except OSError as error:
                    raise _fault(error.errno or errno.EIO, error.strerror, path) from None
            told, more = await channel.ask({"commit": True})
            close_all(more)
            _check(told, path)
            return _file(told, path)

    async def make_directory(self, environment_id: str, path: str) -> FileInfo:
        return _file(await self._once(environment_id, "make_directory", path), path)

    async def remove(self, environment_id: str, path: str, *, recursive: bool) -> None:
        await self._once(environment_id, "remove", path, recursive=recursive)

    async def move(self, environment_id: str, path: str, to: str) -> None:
        _must_be_absolute(to)
        await self._once(environment_id, "move", path, to=to)

    async def watch(self, environment_id: str, path: str) -> AsyncIterator[tuple[str, str]]:
        async with self._work(environment_id, "watch", path) as (channel, _, _):
            while True:
                try:
                    told, fds = await channel.receive()
                except Gone:  # the machine has ended
                    return
                close_all(fds)
                events = told.get("events")
                for event in events if isinstance(events, list) else [None]:
                    match event:
                        case [str(kind), str(where)]:
                            yield kind, where
                        case _:
                            raise _nonsense(path)

    async def _once(
        self, environment_id: str, work: str, path: str, **more: object
    ) -> dict[str, Any]:
        async with self._work(environment_id, work, path, **more) as (_, told, _):
            return told

    @asynccontextmanager
    async def _work(
        self, environment_id: str, work: str, path: str, **more: object
    ) -> AsyncIterator[tuple[Channel, dict[str, Any], Fds]]:
        """Have something done, and keep the worker while its answers are looked at.

        Commands of the machine may have got hold of the worker: its answers are not believed.
        """
        _must_be_absolute(path)
        machine = self._machine(environment_id)
        user = {"user": machine.record.user, "group": machine.record.group}
        channel = await machine.connect()
        fds: Fds = []
        try:
            request = {"op": "files", "work": work, "path": path, **user, **more}
            told, fds = await channel.ask(request)
            _check(told, path)
            yield channel, told, fds
        except Gone:
            if not machine.is_alive:
                raise
            raise FileFault("EINTR", f"{path!r}: the machine has killed who worked on it") from None
        finally:
            close_all(fds)
            channel.close()


async def _aside(work: Callable[..., _T], *arguments: object) -> _T:
    """Run what uses a descriptor in a thread; given up, it is waited for.

    Whoever gives it up closes the descriptor, whose number may be another file's at once.
    """
    return await finish(asyncio.to_thread(work, *arguments))


def _content(fds: Fds, path: str) -> int:
    """The one descriptor of a regular file: reading or writing any other could last for ever."""
    if len(fds) != 1 or not stat.S_ISREG(os.fstat(fds[0]).st_mode):
        raise _nonsense(path)
    return fds[0]


def _file(told: dict[str, Any], path: str) -> FileInfo:
    try:
        return _info(told["file"])
    except (KeyError, TypeError):
        raise _nonsense(path) from None


def _infos(told: dict[str, Any], path: str) -> Sequence[FileInfo]:
    try:
        return [_info(each) for each in told["files"]]
    except (KeyError, TypeError):
        raise _nonsense(path) from None


def _nonsense(path: str) -> FileFault:
    return FileFault("EIO", f"{path!r}: the machine has meddled with who worked on it")


def _info(told: dict[str, Any]) -> FileInfo:
    texts = [told[name] for name in ("path", "kind", "target")]
    size, modified_at_us = told["size"], told["modified_at_us"]
    numbers = [told[name] for name in ("mode", "user", "group")]
    if not (
        all(isinstance(each, str) for each in texts)
        and isinstance(size, int)
        and 0 <= size < 1 << 63
        and isinstance(modified_at_us, int)
        and all(isinstance(each, int) and 0 <= each < 1 << 32 for each in numbers)
    ):
        raise TypeError("not of a file")
    return FileInfo(
        path=told["path"],
        kind=told["kind"],
        size_bytes=size,
        mode=told["mode"],
        user=told["user"],
        group=told["group"],
        modified_at_us=in_calendar(modified_at_us),
        target=told["target"],
    )


def _must_be_absolute(path: str) -> None:
    if not path.startswith("/") or "\0" in path:
        raise FileFault("EINVAL", f"{path!r} is not an absolute path")


def _check(told: dict[str, Any], path: str) -> None:
    if "errno" not in told:
        return
    match told:
        case {"errno": int(number), "error": str(text) | (None as text)}:
            raise _fault(number, text and text[:_MOST_WORDS], path)
        case _:
            raise _nonsense(path)


def _fault(number: int, text: str | None, path: str) -> FileFault:
    return FileFault(errno.errorcode.get(number, "EIO"), f"{path!r}: {text or 'failed'}")


def _write_all(fd: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(fd, rest) :]
