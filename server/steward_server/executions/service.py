"""ExecutionService: translates between protos and the room."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from google.api.httpbody_pb2 import HttpBody

from steward.executions.v1 import executions_pb2 as pb
from steward.executions.v1 import executions_pb2_grpc as rpc
from steward_server.calls import Context, call_of, caller
from steward_server.checks import Checks
from steward_server.errors import InvalidArgument, NotFound, StewardError
from steward_server.executions import projection
from steward_server.executions.engine import Engine
from steward_server.executions.execution import About, Event
from steward_server.executions.feed import Frame
from steward_server.executions.outlet import Outlet, Shown, Watching
from steward_server.executions.room import Asked, ExecutionRoom
from steward_server.executions.run import Change, Kind, Run, pause, resume, skip, stop
from steward_server.executions.store import Wanted
from steward_server.interceptors.errors import refusal
from steward_server.principals import Principal
from steward_server.structs import values_of

EXCHANGE = "/steward.executions.v1.ExecutionService/Exchange"
DEFAULT_LIMIT = 50
MAX_LIMIT = 1_000
MAX_SUBSCRIBED = 1_000
MAX_ID = 100
_PIECE_BYTES = 65_536
_OPENING_GRACE_S = 0.1
"""How long the first message of an exchange is waited for."""


@dataclass(frozen=True, slots=True)
class ExecutionService(rpc.ExecutionServiceServicer):
    """Serves runs."""

    room: ExecutionRoom
    engine: Engine
    shown: Shown = field(default_factory=Shown)

    async def StartExecution(
        self, request: pb.StartExecutionRequest, context: Context
    ) -> pb.StartExecutionResponse:
        with Checks() as checks:
            checks.text("playbook_path", request.playbook_path, 1, 500)
            checks.text("credential_name", request.credential_name, 0, 100)
        asked = Asked(
            request.playbook_path,
            values_of(request.parameters),
            request.gateway_url,
            request.credential_name,
            request.debug_mode,
        )
        execution = await self.room.begin(caller(context), asked)
        return pb.StartExecutionResponse(
            execution_id=execution.execution_id,
            playbook_name=execution.playbook_name,
            status="started",
            message=f"Execution started with ID: {execution.execution_id}",
        )

    async def ListExecutions(
        self, request: pb.ListExecutionsRequest, context: Context
    ) -> pb.ListExecutionsResponse:
        with Checks() as checks:
            checks.between("limit", request.limit, 0, MAX_LIMIT)
            _check_status(checks, "status", request.status)
        wanted = Wanted(
            state=projection.STATE_OF.get(request.status),
            playbook_path=request.playbook_path,
            parent_id=request.parent_execution_id,
        )
        found = await self.room.page(
            caller(context), wanted, request.before_execution_id, request.limit or DEFAULT_LIMIT
        )
        return pb.ListExecutionsResponse(executions=[projection.of_row(each) for each in found])

    async def GetExecution(
        self, request: pb.GetExecutionRequest, context: Context
    ) -> pb.GetExecutionResponse:
        seen = await self.room.get(caller(context), request.execution_id)
        return pb.GetExecutionResponse(execution=projection.in_full(seen))

    async def PauseExecution(
        self, request: pb.PauseExecutionRequest, context: Context
    ) -> pb.PauseExecutionResponse:
        await self._control(context, request.execution_id, lambda run, _: pause(run))
        return pb.PauseExecutionResponse(
            message="Execution paused", execution_id=request.execution_id
        )

    async def ResumeExecution(
        self, request: pb.ResumeExecutionRequest, context: Context
    ) -> pb.ResumeExecutionResponse:
        await self._control(context, request.execution_id, lambda run, _: resume(run))
        return pb.ResumeExecutionResponse(
            message="Execution resumed", execution_id=request.execution_id
        )

    async def SkipExecution(
        self, request: pb.SkipExecutionRequest, context: Context
    ) -> pb.SkipExecutionResponse:
        await self._control(context, request.execution_id, lambda run, _: skip(run))
        return pb.SkipExecutionResponse(message="Step skipped", execution_id=request.execution_id)

    async def CancelExecution(
        self, request: pb.CancelExecutionRequest, context: Context
    ) -> pb.CancelExecutionResponse:
        with Checks() as checks:
            reason = checks.prose("reason", request.reason, 0, 500)

        def asked(run: Run, name: str) -> list[Change]:
            return stop(run, f"cancelled by {name}" + (f": {reason}" if reason else ""))

        await self._control(context, request.execution_id, asked)
        return pb.CancelExecutionResponse(
            message="Execution cancelled", execution_id=request.execution_id
        )

    async def RerunExecution(
        self, request: pb.RerunExecutionRequest, context: Context
    ) -> pb.RerunExecutionResponse:
        _check_id(request.execution_id)
        execution = await self.room.rerun(
            caller(context), request.execution_id, from_start=request.from_start
        )
        return pb.RerunExecutionResponse(
            execution_id=execution.execution_id,
            playbook_name=execution.playbook_name,
            status="started",
            message=f"Execution started with ID: {execution.execution_id}",
        )

    async def ApproveExecution(
        self, request: pb.ApproveExecutionRequest, context: Context
    ) -> pb.ApproveExecutionResponse:
        await self._give_word(context, request, approves=True)
        return pb.ApproveExecutionResponse(
            message="Step approved", execution_id=request.execution_id
        )

    async def RejectExecution(
        self, request: pb.RejectExecutionRequest, context: Context
    ) -> pb.RejectExecutionResponse:
        await self._give_word(context, request, approves=False)
        return pb.RejectExecutionResponse(
            message="Step rejected", execution_id=request.execution_id
        )

    async def DeleteExecution(
        self, request: pb.DeleteExecutionRequest, context: Context
    ) -> pb.DeleteExecutionResponse:
        _check_id(request.execution_id)
        count = await self.room.delete(caller(context), request.execution_id)
        return pb.DeleteExecutionResponse(
            message="Execution deleted successfully",
            execution_id=request.execution_id,
            screenshots_deleted=count,
        )

    async def ListArtifacts(
        self, request: pb.ListArtifactsRequest, context: Context
    ) -> pb.ListArtifactsResponse:
        found = await self.room.artifacts_of(caller(context), request.execution_id)
        return pb.ListArtifactsResponse(artifacts=[projection.of_artifact(each) for each in found])

    async def ReadArtifact(
        self, request: pb.ReadArtifactRequest, context: Context
    ) -> AsyncIterator[pb.ReadArtifactResponse]:
        kept, path = await self.room.artifact(
            caller(context), request.execution_id, request.artifact_id
        )
        with _opened(path, request.artifact_id) as file:
            # Never shown in place: what a page was made of is nobody's to trust.
            name = kept.artifact.name.replace('"', "")
            disposition = ("content-disposition", f'attachment; filename="{name}"')
            nosniff = ("x-content-type-options", "nosniff")
            await context.send_initial_metadata((disposition, nosniff))
            content_type, is_first = kept.artifact.content_type, True
            while (piece := await asyncio.to_thread(file.read, _PIECE_BYTES)) or is_first:
                body = HttpBody(content_type=content_type if is_first else "", data=piece)
                is_first = False
                yield pb.ReadArtifactResponse(content=body)

    async def Watch(
        self, request: pb.WatchRequest, context: Context
    ) -> AsyncIterator[pb.WatchResponse]:
        with Checks() as checks:
            checks.between("since", request.since, 0, 2**63 - 1)
        who, feed = caller(context), self.engine.feed
        deletions = feed.deletions
        execution = await self.room.execution(who, request.execution_id)
        with feed.watched():
            newest = await feed.newest()
            await context.send_initial_metadata(())
            # Its past is read for itself; from there on it is followed with all others.
            past = await self.room.events_of(execution, request.since)
            for event in past:
                yield _watched(self.shown.event(execution.about, event), event.number)
            if _is_end(past) or execution.state.is_over:
                return
            begin = max(newest, past[-1].number if past else 0)
            is_it = execution.execution_id.__eq__
            watching = Watching(
                feed, lambda about: is_it(about.execution_id), begin, frames=request.frames
            )
            while True:
                bell = feed.bell
                found = await watching.take()
                for each in found:
                    if isinstance(each, Frame):
                        yield _watched(self.shown.frame(each), 0)
                        continue
                    yield _watched(self.shown.event(*each), each[1].number)
                    if _is_end([each[1]]):
                        return
                if feed.deletions != deletions:
                    deletions = feed.deletions
                    await self.room.execution(who, request.execution_id)
                if not found:
                    await asyncio.wait({bell})

    async def Exchange(
        self, request_iterator: AsyncIterator[pb.ExchangeRequest], context: Context
    ) -> AsyncIterator[pb.ExchangeResponse]:
        call, feed = call_of(context), self.engine.feed
        outlet = Outlet(feed, self.shown)

        async def take(request: pb.ExchangeRequest) -> None:
            try:
                match request.WhichOneof("message"):
                    case "subscribe":
                        watching = await self._subscribed(request.subscribe, caller(context))
                        outlet.watch(watching)
                    case "ping":
                        pong = pb.Pong(timestamp=request.ping.timestamp)
                        await outlet.answer(pb.ExchangeResponse(pong=pong))
                    case _:
                        raise InvalidArgument(
                            'the message is neither "subscribe" nor "ping"', reason="EMPTY_MESSAGE"
                        )
            except StewardError as error:
                refused = refusal(error, call, EXCHANGE).status
                await outlet.answer(pb.ExchangeResponse(refusal=refused))

        with feed.watched():
            reading = asyncio.create_task(outlet.fill(request_iterator, take))
            try:
                # Whoever subscribes first thing is let in when the subscription stands.
                await outlet.opened(_OPENING_GRACE_S)
                await context.send_initial_metadata(())
                async for response in outlet.responses():
                    yield response
            finally:
                reading.cancel()
                await asyncio.wait({reading})

    async def _subscribed(self, request: pb.SubscribeRequest, who: Principal) -> Watching:
        with Checks() as checks:
            if request.HasField("since"):
                checks.between("since", request.since, 0, 2**63 - 1)
            for index, status in enumerate(request.status):
                _check_status(checks, f"status[{index}]", status)
            if len(request.execution_id) > MAX_SUBSCRIBED:
                checks.add("execution_id", f"has {len(request.execution_id)}; at most 1000")
        for each in request.execution_id:
            await self.room.execution(who, each)
        only = frozenset(request.execution_id)
        states = {projection.STATE_OF[each] for each in request.status if each}
        logs = request.logs or not request.HasField("logs")

        def wants(about: About) -> bool:
            is_asked = not only or about.execution_id in only
            return is_asked and self.room.sees(who, about.owner_id, about.agent_id)

        def wants_event(event: Event) -> bool:
            is_asked = not states or event.run_state in states
            return is_asked and (logs or event.change.kind is not Kind.LOGGED)

        begin = await self.engine.feed.newest()
        if request.HasField("since"):
            begin = min(begin, request.since)
        frames = request.frames or not request.HasField("frames")
        return Watching(self.engine.feed, wants, begin, frames=frames, wants_event=wants_event)

    async def _control(
        self, context: Context, execution_id: str, asked: Callable[[Run, str], list[Change]]
    ) -> None:
        _check_id(execution_id)
        await self.room.control(caller(context), execution_id, asked)

    async def _give_word(self, context: Context, request: Any, *, approves: bool) -> None:
        _check_id(request.execution_id)
        with Checks() as checks:
            comment = checks.prose("comment", request.comment, 0, 500)
        await self.room.give_word(
            caller(context), request.execution_id, request.step_id, comment, approves=approves
        )


def _check_id(execution_id: str) -> None:
    with Checks() as checks:
        checks.text("execution_id", execution_id, 1, MAX_ID)


def _check_status(checks: Checks, name: str, status: int) -> None:
    if status and status not in projection.STATE_OF:
        known = ", ".join(str(each) for each in projection.STATES)
        checks.add(name, f"is {status}; it must be one of {known}")


def _is_end(events: Sequence[Event]) -> bool:
    return bool(events) and events[-1].change.kind is Kind.ENDED


def _watched(response: pb.ExchangeResponse, number: int) -> pb.WatchResponse:
    if response.WhichOneof("message") == "screenshot_frame":
        return pb.WatchResponse(screenshot_frame=response.screenshot_frame)
    return pb.WatchResponse(sequence=number, execution_update=response.execution_update)


@contextmanager
def _opened(path: Path, artifact_id: str) -> Iterator[BinaryIO]:
    try:
        file = path.open("rb")
    except FileNotFoundError:
        raise NotFound.of("artifact", artifact_id) from None
    with file:
        yield file
