"""AuthService: translates between protos and the room's rules."""

from __future__ import annotations

from collections.abc import Callable

from steward.auth.v1 import auth_pb2 as pb
from steward.auth.v1 import auth_pb2_grpc as rpc
from steward_server import clock
from steward_server.auth.accounts import User
from steward_server.auth.own_password import OwnPassword
from steward_server.auth.sessions import ROLES, Pair, Sessions
from steward_server.auth.sign_in import SignIn
from steward_server.auth.users import Users
from steward_server.auth.users_service import MAX_PASSWORD, check_length
from steward_server.calls import Context, caller
from steward_server.checks import Checks

MAX_REFRESH_TOKEN = 200  # ours have 46
TOKEN_TYPE = "Bearer"  # noqa: S105 - a word of RFC 6750, not a secret


class AuthService(rpc.AuthServiceServicer):
    """Signs people in and out."""

    def __init__(
        self,
        sign_in: SignIn,
        sessions: Sessions,
        users: Users,
        own_password: OwnPassword,
        clock: Callable[[], int],
    ) -> None:
        self._sign_in = sign_in
        self._sessions = sessions
        self._users = users
        self._own_password = own_password
        self._clock = clock

    async def Login(self, request: pb.LoginRequest, context: Context) -> pb.LoginResponse:
        with Checks() as checks:
            if request.email and request.username:
                checks.add("email", "stands beside `username`; send one of them")
            elif request.email:
                checks.text("email", request.email, 1, 255)
            else:
                checks.text("username", request.username, 1, 255)
            if not 1 <= len(request.password) <= MAX_PASSWORD:
                checks.add("password", f"must have 1 to {MAX_PASSWORD} characters")
        pair = await self._sign_in.sign_in(
            caller(context),
            username=request.username,
            email=request.email,
            password=request.password,
        )
        return pb.LoginResponse(
            access_token=pair.access_token,
            refresh_token=pair.refresh_token,
            token_type=TOKEN_TYPE,
            expires_in=self._seconds_left(pair),
            expires_at=clock.timestamp(pair.expires_at_us),
            user=_to_proto(pair.user),
            token=pair.access_token,
            must_change_password=pair.user.must_change_password,
        )

    async def Refresh(self, request: pb.RefreshRequest, context: Context) -> pb.RefreshResponse:
        with Checks() as checks:
            if not 1 <= len(request.refresh_token) <= MAX_REFRESH_TOKEN:
                checks.add("refresh_token", f"must have 1 to {MAX_REFRESH_TOKEN} characters")
        pair = await self._sessions.refresh(caller(context), request.refresh_token)
        return pb.RefreshResponse(
            access_token=pair.access_token,
            refresh_token=pair.refresh_token,
            token_type=TOKEN_TYPE,
            expires_in=self._seconds_left(pair),
            expires_at=clock.timestamp(pair.expires_at_us),
            user=_to_proto(pair.user),
        )

    async def Logout(self, _request: pb.LogoutRequest, context: Context) -> pb.LogoutResponse:
        await self._sessions.end(caller(context))
        return pb.LogoutResponse()

    async def GetMe(self, _request: pb.GetMeRequest, context: Context) -> pb.GetMeResponse:
        user = await self._users.get(caller(context).subject)
        return pb.GetMeResponse(
            id=user.user_id,
            username=user.username,
            email=user.email or "",
            role=ROLES[user.role],
            must_change_password=user.must_change_password,
            created_at=clock.timestamp(user.created_at_us),
            last_login_at=clock.timestamp(user.last_login_at_us),
        )

    async def ChangePassword(
        self, request: pb.ChangePasswordRequest, context: Context
    ) -> pb.ChangePasswordResponse:
        with Checks() as checks:
            if not 1 <= len(request.current_password) <= MAX_PASSWORD:
                checks.add("current_password", f"must have 1 to {MAX_PASSWORD} characters")
            check_length(checks, "new_password", request.new_password)
        await self._own_password.change(
            caller(context), current=request.current_password, new=request.new_password
        )
        return pb.ChangePasswordResponse()

    def _seconds_left(self, pair: Pair) -> int:
        return max(0, -(-(pair.expires_at_us - self._clock()) // 1_000_000))


def _to_proto(user: User) -> pb.User:
    return pb.User(
        id=user.user_id, username=user.username, email=user.email or "", role=ROLES[user.role]
    )
