"""Signing in and out, and people."""

from __future__ import annotations

from google.protobuf.message import Message

from steward.auth.v1 import auth_pb2
from steward.gateway.v1 import options_pb2
from steward.requests.v1 import requests_pb2
from steward.users.v1 import users_pb2 as pb
from tests.integration.access.tables import (
    ADMIN,
    EVERYONE,
    IN_PERSON,
    NEWCOMERS,
    PEOPLE,
    Recorded,
)
from tests.integration.access.world import Headers, World

AUTH = "steward.auth.v1.AuthService"
USERS = "steward.users.v1.UserService"
REQUESTS = "steward.requests.v1.BudgetRequestService"

ACCESS = {
    AUTH: {
        "Login": EVERYONE,
        "Refresh": EVERYONE,
        "Logout": IN_PERSON | NEWCOMERS,
        "GetMe": PEOPLE | NEWCOMERS,
        "ChangePassword": IN_PERSON | NEWCOMERS,
    },
    USERS: {
        "CreateUser": ADMIN & IN_PERSON,
        "ListUsers": ADMIN & IN_PERSON,
        "GetUser": ADMIN & IN_PERSON,
        "SuspendUser": ADMIN & IN_PERSON,
        "ActivateUser": ADMIN & IN_PERSON,
        "SetUserRole": ADMIN & IN_PERSON,
        "ResetPassword": ADMIN & IN_PERSON,
        "DeleteUser": ADMIN & IN_PERSON,
    },
}


async def _newly(world: World) -> Headers:
    """Somebody whom it does not matter to lose; from now on the owner."""
    world.owner = await world.person("user")
    return world.owner.headers


async def _logout(_world: World) -> Message:
    return auth_pb2.LogoutRequest()


async def _change(world: World) -> Message:
    current = world.owner.password
    return auth_pb2.ChangePasswordRequest(current_password=current, new_password=world.password())


async def _create(world: World) -> Message:
    return pb.CreateUserRequest(
        username=world.name(),
        password=world.password(),
        email=f"{world.name()}@example.com",
        role=options_pb2.ROLE_VIEWER,
    )


async def _suspend(world: World) -> Message:
    person = await world.person("user")
    return pb.SuspendUserRequest(user_id=person.user_id, reason="left the team")


async def _activate(world: World) -> Message:
    person = await world.person("user")
    await world.stub(USERS, "SuspendUser", pb.SuspendUserRequest(user_id=person.user_id))
    return pb.ActivateUserRequest(user_id=person.user_id)


async def _role(world: World) -> Message:
    person = await world.person("user")
    return pb.SetUserRoleRequest(user_id=person.user_id, role=options_pb2.ROLE_ADMIN)


async def _reset(world: World) -> Message:
    person = await world.person("user")
    return pb.ResetPasswordRequest(user_id=person.user_id, new_password=world.password())


async def _delete(world: World) -> Message:
    """Somebody who has one of everything that people have."""
    person = world.owner = await world.person("user")
    agent = await world.agent(owner_id=person.user_id)
    await world.api_key(headers=person.headers)
    request = requests_pb2.CreateBudgetRequestRequest(
        agent_id=agent.id,
        requested_budget_nanousd=9_000_000_000,
        justification="the night run needs more than it has",
    )
    await world.as_owner(REQUESTS, "CreateBudgetRequest", request)
    return pb.DeleteUserRequest(user_id=person.user_id)


PUBLIC = "told apart by tests of signing in: whoever calls it is nobody yet"

RECORDED: dict[str, dict[str, Recorded | str]] = {
    AUTH: {
        "Login": PUBLIC,
        "Refresh": PUBLIC,
        "ChangePassword": Recorded(_change, ("user.password_changed",), _newly),
        "Logout": Recorded(_logout, ("session.ended",), _newly),
    },
    USERS: {
        "CreateUser": Recorded(_create, ("user.created",)),
        "SuspendUser": Recorded(_suspend, ("user.suspended",)),
        "ActivateUser": Recorded(_activate, ("user.activated",)),
        "SetUserRole": Recorded(_role, ("user.role_changed",)),
        "ResetPassword": Recorded(_reset, ("user.password_reset",)),
        "DeleteUser": Recorded(
            _delete,
            ("user.deleted", "agent.reassigned", "budget_request.cancelled", "api_key.revoked"),
        ),
    },
}
