"""What tests do with people: one call of UserService or AuthService each."""

from __future__ import annotations

from typing import Any

import grpc

from steward.agents.v1 import agents_pb2
from steward.auth.v1 import auth_pb2
from steward.gateway.v1 import options_pb2 as options
from steward.users.v1 import users_pb2 as pb
from steward.users.v1.users_pb2_grpc import UserServiceStub
from tests.integration.conftest import Metadata, Server
from tests.live import ADMIN_PASSWORD, Live

NOT_FOUND = grpc.StatusCode.NOT_FOUND
CONFLICT = grpc.StatusCode.FAILED_PRECONDITION
FORBIDDEN = grpc.StatusCode.PERMISSION_DENIED
NEW_PASSWORD = "a walk by the sea"


def users(server: Server | Live) -> Any:
    return UserServiceStub(server.channel)


async def create(server: Server, username: str, **fields: Any) -> Any:
    wanted: dict[str, Any] = {"role": options.ROLE_USER, "password": ADMIN_PASSWORD} | fields
    request = pb.CreateUserRequest(username=username, **wanted)
    return (await users(server).CreateUser(request, metadata=server.admin)).user


async def entered(server: Server, username: str, **fields: Any) -> tuple[Any, Any]:
    """Somebody new, and the pair of their sign-in."""
    user = await create(server, username, **fields)
    return user, await server.sign_in(username, fields.get("password", ADMIN_PASSWORD))


async def knock(server: Server, metadata: Metadata) -> Any:
    return await server.agents.ListAgents(agents_pb2.ListAgentsRequest(), metadata=metadata)


async def suspend(server: Server, user_id: str, metadata: Metadata | None = None) -> Any:
    request = pb.SuspendUserRequest(user_id=user_id, reason="left")
    return await users(server).SuspendUser(request, metadata=metadata or server.admin)


async def set_role(
    server: Server, user_id: str, role: options.Role.ValueType, metadata: Metadata | None = None
) -> Any:
    request = pb.SetUserRoleRequest(user_id=user_id, role=role)
    return await users(server).SetUserRole(request, metadata=metadata or server.admin)


async def reset(server: Server, user_id: str, password: str, **fields: Any) -> Any:
    request = pb.ResetPasswordRequest(user_id=user_id, new_password=password, **fields)
    return await users(server).ResetPassword(request, metadata=server.admin)


async def delete(server: Server, user_id: str, metadata: Metadata | None = None) -> Any:
    request = pb.DeleteUserRequest(user_id=user_id)
    return await users(server).DeleteUser(request, metadata=metadata or server.admin)


async def change_own(server: Server, metadata: Metadata, current: str, new: str) -> Any:
    request = auth_pb2.ChangePasswordRequest(current_password=current, new_password=new)
    return await server.auth.ChangePassword(request, metadata=metadata)


async def me(server: Server, metadata: Metadata) -> Any:
    return await server.auth.GetMe(auth_pb2.GetMeRequest(), metadata=metadata)


async def listed(server: Server, **fields: Any) -> list[str]:
    answer = await users(server).ListUsers(pb.ListUsersRequest(**fields), metadata=server.admin)
    return [user.username for user in answer.users]
