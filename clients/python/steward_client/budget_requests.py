"""A runtime's own request for a larger budget."""

from __future__ import annotations

import secrets

import grpc.aio

from steward.requests.v1 import requests_pb2
from steward.requests.v1.requests_pb2_grpc import BudgetRequestServiceStub
from steward_client.client.values import BudgetRequest, value_of
from steward_client.errors import error_of


async def request_budget(
    channel: grpc.aio.Channel,
    *,
    ic_token: str,
    requested_nanousd: int,
    justification: str,
    expires_in_s: int | None,
    timeout_s: float,
) -> BudgetRequest:
    """Ask as the agent of this token, for itself.

    Raises:
        StewardError: the server cannot be reached or refuses.
    """
    request = requests_pb2.CreateBudgetRequestRequest(
        requested_budget_nanousd=requested_nanousd,
        justification=justification,
        expires_in_s=expires_in_s,
        request_id=secrets.token_hex(16),
    )
    try:
        answer = await BudgetRequestServiceStub(channel).CreateBudgetRequest(
            request, metadata=(("x-ic-key", ic_token),), timeout=timeout_s
        )
    except grpc.aio.AioRpcError as error:
        raise error_of(error) from error
    return value_of(BudgetRequest, answer.budget_request)
