"""The frames of a terminal: what is typed goes in, what is written comes out as text."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from steward.environments.v1 import environments_pb2 as pb
from steward_server.calls import Call, Context
from steward_server.checks import Checks
from steward_server.environments.driver import Command, Exit, Running, Stream
from steward_server.environments.output import Texts
from steward_server.environments.reading import read_attach, read_size
from steward_server.environments.signals import signal_name, signal_number
from steward_server.environments.terminals import SHELL, Terminals, Viewer
from steward_server.errors import InvalidArgument
from steward_server.interceptors.errors import refusal
from steward_server.principals import Principal

METHOD = "/steward.environments.v1.EnvironmentService/Attach"
END_OF_INPUT = b"\x04"
"""What a terminal takes for the end of what is typed."""
MAX_WAITING = 64
"""Pongs and refusals that a reader did not take yet."""


class Attachments:
    """Serves terminals as streams of frames."""

    def __init__(self, terminals: Terminals) -> None:
        self._terminals = terminals

    def command(self, opened: pb.AttachOpen) -> Command:
        """What is to run in the terminal.

        Raises:
            InvalidArgument: with everything that is wrong.
        """
        with Checks() as checks:
            return read_attach(checks, opened, SHELL)

    async def frames(
        self,
        caller: Principal,
        opened: pb.AttachOpen,
        command: Command,
        requests: AsyncIterator[pb.AttachRequest],
        context: Context,
        call: Call,
    ) -> AsyncIterator[pb.AttachResponse]:
        """Attach the caller, and give what is written until the terminal, or they, end."""
        attached = self._terminals.attached(
            caller, opened.environment_id, opened.session, command, is_there=opened.existing
        )
        async with attached as (terminal, viewer):
            await context.send_initial_metadata(())
            replies: asyncio.Queue[pb.AttachResponse] = asyncio.Queue(MAX_WAITING)
            typing = asyncio.create_task(
                _take_in(requests, terminal.running, command, replies, call)
            )
            try:
                async for frame in _merged(viewer, replies):
                    yield frame
            finally:
                typing.cancel()
                await asyncio.gather(typing, return_exceptions=True)


async def _merged(
    viewer: Viewer, replies: asyncio.Queue[pb.AttachResponse]
) -> AsyncIterator[pb.AttachResponse]:
    texts = Texts()
    written = asyncio.ensure_future(viewer.next())
    replied = asyncio.ensure_future(replies.get())
    try:
        while True:
            await asyncio.wait({written, replied}, return_when=asyncio.FIRST_COMPLETED)
            if replied.done():
                yield replied.result()
                replied = asyncio.ensure_future(replies.get())
            if written.done():
                item = written.result()
                if isinstance(item, Exit):
                    for stream in Stream:
                        if rest := texts.text(stream, b"", final=True):
                            yield _output(stream, rest)
                    yield _exit(item)
                    return
                if text := texts.text(*item):
                    yield _output(item[0], text)
                written = asyncio.ensure_future(viewer.next())
    finally:
        written.cancel()
        replied.cancel()
        await asyncio.gather(written, replied, return_exceptions=True)


async def _take_in(
    requests: AsyncIterator[pb.AttachRequest],
    running: Running,
    command: Command,
    replies: asyncio.Queue[pb.AttachResponse],
    call: Call,
) -> None:
    async for request in requests:
        try:
            reply = await _done(request, running, command)
        except Exception as error:  # noqa: BLE001 - told to the caller, or logged as a fault
            reply = pb.AttachResponse(refusal=refusal(error, call, METHOD).status)
        if reply is not None:
            await replies.put(reply)


async def _done(
    request: pb.AttachRequest, running: Running, command: Command
) -> pb.AttachResponse | None:
    match request.WhichOneof("frame"):
        case "stdin":
            await running.write(request.stdin.data.encode())
        case "resize":
            with Checks() as checks:
                size = read_size(checks, request.resize.columns, request.resize.rows, "cols")
            await running.resize(*size)
        case "signal":
            number = signal_number(request.signal.name)
            if number is None:
                raise InvalidArgument.of(
                    {"name": f"is {request.signal.name[:40]!r}; it must be such as INT or SIGTERM"}
                )
            await running.signal(number)
        case "eof":
            if command.tty is None:
                await running.close_input()
            else:
                await running.write(END_OF_INPUT)
        case "ping":
            return pb.AttachResponse(frame=pb.AttachFrame(pong=pb.Pong()))
        case _:
            raise InvalidArgument.of({"open": "was sent already; it is the first frame only"})
    return None


def _output(stream: Stream, text: str) -> pb.AttachResponse:
    output = pb.AttachOutput(data=text)
    if stream is Stream.STDERR:
        return pb.AttachResponse(frame=pb.AttachFrame(stderr=output))
    return pb.AttachResponse(frame=pb.AttachFrame(stdout=output))


def _exit(ended: Exit) -> pb.AttachResponse:
    told = pb.AttachExit(exit_code=ended.code, signal=signal_name(ended.signal))
    return pb.AttachResponse(frame=pb.AttachFrame(exit=told))
