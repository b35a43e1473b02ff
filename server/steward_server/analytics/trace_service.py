"""TraceService: what is known of single LLM calls."""

from __future__ import annotations

from steward.analytics.v1 import traces_pb2 as pb
from steward.analytics.v1 import traces_pb2_grpc as rpc
from steward_server.analytics.traces import (
    FROM_THE_NEWEST,
    Position,
    Trace,
    TraceRoom,
    Wanted,
)
from steward_server.calls import Context, caller
from steward_server.checks import Checks
from steward_server.clock import microseconds, timestamp
from steward_server.pages import from_page_token, page_size, to_page_token

IS_FAILED = {
    pb.TRACE_STATUS_UNSPECIFIED: None,
    pb.TRACE_STATUS_COMPLETED: False,
    pb.TRACE_STATUS_FAILED: True,
}
LAST_SECOND = 253_402_300_799
"""Of the year 9999: what protobuf's timestamps end with."""


class TraceService(rpc.TraceServiceServicer):
    """Serves traces to people."""

    def __init__(self, room: TraceRoom) -> None:
        self._room = room

    async def ListTraces(
        self, request: pb.ListTracesRequest, context: Context
    ) -> pb.ListTracesResponse:
        with Checks() as checks:
            size = page_size(checks, "page_size", request.page_size)
            position = _position(checks, request.page_token)
            checks.text("agent_id", request.agent_id, 0, 100)
            checks.text("project_id", request.project_id, 0, 100)
            checks.text("provider", request.provider, 0, 50)
            checks.text("model", request.model, 0, 100)
            if request.status not in IS_FAILED:
                checks.add("status", f"is {request.status}; there is no such value")
            since_us = _moment(checks, request, "since")
            until_us = _moment(checks, request, "until")
            if since_us is not None and until_us is not None and since_us >= until_us:
                checks.add("until", "must be after since")
        wanted = Wanted(
            agent_id=request.agent_id,
            provider=request.provider,
            model=request.model,
            is_failed=IS_FAILED[request.status],
            since_us=since_us,
            until_us=until_us,
            project_id=request.project_id,
        )
        traces, following = await self._room.page(caller(context), wanted, position, size)
        return pb.ListTracesResponse(
            traces=[_to_proto(trace) for trace in traces],
            next_page_token=_page_token(following) if following else "",
        )

    async def GetTrace(self, request: pb.GetTraceRequest, context: Context) -> pb.GetTraceResponse:
        with Checks() as checks:
            checks.text("trace_id", request.trace_id, 1, 100)
        trace = await self._room.get(caller(context), request.trace_id)
        return pb.GetTraceResponse(trace=_to_proto(trace))


def _page_token(position: Position) -> str:
    at_us, trace_id = position.told or (0, "")
    return to_page_token(position.lsn or 0, f"{at_us} {trace_id}")


def _position(checks: Checks, token: str) -> Position:
    found = from_page_token(checks, "page_token", token)
    if found is None:
        return FROM_THE_NEWEST
    lsn, rest = found
    at_us, separator, trace_id = rest.partition(" ")
    if not separator or not at_us.isdecimal() or len(at_us) > 18:
        checks.add("page_token", "is not the `next_page_token` of an answer of this path")
        return FROM_THE_NEWEST
    return Position(lsn or None, (int(at_us), trace_id) if trace_id else None)


def _moment(checks: Checks, request: pb.ListTracesRequest, field: str) -> int | None:
    if not request.HasField(field):  # type: ignore[arg-type]
        return None
    stamp = getattr(request, field)
    if not 0 <= stamp.seconds <= LAST_SECOND:
        checks.add(field, "must be from the years 1970 to 9999")
        return None
    return microseconds(stamp)


def _to_proto(trace: Trace) -> pb.Trace:
    return pb.Trace(
        id=trace.trace_id,
        agent_id=trace.agent_id,
        lease_id=trace.lease_id,
        request_id=trace.request_id,
        provider=trace.provider,
        model=trace.model,
        status=pb.TRACE_STATUS_FAILED if trace.is_failed else pb.TRACE_STATUS_COMPLETED,
        billed=trace.lsn > 0,
        input_tokens=trace.input_tokens,
        output_tokens=trace.output_tokens,
        cache_read_tokens=trace.cache_read_tokens,
        cache_write_tokens=trace.cache_write_tokens,
        total_tokens=trace.total_tokens,
        cost_nanousd=trace.cost_nanousd,
        overrun_nanousd=trace.overrun_nanousd,
        claimed_cost_nanousd=trace.claimed_cost_nanousd,
        certainty=trace.certainty,
        error_code=trace.error_code,
        error_message=trace.error_message,
        duration_ms=trace.duration_ms or None,
        ended_at=timestamp(trace.ended_at_us),
        recorded_at=timestamp(trace.recorded_at_us),
    )
