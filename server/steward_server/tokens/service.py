"""TokenService: translates between protos and the room."""

from __future__ import annotations

from collections.abc import Callable

from steward.tokens.v1 import tokens_pb2 as pb
from steward.tokens.v1 import tokens_pb2_grpc as rpc
from steward_server.calls import Context, caller
from steward_server.checks import Checks
from steward_server.clock import timestamp
from steward_server.pages import page_size
from steward_server.tokens.room import Tokens
from steward_server.tokens.token import SCOPES, Token, TokenStatus, TokenText

DAY_US = 86_400 * 1_000_000
MAX_DAYS = 3_650
MAX_OFFSET = 2**31 - 1

STATUSES = {
    TokenStatus.ACTIVE: pb.TOKEN_STATUS_ACTIVE,
    TokenStatus.EXPIRED: pb.TOKEN_STATUS_EXPIRED,
    TokenStatus.REVOKED: pb.TOKEN_STATUS_REVOKED,
}
FROM_PROTO = {number: status for status, number in STATUSES.items()}


class TokenService(rpc.TokenServiceServicer):
    """Serves IC tokens to administrators."""

    def __init__(self, tokens: Tokens, now_us: Callable[[], int]) -> None:
        self._tokens = tokens
        self._now_us = now_us

    async def ListTokens(
        self, request: pb.ListTokensRequest, _context: Context
    ) -> pb.ListTokensResponse:
        with Checks() as checks:
            checks.text("agent_id", request.agent_id, 0, 100)
            limit = page_size(checks, "limit", request.limit)
            checks.between("offset", request.offset, 0, MAX_OFFSET)
            if request.status and request.status not in FROM_PROTO:
                checks.add("status", f"is {request.status}; it is active, expired or revoked")
        tokens, total = await self._tokens.listed(
            agent_id=request.agent_id or None,
            status=FROM_PROTO.get(request.status),
            limit=limit,
            offset=request.offset,
        )
        return pb.ListTokensResponse(
            tokens=[self._to_proto(token) for token in tokens],
            total=total,
            limit=limit,
            offset=request.offset,
        )

    async def CreateToken(
        self, request: pb.CreateTokenRequest, context: Context
    ) -> pb.CreateTokenResponse:
        days = request.expires_in_days if request.HasField("expires_in_days") else None
        with Checks() as checks:
            checks.text("agent_id", request.agent_id, 1, 100)
            checks.text("name", request.name, 0, 100)
            if days is not None:
                checks.between("expires_in_days", days, 1, MAX_DAYS)
            for index, scope in enumerate(request.scopes):
                checks.one_of(f"scopes[{index}]", scope, SCOPES)
        scopes = tuple(scope for scope in SCOPES if scope in request.scopes) or SCOPES
        token, text = await self._tokens.create(
            caller(context),
            agent_id=request.agent_id,
            name=request.name,
            expires_in_us=None if days is None else days * DAY_US,
            scopes=scopes,
        )
        return pb.CreateTokenResponse(ic_token=self._to_proto(token, text))

    async def GetToken(self, request: pb.GetTokenRequest, _context: Context) -> pb.GetTokenResponse:
        _check_token_id(request.token_id)
        token = await self._tokens.get(request.token_id)
        return pb.GetTokenResponse(ic_token=self._to_proto(token))

    async def RotateToken(
        self, request: pb.RotateTokenRequest, context: Context
    ) -> pb.RotateTokenResponse:
        _check_token_id(request.token_id)
        token, text = await self._tokens.rotate(caller(context), request.token_id)
        return pb.RotateTokenResponse(ic_token=self._to_proto(token, text))

    async def RevokeToken(
        self, request: pb.RevokeTokenRequest, context: Context
    ) -> pb.RevokeTokenResponse:
        _check_token_id(request.token_id)
        await self._tokens.revoke(caller(context), request.token_id)
        return pb.RevokeTokenResponse()

    def _to_proto(self, token: Token, text: TokenText | None = None) -> pb.IcToken:
        return pb.IcToken(
            id=token.token_id,
            agent_id=token.agent_id,
            name=token.name,
            status=STATUSES[token.status(self._now_us())],
            prefix=token.prefix,
            scopes=token.scopes,
            created_at=timestamp(token.created_at_us),
            expires_at=timestamp(token.expires_at_us),
            last_used_at=timestamp(token.last_used_at_us),
            rotated_at=timestamp(token.rotated_at_us),
            revoked_at=timestamp(token.revoked_at_us),
            token=text.text if text else "",
        )


def _check_token_id(token_id: str) -> None:
    with Checks() as checks:
        checks.text("token_id", token_id, 1, 100)
