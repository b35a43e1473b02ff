"""An address in front of a server that refuses some calls first; everything else it passes on.

What happens to which method is written down in `clients/conformance/README.md`.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, NoReturn

import grpc
import grpc.aio
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

SLOW_S = 5.0


@dataclass(frozen=True, slots=True)
class Plan:
    """What becomes of the calls of a method."""

    code: grpc.StatusCode = grpc.StatusCode.UNAVAILABLE
    times: int | None = None
    """How many attempts are refused; None: all."""
    retry_after_s: float | None = None
    done: bool = False
    """The refused attempt is passed on first, and its answer lost."""
    slow_s: float = 0.0


LOST = Plan(times=1, done=True)
PLANS = {
    "/steward.agents.v1.AgentService/GetAgentStatus": Plan(times=0, slow_s=SLOW_S),
    "/steward.auth.v1.AuthService/GetMe": Plan(times=2),
    "/steward.agents.v1.AgentService/GetAgent": Plan(),
    "/steward.agents.v1.AgentService/UpdateAgent": Plan(),
    "/steward.agents.v1.AgentService/StopAgent": Plan(
        grpc.StatusCode.RESOURCE_EXHAUSTED, times=1, retry_after_s=0.3
    ),
    "/steward.agents.v1.AgentService/StartAgent": Plan(times=1, retry_after_s=0.3),
    "/steward.projects.v1.ProjectService/ListProjects": Plan(
        grpc.StatusCode.RESOURCE_EXHAUSTED, retry_after_s=0.05
    ),
    "/steward.projects.v1.ProjectService/GetProject": Plan(
        grpc.StatusCode.RESOURCE_EXHAUSTED, retry_after_s=30
    ),
    "/steward.users.v1.UserService/ListUsers": Plan(grpc.StatusCode.RESOURCE_EXHAUSTED),
    "/steward.tokens.v1.TokenService/ListTokens": Plan(grpc.StatusCode.INTERNAL),
    "/steward.tokens.v1.TokenService/GetToken": Plan(grpc.StatusCode.ABORTED),
    "/steward.agents.v1.AgentService/CreateAgent": LOST,
    "/steward.budget.v1.BudgetService/Handshake": LOST,
    "/steward.budget.v1.BudgetService/Return": LOST,
}


class Shaky(grpc.GenericRpcHandler):
    """Takes every call, of one message and one answer, as bytes."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._channel = channel
        self._attempts: Counter[str] = Counter()

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[bytes, bytes]:
        method = details.method

        async def answer(request: bytes, context: grpc.aio.ServicerContext[Any, Any]) -> bytes:
            plan = PLANS.get(method, Plan(times=0))
            self._attempts[method] += 1
            attempt = self._attempts[method]
            is_refused = plan.times is None or attempt <= plan.times
            await asyncio.sleep(plan.slow_s)
            if is_refused and not plan.done:
                await _refuse(context, plan, attempt)
            answer = await self._pass_on(method, request, context)
            if is_refused:
                await _refuse(context, plan, attempt)
            return answer

        return grpc.unary_unary_rpc_method_handler(answer)

    async def _pass_on(
        self, method: str, request: bytes, context: grpc.aio.ServicerContext[Any, Any]
    ) -> bytes:
        shown = [
            (key, value)
            for key, value in context.invocation_metadata() or ()
            if key in ("authorization", "x-ic-key")
        ]
        try:
            call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = self._channel.unary_unary(method)
            return await call(request, metadata=shown)
        except grpc.aio.AioRpcError as error:
            await context.abort(error.code(), error.details() or "", error.trailing_metadata())


async def _refuse(
    context: grpc.aio.ServicerContext[Any, Any], plan: Plan, attempt: int
) -> NoReturn:
    status = status_pb2.Status(code=plan.code.value[0], message="the address is shaky")
    info = error_details_pb2.ErrorInfo(
        reason="SHAKY", domain="steward", metadata={"attempts": str(attempt)}
    )
    details: list[Any] = [info]
    if plan.retry_after_s is not None:
        delay = Duration()
        delay.FromMilliseconds(round(plan.retry_after_s * 1_000))
        details.append(error_details_pb2.RetryInfo(retry_delay=delay))
    for detail in details:
        packed = AnyMessage()
        packed.Pack(detail)
        status.details.append(packed)
    await context.abort_with_status(rpc_status.to_status(status))
    raise AssertionError  # aborting raises


@asynccontextmanager
async def shaky(server: str) -> AsyncIterator[str]:
    """Put it in front of a server; the address."""
    async with grpc.aio.insecure_channel(server) as channel:
        proxy = grpc.aio.server()
        proxy.add_generic_rpc_handlers([Shaky(channel)])
        port = proxy.add_insecure_port("127.0.0.1:0")
        await proxy.start()
        try:
            yield f"127.0.0.1:{port}"
        finally:
            await proxy.stop(None)
