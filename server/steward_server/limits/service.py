"""LimitService: translates between protos and the room."""

from __future__ import annotations

import re

from steward.limits.v1 import limits_pb2 as pb
from steward.limits.v1 import limits_pb2_grpc as rpc
from steward_server.calls import Context, caller
from steward_server.checks import Checks
from steward_server.clock import timestamp
from steward_server.limits.room import LimitRoom, Shown
from steward_server.limits.scopes import (
    MAX_REQUESTS,
    MAX_TOKENS,
    Limit,
    next_day_us,
    next_month_us,
)
from steward_server.pages import from_page_token, page_size, to_page_token
from steward_server.versions import expected_version

SCOPE = re.compile(r"everyone|(?:user|project|agent):[\x21-\x7e]{1,100}")
MAX_COST_NANOUSD = 1_000_000_000 * 1_000_000_000


class LimitService(rpc.LimitServiceServicer):
    """Serves limits to people."""

    def __init__(self, room: LimitRoom) -> None:
        self._room = room

    async def ListLimits(
        self, request: pb.ListLimitsRequest, context: Context
    ) -> pb.ListLimitsResponse:
        with Checks() as checks:
            size = page_size(checks, "page_size", request.page_size)
            after = from_page_token(checks, "page_token", request.page_token)
        shown = await self._room.page(
            caller(context), after=after[1] if after else "", limit=size + 1
        )
        response = pb.ListLimitsResponse(limits=[self._to_proto(each) for each in shown[:size]])
        if len(shown) > size:
            response.next_page_token = to_page_token(0, shown[size - 1].limit.scope)
        return response

    async def GetLimit(self, request: pb.GetLimitRequest, context: Context) -> pb.GetLimitResponse:
        with Checks() as checks:
            _check_scope(checks, request.scope)
        shown = await self._room.get(caller(context), request.scope)
        return pb.GetLimitResponse(limit=self._to_proto(shown))

    async def SetLimit(self, request: pb.SetLimitRequest, context: Context) -> pb.SetLimitResponse:
        wanted = Limit(
            request.scope,
            _given(request, "max_requests_per_minute"),
            _given(request, "max_tokens_per_day"),
            _given(request, "max_cost_per_month_nanousd"),
            0,
            0,
        )
        with Checks() as checks:
            _check_scope(checks, request.scope)
            for field, value, most in (
                ("max_requests_per_minute", wanted.max_requests_per_minute, MAX_REQUESTS),
                ("max_tokens_per_day", wanted.max_tokens_per_day, MAX_TOKENS),
            ):
                if value is not None:
                    checks.between(field, value, 1, most)
            cost_nanousd = wanted.max_cost_per_month_nanousd
            if cost_nanousd is not None and not 0 < cost_nanousd <= MAX_COST_NANOUSD:
                checks.add(
                    "max_cost_per_month_usd",
                    f"is {cost_nanousd} nano-dollars; it must be above $0, up to $1,000,000,000",
                )
            if wanted[1:4] == (None, None, None):
                checks.add(
                    "max_requests_per_minute",
                    "is missing, and so are max_tokens_per_day and max_cost_per_month_usd; "
                    "give at least one, or delete the limit",
                )
        shown = await self._room.set(
            caller(context), wanted, expected_version=expected_version(request)
        )
        return pb.SetLimitResponse(limit=self._to_proto(shown))

    async def DeleteLimit(
        self, request: pb.DeleteLimitRequest, context: Context
    ) -> pb.DeleteLimitResponse:
        with Checks() as checks:
            _check_scope(checks, request.scope)
        await self._room.delete(
            caller(context), request.scope, expected_version=expected_version(request)
        )
        return pb.DeleteLimitResponse()

    def _to_proto(self, shown: Shown) -> pb.Limit:
        limit, now_us = shown.limit, self._room.clock()
        return pb.Limit(
            scope=limit.scope,
            max_requests_per_minute=limit.max_requests_per_minute,
            max_tokens_per_day=limit.max_tokens_per_day,
            max_cost_per_month_nanousd=limit.max_cost_per_month_nanousd,
            requests_last_minute=shown.requests_last_minute,
            requests_shared=shown.requests_shared,
            tokens_today=shown.tokens_today,
            tokens_allotted=shown.tokens_allotted,
            cost_this_month_nanousd=shown.cost_this_month_nanousd,
            leased_nanousd=shown.leased_nanousd,
            tokens_reset_at=timestamp(next_day_us(now_us)),
            cost_reset_at=timestamp(next_month_us(now_us)),
            created_at=timestamp(limit.created_at_us),
            updated_at=timestamp(limit.updated_at_us),
            version=limit.version,
        )


def _given(request: pb.SetLimitRequest, field: str) -> int | None:
    return getattr(request, field) if request.HasField(field) else None  # type: ignore[arg-type]


def _check_scope(checks: Checks, scope: str) -> None:
    if not SCOPE.fullmatch(scope):
        checks.add(
            "scope",
            f"is {scope[:120]!r}; it must be everyone, user:<id>, project:<id> or agent:<id>",
        )
