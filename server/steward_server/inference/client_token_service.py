"""ClientTokenService: makes the tokens of inference clients."""

from __future__ import annotations

import hmac
from collections.abc import Callable
from datetime import UTC, datetime

from steward.inference.v1 import client_tokens_pb2 as pb
from steward.inference.v1 import client_tokens_pb2_grpc as rpc
from steward_server.audit import Change, record
from steward_server.calls import Context, caller
from steward_server.checks import Checks
from steward_server.db import Database, Transaction
from steward_server.errors import PermissionDenied, Unimplemented
from steward_server.inference.client_tokens import ClientTokens

MAX_SUBJECT = 200
MAX_EXPIRY_MINUTES = 10**9


class ClientTokenService(rpc.ClientTokenServiceServicer):
    """Serves tokens, to whoever has the key for that if there is one."""

    def __init__(
        self,
        database: Database,
        tokens: ClientTokens,
        clock: Callable[[], int],
        *,
        mint_key: str | None,
    ) -> None:
        self._database = database
        self._tokens = tokens
        self._clock = clock
        self._mint_key = mint_key.encode() if mint_key else None

    async def MintToken(
        self, request: pb.MintTokenRequest, context: Context
    ) -> pb.MintTokenResponse:
        if not self._tokens.is_enabled:
            raise Unimplemented(
                "JWT authentication is not enabled. Set api.jwt_enabled=true in config.",
                reason="JWT_DISABLED",
            )
        if not self._tokens.can_mint:
            raise Unimplemented(
                "this server has the public key only, and makes no tokens", reason="JWT_DISABLED"
            )
        self._must_have_key(context)
        wanted = request.expiry_minutes if request.HasField("expiry_minutes") else None
        with Checks() as checks:
            checks.text("subject", request.subject, 1, MAX_SUBJECT)
            if wanted is not None:
                checks.between("expiry_minutes", wanted, 1, MAX_EXPIRY_MINUTES)
        now_us = self._clock()
        minted = self._tokens.mint(request.subject, now_us, wanted)
        expires_at = datetime.fromtimestamp(minted.expires_at_us // 1_000_000, UTC)
        shown = expires_at.replace(tzinfo=None).isoformat()
        who = caller(context)

        async def work(transaction: Transaction) -> None:
            change = Change("client_token.minted", request.subject, after={"expires_at": shown})
            await record(transaction, now_us, who, change)

        await self._database.run(work)
        return pb.MintTokenResponse(
            access_token=minted.text,
            token_type="bearer",  # noqa: S106 - the kind of it
            expires_at=shown,
            subject=request.subject,
        )

    def _must_have_key(self, context: Context) -> None:
        if self._mint_key is None:
            return
        headers = dict(context.invocation_metadata() or ())
        scheme, _, text = str(headers.get("authorization", "")).partition(" ")
        if scheme.lower() != "bearer" or not hmac.compare_digest(text.encode(), self._mint_key):
            raise PermissionDenied(
                "tokens are made for whoever sends the key for that as `authorization: Bearer …`",
                reason="MINT_KEY_NEEDED",
            )
