"""The ways a method may fail: HTTP statuses, why, and how the body looks, by dialect. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import grpc

from steward.gateway.v1 import options_pb2
from steward_gateway import errors
from steward_gateway.binding import HTTP_BODY
from steward_gateway.contracts import method_rule
from steward_gateway.errors import Dialect, Refusal
from steward_gateway.routes import Route

Code = grpc.StatusCode

_CODE_NAMES = "|".join(code.name for code in grpc.StatusCode if code is not grpc.StatusCode.OK)
_NAMED = re.compile(
    rf"\b({_CODE_NAMES})\b"
    r"(?:, reasons? ((?:[A-Z][A-Z0-9_]+(?:, | or | and |, or )?)+))?"
)
_REASON = re.compile(r"[A-Z][A-Z0-9_]+")

NOT_LIMITED = "RATE_CATEGORY_NONE"
"""The category whose calls nobody counts; of others any server may have enough."""

_TEXTS = {
    400: "Something in the request is wrong; every wrong field is named.",
    401: "The credential is missing, wrong or has ended.",
    402: "The budget does not reach.",
    403: "The caller may not do this.",
    404: "There is no such thing, or it belongs to someone else.",
    406: "The answer is of none of the types that the Accept header lets in.",
    405: "The path does not serve this HTTP method.",
    408: "The body did not come in time.",
    409: "It clashes with the present state.",
    412: "It has another version than `If-Match` says.",
    413: "The body is too large.",
    415: "The body is not of a content type that is read here.",
    422: "The request cannot be read.",
    429: "Too many requests; `Retry-After` says when to try again.",
    500: "A fault of the server; the message holds the request id to quote.",
    501: "Not served by this server.",
    503: "The service cannot be reached just now; try again.",
    504: "The call did not end within its deadline.",
    507: "There is no room left for it.",
}

_CYBORG_FORBIDDEN = "The credential is missing or wrong, or the caller may not do this."


@dataclass(slots=True)
class Failing:
    """One status a method may answer with.

    Attributes:
        reasons: what the contract calls the cases.
        example: a body as the gateway writes it.
    """

    text: str
    example: Mapping[str, Any]
    reasons: list[str] = field(default_factory=list)

    @property
    def description(self) -> str:
        if not self.reasons:
            return self.text
        return f"{self.text} Reasons: {', '.join(f'`{reason}`' for reason in self.reasons)}."


def failings(route: Route, comment: str) -> dict[int, Failing]:
    """Every status a route may fail with: by its nature, by its rule, and by what its words say."""
    rule = method_rule(route.method)
    found: dict[int, Failing] = {}
    invalid = Refusal(Code.INVALID_ARGUMENT, "colour unknown field", reason="VALIDATION_ERROR")
    refusals = [Refusal(Code.INVALID_ARGUMENT, "name: is missing"), invalid]
    if rule.access != options_pb2.ACCESS_PUBLIC:
        refusals += [
            Refusal(Code.UNAUTHENTICATED, "this call needs a credential"),
            Refusal(Code.PERMISSION_DENIED, "this call is not for you"),
        ]
    if not _is_raw(route):
        refusals.append(Refusal(Code.INVALID_ARGUMENT, "the answer is application/json", http=406))
    if route.variables:
        refusals.append(Refusal(Code.NOT_FOUND, "there is no such thing"))
    if route.body:
        refusals += [
            Refusal(Code.DEADLINE_EXCEEDED, "the body did not come within 60 s", http=408),
            Refusal(Code.RESOURCE_EXHAUSTED, "the body is larger than 4194304 bytes", http=413),
            Refusal(Code.INVALID_ARGUMENT, "the body must be sent as application/json", http=415),
        ]
    if route.if_match is not None:
        text = "it has version 8, not 7: it was changed meanwhile"
        refusals += [
            Refusal(Code.ABORTED, text, reason="VERSION_PASSED", http=http) for http in (409, 412)
        ]
    if route.request_id_field:
        text = "the same request id was used with another body"
        refusals.append(Refusal(Code.ALREADY_EXISTS, text, reason="REQUEST_ID_REUSED"))
    if options_pb2.RateCategory.Name(rule.rate_category) != NOT_LIMITED:
        text = "too many calls; try again in 7 s"
        refusals.append(Refusal(Code.RESOURCE_EXHAUSTED, text, reason="RATE_LIMITED"))
    refusals += _named_refusals(comment, route.statuses)
    refusals += [
        errors.internal("3f2a-1"),
        Refusal(Code.UNAVAILABLE, "the service cannot be reached just now; try again"),
        Refusal(Code.DEADLINE_EXCEEDED, "the deadline has passed"),
    ]
    for refusal in refusals:
        _add(found, refusal, route.dialect)
    return dict(sorted(found.items()))


def _is_raw(route: Route) -> bool:
    """Whether the answer is bytes of a type of their own."""
    shown = route.method.output_type
    if route.response_body:
        shown = shown.fields_by_name[route.response_body].message_type or shown
    return shown.full_name == HTTP_BODY


def _named_refusals(comment: str, statuses: Mapping[str, int]) -> list[Refusal]:
    """What the comment of a method promises: "NOT_FOUND, reason AGENT_NOT_FOUND, when …"."""
    refusals = []
    for code, reasons in _NAMED.findall(comment):
        named = _REASON.findall(reasons) or [""]
        refusals += [
            Refusal(
                getattr(Code, code),
                code.lower().replace("_", " "),
                reason=reason,
                reason_status=statuses.get(reason),
            )
            for reason in named
        ]
    return refusals


def _add(found: dict[int, Failing], refusal: Refusal, dialect: Dialect) -> None:
    answer = errors.answer(refusal, dialect)
    text = _TEXTS.get(answer.status, "The call failed.")
    if answer.status == 403 and dialect == options_pb2.DIALECT_CYBORG:
        text = _CYBORG_FORBIDDEN
    failing = found.setdefault(answer.status, Failing(text, answer.body))
    if refusal.reason and refusal.reason not in failing.reasons:
        failing.reasons.append(refusal.reason)


_TEXT = {"type": "string"}
_FACTS = {"type": "object", "additionalProperties": _TEXT}

ERROR_NAMES: Mapping[Dialect, str] = {
    options_pb2.DIALECT_IRON: "Error",
    options_pb2.DIALECT_IGNITION: "Error.Ignition",
    options_pb2.DIALECT_AGENTBOX: "Error.AgentBox",
    options_pb2.DIALECT_CYBORG: "Error.Cyborg",
}


def _object(properties: Mapping[str, Any], *optional: str) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": dict(properties),
        "required": [name for name in properties if name not in optional],
        "additionalProperties": False,
    }


def error_schemas() -> dict[str, dict[str, Any]]:
    """The body of a failure in each dialect, by its component's name."""
    number = {"type": "integer"}
    error = _object({"line": number, "column": number, "path": _TEXT, "message": _TEXT})
    errors = {"type": "array", "items": error, "description": "What is wrong with a text."}
    iron = {
        "code": {**_TEXT, "description": "Goes with the status."},
        "message": {**_TEXT, "description": "For people: what was wrong, and what to do."},
        "reason": {**_TEXT, "description": "Stable, for programs; where there is more to say."},
        "fields": {**_FACTS, "description": "What is wrong with each field, by its path."},
        "details": {**_FACTS, "description": "What the message speaks of."},
        "errors": errors,
    }
    details = {
        "type": "object",
        "properties": {"reason": _TEXT, "fields": _FACTS, "errors": errors},
        "additionalProperties": _TEXT,
    }
    ignition = {"error": _TEXT, "message": _TEXT, "details": details}
    return {
        "Error": _object({"error": _object(iron, "reason", "fields", "details", "errors")}),
        "Error.Ignition": _object({"detail": _object(ignition)}),
        "Error.AgentBox": _object({"error": _TEXT, "message": _TEXT, "code": number}),
        "Error.Cyborg": _object({"detail": _TEXT}),
    }
