"""Turns what servicers raise into statuses; what it does not know is a fault of ours.

A fault is logged whole and shown as INTERNAL with the request id, so that no text of an exception
reaches a caller by accident.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import structlog
from grpc_interceptor.server import AsyncServerInterceptor

from steward_server.calls import Call, Refused
from steward_server.dispatch import Signature
from steward_server.errors import Internal, StewardError

log = structlog.get_logger(__name__)


class Errors(AsyncServerInterceptor):
    """The last to see a call before its door does."""

    def __init__(self, signature: Signature) -> None:
        self._streams = signature.streams_responses

    async def intercept(
        self, method: Any, request_or_iterator: Any, context: Any, method_name: str
    ) -> Any:
        try:
            response = await method(request_or_iterator, context)
        except Exception as error:
            raise refusal(error, context, method_name) from error
        return _stream(response, context, method_name) if self._streams else response


async def _stream(responses: Any, call: Call, method_name: str) -> AsyncIterator[Any]:
    try:
        async with aclosing(responses):
            async for response in responses:
                yield response
    except Exception as error:
        raise refusal(error, call, method_name) from error


def refusal(error: Exception, call: Call, method_name: str) -> Refused:
    """The status `error` ends a call with."""
    if isinstance(error, Refused):
        return error
    if isinstance(error, StewardError):
        if isinstance(error, Internal):
            log.error("rpc.failed", method=method_name, exc_info=error)
        return Refused(error.to_status())
    log.error("rpc.failed", method=method_name, exc_info=error)
    fault = Internal(
        f"internal error; quote request id {call.request_id}",
        facts={"request_id": call.request_id},
    )
    return Refused(fault.to_status())
