"""FileService: translates between protos and the driver's files."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import Any, TypeVar, cast

from google.api.httpbody_pb2 import HttpBody

from steward.environments.v1 import files_pb2 as pb
from steward.environments.v1 import files_pb2_grpc as rpc
from steward_server.audit import Change, record
from steward_server.calls import Context, caller
from steward_server.checks import Checks
from steward_server.clock import timestamp
from steward_server.completion import complete
from steward_server.db import Database
from steward_server.environments.ability import refusal
from steward_server.environments.counting import Counts
from steward_server.environments.driver import (
    MOST_LISTED,
    Feature,
    FileFault,
    FileInfo,
    Files,
    Gone,
    Unusable,
)
from steward_server.environments.reading import read_path
from steward_server.environments.room import EnvironmentRoom
from steward_server.environments.sending import first_of, pieces_of, taken
from steward_server.environments.service import must_be_bound_to
from steward_server.errors import (
    AlreadyExists,
    FailedPrecondition,
    NotFound,
    PermissionDenied,
    ResourceExhausted,
    StewardError,
)
from steward_server.permissions import Permission
from steward_server.principals import Principal

MAX_FILE_BYTES = 100 * 1024 * 1024
MAX_OPEN = 100
"""Files that one caller reads and folders they watch at a time; each holds a process inside, and
files of this one, for as long as they like."""
READ_PIECE_BYTES = 262_144

OCTETS = "application/octet-stream"
_MODE = re.compile(r"0?[0-7]{1,4}")

T = TypeVar("T")

_MISSING = {"ENOENT", "ENOTDIR"}
_FORBIDDEN = {"EACCES", "EPERM", "EROFS"}
_FULL = {"ENOSPC", "EDQUOT"}


class FileService(rpc.FileServiceServicer):
    """Serves the files of environments."""

    def __init__(self, database: Database, room: EnvironmentRoom, clock: Callable[[], int]) -> None:
        self._database = database
        self._room = room
        self._clock = clock
        self._open = Counts("TOO_MANY_FILES")

    async def StatFile(self, request: pb.StatFileRequest, context: Context) -> pb.StatFileResponse:
        _check(request.environment_id, path=request.path)
        files = await self._files(caller(context), request.environment_id)
        found = await self._asked(
            context, request.environment_id, files.stat(request.environment_id, request.path)
        )
        return pb.StatFileResponse(file=_file(found))

    async def ListFiles(
        self, request: pb.ListFilesRequest, context: Context
    ) -> pb.ListFilesResponse:
        path = request.path or "/"
        _check(request.environment_id, path=path)
        files = await self._files(caller(context), request.environment_id)
        found = await self._asked(
            context, request.environment_id, files.list(request.environment_id, path)
        )
        listed = sorted(found, key=lambda each: each.path)[:MOST_LISTED]
        return pb.ListFilesResponse(
            files=[_file(each) for each in listed], truncated=len(found) > MOST_LISTED
        )

    async def ReadFile(
        self, request: pb.ReadFileRequest, context: Context
    ) -> AsyncIterator[pb.ReadFileResponse]:
        environment_id, path = request.environment_id, request.path
        with Checks() as checks:
            checks.text("environment_id", environment_id, 1, 100)
            read_path(checks, "path", path)
            checks.between("offset", request.offset, 0, 2**63 - 1)
        must_be_bound_to(context, environment_id)
        who = caller(context)
        files = await self._files(who, environment_id)
        found = await self._asked(context, environment_id, files.stat(environment_id, path))
        if found.kind != "file":
            raise FailedPrecondition(f"{path!r} is a {found.kind}, not a file", reason="NOT_A_FILE")
        left = max(0, found.size_bytes - request.offset)
        if left > MAX_FILE_BYTES:
            raise ResourceExhausted(
                f"{path!r} has {left} bytes from there on; at most {MAX_FILE_BYTES} are read at "
                "once: give an `offset`, or read it with a command",
                reason="FILE_TOO_LARGE",
            )
        await context.send_initial_metadata(())
        # It may grow while it is read, and what is inside may give more than it says.
        content = _bounded(
            self._translated(
                who, environment_id, files.read(environment_id, path, offset=request.offset)
            )
        )
        guarded = self._room.guarded(content, who, environment_id, Permission.WRITE)
        async with aclosing(guarded) as pieces:
            async for piece in pieces:
                for at in range(0, len(piece), READ_PIECE_BYTES):
                    data = piece[at : at + READ_PIECE_BYTES]
                    yield pb.ReadFileResponse(content=HttpBody(content_type=OCTETS, data=data))

    async def WriteFile(
        self, request_iterator: AsyncIterator[pb.WriteFileRequest], context: Context
    ) -> pb.WriteFileResponse:
        start = (await first_of(request_iterator, "start")).start
        environment_id, sent = start.environment_id, _bounded(pieces_of(request_iterator))
        # It may come slowly: without the right to write nothing of it is kept.
        guarded = self._room.guarded(sent, caller(context), environment_id, Permission.WRITE)
        async with aclosing(guarded) as content:
            written = await self._write(context, environment_id, start.path, start.mode, content)
        return pb.WriteFileResponse(file=_file(written))

    async def PutFile(self, request: pb.PutFileRequest, context: Context) -> pb.PutFileResponse:
        async def content() -> AsyncIterator[bytes]:
            yield request.content.data

        written = await self._write(
            context, request.environment_id, request.path, request.mode, content()
        )
        return pb.PutFileResponse(file=_file(written))

    async def MakeDirectory(
        self, request: pb.MakeDirectoryRequest, context: Context
    ) -> pb.MakeDirectoryResponse:
        _check(request.environment_id, path=request.path)
        environment_id, path = request.environment_id, request.path
        files = await self._files(caller(context), environment_id)
        made = await self._done(
            context,
            environment_id,
            files.make_directory(environment_id, path),
            "environment.directory_made",
            path=path,
        )
        return pb.MakeDirectoryResponse(file=_file(made))

    async def RemoveFile(
        self, request: pb.RemoveFileRequest, context: Context
    ) -> pb.RemoveFileResponse:
        _check(request.environment_id, path=request.path)
        environment_id, path = request.environment_id, request.path
        files = await self._files(caller(context), environment_id)
        await self._done(
            context,
            environment_id,
            files.remove(environment_id, path, recursive=request.recursive),
            "environment.file_removed",
            path=path,
        )
        return pb.RemoveFileResponse()

    async def MoveFile(self, request: pb.MoveFileRequest, context: Context) -> pb.MoveFileResponse:
        _check(request.environment_id, path=request.path, to=request.to)
        environment_id, path, to = request.environment_id, request.path, request.to
        files = await self._files(caller(context), environment_id)
        await self._done(
            context,
            environment_id,
            files.move(environment_id, path, to),
            "environment.file_moved",
            path=path,
            to=to,
        )
        return pb.MoveFileResponse()

    async def WatchFiles(
        self, request: pb.WatchFilesRequest, context: Context
    ) -> AsyncIterator[pb.WatchFilesResponse]:
        environment_id, path = request.environment_id, request.path or "/"
        _check(environment_id, path=path)
        must_be_bound_to(context, environment_id)
        who = caller(context)
        files = await self._files(who, environment_id)
        await self._asked(context, environment_id, files.stat(environment_id, path))
        await context.send_initial_metadata(())
        changes = self._translated(who, environment_id, files.watch(environment_id, path))
        guarded = self._room.guarded(changes, who, environment_id, Permission.WRITE)
        async for kind, where in guarded:
            yield pb.WatchFilesResponse(change=pb.FileChange(kind=kind, path=where))

    async def _files(self, who: Principal, environment_id: str) -> Files:
        await self._room.running(who, environment_id)
        self._room.keeper.ability.must_have(Feature.FILES)
        return self._room.keeper.driver.files

    async def _asked(self, context: Context, environment_id: str, work: Awaitable[T]) -> T:
        """What the driver gives, its faults as callers are told of them."""
        try:
            with self._room.uses.of(environment_id):
                return await work
        except FileFault as fault:
            raise _refusal(fault) from None
        except Gone:
            raise await self._room.gone(caller(context), environment_id) from None
        except Unusable as error:
            raise refusal(error, environment_id) from None

    async def _translated(
        self, who: Principal, environment_id: str, items: AsyncIterator[T]
    ) -> AsyncGenerator[T, None]:
        told = f"you read or watch {MAX_OPEN} files"
        try:
            with (
                self._open.one_more(who.subject, MAX_OPEN, told),
                self._room.uses.of(environment_id),
            ):
                async with aclosing(cast("Any", items)):
                    async for item in items:
                        yield item
        except FileFault as fault:
            raise _refusal(fault) from None
        except Gone:
            raise await self._room.gone(who, environment_id) from None
        except Unusable as error:
            raise refusal(error, environment_id) from None

    async def _write(
        self,
        context: Context,
        environment_id: str,
        path: str,
        mode: str,
        content: AsyncIterator[bytes],
    ) -> FileInfo:
        with Checks() as checks:
            checks.text("environment_id", environment_id, 1, 100)
            read_path(checks, "path", path)
            if mode and _MODE.fullmatch(mode) is None:
                checks.add("mode", f"is {mode[:20]!r}; it must be octal, such as '0644'")
        files = await self._files(caller(context), environment_id)
        bits = int(mode, 8) if mode else 0o644

        async def write(pieces: AsyncIterator[bytes]) -> FileInfo:
            written = await self._asked(
                context, environment_id, files.write(environment_id, path, pieces, mode=bits)
            )
            size = written.size_bytes
            await self._write_down(
                context, environment_id, "environment.file_written", path=path, size_bytes=size
            )
            return written

        return await taken(content, write)

    async def _done(
        self,
        context: Context,
        environment_id: str,
        work: Awaitable[T],
        action: str,
        **after: str,
    ) -> T:
        """Do something and write it down, both also where the caller has left meanwhile."""

        async def act() -> T:
            done = await self._asked(context, environment_id, work)
            await self._write_down(context, environment_id, action, **after)
            return done

        return await complete(act())

    async def _write_down(
        self, context: Context, environment_id: str, action: str, **after: str | int
    ) -> None:
        now_us, who = self._clock(), caller(context)
        change = Change(action, environment_id, after=after)
        await self._database.run(lambda transaction: record(transaction, now_us, who, change))


async def _bounded(content: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    size = 0
    async with aclosing(content):
        async for data in content:
            size += len(data)
            if size > MAX_FILE_BYTES:
                raise ResourceExhausted(
                    f"the file has more than {MAX_FILE_BYTES} bytes", reason="FILE_TOO_LARGE"
                )
            yield data


def _check(environment_id: str, **paths: str) -> None:
    with Checks() as checks:
        checks.text("environment_id", environment_id, 1, 100)
        for field, path in paths.items():
            read_path(checks, field, path)


def _refusal(fault: FileFault) -> StewardError:
    kind, text = fault.kind, str(fault)
    facts = {"errno": kind}
    if kind in _MISSING:
        return NotFound(text, reason="FILE_NOT_FOUND", facts=facts)
    if kind in _FORBIDDEN:
        return PermissionDenied(text, reason="FILE_NOT_ALLOWED", facts=facts)
    if kind in _FULL:
        return ResourceExhausted(text, reason="DISK_FULL", facts=facts)
    if kind == "EEXIST":
        return AlreadyExists(text, reason="FILE_EXISTS", facts=facts)
    return FailedPrecondition(text, reason=f"FILE_{kind}", facts=facts)


def _file(found: FileInfo) -> pb.File:
    return pb.File(
        path=found.path,
        kind=found.kind,
        size_bytes=found.size_bytes,
        mode=f"{found.mode & 0o7777:04o}",
        user=found.user,
        group=found.group,
        modified_at=timestamp(found.modified_at_us),
        target=found.target,
    )
