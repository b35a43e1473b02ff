"""The matrix of roles and methods, read from the protos; what no rule allows is denied."""

from __future__ import annotations

from typing import Any

from grpc_interceptor.server import AsyncServerInterceptor

from steward.gateway.v1 import options_pb2 as options
from steward_server.calls import Call
from steward_server.errors import PermissionDenied
from steward_server.principals import Kind, Principal

PEOPLE = {options.ACCESS_PEOPLE, options.ACCESS_PEOPLE_AND_AGENT, options.ACCESS_CLIENTS}
_POINTER = (
    "; a runtime is lent money, and its provider's key, by a handshake: POST /api/budget/handshake"
)
AGENTS = {options.ACCESS_AGENT, options.ACCESS_PEOPLE_AND_AGENT, options.ACCESS_CLIENTS}


def allows(rule: options.MethodRule, principal: Principal) -> bool:
    """Whether the rule lets this caller in; ownership is looked at where the thing is loaded."""
    if rule.access == options.ACCESS_PUBLIC:
        return True
    if principal.kind is Kind.KEY and rule.no_keys:
        return False
    if principal.is_person:
        return rule.access in PEOPLE and (not rule.roles or principal.role in rule.roles)
    if principal.kind is Kind.AGENT:
        return rule.access in AGENTS and (not rule.scope or rule.scope in principal.scopes)
    return principal.kind is Kind.CLIENT and rule.access == options.ACCESS_CLIENTS


def wanted(rule: options.MethodRule) -> str:
    """Who may call, in words."""
    roles = [options.Role.Name(role).removeprefix("ROLE_").lower() for role in rule.roles]
    people = f"people with the role {' or '.join(roles)}" if roles else "people"
    if rule.no_keys:
        people += ", not their API keys"
    agents = f"agents with the scope {rule.scope!r}" if rule.scope else "agents"
    parts = []
    if rule.access in PEOPLE:
        parts.append(people)
    if rule.access in AGENTS:
        parts.append(agents)
    if rule.access == options.ACCESS_CLIENTS:
        parts.append("clients of inference")
    return " and ".join(parts) or "nobody"


class Authorization(AsyncServerInterceptor):
    """Checks one method's rule."""

    def __init__(self, rule: options.MethodRule) -> None:
        self._rule = rule
        self._allowed: set[tuple[Kind, int, frozenset[str], bool]] = set()
        """What callers that were let in are; there are few kinds of them."""

    def intercept(
        self, method: Any, request_or_iterator: Any, context: Any, method_name: str
    ) -> Any:
        call: Call = context
        principal = call.principal
        must_change = principal.must_change_password
        shape = (principal.kind, principal.role, principal.scopes, must_change)
        if shape not in self._allowed:
            self._look_up(principal, method_name)
            self._allowed.add(shape)
        return method(request_or_iterator, context)

    def _look_up(self, principal: Principal, method_name: str) -> None:
        if not allows(self._rule, principal):
            is_agent = principal.kind is Kind.AGENT
            raise PermissionDenied(
                f"{method_name} is for {wanted(self._rule)}; the credential belongs to "
                f"{_described(principal)}{_POINTER if is_agent else ''}",
                reason=(
                    "KEYS_NOT_ALLOWED"
                    if principal.kind is Kind.KEY and self._rule.no_keys
                    else "ROLE_NOT_ALLOWED"
                ),
            )
        if principal.must_change_password and not self._rule.before_password_change:
            raise PermissionDenied(
                "your password must be changed first, with POST /api/v1/auth/password",
                reason="PASSWORD_CHANGE_REQUIRED",
            )


def _described(principal: Principal) -> str:
    if principal.is_person:
        role = options.Role.Name(principal.role).removeprefix("ROLE_").lower()
        who = "an API key" if principal.kind is Kind.KEY else "a person"
        return f"{who} with the role {role}"
    if principal.kind is Kind.AGENT:
        scopes = " and ".join(sorted(principal.scopes)) or "nothing"
        return f"an agent with the scope {scopes}"
    return f"a {principal.kind.value}"
