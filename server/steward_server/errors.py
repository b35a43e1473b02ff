"""What can go wrong, as types; the only page that knows how each becomes a gRPC status.

StewardError
├── InvalidArgument       a value is wrong; `fields` says which and why
├── OutOfRange            right in itself, wrong in the present state of a sequence
├── Unauthenticated       no credential, or one that is not good (any more)
├── PermissionDenied      a good credential that may not do this
├── NotFound              no such thing, or none the caller may see
├── AlreadyExists         the name or the request id is taken
├── FailedPrecondition    the thing is in a state that does not allow it
├── Aborted               somebody else was faster; read again
├── ResourceExhausted     money, rate or room has run out
├── DeadlineExceeded      it took longer than the caller allowed
├── Unimplemented         this server does not do that, or it is switched off
├── Unavailable           try again later
└── Internal              a fault of ours; the cause stands in the log only
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

DOMAIN = "steward"
"""`ErrorInfo.domain` of every refusal."""


class StewardError(Exception):
    """A refusal with a stable reason.

    Its message and facts reach the caller (AIP-193): no secrets, paths or SQL in them.
    """

    code: ClassVar[grpc.StatusCode] = grpc.StatusCode.UNKNOWN
    reason: str = "UNKNOWN"

    def __init__(
        self,
        message: str,
        *,
        reason: str | None = None,
        fields: dict[str, str] | None = None,
        retry_after_s: float | None = None,
        facts: dict[str, str] | None = None,
        details: Sequence[Message] = (),
    ) -> None:
        super().__init__(message)
        self.message = message
        if reason is not None:
            self.reason = reason
        self.fields = fields or {}
        self.retry_after_s = retry_after_s
        self.facts = facts or {}
        self.details = details

    def to_status(self) -> status_pb2.Status:
        """This error as `google.rpc.Status` with ErrorInfo, BadRequest, RetryInfo and its own."""
        info = error_details_pb2.ErrorInfo(reason=self.reason, domain=DOMAIN, metadata=self.facts)
        details: list[Message] = [info]
        if self.fields:
            violations = [
                error_details_pb2.BadRequest.FieldViolation(field=field, description=text)
                for field, text in self.fields.items()
            ]
            details.append(error_details_pb2.BadRequest(field_violations=violations))
        if self.retry_after_s is not None:
            delay = Duration()
            delay.FromMilliseconds(max(0, round(self.retry_after_s * 1000)))
            details.append(error_details_pb2.RetryInfo(retry_delay=delay))
        details += self.details
        status = status_pb2.Status(code=self.code.value[0], message=self.message)
        for detail in details:
            packed = AnyMessage()
            packed.Pack(detail)
            status.details.append(packed)
        return status


class InvalidArgument(StewardError):
    code = grpc.StatusCode.INVALID_ARGUMENT
    reason = "VALIDATION_ERROR"

    @classmethod
    def of(cls, fields: dict[str, str]) -> InvalidArgument:
        """One error for all the fields that are wrong."""
        listed = "; ".join(f"{field}: {text}" for field, text in fields.items())
        return cls(f"invalid request: {listed}", fields=fields)


class OutOfRange(StewardError):
    code = grpc.StatusCode.OUT_OF_RANGE
    reason = "OUT_OF_RANGE"


class Unauthenticated(StewardError):
    code = grpc.StatusCode.UNAUTHENTICATED
    reason = "UNAUTHENTICATED"


class PermissionDenied(StewardError):
    code = grpc.StatusCode.PERMISSION_DENIED
    reason = "PERMISSION_DENIED"


class NotFound(StewardError):
    code = grpc.StatusCode.NOT_FOUND
    reason = "NOT_FOUND"

    @classmethod
    def of(cls, kind: str, name: str) -> NotFound:
        """The usual sentence: ``no agent 'agent_7'``."""
        return cls(
            f"no {kind} {name!r}",
            reason=f"{kind.upper().replace(' ', '_')}_NOT_FOUND",
            facts={kind.replace(" ", "_"): name},
        )


class AlreadyExists(StewardError):
    code = grpc.StatusCode.ALREADY_EXISTS
    reason = "ALREADY_EXISTS"


class FailedPrecondition(StewardError):
    code = grpc.StatusCode.FAILED_PRECONDITION
    reason = "FAILED_PRECONDITION"


class Aborted(StewardError):
    code = grpc.StatusCode.ABORTED
    reason = "ABORTED"


class ResourceExhausted(StewardError):
    code = grpc.StatusCode.RESOURCE_EXHAUSTED
    reason = "RESOURCE_EXHAUSTED"


class DeadlineExceeded(StewardError):
    code = grpc.StatusCode.DEADLINE_EXCEEDED
    reason = "DEADLINE_EXCEEDED"


class Unimplemented(StewardError):
    code = grpc.StatusCode.UNIMPLEMENTED
    reason = "UNIMPLEMENTED"


class Unavailable(StewardError):
    code = grpc.StatusCode.UNAVAILABLE
    reason = "UNAVAILABLE"


class Internal(StewardError):
    code = grpc.StatusCode.INTERNAL
    reason = "INTERNAL_ERROR"
