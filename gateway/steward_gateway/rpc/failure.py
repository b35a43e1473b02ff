"""How a call failed, whichever protocol will tell it: a code, a text, typed details."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import grpc
from google.protobuf.any_pb2 import Any as Packed
from google.rpc import error_details_pb2

from steward_gateway import errors
from steward_gateway.errors import Refusal
from steward_gateway.exchange import headers_of
from steward_gateway.transport import RpcFailure

DOMAIN = "steward"
"""`ErrorInfo.domain` of what the gateway refuses by itself; the core uses the same."""

_OPAQUE = (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN, grpc.StatusCode.DATA_LOSS)


@dataclass(frozen=True, slots=True)
class Failure:
    """A failure in the terms of gRPC.

    Attributes:
        metadata: what the caller may see of the core's; trailers where a protocol has them.
        headers: what HTTP wants beside its status, where the answer is plain HTTP.
        http: the status of a fault of HTTP itself, which only an answer that is nothing but HTTP
            shows.
    """

    code: grpc.StatusCode
    message: str
    details: Sequence[Packed] = ()
    metadata: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    http: int | None = None


def of_call(failure: RpcFailure, request_id: str, *, opened: bool = False) -> Failure:
    """Read what the core refused. A fault of its own shows its request id and nothing else.

    Of a call that is `opened`, the caller has been sent the initial metadata already.
    """
    refusal = errors.refusal_of(failure, request_id)
    metadata = failure.trailing_metadata
    if not opened:
        metadata = failure.initial_metadata + metadata
    shown = failure.details is not None and failure.code not in _OPAQUE
    return Failure(
        failure.code,
        refusal.message,
        tuple(failure.details.details) if shown and failure.details is not None else (),
        headers_of(metadata) | _retry_after(refusal.retry_after_s),
    )


def of_refusal(refusal: Refusal) -> Failure:
    """Read what the gateway refused before the core was asked."""
    details = []
    if refusal.reason:
        info = error_details_pb2.ErrorInfo(
            reason=refusal.reason, domain=DOMAIN, metadata=dict(refusal.facts)
        )
        details.append(_pack(info))
    if refusal.fields:
        violations = [
            error_details_pb2.BadRequest.FieldViolation(field=path, description=text)
            for path, text in refusal.fields.items()
        ]
        details.append(_pack(error_details_pb2.BadRequest(field_violations=violations)))
    return Failure(
        refusal.code,
        refusal.message,
        tuple(details),
        _retry_after(refusal.retry_after_s),
        refusal.headers,
        refusal.http,
    )


def _pack(detail: error_details_pb2.ErrorInfo | error_details_pb2.BadRequest) -> Packed:
    packed = Packed()
    packed.Pack(detail)
    return packed


def _retry_after(seconds: int | None) -> dict[str, str]:
    return {} if seconds is None else {"retry-after": str(seconds)}
