"""Failures to HTTP: a status, headers and a body in the dialect of the path. Tables, and pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from types import MappingProxyType
from typing import Any, TypeAlias

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2

from steward.gateway.v1 import faults_pb2, options_pb2
from steward_gateway.codec import BadJson, FieldErrors
from steward_gateway.templates import BadPath
from steward_gateway.transport import RpcFailure

Code = grpc.StatusCode
Dialect: TypeAlias = options_pb2.Dialect.ValueType

CLIENT_CLOSED_REQUEST = 499
"""Nobody reads it: the caller has gone. The number is nginx's, for the log."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """A failure as the core's terms have it, whatever dialect it will be told in.

    Attributes:
        reason: UPPER_SNAKE, stable, from `ErrorInfo`; "" if there is none.
        fields: what is wrong with which field.
        facts: what varies in the message, from `ErrorInfo`.
        errors: what is wrong with a text: line, column, path and message of each.
        retry_after_s: when to try again, if that is known.
        reason_status: what HTTP tells of the reason, where the contracts say more than its code.
        http: a failure of HTTP itself, which has no gRPC code of its own.
    """

    code: grpc.StatusCode
    message: str
    reason: str = ""
    fields: Mapping[str, str] = field(default_factory=dict)
    facts: Mapping[str, str] = field(default_factory=dict)
    errors: Sequence[Mapping[str, Any]] = ()
    retry_after_s: int | None = None
    reason_status: int | None = None
    http: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


class Refused(Exception):
    """The request ends here, with this refusal."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.message)
        self.refusal = refusal


@dataclass(frozen=True, slots=True)
class Answer:
    """What the caller is sent."""

    status: int
    headers: Mapping[str, str]
    body: Mapping[str, Any]


_STATUS = {
    Code.CANCELLED: CLIENT_CLOSED_REQUEST,
    Code.UNKNOWN: 500,
    Code.INVALID_ARGUMENT: 400,
    Code.DEADLINE_EXCEEDED: 504,
    Code.NOT_FOUND: 404,
    Code.ALREADY_EXISTS: 409,
    Code.PERMISSION_DENIED: 403,
    Code.RESOURCE_EXHAUSTED: 429,
    Code.FAILED_PRECONDITION: 409,
    Code.ABORTED: 409,
    Code.OUT_OF_RANGE: 409,
    Code.UNIMPLEMENTED: 501,
    Code.INTERNAL: 500,
    Code.UNAVAILABLE: 503,
    Code.DATA_LOSS: 500,
    Code.UNAUTHENTICATED: 401,
}

STOPPING = Refusal(
    Code.UNAVAILABLE,
    "the gateway is stopping; connect again",
    retry_after_s=1,
    headers={"Connection": "close"},
)

_CIRCUIT_OPEN = "CIRCUIT_OPEN"
_INVALID = "VALIDATION_ERROR"
"""The reason of whatever does not fit the contract, whether the gateway or the core found it."""

# Cyborg knows few statuses: an agent that is not there is a bad request, a bad credential 403.
_CYBORG_STATUS = {**_STATUS, Code.UNAUTHENTICATED: 403, Code.NOT_FOUND: 400}
_CYBORG_STATUS[Code.FAILED_PRECONDITION] = 400
_CYBORG_TEXTS = {
    "INVALID_TOKEN": "Invalid authentication token",
    "TOKEN_EXPIRED": "Token has expired",
}

_IRON_CODES = {
    400: "VALIDATION_ERROR",
    401: "UNAUTHORIZED",
    402: "BUDGET_EXCEEDED",
    403: "FORBIDDEN",
    404: "NOT_FOUND",
    405: "METHOD_NOT_ALLOWED",
    406: "NOT_ACCEPTABLE",
    408: "REQUEST_TIMEOUT",
    409: "CONFLICT",
    412: "PRECONDITION_FAILED",
    413: "PAYLOAD_TOO_LARGE",
    414: "URI_TOO_LONG",
    415: "UNSUPPORTED_MEDIA_TYPE",
    426: "UPGRADE_REQUIRED",
    429: "RATE_LIMITED",
    431: "HEADERS_TOO_LARGE",
    CLIENT_CLOSED_REQUEST: "CANCELLED",
    500: "INTERNAL_ERROR",
    501: "NOT_IMPLEMENTED",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
    505: "HTTP_VERSION_NOT_SUPPORTED",
    507: "INSUFFICIENT_STORAGE",
}

_IGNITION_ERRORS = {
    400: "validation_error",
    401: "permission_denied",
    402: "budget_exceeded",
    403: "permission_denied",
    404: "not_found",
    405: "method_not_allowed",
    406: "not_acceptable",
    408: "timeout_error",
    409: "resource_conflict",
    412: "precondition_failed",
    413: "payload_too_large",
    415: "unsupported_media_type",
    426: "upgrade_required",
    429: "rate_limited",
    CLIENT_CLOSED_REQUEST: "cancelled",
    500: "internal_error",
    501: "not_implemented",
    503: "unavailable",
    504: "timeout_error",
    505: "http_version_not_supported",
    507: "insufficient_storage",
}

# Where Ignition names the thing: playbook_not_found, invalid_path.
_IGNITION_NAMES_REASON = {400, 404}


def refusal_of(
    failure: RpcFailure, request_id: str, statuses: Mapping[str, int] = MappingProxyType({})
) -> Refusal:
    """Read a failed call. What may carry a program's own words is replaced by the request id.

    `statuses` are those of the contracts, for whoever tells it over HTTP.
    """
    reason, facts, fields, errors, retry_after_s = _details(failure)
    message = failure.message
    if failure.code in (Code.INTERNAL, Code.UNKNOWN, Code.DATA_LOSS):
        message, reason, facts, errors = internal_text(request_id), "", {}, []
    elif failure.code is Code.UNAVAILABLE and not reason:
        message = "the service cannot be reached just now; try again"
    elif not message:
        message = failure.code.name.lower().replace("_", " ")
    return Refusal(
        failure.code,
        message,
        reason,
        fields,
        facts,
        errors,
        retry_after_s=retry_after_s,
        reason_status=statuses.get(reason),
    )


def refusal_of_input(fault: BadJson | FieldErrors | BadPath) -> Refusal:
    """Read what is wrong with a request that never reached the core."""
    fields = fault.fields if isinstance(fault, FieldErrors) else {}
    return Refusal(
        Code.INVALID_ARGUMENT,
        str(fault),
        reason=_INVALID,
        fields={path: text for path, text in fields.items() if path},
    )


def internal(request_id: str) -> Refusal:
    """A fault of the gateway itself."""
    return Refusal(Code.INTERNAL, internal_text(request_id))


def internal_text(request_id: str) -> str:
    return f"internal error; quote request id {request_id}"


def answer(refusal: Refusal, dialect: Dialect) -> Answer:
    """Tell a refusal in a dialect."""
    status = http_status(refusal, dialect)
    headers = dict(refusal.headers)
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    if refusal.retry_after_s is not None:
        headers["Retry-After"] = str(refusal.retry_after_s)
    return Answer(status, headers, _BODIES.get(dialect, _iron)(refusal, status))


def http_status(refusal: Refusal, dialect: Dialect) -> int:
    if refusal.http is not None:
        return refusal.http
    if dialect == options_pb2.DIALECT_CYBORG:
        return 422 if refusal.reason == _INVALID else _CYBORG_STATUS[refusal.code]
    return refusal.reason_status or _STATUS[refusal.code]


def error_frame(refusal: Refusal, dialect: Dialect) -> Mapping[str, Any]:
    """The same refusal as a frame of a WebSocket that stays open."""
    body = answer(refusal, dialect).body
    if dialect == options_pb2.DIALECT_CYBORG:
        return {"error": body["detail"]}  # its frames have an `error` of their own, a text
    if dialect == options_pb2.DIALECT_IGNITION:
        return {"type": "Error", "error": body["detail"]}
    if dialect == options_pb2.DIALECT_AGENTBOX:
        return {"type": "error", **body}  # its frames are flat, and their types in lower case
    return {"type": "Error", **body}


def _details(
    failure: RpcFailure,
) -> tuple[str, dict[str, str], dict[str, str], list[dict[str, Any]], int | None]:
    reason, retry_after_s = "", None
    errors: list[dict[str, Any]] = []
    facts: dict[str, str] = {}
    fields: dict[str, str] = {}
    for packed in failure.details.details if failure.details is not None else ():
        try:
            if packed.Is(error_details_pb2.ErrorInfo.DESCRIPTOR):
                info = error_details_pb2.ErrorInfo.FromString(packed.value)
                reason, facts = info.reason, dict(info.metadata)
            elif packed.Is(error_details_pb2.BadRequest.DESCRIPTOR):
                violations = error_details_pb2.BadRequest.FromString(packed.value).field_violations
                fields |= {violation.field: violation.description for violation in violations}
            elif packed.Is(error_details_pb2.RetryInfo.DESCRIPTOR):
                delay = error_details_pb2.RetryInfo.FromString(packed.value).retry_delay
                retry_after_s = max(0, math.ceil(delay.seconds + delay.nanos / 1e9))
            elif packed.Is(faults_pb2.TextErrors.DESCRIPTOR):
                told = faults_pb2.TextErrors.FromString(packed.value).errors
                errors += [{name: getattr(each, name) for name in _TOLD} for each in told]
        except DecodeError:  # a detail of another making; the code and the message still stand
            continue
    return reason, facts, fields, errors, retry_after_s


_TOLD = ("line", "column", "path", "message")


def _iron(refusal: Refusal, status: int) -> dict[str, Any]:
    code = _IRON_CODES.get(status, "INTERNAL_ERROR")
    if status == 503 and refusal.reason == _CIRCUIT_OPEN:
        code = _CIRCUIT_OPEN
    error: dict[str, Any] = {"code": code, "message": refusal.message}
    if refusal.reason and refusal.reason != code:
        error["reason"] = refusal.reason
    if refusal.fields:
        error["fields"] = dict(refusal.fields)
    if refusal.facts:
        error["details"] = dict(refusal.facts)
    if refusal.errors:
        error["errors"] = list(refusal.errors)
    return {"error": error}


def _ignition(refusal: Refusal, status: int) -> dict[str, Any]:
    error = _IGNITION_ERRORS.get(status, "internal_error")
    details: dict[str, Any] = dict(refusal.facts)
    if refusal.reason and status in _IGNITION_NAMES_REASON:
        error = refusal.reason.lower()
    elif refusal.reason and refusal.reason.lower() != error:
        details["reason"] = refusal.reason
    if refusal.fields:
        details["fields"] = dict(refusal.fields)
    if refusal.errors:
        details["errors"] = list(refusal.errors)
    return {"detail": {"error": error, "message": refusal.message, "details": details}}


def _agentbox(refusal: Refusal, status: int) -> dict[str, Any]:
    return {"error": _phrase(status), "message": _with_fields(refusal), "code": status}


def _cyborg(refusal: Refusal, status: int) -> dict[str, Any]:
    del status
    if refusal.code is Code.UNAUTHENTICATED and refusal.reason in _CYBORG_TEXTS:
        return {"detail": _CYBORG_TEXTS[refusal.reason]}
    if refusal.reason == "RATE_LIMITED" and "limit" in refusal.facts:
        return {"detail": f"Rate limit exceeded: {refusal.facts['limit']} per 1 minute"}
    return {"detail": _with_fields(refusal)}


def _with_fields(refusal: Refusal) -> str:
    told = [
        f"{path} {text}" for path, text in refusal.fields.items() if text not in refusal.message
    ]
    return "; ".join([refusal.message, *told])


def _phrase(status: int) -> str:
    if status == CLIENT_CLOSED_REQUEST:
        return "Client Closed Request"
    return HTTPStatus(status).phrase


_BODIES: Mapping[Dialect, Callable[[Refusal, int], dict[str, Any]]] = {
    options_pb2.DIALECT_IRON: _iron,
    options_pb2.DIALECT_IGNITION: _ignition,
    options_pb2.DIALECT_AGENTBOX: _agentbox,
    options_pb2.DIALECT_CYBORG: _cyborg,
}
