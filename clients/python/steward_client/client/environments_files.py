"""The files of environments, as their own user sees them. Paths are absolute."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from io import BytesIO
from typing import Any, BinaryIO

from google.protobuf.message import Message

from steward.environments.v1 import files_pb2 as pb
from steward.environments.v1.environments_pb2 import Eof
from steward.environments.v1.files_pb2_grpc import FileServiceStub
from steward_client.client.calls import Call, Manner, first, nothing, rpc
from steward_client.client.conversation import Conversation, Read
from steward_client.client.environments_streams import LASTING_S, PIECE_BYTES
from steward_client.client.environments_values import Directory, File, FileChange
from steward_client.client.holding import Holding, Open, held
from steward_client.client.values import value_of
from steward_client.errors import Unauthorized

TRANSFER_S = 3_600.0
"""100 MiB over a slow line."""


class Files(Holding[Manner]):
    """For whoever may write to an environment, while it runs.

    Each raises NotFound, reason FILE_NOT_FOUND, where nothing is at the path; Forbidden, reason
    FILE_NOT_ALLOWED, where the environment's user may not; and Conflict where it does not run.
    """

    @rpc
    def stat(self, environment_id: str, path: str) -> Call[File]:
        """What there is at a path."""
        request = pb.StatFileRequest(environment_id=environment_id, path=path)
        return Call(FileServiceStub, "StatFile", request, read=first(_file), repeatable=True)

    @rpc
    def list(self, environment_id: str, path: str = "/") -> Call[Directory]:
        """What is in a directory, by name; the first 10,000."""
        return Call(
            FileServiceStub,
            "ListFiles",
            pb.ListFilesRequest(environment_id=environment_id, path=path),
            read=first(lambda answer: value_of(Directory, answer)),
            repeatable=True,
        )

    @held
    def open(
        self, environment_id: str, path: str, *, offset: int = 0
    ) -> Conversation[FileContent[Manner]]:
        """The bytes of a file from `offset` on, piece by piece; up to 100 MiB."""
        request = pb.ReadFileRequest(environment_id=environment_id, path=path, offset=offset)
        content: FileContent[Manner] = FileContent(self.holder)
        yield from content.begin(_streamed("ReadFile", request))
        return content

    @held
    def read(self, environment_id: str, path: str, *, offset: int = 0) -> Conversation[bytes]:
        """The bytes of a file from `offset` on; up to 100 MiB."""
        request = pb.ReadFileRequest(environment_id=environment_id, path=path, offset=offset)
        content: FileContent[Manner] = FileContent(self.holder)
        yield from content.begin(_streamed("ReadFile", request))
        return (yield from content.whole())

    @rpc
    def write(
        self, environment_id: str, path: str, content: bytes | BinaryIO, *, mode: str = ""
    ) -> Call[File]:
        """Make or replace a file, up to 100 MiB; `mode` is octal, empty: 0644.

        Half of a file is never seen. Its directory must be there.
        """
        start = pb.WriteFileStart(environment_id=environment_id, path=path, mode=mode)
        return Call(
            FileServiceStub,
            "WriteFile",
            Pieces(pb.WriteFileRequest, start, content),
            read=first(_file),
            takes_s=TRANSFER_S,
        )

    @rpc
    def make_directory(self, environment_id: str, path: str) -> Call[File]:
        """Make a directory with its parents; nothing if it is there."""
        request = pb.MakeDirectoryRequest(environment_id=environment_id, path=path)
        return Call(FileServiceStub, "MakeDirectory", request, read=first(_file), repeatable=True)

    @rpc
    def remove(self, environment_id: str, path: str, *, recursive: bool = False) -> Call[None]:
        """Remove a file or a directory; with `recursive` everything in it."""
        request = pb.RemoveFileRequest(
            environment_id=environment_id, path=path, recursive=recursive
        )
        return Call(FileServiceStub, "RemoveFile", request, read=nothing)

    @rpc
    def move(self, environment_id: str, path: str, to: str) -> Call[None]:
        """Give a file another path."""
        request = pb.MoveFileRequest(environment_id=environment_id, path=path, to=to)
        return Call(FileServiceStub, "MoveFile", request, read=nothing)

    @held
    def watch(self, environment_id: str, path: str = "/") -> Conversation[FileChanges[Manner]]:
        """What happens below a directory, as it happens.

        It ends with the sign-in it was opened with, in an hour: what watches longer has an API key.
        """
        request = pb.WatchFilesRequest(environment_id=environment_id, path=path)
        changes: FileChanges[Manner] = FileChanges(self.holder)
        yield from changes.begin("WatchFiles", request)
        return changes


class FileContent(Open[Manner, bytes]):
    """A file on its way, piece by piece."""

    def begin(self, call: Call[Any]) -> Conversation[None]:
        self.stream = yield from self.holder.manners.ask(call)

    def next_item(self) -> Conversation[bytes | None]:
        answer = yield Read(self.stream, may_end=True)
        return None if answer is None else answer.content.data

    def whole(self) -> Conversation[bytes]:
        """All of it."""
        pieces = bytearray()
        while (piece := (yield from self.next_item())) is not None:
            pieces += piece
        return bytes(pieces)


class FileChanges(Open[Manner, FileChange]):
    """Changes of files as they happen."""

    def begin(self, method: str, request: Message) -> Conversation[None]:
        self.stream = yield from self.holder.manners.ask(_streamed(method, request))

    def next_item(self) -> Conversation[FileChange | None]:
        answer = yield Read(self.stream, may_end=True)
        return None if answer is None else value_of(FileChange, answer.change)


class Pieces:
    """The messages of a file; they can be had again, after a refusal, if the content can."""

    def __init__(
        self, message: Callable[..., Message], start: Message, content: bytes | BinaryIO
    ) -> None:
        self._message = message
        self._start = start
        self._content = content
        self._begin: int | None = None
        self._was_read = False
        if not isinstance(content, bytes) and content.seekable():
            self._begin = content.tell()

    def __iter__(self) -> Iterator[Message]:
        if self._was_read and not isinstance(self._content, bytes):
            if self._begin is None:
                raise Unauthorized(
                    "the sign-in had to be renewed, and what was sent of the file cannot be read "
                    "again; send it again"
                )
            self._content.seek(self._begin)
        self._was_read = True
        return self._messages()

    def _messages(self) -> Iterator[Message]:
        message = self._message
        yield message(start=self._start)
        content = BytesIO(self._content) if isinstance(self._content, bytes) else self._content
        while data := content.read(PIECE_BYTES):
            yield message(data=data)
        yield message(eof=Eof())


def _streamed(method: str, request: Message) -> Call[Any]:
    return Call(
        FileServiceStub,
        method,
        request,
        read=nothing,
        repeatable=True,
        streams=True,
        lasts_s=LASTING_S,
    )


def _file(answer: Any) -> File:
    return value_of(File, answer.file)
