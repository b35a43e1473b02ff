"""UserService: translates between protos and the room."""

from __future__ import annotations

from steward.gateway.v1 import options_pb2 as options
from steward.users.v1 import users_pb2 as pb
from steward.users.v1 import users_pb2_grpc as rpc
from steward_server.auth.accounts import LEAST_PASSWORD, BadName, Role, User, UserState, check_name
from steward_server.auth.sessions import ROLES
from steward_server.auth.users import Users
from steward_server.calls import Context, caller
from steward_server.checks import Checks
from steward_server.clock import timestamp
from steward_server.pages import from_page_token, page_size, to_page_token
from steward_server.versions import expected_version

MAX_PASSWORD = 1_000
MAX_REASON = 1_000

STATES = {
    UserState.ACTIVE: pb.USER_STATE_ACTIVE,
    UserState.SUSPENDED: pb.USER_STATE_SUSPENDED,
}
FROM_PROTO = {number: state for state, number in STATES.items()}
ROLES_FROM_PROTO = {number: role for role, number in ROLES.items()}


class UserService(rpc.UserServiceServicer):
    """Serves people to administrators."""

    def __init__(self, users: Users) -> None:
        self._users = users

    async def CreateUser(
        self, request: pb.CreateUserRequest, context: Context
    ) -> pb.CreateUserResponse:
        with Checks() as checks:
            checks.text("username", request.username, 1, 255)
            try:
                check_name(request.username)
            except BadName as error:
                checks.add("username", str(error))
            check_length(checks, "password", request.password)
            checks.text("email", request.email, 0, 255)
            if request.email and not _is_address(request.email):
                checks.add("email", f"is {request.email!r}; it must be like name@example.com")
            role = _role(checks, request.role)
        user = await self._users.create(
            caller(context),
            username=request.username,
            password=request.password,
            email=request.email,
            role=role,
            must_change_password=request.must_change_password,
        )
        return pb.CreateUserResponse(user=_to_proto(user))

    async def ListUsers(
        self, request: pb.ListUsersRequest, _context: Context
    ) -> pb.ListUsersResponse:
        with Checks() as checks:
            size = page_size(checks, "page_size", request.page_size)
            before = from_page_token(checks, "page_token", request.page_token)
            role = _role(checks, request.role) if request.role else None
            if request.state and request.state not in FROM_PROTO:
                checks.add("state", f"is {request.state}; it is active or suspended")
            checks.text("search", request.search, 0, 255)
        users = await self._users.page(
            role=role,
            state=FROM_PROTO.get(request.state),
            search=request.search,
            before=before,
            limit=size + 1,
        )
        response = pb.ListUsersResponse(users=[_to_proto(user) for user in users[:size]])
        if len(users) > size:
            last = users[size - 1]
            response.next_page_token = to_page_token(last.created_at_us, last.user_id)
        return response

    async def GetUser(self, request: pb.GetUserRequest, _context: Context) -> pb.GetUserResponse:
        with Checks() as checks:
            _check_id(checks, request.user_id)
        return pb.GetUserResponse(user=_to_proto(await self._users.get(request.user_id)))

    async def SuspendUser(
        self, request: pb.SuspendUserRequest, context: Context
    ) -> pb.SuspendUserResponse:
        with Checks() as checks:
            _check_id(checks, request.user_id)
            checks.text("reason", request.reason, 0, MAX_REASON)
        user = await self._users.suspend(
            caller(context),
            request.user_id,
            request.reason,
            expected_version=expected_version(request),
        )
        return pb.SuspendUserResponse(user=_to_proto(user))

    async def ActivateUser(
        self, request: pb.ActivateUserRequest, context: Context
    ) -> pb.ActivateUserResponse:
        with Checks() as checks:
            _check_id(checks, request.user_id)
        user = await self._users.activate(
            caller(context), request.user_id, expected_version=expected_version(request)
        )
        return pb.ActivateUserResponse(user=_to_proto(user))

    async def SetUserRole(
        self, request: pb.SetUserRoleRequest, context: Context
    ) -> pb.SetUserRoleResponse:
        with Checks() as checks:
            _check_id(checks, request.user_id)
            role = _role(checks, request.role)
        user = await self._users.give_role(
            caller(context), request.user_id, role, expected_version=expected_version(request)
        )
        return pb.SetUserRoleResponse(user=_to_proto(user))

    async def ResetPassword(
        self, request: pb.ResetPasswordRequest, context: Context
    ) -> pb.ResetPasswordResponse:
        with Checks() as checks:
            _check_id(checks, request.user_id)
            check_length(checks, "new_password", request.new_password)
        user = await self._users.reset_password(
            caller(context),
            request.user_id,
            request.new_password,
            must_change=request.force_change if request.HasField("force_change") else True,
            expected_version=expected_version(request),
        )
        return pb.ResetPasswordResponse(user=_to_proto(user))

    async def DeleteUser(
        self, request: pb.DeleteUserRequest, context: Context
    ) -> pb.DeleteUserResponse:
        with Checks() as checks:
            _check_id(checks, request.user_id)
        await self._users.delete(
            caller(context), request.user_id, expected_version=expected_version(request)
        )
        return pb.DeleteUserResponse()


def check_length(checks: Checks, field: str, password: str) -> None:
    """A new password's length; what it is stays out of the answer."""
    if not LEAST_PASSWORD <= len(password) <= MAX_PASSWORD:
        checks.add(field, f"must have {LEAST_PASSWORD} to {MAX_PASSWORD} characters")


def _check_id(checks: Checks, user_id: str) -> None:
    checks.text("user_id", user_id, 1, 100)


def _is_address(email: str) -> bool:
    name, _, host = email.rpartition("@")
    return bool(name and host) and " " not in email


def _role(checks: Checks, role: options.Role.ValueType) -> Role:
    if role not in ROLES_FROM_PROTO:
        found = f"is {_role_word(role)}" if role else "is missing"
        checks.add("role", f"{found}; it must be admin, user or viewer")
    return ROLES_FROM_PROTO.get(role, Role.VIEWER)


def _role_word(role: options.Role.ValueType) -> str:
    """As people write it; the number of what is no role."""
    known = options.Role.DESCRIPTOR.values_by_number.get(role)
    return known.name.removeprefix("ROLE_").lower() if known else str(role)


def _to_proto(user: User) -> pb.User:
    return pb.User(
        id=user.user_id,
        username=user.username,
        email=user.email or "",
        role=ROLES[user.role],
        state=STATES[user.state],
        must_change_password=user.must_change_password,
        created_at=timestamp(user.created_at_us),
        last_login_at=timestamp(user.last_login_at_us),
        suspended_at=timestamp(user.suspended_at_us),
        suspend_reason=user.suspend_reason,
        version=user.version,
    )
