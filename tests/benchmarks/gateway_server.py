"""What the gateway's benchmark calls: a trivial method behind everything, or aiohttp alone.

Takes one of `KINDS` as its argument and prints its port.
"""

from __future__ import annotations

import asyncio
import gc
import sys
from collections.abc import Sequence
from typing import Any

import orjson
import uvloop
from aiohttp import web
from grpc_interceptor.server import AsyncServerInterceptor

from steward.budget.v1 import budget_pb2 as pb
from steward.budget.v1.budget_pb2_grpc import (
    BudgetServiceServicer,
    add_BudgetServiceServicer_to_server,
)
from steward_gateway.app import build_app, serve_gateway
from steward_gateway.config import GatewayConfig
from steward_server import logs
from steward_server.auth.authenticator import IC_TOKEN_PREFIX
from steward_server.calls import Call
from steward_server.db import now_us
from steward_server.dispatch import Dispatcher, Signature
from steward_server.in_process import InProcess
from steward_server.interceptors.authentication import Authentication, LiveStreams
from steward_server.interceptors.authorization import Authorization
from steward_server.interceptors.errors import Errors
from steward_server.interceptors.metrics import Metrics
from steward_server.interceptors.rate_limit import RateLimit
from steward_server.interceptors.request_id import RequestId
from steward_server.observation import Observation
from steward_server.principals import Kind, Principal
from steward_server.rates import Rates, RatesConfig
from steward_server.verified import Verified


class Trivial(BudgetServiceServicer):
    """Answers at once."""

    async def Report(  # noqa: N802 - the proto's name
        self, request: pb.ReportRequest, context: Any
    ) -> pb.ReportResponse:
        return pb.ReportResponse(
            success=True,
            lease_spent_nanousd=request.cost_nanousd,
            lease_remaining_nanousd=99_999_999_000,
            budget_remaining_nanousd=900_000_000_000,
            desired_state=pb.DESIRED_STATE_RUNNING,
            sequence=17,
            cost_nanousd=request.cost_nanousd,
            lease_status=pb.LEASE_STATE_ACTIVE,
            commit_number=1_700,
        )


class Known:
    """Finds the one caller as the server finds those it has seen before."""

    def __init__(self) -> None:
        self._verified = Verified()

    async def authenticate(self, call: Call, ic_token: str) -> Principal:
        del ic_token
        token = call.metadata.get("x-ic-key", "")
        assert token.startswith(IC_TOKEN_PREFIX)

        async def load() -> Principal:
            return Principal(Kind.AGENT, "agent", credential="token", scopes=frozenset({"budget"}))

        return await self._verified.find(token, 0, load)


async def serve_steward() -> int:
    observation, authenticator, streams = Observation(), Known(), LiveStreams()
    rates = Rates(RatesConfig(), logins_per_minute=10)

    def interceptors(signature: Signature) -> Sequence[AsyncServerInterceptor]:
        rate_limit = RateLimit(rates.of(signature.rule.rate_category), now_us)
        return [
            RequestId(),
            Metrics(signature, observation.rpcs.of(signature.name), observation.open_streams),
            Errors(signature),
            Authentication(signature, authenticator, streams, rate_limit),
            rate_limit,
            Authorization(signature.rule),
        ]

    methods: Any = Dispatcher(interceptors)
    add_BudgetServiceServicer_to_server(Trivial(), methods)  # type: ignore[abstract]
    app = build_app(InProcess(methods), config=GatewayConfig(), observe=observation.request)
    return (await serve_gateway(app, port=0)).port


async def serve_echo() -> int:
    """What aiohttp's users write: an application, a route, JSON in and out."""

    async def echo(request: web.Request) -> web.Response:
        return web.json_response(await request.json())

    app = web.Application()
    app.router.add_post("/api/budget/report", echo)
    return await _listen(web.AppRunner(app, access_log=None))


async def serve_floor() -> int:
    """The least that aiohttp can do: no router, no application, orjson."""

    async def echo(request: web.BaseRequest) -> web.Response:
        body = orjson.loads(await request.read())
        return web.Response(body=orjson.dumps(body), content_type="application/json")

    return await _listen(web.ServerRunner(web.Server(echo, access_log=None)))


async def _listen(runner: web.AppRunner | web.ServerRunner) -> int:
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    port: int = runner.addresses[0][1]
    return port


KINDS = {"steward": serve_steward, "echo": serve_echo, "floor": serve_floor}


async def main(kind: str) -> None:
    logs.configure("json", "warning")
    port = await KINDS[kind]()
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)
    sys.stdout.write(f"{port}\n")
    sys.stdout.flush()
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1]))
