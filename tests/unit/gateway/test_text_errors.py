"""What is wrong with a text is told line by line, in the dialects that have a place for it."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf.any_pb2 import Any as AnyMessage
from google.rpc import status_pb2
from grpc import StatusCode

from steward.gateway.v1 import faults_pb2, options_pb2
from steward_gateway.errors import answer, refusal_of
from steward_gateway.transport import RpcFailure
from steward_server.errors import InvalidArgument, StewardError

ERRORS: list[dict[str, Any]] = [
    {"line": 3, "column": 5, "path": "a.yaml", "message": "a key is missing"},
    {"line": 4, "column": 1, "path": "a.yaml", "message": "a word is unknown"},
]


def failure(error: StewardError, code: StatusCode) -> RpcFailure:
    return RpcFailure(code, error.message, error.to_status())


def refused(code: StatusCode = StatusCode.INVALID_ARGUMENT) -> RpcFailure:
    told = faults_pb2.TextErrors(errors=[faults_pb2.TextError(**each) for each in ERRORS])
    error = InvalidArgument("it cannot be used", facts={"path": "a.yaml"}, details=[told])
    return failure(error, code)


@pytest.mark.parametrize(
    ("dialect", "body"),
    [
        (
            options_pb2.DIALECT_IGNITION,
            {
                "detail": {
                    "error": "validation_error",
                    "message": "it cannot be used",
                    "details": {"path": "a.yaml", "errors": ERRORS},
                }
            },
        ),
        (
            options_pb2.DIALECT_IRON,
            {
                "error": {
                    "code": "VALIDATION_ERROR",
                    "message": "it cannot be used",
                    "details": {"path": "a.yaml"},
                    "errors": ERRORS,
                }
            },
        ),
        (
            options_pb2.DIALECT_AGENTBOX,
            {"error": "Bad Request", "message": "it cannot be used", "code": 400},
        ),
        (options_pb2.DIALECT_CYBORG, {"detail": "it cannot be used"}),
    ],
)
def test_each_dialect_tells_them_where_it_can(dialect: Any, body: dict[str, Any]) -> None:
    assert answer(refusal_of(refused(), "req"), dialect).body == body


def test_a_fault_of_the_servers_tells_none_of_them() -> None:
    body = answer(refusal_of(refused(StatusCode.INTERNAL), "req"), options_pb2.DIALECT_IGNITION)
    assert "errors" not in body.body["detail"]["details"]


def test_a_detail_that_cannot_be_read_is_passed_over() -> None:
    broken = AnyMessage(type_url="type.googleapis.com/steward.gateway.v1.TextErrors", value=b"\xff")
    status = status_pb2.Status(code=3, message="it cannot be used", details=[broken])
    told = refusal_of(RpcFailure(StatusCode.INVALID_ARGUMENT, "it cannot be used", status), "req")
    assert (told.message, told.errors) == ("it cannot be used", [])
