"""Gives every call an id, for its log lines and for whoever asks about it later."""

from __future__ import annotations

import re
import secrets
from typing import Any

from grpc_interceptor.server import AsyncServerInterceptor

from steward_server.calls import CURRENT, Call

ACCEPTED = re.compile(r"[A-Za-z0-9._:/+=@-]{1,128}")
"""What a caller's own id may look like, here as in the gateway; others could forge log lines."""


class RequestId(AsyncServerInterceptor):
    """Takes `x-request-id` or makes one, tells it to the log, and answers it as a trailer."""

    def intercept(
        self, method: Any, request_or_iterator: Any, context: Any, method_name: str
    ) -> Any:
        call: Call = context
        if not call.request_id:  # else the door has seen to it
            given = call.metadata.get("x-request-id", "")
            call.request_id = given if ACCEPTED.fullmatch(given) else f"req_{secrets.token_hex(12)}"
        call.trailing.append(("x-request-id", call.request_id))
        call.endpoint = method_name
        CURRENT.set(call)
        return method(request_or_iterator, context)
