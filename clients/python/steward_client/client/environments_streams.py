"""What is open for a while in an environment: its log, a command, a terminal."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC
from typing import Any, Literal, cast

from google.protobuf.message import Message

from steward.environments.v1 import environments_pb2 as pb
from steward.environments.v1.environments_pb2_grpc import EnvironmentServiceStub
from steward_client.client.calls import Call, Manner, nothing
from steward_client.client.conversation import Conversation, Read, Say, Wait
from steward_client.client.environments_values import (
    ExecExit,
    LogLine,
    LogsEnd,
    LogStream,
    Output,
    TerminalExit,
)
from steward_client.client.holding import CUTS, Holder, Open, held
from steward_client.client.values import value_of
from steward_client.errors import (
    StewardError,
    Unavailable,
    error_of_status,
)

RECONNECT_S = 60.0
PIECE_BYTES = 262_144
"""Of what is sent at once: far below what a message may have."""
LASTING_S = 3_000.0
"""A command, or a terminal, is begun with a sign-in that is good for nearly the hour it can be."""


class FollowedLogs(Open[Manner, LogLine]):
    """A log to read line by line, over as many streams as it takes; `end` says why it is over."""

    def __init__(
        self,
        holder: Holder,
        environment_id: str,
        *,
        tail: int | None,
        after: int,
        reconnect_s: float,
        on_cut: Callable[[StewardError], None],
    ) -> None:
        super().__init__(holder)
        self.end: LogsEnd | None = None
        self._environment_id = environment_id
        self._tail = tail
        self._after = after
        self._reconnecting = replace(holder.manners, patience_s=reconnect_s)
        self._delays_s = holder.manners.delays_s()
        self._on_cut = on_cut

    def open(self) -> Conversation[None]:
        if self._tail is not None:  # from that line on, also after a cut before anything was read
            request = pb.GetLogsRequest(environment_id=self._environment_id, tail=1)
            page = yield from self.holder.manners.ask(
                Call(EnvironmentServiceStub, "GetLogs", request, read=nothing, repeatable=True)
            )
            self._after = max(self._after, page.last_sequence - self._tail)
        self.stream = yield from self.holder.manners.ask(self._call())

    def next_item(self) -> Conversation[LogLine | None]:
        while self.end is None:
            if self.stream is None:
                yield Wait(next(self._delays_s))
                self.stream = yield from self._reconnecting.ask(self._call())
                self._end_if_closed()
            try:
                answer = yield Read(self.stream)
            except CUTS as cut:
                if self.closed:
                    raise
                self.stream = None
                self._on_cut(cut)
                continue
            self._delays_s = self.holder.manners.delays_s()
            if answer.HasField("end"):
                self.end = value_of(LogsEnd, answer.end)
                break
            self._after = answer.sequence
            return log_line(answer.log, answer.sequence)
        return None

    def _call(self) -> Call[Any]:
        request = pb.FollowLogsRequest(
            environment_id=self._environment_id, after=self._after, follow=True
        )
        return Call(
            EnvironmentServiceStub,
            "FollowLogs",
            request,
            read=nothing,
            repeatable=True,
            streams=True,
        )


class RunningCommand(Open[Manner, Output]):
    """A command, with everything that goes in and comes out; `exit` says how it ended.

    Iterate over it for its output. One thread, or task, may write while another reads; whoever
    writes much and reads nothing waits for ever. It ends with the sign-in it was started with, in
    an hour: what takes longer is started with an API key.
    """

    def __init__(self, holder: Holder, begun: pb.ExecStart) -> None:
        super().__init__(holder)
        self.exit: ExecExit | None = None
        self._begun = begun

    def open(self) -> Conversation[None]:
        first = pb.ExecStreamRequest(start=self._begun)
        lasts_s = float(self._begun.timeout_s) if self._begun.HasField("timeout_s") else LASTING_S
        call = Call(
            EnvironmentServiceStub,
            "ExecStream",
            first,
            read=nothing,
            talks=True,
            lasts_s=min(lasts_s, LASTING_S),
        )
        self.stream = yield from self.holder.manners.ask(call)

    def next_item(self) -> Conversation[Output | None]:
        if self.exit is not None:
            return None
        answer = yield Read(self.stream)
        match answer.WhichOneof("frame"):
            case "stdout":
                return Output("stdout", answer.stdout)
            case "stderr":
                return Output("stderr", answer.stderr)
            case _:
                self.exit = value_of(ExecExit, answer.exit)
                return None

    @held
    def write(self, data: bytes) -> Conversation[None]:
        """Give it something to read on its standard input.

        Raises:
            Unavailable: it has ended.
        """
        for at in range(0, len(data), PIECE_BYTES):
            piece = data[at : at + PIECE_BYTES]
            yield self._say(pb.ExecStreamRequest(stdin=piece))

    @held
    def end_input(self) -> Conversation[None]:
        """There is no more for it to read."""
        yield self._say(pb.ExecStreamRequest(eof=pb.Eof()))

    @held
    def resize(self, columns: int, rows: int) -> Conversation[None]:
        """Its terminal, if it has one, has another size now."""
        size = pb.TerminalSize(columns=columns, rows=rows)
        yield self._say(pb.ExecStreamRequest(resize=size))

    @held
    def signal(self, name: str) -> Conversation[None]:
        """Send it a signal, by name or number: "INT". Comes back once that has gone.

        Where nobody takes the input that is on its way already, that may be never.
        """
        yield self._say(pb.ExecStreamRequest(signal=pb.Signal(name=name)), until_sent=True)

    def _say(self, message: Message, *, until_sent: bool = False) -> Say:
        if self.exit is not None:
            raise Unavailable("the command has ended")
        return Say(self.stream, message, until_sent)


@dataclass(frozen=True, slots=True)
class Shown:
    """A piece of what a terminal shows; a character is never split."""

    stream: Literal["stdout", "stderr"]
    text: str


class Terminal(Open[Manner, Shown]):
    """A terminal, over as many connections as it takes; `exit` says how what ran in it ended.

    Iterate over it for what it shows. What is typed while there is no connection is refused with
    Unavailable. A frame that the server refuses is raised from the iteration, which may go on.
    NotFound, where the terminal is no more when the connection is made again.
    """

    def __init__(
        self,
        holder: Holder,
        opened: pb.AttachOpen,
        *,
        reconnect_s: float,
        on_cut: Callable[[StewardError], None],
    ) -> None:
        super().__init__(holder)
        self.exit: TerminalExit | None = None
        self.heard_count = 0
        """How often something came from the server: after a `ping` it grows."""
        self.is_new_connection = False
        """The connection was lost and made again, and what is shown now was shown before."""
        self._opened = opened
        self._reconnecting = replace(holder.manners, patience_s=reconnect_s)
        self._delays_s = holder.manners.delays_s()
        self._on_cut = on_cut

    def open(self) -> Conversation[None]:
        self.stream = yield from self.holder.manners.ask(self._call())

    def next_item(self) -> Conversation[Shown | None]:
        while self.exit is None:
            if self.stream is None:
                yield Wait(next(self._delays_s))
                self._opened.existing = True  # a new shell would not be the one that was lost
                self.stream = yield from self._reconnecting.ask(self._call())
                self._end_if_closed()
                self.is_new_connection = True
            try:
                answer = yield Read(self.stream)
            except CUTS as cut:
                if self.closed or not self._opened.session:
                    raise
                self.stream = None
                self._on_cut(cut)
                continue
            self.heard_count += 1
            self._delays_s = self.holder.manners.delays_s()
            if answer.HasField("refusal"):
                raise error_of_status(answer.refusal)
            match answer.frame.WhichOneof("frame"):
                case "stdout":
                    return Shown("stdout", answer.frame.stdout.data)
                case "stderr":
                    return Shown("stderr", answer.frame.stderr.data)
                case "exit":
                    self.exit = value_of(TerminalExit, answer.frame.exit)
        return None

    def hang_up(self) -> None:
        """End this connection as if it were lost."""
        if (stream := self.stream) is not None:
            stream.cancel()

    @held
    def write(self, text: str) -> Conversation[None]:
        """Type something."""
        for at in range(0, len(text), PIECE_BYTES // 4):
            data = text[at : at + PIECE_BYTES // 4]
            yield self._say(pb.AttachRequest(stdin=pb.AttachInput(data=data)))

    @held
    def resize(self, columns: int, rows: int) -> Conversation[None]:
        """It has another size now."""
        self._opened.columns, self._opened.rows = columns, rows
        size = pb.AttachResize(columns=columns, rows=rows)
        yield self._say(pb.AttachRequest(resize=size))

    @held
    def signal(self, name: str) -> Conversation[None]:
        """Send a signal, by name or number, to what runs in it."""
        yield self._say(pb.AttachRequest(signal=pb.Signal(name=name)))

    @held
    def end_input(self) -> Conversation[None]:
        """There is no more to type."""
        yield self._say(pb.AttachRequest(eof=pb.Eof()))

    @held
    def ping(self) -> Conversation[None]:
        """Have the server say something."""
        yield self._say(pb.AttachRequest(ping=pb.Ping()))

    def _say(self, message: Message) -> Say:
        if self.exit is not None:
            raise Unavailable("what ran in the terminal has ended")
        if self.stream is None:
            raise Unavailable("the connection is lost and not made again yet")
        return Say(self.stream, message)

    def _call(self) -> Call[Any]:
        return Call(
            EnvironmentServiceStub,
            "Attach",
            pb.AttachRequest(open=self._opened),
            read=nothing,
            repeatable=bool(self._opened.session),
            streams=True,
            talks=True,
            lasts_s=LASTING_S,
        )


def log_line(entry: pb.LogEntry, sequence: int) -> LogLine:
    """A line and its number."""
    at = entry.timestamp.ToDatetime(UTC) if entry.HasField("timestamp") else None
    return LogLine(at, cast("LogStream", entry.stream), entry.message, sequence)
