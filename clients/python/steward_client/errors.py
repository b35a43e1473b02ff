"""What a server can refuse, as exceptions.

StewardError                  all have `message`, `code`, `reason`, `facts`, `fields`, `errors`
├── Unauthorized              no credential, or one that is not good (any more)
├── Forbidden                 a good credential that may not do this
├── NotFound                  no such thing, or none the caller may see
├── InvalidRequest            a value is wrong; `fields` says which and why
├── Conflict                  the thing is in a state, or has a name, that does not allow it
│   └── AgentStopped          the agent was told to stop; start it first
├── BudgetExceeded            nothing is left, or too little
├── RateLimited               too many calls; `retry_after_s` says when to try again
├── CircuitOpen               something behind the server keeps failing; `retry_after_s` likewise
├── Unavailable               the server cannot be reached, or not now
│   └── StreamBroken          a stream of agents is cut, and their state may be lost
├── DeadlineExceeded          no answer in time; it may have been done all the same
└── ServerFault               a fault of the server's; its message names what to look for in the log
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, cast

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.rpc import error_details_pb2, status_pb2

from steward.gateway.v1 import faults_pb2

_DETAILS = "grpc-status-details-bin"


@dataclass(frozen=True, slots=True)
class TextError:
    """Something wrong in a text, such as a playbook's."""

    line: int
    """Counted from 1, as is the column; in characters."""
    column: int
    path: str
    """Of the text, where it has a place."""
    message: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}:{self.column}: {self.message}".removeprefix(":")


class StewardError(Exception):
    """A refusal. `reason` is stable and made for programs, the message for people."""

    default_reason: ClassVar[str] = "UNKNOWN"

    def __init__(
        self,
        message: str,
        *,
        code: str = "",
        reason: str = "",
        facts: Mapping[str, str] | None = None,
        fields: Mapping[str, str] | None = None,
        retry_after_s: float | None = None,
        errors: Sequence[TextError] = (),
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        """The status code, such as "NOT_FOUND"; empty where the client refuses by itself."""
        self.reason = reason or self.default_reason
        self.facts = dict(facts or {})
        """What the refusal is about, by name."""
        self.fields = dict(fields or {})
        """Which fields of the request are wrong, and why."""
        self.retry_after_s = retry_after_s
        """When to try again; None if the server did not say."""
        self.errors = tuple(errors)
        """What is wrong with a text that was sent, or asked for."""


class Unauthorized(StewardError):
    """No credential, or one that is unknown, expired or revoked."""

    default_reason = "UNAUTHENTICATED"


class Forbidden(StewardError):
    """The credential is good and may not do this."""

    default_reason = "PERMISSION_DENIED"


class NotFound(StewardError):
    """No such thing, or none the caller may see."""

    default_reason = "NOT_FOUND"


class InvalidRequest(StewardError):
    """A value is wrong; `fields` says which and why."""

    default_reason = "VALIDATION_ERROR"


class Conflict(StewardError):
    """The thing exists already, or is in a state that does not allow this."""

    default_reason = "CONFLICT"


class AgentStopped(Conflict):
    """The agent was told to stop and is lent nothing until it is started."""

    default_reason = "AGENT_STOPPED"


class BudgetExceeded(StewardError):
    """Nothing is left to lend, or less than was needed."""

    default_reason = "BUDGET_EXCEEDED"


class RateLimited(StewardError):
    """Too many calls; `retry_after_s` says when to try again."""

    default_reason = "RATE_LIMITED"


class CircuitOpen(StewardError):
    """Something behind the server keeps failing and is not asked now."""

    default_reason = "CIRCUIT_OPEN"


class Unavailable(StewardError):
    """The server cannot be reached, or does not serve now."""

    default_reason = "UNAVAILABLE"


class StreamBroken(Unavailable):
    """A stream of agents is cut: what the server kept of them may be lost."""

    default_reason = "STREAM_BROKEN"


class DeadlineExceeded(StewardError):
    """No answer in time; what was asked may have been done all the same."""

    default_reason = "DEADLINE_EXCEEDED"


class ServerFault(StewardError):
    """A fault of the server's."""

    default_reason = "INTERNAL_ERROR"


_BY_REASON: dict[str, type[StewardError]] = {
    "BUDGET_EXCEEDED": BudgetExceeded,
    "LIMIT_COST_PER_MONTH": BudgetExceeded,
    "RATE_LIMITED": RateLimited,
    "ACCOUNT_LOCKED": RateLimited,
    "CIRCUIT_OPEN": CircuitOpen,
    "AGENT_STOPPED": AgentStopped,
}

_BY_CODE: dict[grpc.StatusCode, type[StewardError]] = {
    grpc.StatusCode.UNAUTHENTICATED: Unauthorized,
    grpc.StatusCode.PERMISSION_DENIED: Forbidden,
    grpc.StatusCode.NOT_FOUND: NotFound,
    grpc.StatusCode.INVALID_ARGUMENT: InvalidRequest,
    grpc.StatusCode.OUT_OF_RANGE: InvalidRequest,
    grpc.StatusCode.ALREADY_EXISTS: Conflict,
    grpc.StatusCode.FAILED_PRECONDITION: Conflict,
    grpc.StatusCode.ABORTED: Conflict,
    grpc.StatusCode.RESOURCE_EXHAUSTED: RateLimited,
    grpc.StatusCode.UNAVAILABLE: Unavailable,
    grpc.StatusCode.CANCELLED: Unavailable,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineExceeded,
    grpc.StatusCode.UNIMPLEMENTED: ServerFault,
}

_CODES = {code.value[0]: code for code in grpc.StatusCode}


def error_of(error: grpc.RpcError) -> StewardError:
    """The exception of a failed call, whichever of grpc's clients made it."""
    metadata = cast(Iterable[tuple[str, Any]], error.trailing_metadata() or ())
    for key, value in metadata:
        if key == _DETAILS:
            status = status_pb2.Status()
            status.ParseFromString(value)
            return error_of_status(status)
    return _error(error.code(), error.details() or str(error.code()), ())


def error_of_status(status: status_pb2.Status) -> StewardError:
    """The exception of a refusal that travels inside a stream."""
    code = _CODES.get(status.code, grpc.StatusCode.UNKNOWN)
    return _error(code, status.message, status.details)


def _error(code: grpc.StatusCode, message: str, details: Iterable[AnyMessage]) -> StewardError:
    reason = ""
    facts: dict[str, str] = {}
    fields: dict[str, str] = {}
    retry_after_s: float | None = None
    info = error_details_pb2.ErrorInfo()
    bad = error_details_pb2.BadRequest()
    retry = error_details_pb2.RetryInfo()
    wrong = faults_pb2.TextErrors()
    for detail in details:
        if detail.Unpack(info):
            reason = info.reason
            facts = dict(info.metadata)
        elif detail.Unpack(bad):
            fields = {each.field: each.description for each in bad.field_violations}
        elif detail.Unpack(retry):
            retry_after_s = retry.retry_delay.ToMilliseconds() / 1000
        else:
            detail.Unpack(wrong)
    kind = _BY_REASON.get(reason) or _BY_CODE.get(code, ServerFault)
    return kind(
        message,
        code=code.name,
        reason=reason,
        facts=facts,
        fields=fields,
        retry_after_s=retry_after_s,
        errors=[
            TextError(each.line, each.column, each.path, each.message) for each in wrong.errors
        ],
    )
