"""What a caller may do with an environment: the least of what the person and the key may. Pure."""

from __future__ import annotations

from steward.gateway.v1 import options_pb2 as options
from steward_server.errors import NotFound, PermissionDenied
from steward_server.permissions import Permission, may
from steward_server.principals import Kind, Principal

_MOST = {options.ROLE_VIEWER: Permission.READ, options.ROLE_EXECUTOR: Permission.WRITE}
"""What somebody of a role may do at most; of other roles everything."""


def level_of(
    caller: Principal,
    environment_id: str,
    owner_id: str,
    shared: Permission | None,
    *,
    agent_id: str = "",
) -> Permission | None:
    """What the caller may do with an environment; None: not even see it.

    Args:
        caller: who it is.
        environment_id: of the environment.
        owner_id: whose it is.
        shared: what it is shared with the person for, if it is.
        agent_id: of the agent that created it, which may do anything with it, and is let near no
            other.
    """
    if caller.kind is Kind.AGENT:
        return Permission.ADMIN if caller.subject == agent_id else None
    owns = caller.is_admin or caller.subject == owner_id
    persons = Permission.ADMIN if owns else shared
    if persons is None:
        return None
    allowed = [
        each
        for each in Permission
        if each <= persons
        and each <= _MOST.get(caller.role, Permission.ADMIN)
        and may(caller.permissions, environment_id, each)
    ]
    return max(allowed, default=None)


def must_have(level: Permission | None, needed: Permission, environment_id: str) -> Permission:
    """Refuse who may not do something, and let nobody know of what they may not read.

    Raises:
        NotFound: they may not even read it.
        PermissionDenied: ENVIRONMENT_PERMISSION, they may, but not do this.
    """
    if level is None:
        raise NotFound.of("environment", environment_id)
    if level < needed:
        raise PermissionDenied(
            f"this needs the permission {needed.word} on environment {environment_id!r}; "
            f"the caller has {level.word}",
            reason="ENVIRONMENT_PERMISSION",
            facts={
                "environment_id": environment_id,
                "needed": needed.word,
                "permission": level.word,
            },
        )
    return level
