"""EnvironmentService: translates between protos and the room."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from typing import Any, TypeAlias

from steward.environments.v1 import environments_pb2 as pb
from steward.environments.v1 import environments_pb2_grpc as rpc
from steward_server.calls import Call, Context, call_of, caller
from steward_server.checks import Checks
from steward_server.clock import timestamp
from steward_server.environments.ability import refusal
from steward_server.environments.attachments import Attachments
from steward_server.environments.commands import Commands, Ended, Result
from steward_server.environments.config import EnvironmentsConfig
from steward_server.environments.creation import Creation
from steward_server.environments.driver import Gone, LogRecord, Running, Stream, Unusable
from steward_server.environments.health import Health
from steward_server.environments.logbook import End, Logbook
from steward_server.environments.networking import Networking
from steward_server.environments.pausing import Pausing
from steward_server.environments.reading import (
    DEFAULT_EXEC_TIMEOUT_S,
    MAX_WAIT_S,
    read_changes,
    read_exec,
    read_selector,
    read_size,
    read_wish,
)
from steward_server.environments.room import EnvironmentRoom
from steward_server.environments.sending import first_of
from steward_server.environments.sharing import Sharing
from steward_server.environments.showing import (
    FROM_STATE,
    PERMISSIONS,
    STATES,
    details,
    listed,
    log_entry,
    logs_end,
    process,
    share,
    summary,
)
from steward_server.environments.signals import signal_name, signal_number
from steward_server.environments.tickets import Tickets
from steward_server.errors import InvalidArgument, PermissionDenied
from steward_server.pages import DEFAULT_PAGE, MAX_PAGE
from steward_server.permissions import Permission

MAX_OFFSET = 2**31 - 1
MAX_TAIL = 1_000_000

FROM_PERMISSION = {number: permission for permission, number in PERMISSIONS.items()}

_Following: TypeAlias = pb.FollowLogsRequest | pb.FollowLogLinesRequest

_SERVICE = "/steward.environments.v1.EnvironmentService"
_FILES = "/steward.environments.v1.FileService"
PURPOSES = {
    pb.TICKET_PURPOSE_ATTACH: (frozenset({f"{_SERVICE}/Attach"}), Permission.WRITE),
    pb.TICKET_PURPOSE_LOGS: (frozenset({f"{_SERVICE}/FollowLogs"}), Permission.READ),
    pb.TICKET_PURPOSE_FILES: (
        frozenset({f"{_FILES}/ReadFile", f"{_FILES}/WatchFiles"}),
        Permission.WRITE,
    ),
}
"""What a ticket of each purpose is good for, and what its caller must be let."""


class EnvironmentService(rpc.EnvironmentServiceServicer):
    """Serves environments to people and their programs."""

    def __init__(
        self,
        room: EnvironmentRoom,
        creation: Creation,
        pausing: Pausing,
        networking: Networking,
        sharing: Sharing,
        commands: Commands,
        attachments: Attachments,
        logbook: Logbook,
        tickets: Tickets,
        health: Health,
        config: EnvironmentsConfig,
    ) -> None:
        self._room = room
        self._creation = creation
        self._pausing = pausing
        self._networking = networking
        self._sharing = sharing
        self._commands = commands
        self._attachments = attachments
        self._logbook = logbook
        self._tickets = tickets
        self._health = health
        self._config = config

    async def CreateEnvironment(
        self, request: pb.CreateEnvironmentRequest, context: Context
    ) -> pb.CreateEnvironmentResponse:
        wish = read_wish(request, self._creation.most, self._config)
        environment = await self._creation.create(caller(context), wish, wait_s=request.wait_s)
        return pb.CreateEnvironmentResponse(environment=summary(environment))

    async def ListEnvironments(
        self, request: pb.ListEnvironmentsRequest, context: Context
    ) -> pb.ListEnvironmentsResponse:
        limit = request.limit if request.HasField("limit") else DEFAULT_PAGE
        with Checks() as checks:
            checks.between("limit", limit, 1, MAX_PAGE)
            checks.between("offset", request.offset, 0, MAX_OFFSET)
            selector = read_selector(checks, request.label)
            if request.status and request.status not in FROM_STATE:
                checks.add("status", f"is {request.status}; it must be one of {', '.join(STATES)}")
            if request.view not in pb.EnvironmentView.values():
                checks.add("view", f"is {request.view}; it must be basic or full")
        environments, total = await self._room.page(
            caller(context),
            state=FROM_STATE.get(request.status),
            selector=selector,
            limit=limit,
            offset=request.offset,
        )
        show = listed if request.view == pb.ENVIRONMENT_VIEW_FULL else summary
        return pb.ListEnvironmentsResponse(
            environments=[show(each) for each in environments],
            total=total,
            limit=limit,
            offset=request.offset,
        )

    async def GetEnvironment(
        self, request: pb.GetEnvironmentRequest, context: Context
    ) -> pb.GetEnvironmentResponse:
        with Checks() as checks:
            checks.text("environment_id", request.environment_id, 1, 100)
            checks.between("wait", request.wait_s, 0, MAX_WAIT_S)
        seen = await self._room.get(caller(context), request.environment_id, wait_s=request.wait_s)
        return pb.GetEnvironmentResponse(environment=details(seen))

    async def UpdateEnvironment(
        self, request: pb.UpdateEnvironmentRequest, context: Context
    ) -> pb.UpdateEnvironmentResponse:
        changes = read_changes(request, self._config)
        seen = await self._networking.update(caller(context), request.environment_id, changes)
        return pb.UpdateEnvironmentResponse(environment=details(seen))

    async def DeleteEnvironment(
        self, request: pb.DeleteEnvironmentRequest, context: Context
    ) -> pb.DeleteEnvironmentResponse:
        check_id(request.environment_id)
        await self._room.delete(caller(context), request.environment_id, force=request.force)
        return pb.DeleteEnvironmentResponse()

    async def Exec(self, request: pb.ExecRequest, context: Context) -> pb.ExecResponse:
        with Checks() as checks:
            command, timeout_s = read_exec(checks, request, self._config)
        who, environment_id = caller(context), request.environment_id

        async def run() -> AsyncIterator[Result]:
            yield await self._commands.run(
                who,
                environment_id,
                command,
                timeout_s=DEFAULT_EXEC_TIMEOUT_S if timeout_s is None else timeout_s,
                stdin=request.stdin.encode(),
            )

        # It may take long, and ends as a stream of it would: with the right to the environment.
        guarded = self._room.guarded(run(), who, environment_id, Permission.WRITE)
        async with aclosing(guarded) as results:
            result: Result = await anext(results)
        return pb.ExecResponse(
            stdout=result.stdout,
            stderr=result.stderr,
            exit_code=result.exit.code,
            duration_ms=result.duration_ms,
            timed_out=result.timed_out,
            truncated=result.truncated,
            signal=signal_name(result.exit.signal),
        )

    async def ExecStream(
        self, request_iterator: AsyncIterator[pb.ExecStreamRequest], context: Context
    ) -> AsyncIterator[pb.ExecStreamResponse]:
        first = await first_of(request_iterator, "start")
        with Checks() as checks:
            command, timeout_s = read_exec(checks, first.start, self._config)
            if first.start.HasField("terminal"):
                size = first.start.terminal
                command = replace(command, tty=read_size(checks, size.columns, size.rows))
        environment_id = first.start.environment_id

        async def feed(running: Running) -> None:
            async for request in request_iterator:
                await _pass_on(request, running)

        who = caller(context)
        output = self._commands.stream(who, environment_id, command, timeout_s=timeout_s, feed=feed)
        async for item in self._room.guarded(output, who, environment_id, Permission.WRITE):
            yield _exec_frame(item)

    async def GetLogs(self, request: pb.GetLogsRequest, context: Context) -> pb.GetLogsResponse:
        with Checks() as checks:
            tail = _read_logs(checks, request)
            if request.follow:
                checks.add("follow", "is true; call FollowLogs for that")
        page = await self._logbook.page(
            caller(context), request.environment_id, after=request.after, tail=tail
        )
        timed = request.timestamps or not request.HasField("timestamps")
        return pb.GetLogsResponse(
            logs=[log_entry(each, timed=timed) for each in page.records],
            last_sequence=page.records[-1].sequence if page.records else request.after,
            truncated=page.is_truncated,
        )

    async def FollowLogs(
        self, request: pb.FollowLogsRequest, context: Context
    ) -> AsyncIterator[pb.FollowLogsResponse]:
        timed = request.timestamps or not request.HasField("timestamps")
        async with self._followed(request, context) as groups:
            async for item in self._let(_each(groups), request, context):
                if isinstance(item, End):
                    yield pb.FollowLogsResponse(end=logs_end(item))
                else:
                    yield pb.FollowLogsResponse(
                        log=log_entry(item, timed=timed), sequence=item.sequence
                    )

    async def FollowLogLines(
        self, request: pb.FollowLogLinesRequest, context: Context
    ) -> AsyncIterator[pb.FollowLogLinesResponse]:
        timed = request.timestamps or not request.HasField("timestamps")
        async with self._followed(request, context) as groups:
            async for item in self._let(groups, request, context):
                if isinstance(item, End):
                    yield pb.FollowLogLinesResponse(end=logs_end(item))
                else:
                    yield pb.FollowLogLinesResponse(
                        lines=[
                            pb.FollowLogLinesResponse.Line(
                                log=log_entry(record, timed=timed), sequence=record.sequence
                            )
                            for record in item
                        ]
                    )

    @asynccontextmanager
    async def _followed(
        self, request: _Following, context: Context
    ) -> AsyncIterator[AsyncGenerator[Sequence[LogRecord] | End, None]]:
        """The groups of lines that are asked for, for the block.

        Raises:
            InvalidArgument, PermissionDenied, NotFound, ResourceExhausted: it is refused, before it
                is accepted.
        """
        with Checks() as checks:
            tail = _read_logs(checks, request)
        environment_id, who = request.environment_id, caller(context)
        must_be_bound_to(context, environment_id)
        await self._room.find(who, environment_id, Permission.READ)
        with self._logbook.following(who):
            await context.send_initial_metadata(())
            yield self._logbook.follow(who, environment_id, after=request.after, tail=tail)

    def _let(self, items: Any, request: _Following, context: Context) -> AsyncIterator[Any]:
        """Pass a log on until the caller may no longer read it."""
        who = caller(context)
        return self._room.guarded(items, who, request.environment_id, Permission.READ)

    async def Attach(
        self, request_iterator: AsyncIterator[pb.AttachRequest], context: Context
    ) -> AsyncIterator[pb.AttachResponse]:
        first = await first_of(request_iterator, "open")
        opened = first.open
        command = self._attachments.command(opened)
        must_be_bound_to(context, opened.environment_id)
        who = caller(context)
        frames = self._attachments.frames(
            who, opened, command, request_iterator, context, call_of(context)
        )
        async for frame in self._room.guarded(frames, who, opened.environment_id, Permission.WRITE):
            yield frame

    async def CreateTicket(
        self, request: pb.CreateTicketRequest, context: Context
    ) -> pb.CreateTicketResponse:
        purpose = request.purpose or pb.TICKET_PURPOSE_ATTACH
        with Checks() as checks:
            checks.text("environment_id", request.environment_id, 1, 100)
            if purpose not in PURPOSES:
                checks.add("purpose", f"is {purpose}; it is attach, logs or files")
        methods, needed = PURPOSES[purpose]
        who, environment_id = caller(context), request.environment_id
        await self._room.find(who, environment_id, needed)
        call: Call = call_of(context)
        ticket, expires_at_us = self._tickets.give(
            who.subject, call.metadata, environment_id, methods
        )
        return pb.CreateTicketResponse(ticket=ticket, expires_at=timestamp(expires_at_us))

    async def PauseEnvironment(
        self, request: pb.PauseEnvironmentRequest, context: Context
    ) -> pb.PauseEnvironmentResponse:
        check_id(request.environment_id)
        seen = await self._pausing.pause(caller(context), request.environment_id)
        return pb.PauseEnvironmentResponse(environment=details(seen))

    async def ResumeEnvironment(
        self, request: pb.ResumeEnvironmentRequest, context: Context
    ) -> pb.ResumeEnvironmentResponse:
        check_id(request.environment_id)
        seen = await self._pausing.resume(caller(context), request.environment_id)
        return pb.ResumeEnvironmentResponse(environment=details(seen))

    async def ListProcesses(
        self, request: pb.ListProcessesRequest, context: Context
    ) -> pb.ListProcessesResponse:
        check_id(request.environment_id)
        who = caller(context)
        await self._room.running(who, request.environment_id, Permission.READ)
        try:
            found = await self._room.keeper.driver.processes(request.environment_id)
        except Gone:
            raise await self._room.gone(who, request.environment_id) from None
        except Unusable as error:
            raise refusal(error, request.environment_id) from None
        return pb.ListProcessesResponse(processes=[process(each) for each in found])

    async def SignalProcess(
        self, request: pb.SignalProcessRequest, context: Context
    ) -> pb.SignalProcessResponse:
        with Checks() as checks:
            checks.text("environment_id", request.environment_id, 1, 100)
            checks.between("pid", request.pid, 1, 2**31 - 1)
            number = read_signal(checks, "signal", request.signal or "TERM")
        await self._commands.signal(caller(context), request.environment_id, request.pid, number)
        return pb.SignalProcessResponse()

    async def ShareEnvironment(
        self, request: pb.ShareEnvironmentRequest, context: Context
    ) -> pb.ShareEnvironmentResponse:
        with Checks() as checks:
            _check_share(checks, request.environment_id, request.user)
            permission = FROM_PERMISSION.get(request.permission)
            if permission is None:
                checks.add("permission", "must be read, write or admin")
        assert permission is not None  # noqa: S101 - checked above
        shared = await self._sharing.share(
            caller(context), request.environment_id, request.user, permission
        )
        return pb.ShareEnvironmentResponse(share=share(shared))

    async def UnshareEnvironment(
        self, request: pb.UnshareEnvironmentRequest, context: Context
    ) -> pb.UnshareEnvironmentResponse:
        with Checks() as checks:
            _check_share(checks, request.environment_id, request.user)
        await self._sharing.unshare(caller(context), request.environment_id, request.user)
        return pb.UnshareEnvironmentResponse()

    async def ListShares(
        self, request: pb.ListSharesRequest, context: Context
    ) -> pb.ListSharesResponse:
        check_id(request.environment_id)
        shares = await self._sharing.shares(caller(context), request.environment_id)
        return pb.ListSharesResponse(shares=[share(each) for each in shares])

    async def GetHealth(
        self, request: pb.GetHealthRequest, context: Context
    ) -> pb.GetHealthResponse:
        del request, context
        return await self._health.now()


def check_id(environment_id: str) -> None:
    """Refuse what is no id.

    Raises:
        InvalidArgument: it is missing, or too long.
    """
    with Checks() as checks:
        checks.text("environment_id", environment_id, 1, 100)


def must_be_bound_to(context: Context, environment_id: str) -> None:
    """Refuse a ticket of another environment.

    Raises:
        PermissionDenied: WRONG_TICKET.
    """
    bound_to = call_of(context).bound_to
    if bound_to and bound_to != environment_id:
        raise PermissionDenied(
            f"the ticket is not for environment {environment_id!r}", reason="WRONG_TICKET"
        )


def read_signal(checks: Checks, field: str, text: str) -> int:
    """The number of a signal; what is none is noted."""
    number = signal_number(text)
    if number is None:
        checks.add(field, f"is {text[:40]!r}; it must be a signal such as TERM, SIGINT or 9")
    return number or 0


async def _pass_on(request: pb.ExecStreamRequest, running: Running) -> None:
    match request.WhichOneof("frame"):
        case "stdin":
            await running.write(request.stdin)
        case "eof":
            await running.close_input()
        case "resize":
            with Checks() as checks:
                size = read_size(checks, request.resize.columns, request.resize.rows)
            await running.resize(*size)
        case "signal":
            with Checks() as checks:
                number = read_signal(checks, "signal", request.signal.name)
            await running.signal(number)
        case _:
            raise InvalidArgument.of({"start": "was given already, or nothing was"})


def _exec_frame(item: tuple[Stream, bytes] | Ended) -> pb.ExecStreamResponse:
    if isinstance(item, Ended):
        return pb.ExecStreamResponse(
            exit=pb.ExecExit(
                exit_code=item.exit.code,
                signal=signal_name(item.exit.signal),
                timed_out=item.timed_out,
                duration_ms=item.duration_ms,
            )
        )
    stream, data = item
    if stream is Stream.STDERR:
        return pb.ExecStreamResponse(stderr=data)
    return pb.ExecStreamResponse(stdout=data)


async def _each(
    groups: AsyncGenerator[Sequence[LogRecord] | End, None],
) -> AsyncGenerator[LogRecord | End, None]:
    async with aclosing(groups):
        async for group in groups:
            if isinstance(group, End):
                yield group
                continue
            for record in group:
                yield record


def _read_logs(checks: Checks, request: pb.GetLogsRequest | _Following) -> int | None:
    checks.text("environment_id", request.environment_id, 1, 100)
    checks.between("after", request.after, 0, 2**63 - 1)
    if not request.HasField("tail"):
        return None
    checks.between("tail", request.tail, 0, MAX_TAIL)
    return request.tail


def _check_share(checks: Checks, environment_id: str, user: str) -> None:
    checks.text("environment_id", environment_id, 1, 100)
    checks.text("user", user, 1, 100)
