"""Asking for larger budgets, deciding about that, and how budgets changed."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Any

from steward.requests.v1 import requests_pb2
from steward.requests.v1.requests_pb2_grpc import BudgetRequestServiceStub
from steward_client.client.calls import Call, Manner, Resource, every, first, nothing, rpc
from steward_client.client.projects import PAGE_SIZE, Usd
from steward_client.client.values import (
    BudgetChange,
    BudgetHistory,
    BudgetRequest,
    BudgetRequestStatus,
    BudgetSummary,
    value_of,
)
from steward_client.money import nanousd


class BudgetRequests(Resource[Manner]):
    """Requests for larger budgets. Each is decided once; amounts are what the budget is to be."""

    @rpc
    def create(
        self,
        agent_id: str,
        budget_usd: Usd,
        justification: str,
        *,
        expires_in_s: int | None = None,
        request_id: str = "",
    ) -> Call[BudgetRequest]:
        """Ask that an agent's budget be raised.

        `expires_in_s` is how long the raise is to hold from its approval, in seconds; None: for
        good. `request_id` names the request, so that repeating it gives the same one; made up if
        empty.

        Raises:
            InvalidRequest: the agent has that much already.
            Conflict: many requests about the agent wait for a decision.
        """
        return Call(
            BudgetRequestServiceStub,
            "CreateBudgetRequest",
            requests_pb2.CreateBudgetRequestRequest(
                agent_id=agent_id,
                requested_budget_nanousd=nanousd(budget_usd),
                justification=justification,
                expires_in_s=expires_in_s,
                request_id=request_id or secrets.token_hex(16),
            ),
            read=first(_request),
            repeatable=True,
        )

    @rpc
    def list(
        self,
        *,
        agent_id: str = "",
        status: BudgetRequestStatus | None = None,
        requester_id: str = "",
    ) -> Call[tuple[BudgetRequest, ...]]:
        """All requests the caller may see, newest first."""

        def page(token: str) -> requests_pb2.ListBudgetRequestsRequest:
            return requests_pb2.ListBudgetRequestsRequest(
                page_size=PAGE_SIZE,
                page_token=token,
                agent_id=agent_id,
                requester_id=requester_id,
                status=requests_pb2.BudgetRequestStatus.Value(
                    f"BUDGET_REQUEST_STATUS_{status.upper()}"
                )
                if status
                else requests_pb2.BUDGET_REQUEST_STATUS_UNSPECIFIED,
            )

        return Call(
            BudgetRequestServiceStub,
            "ListBudgetRequests",
            page(""),
            read=every(
                lambda answer: [value_of(BudgetRequest, each) for each in answer.budget_requests]
            ),
            next_page=lambda answer: (
                page(answer.next_page_token) if answer.next_page_token else None
            ),
            repeatable=True,
        )

    @rpc
    def get(self, budget_request_id: str) -> Call[BudgetRequest]:
        """One request."""
        return Call(
            BudgetRequestServiceStub,
            "GetBudgetRequest",
            requests_pb2.GetBudgetRequestRequest(budget_request_id=budget_request_id),
            read=first(_request),
            repeatable=True,
        )

    @rpc
    def approve(
        self,
        budget_request_id: str,
        *,
        budget_usd: Usd | None = None,
        notes: str = "",
        expires_in_s: int | None = None,
    ) -> Call[BudgetRequest]:
        """Raise the budget to what was asked, or to less; running agents are told at once.

        Raises:
            Conflict: somebody decided before.
            Forbidden: it is the caller's own request, and there is another administrator.
            InvalidRequest: it is more than was asked, or no more than the agent has by now.
        """
        return Call(
            BudgetRequestServiceStub,
            "ApproveBudgetRequest",
            requests_pb2.ApproveBudgetRequestRequest(
                budget_request_id=budget_request_id,
                approved_budget_nanousd=None if budget_usd is None else nanousd(budget_usd),
                review_notes=notes,
                expires_in_s=expires_in_s,
            ),
            read=first(_request),
        )

    @rpc
    def reject(self, budget_request_id: str, reason: str) -> Call[BudgetRequest]:
        """Turn a request down.

        Raises:
            Conflict: somebody decided before.
            Forbidden: it is the caller's own request, and there is another administrator.
        """
        return Call(
            BudgetRequestServiceStub,
            "RejectBudgetRequest",
            requests_pb2.RejectBudgetRequestRequest(
                budget_request_id=budget_request_id, rejection_reason=reason
            ),
            read=first(_request),
        )

    @rpc
    def cancel(self, budget_request_id: str) -> Call[None]:
        """Take a request back.

        Raises:
            Conflict: somebody decided before.
        """
        return Call(
            BudgetRequestServiceStub,
            "CancelBudgetRequest",
            requests_pb2.CancelBudgetRequestRequest(budget_request_id=budget_request_id),
            read=nothing,
        )

    @rpc
    def history(self, agent_id: str) -> Call[BudgetHistory]:
        """Every change of an agent's budget, newest first, and what they add up to."""

        def page(token: str) -> requests_pb2.ListBudgetChangesRequest:
            return requests_pb2.ListBudgetChangesRequest(
                agent_id=agent_id, page_size=PAGE_SIZE, page_token=token
            )

        def read(answers: Sequence[Any]) -> BudgetHistory:
            changes = (each for answer in answers for each in answer.changes)
            return BudgetHistory(
                agent_id,
                tuple(value_of(BudgetChange, each) for each in changes),
                value_of(BudgetSummary, answers[0].summary),
            )

        return Call(
            BudgetRequestServiceStub,
            "ListBudgetChanges",
            page(""),
            read=read,
            next_page=lambda answer: (
                page(answer.next_page_token) if answer.next_page_token else None
            ),
            repeatable=True,
        )


def _request(answer: Any) -> BudgetRequest:
    return value_of(BudgetRequest, answer.budget_request)
