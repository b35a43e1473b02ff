"""Refusals as exceptions, addresses as channels, and what an agent's process sees."""

from __future__ import annotations

import grpc
import pytest
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2, status_pb2

from steward_client import errors
from steward_client.channels import Address
from steward_client.child import agent_environment
from steward_client.cli.endings import tell_cut
from steward_client.errors import error_of_status


def status(code: grpc.StatusCode, reason: str = "") -> status_pb2.Status:
    made = status_pb2.Status(code=code.value[0], message="what happened")
    details = [
        error_details_pb2.ErrorInfo(reason=reason, domain="steward", metadata={"agent": "a"}),
        error_details_pb2.RetryInfo(retry_delay=Duration(seconds=2, nanos=500_000_000)),
        error_details_pb2.BadRequest(
            field_violations=[
                error_details_pb2.BadRequest.FieldViolation(field="name", description="is empty")
            ]
        ),
    ]
    for detail in details:
        packed = AnyMessage()
        packed.Pack(detail)
        made.details.append(packed)
    return made


@pytest.mark.parametrize(
    ("code", "reason", "kind"),
    [
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "BUDGET_EXCEEDED", errors.BudgetExceeded),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "RATE_LIMITED", errors.RateLimited),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "ACCOUNT_LOCKED", errors.RateLimited),
        (grpc.StatusCode.UNAUTHENTICATED, "TOKEN_REVOKED", errors.Unauthorized),
        (grpc.StatusCode.PERMISSION_DENIED, "", errors.Forbidden),
        (grpc.StatusCode.NOT_FOUND, "AGENT_NOT_FOUND", errors.NotFound),
        (grpc.StatusCode.ALREADY_EXISTS, "TOKEN_EXISTS", errors.Conflict),
        (grpc.StatusCode.FAILED_PRECONDITION, "AGENT_STOPPED", errors.AgentStopped),
        (grpc.StatusCode.FAILED_PRECONDITION, "LEASE_CLOSED", errors.Conflict),
        (grpc.StatusCode.INVALID_ARGUMENT, "", errors.InvalidRequest),
        (grpc.StatusCode.UNAVAILABLE, "CIRCUIT_OPEN", errors.CircuitOpen),
        (grpc.StatusCode.UNAVAILABLE, "", errors.Unavailable),
        (grpc.StatusCode.DEADLINE_EXCEEDED, "", errors.DeadlineExceeded),
        (grpc.StatusCode.INTERNAL, "", errors.ServerFault),
    ],
)
def test_a_refusal_is_the_exception_of_its_reason_or_code(
    code: grpc.StatusCode, reason: str, kind: type[errors.StewardError]
) -> None:
    error = error_of_status(status(code, reason))

    assert type(error) is kind
    assert error.message == str(error) == "what happened"
    assert error.reason == (reason or kind.default_reason)
    assert error.facts == {"agent": "a"}
    assert error.fields == {"name": "is empty"}
    assert error.retry_after_s == 2.5


def test_the_tree_in_the_docstring_is_the_tree() -> None:
    drawn = errors.__doc__ or ""
    kinds = [
        each
        for each in vars(errors).values()
        if isinstance(each, type) and issubclass(each, errors.StewardError)
    ]

    assert len(kinds) == 14
    for kind in kinds:
        assert f" {kind.__name__} " in f" {drawn} ".replace("\n", " \n "), kind
    assert issubclass(errors.AgentStopped, errors.Conflict)


@pytest.mark.parametrize(
    ("text", "target", "secure"),
    [
        ("127.0.0.1:50051", "127.0.0.1:50051", False),
        ("https://steward.example.com:443", "steward.example.com:443", True),
        ("https://steward.example.com/", "steward.example.com", True),
        ("http://localhost:50051", "localhost:50051", False),
    ],
)
def test_an_address_says_whether_it_is_spoken_to_in_secret(
    text: str,
    target: str,
    secure: bool,  # noqa: FBT001 - a column of the table above
) -> None:
    address = Address.parse(text)

    assert (address.target, address.secure) == (target, secure)


@pytest.mark.parametrize("text", ["", "ftp://a:1", "https://a/b", "a:1/b"])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="no server's address"):
        Address.parse(text)


def test_an_agent_sees_the_proxy_and_no_credential_that_is_real() -> None:
    inherited = {
        "PATH": "/bin",
        "STEWARD_IC_TOKEN": "ic_1",
        "STEWARD_SERVER": "far:1",
        "IC_TOKEN": "ic_1",
        "OPENAI_API_KEY": "sk-real",
        "OPENAI_ORG_ID": "org",
        "ANTHROPIC_AUTH_TOKEN": "real",
        "AZURE_OPENAI_API_KEY": "real",
        "COPY": "ic_1",
        "NO_PROXY": "example.com",
        "EMPTY": "",
    }
    seen = agent_environment(inherited, token="sk-steward-1", port=4711, secrets=("ic_1", ""))

    assert seen == {
        "PATH": "/bin",
        "EMPTY": "",
        "OPENAI_BASE_URL": "http://127.0.0.1:4711/v1",
        "OPENAI_API_KEY": "sk-steward-1",
        "ANTHROPIC_BASE_URL": "http://127.0.0.1:4711",
        "ANTHROPIC_API_KEY": "sk-steward-1",
        "NO_PROXY": "example.com,127.0.0.1",
        "no_proxy": "example.com,127.0.0.1",
    }


@pytest.mark.parametrize(
    ("cut", "told"),
    [
        (errors.Unavailable("Socket closed"), "no connection"),
        (errors.RateLimited("too many streams"), "too many streams"),
        (errors.Unauthorized("the sign-in has ended"), ""),
    ],
)
def test_a_cut_is_told_unless_it_is_a_sign_in_that_is_renewed(
    cut: errors.StewardError, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    tell_cut(cut)

    assert capsys.readouterr().err == (
        f"the stream was cut ({told}); trying again\n" if told else ""
    )
