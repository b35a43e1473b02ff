"""The server's own methods, called by steps as whoever started their run, without a socket.

Each call passes every link that one over a wire does; only its caller is known by other means than
a credential. Who that is now, and what they may, is asked anew each time.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import structlog
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from steward_server.calls import CURRENT, Call, Refused
from steward_server.codes import CODES
from steward_server.dispatch import Dispatcher
from steward_server.executions.work import StepFailed
from steward_server.principals import Principal

log = structlog.get_logger(__name__)


class OnBehalf:
    """The `Steward` of one run."""

    def __init__(
        self,
        dispatcher: Dispatcher,
        who: Callable[[], Awaitable[Principal]],
        execution_id: str,
    ) -> None:
        """Call as whoever `who` gives; it raises `StewardError` where that one may act no more."""
        self._methods = dispatcher.methods
        self._who = who
        self._execution_id = execution_id

    async def call(self, method: str, request: Message) -> Any:
        """Call a method by its name on the wire (`/package.Service/Method`); gives the response.

        It is cancelled with whoever waits for it. Where its person has called too often, it waits
        until they may again: a run is not to fail because of what they do meanwhile.

        Raises:
            StepFailed: it was refused; `context` has the `code` and the `reason`.
        """
        while True:
            try:
                return await self._call(method, request)
            except StepFailed as refused:
                if refused.context.get("reason") != "RATE_LIMITED":
                    raise
                await asyncio.sleep(refused.context["retry_after_s"])

    async def _call(self, method: str, request: Message) -> Any:
        found = self._methods.get(method)
        if found is None or found.signature.streams_requests or found.signature.streams_responses:
            raise StepFailed(f"{method} cannot be called by steps", code="UNIMPLEMENTED")
        # Audit entries tell these two in place of an address and a program.
        agent = f"steward-run/{self._execution_id}"
        call = Call((("user-agent", agent),), peer="run")
        call.on_behalf_of = self._who
        code, begun_s = grpc.StatusCode.CANCELLED, time.perf_counter()
        outer = CURRENT.set(None)  # so that later lines of the run are not taken for this call's
        try:
            response = await found.open(request, call)
            code = grpc.StatusCode.OK
            return response
        except Refused as refused:
            code = CODES.get(refused.status.code, grpc.StatusCode.UNKNOWN)
            raise _failure(refused.status, code) from None
        finally:
            CURRENT.reset(outer)
            log.info(
                "run.call",
                execution_id=self._execution_id,
                endpoint=method,
                status="success" if code is grpc.StatusCode.OK else "error",
                code=code.name,
                latency_ms=round((time.perf_counter() - begun_s) * 1000, 3),
                request_id=call.request_id,
            )


def _failure(status: status_pb2.Status, code: grpc.StatusCode) -> StepFailed:
    context: dict[str, Any] = {"code": code.name}
    info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
    for detail in status.details:
        if detail.Unpack(info):
            context["reason"] = info.reason
        elif detail.Unpack(retry):
            context["retry_after_s"] = retry.retry_delay.ToMilliseconds() / 1000
    return StepFailed(status.message, **context)
