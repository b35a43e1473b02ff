"""Counts calls and how long they took, by method and status."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

from grpc_interceptor.server import AsyncServerInterceptor
from prometheus_client import Counter, Gauge, Histogram

from steward_server.calls import Refused
from steward_server.codes import CODES


class Metrics(AsyncServerInterceptor):
    """One method's share of the metrics; its children are looked up once, not per call."""

    def __init__(self, name: str, count: Counter, latency: Histogram, open_streams: Gauge) -> None:
        self._name = name
        self._count = count
        self._ok = count.labels(name, "OK")
        self._latency = latency.labels(name)
        self._open = open_streams.labels(name)

    async def intercept(
        self,
        method: Any,
        request_or_iterator: Any,
        context: Any,
        method_name: str,  # noqa: ARG002 - the shape of an interceptor
    ) -> Any:
        begun_s = time.perf_counter()
        try:
            response = await method(request_or_iterator, context)
        except BaseException as error:
            self._count.labels(self._name, _code(error)).inc()
            raise
        if hasattr(response, "__aiter__"):
            return self._stream(response)
        self._ok.inc()
        self._latency.observe(time.perf_counter() - begun_s)
        return response

    async def _stream(self, responses: Any) -> AsyncIterator[Any]:
        self._open.inc()
        try:
            async with aclosing(responses):
                async for response in responses:
                    yield response
            self._ok.inc()
        except BaseException as error:
            self._count.labels(self._name, _code(error)).inc()
            raise
        finally:
            self._open.dec()


def _code(error: BaseException) -> str:
    if isinstance(error, Refused):
        return CODES[error.status.code].name
    return "CANCELLED" if isinstance(error, asyncio.CancelledError | GeneratorExit) else "INTERNAL"
