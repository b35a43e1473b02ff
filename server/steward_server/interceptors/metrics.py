"""Counts calls and how long they took, by method and status."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

from grpc_interceptor.server import AsyncServerInterceptor
from prometheus_client import Gauge

from steward_server.calls import Refused
from steward_server.codes import CODES
from steward_server.dispatch import Signature
from steward_server.observation import Series


class Metrics(AsyncServerInterceptor):
    """One method's share of the metrics."""

    def __init__(self, signature: Signature, series: Series, open_streams: Gauge) -> None:
        self._series = series
        series.counts.setdefault("OK", 0)  # there from the start, so that a rate has a beginning
        self._open = open_streams.labels(signature.name) if signature.streams_responses else None

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
            self._series.count(_code(error))
            raise
        if self._open is not None:
            return self._stream(response, self._open)
        self._series.count("OK")
        self._series.time(time.perf_counter() - begun_s)
        return response

    async def _stream(self, responses: Any, open_streams: Gauge) -> AsyncIterator[Any]:
        open_streams.inc()
        try:
            async with aclosing(responses):
                async for response in responses:
                    yield response
            self._series.count("OK")
        except BaseException as error:
            self._series.count(_code(error))
            raise
        finally:
            open_streams.dec()


def _code(error: BaseException) -> str:
    if isinstance(error, Refused):
        return CODES[error.status.code].name
    return "CANCELLED" if isinstance(error, asyncio.CancelledError | GeneratorExit) else "INTERNAL"
