"""Lets callers repeat a mutation by its `request_id`: it is done once and answered each time."""

from __future__ import annotations

import hashlib
from typing import Any

from google.protobuf.descriptor_pool import Default
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from grpc_interceptor.server import AsyncServerInterceptor

from steward.gateway.v1.options_pb2 import MethodRule
from steward_server.calls import Call
from steward_server.checks import Checks
from steward_server.idempotency.answers import Answers
from steward_server.idempotency.store import Key


def applies(rule: MethodRule) -> bool:
    """Whether a method's repeats are known by this interceptor and not by its servicer."""
    return bool(rule.request_id_field) and not rule.knows_repeats


class Idempotency(AsyncServerInterceptor):
    """One method's repeats."""

    def __init__(self, name: str, rule: MethodRule, answers: Answers) -> None:
        self._field = rule.request_id_field
        self._answers = answers
        descriptor = Default().FindMethodByName(name.removeprefix("/").replace("/", "."))
        self._response = GetMessageClass(descriptor.output_type)

    async def intercept(
        self, method: Any, request_or_iterator: Any, context: Any, method_name: str
    ) -> Any:
        request: Message = request_or_iterator
        call: Call = context
        request_id: str = getattr(request, self._field)
        if not request_id:
            return await method(request, context)
        with Checks() as checks:
            checks.text(self._field, request_id, 1, 100)

        async def work() -> bytes:
            response: Message = await method(request, context)
            return response.SerializeToString()

        key = Key(call.principal.subject, method_name, request_id)
        answer = await self._answers.once(key, self._digest(request), work)
        return self._response.FromString(answer)

    def _digest(self, request: Message) -> bytes:
        """Of everything asked for; fields this server does not know included."""
        bare = type(request)()
        bare.CopyFrom(request)
        bare.ClearField(self._field)
        return hashlib.sha256(bare.SerializeToString(deterministic=True)).digest()
