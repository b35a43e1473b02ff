"""BudgetRequestService: translates between protos and the room."""

from __future__ import annotations

from typing import Any

from steward.requests.v1 import requests_pb2 as pb
from steward.requests.v1 import requests_pb2_grpc as rpc
from steward_server.balance import MAX_BUDGET_NANOUSD
from steward_server.budget_change import BudgetChange, BudgetSummary, Cause
from steward_server.budget_status import budget_status
from steward_server.calls import Context, caller
from steward_server.checks import Checks
from steward_server.clock import timestamp
from steward_server.pages import from_page_token, page_size, to_page_token
from steward_server.principals import Kind
from steward_server.requests.request import MAX_EXPIRES_IN_S, Status
from steward_server.requests.room import Approval, Asked, RequestRoom, Seen
from steward_server.requests.store import Wanted

STATUSES = {
    Status.PENDING: pb.BUDGET_REQUEST_STATUS_PENDING,
    Status.APPROVED: pb.BUDGET_REQUEST_STATUS_APPROVED,
    Status.REJECTED: pb.BUDGET_REQUEST_STATUS_REJECTED,
    Status.CANCELLED: pb.BUDGET_REQUEST_STATUS_CANCELLED,
}
FROM_PROTO = {number: status for status, number in STATUSES.items()}
CAUSES = {
    Cause.SET: pb.BUDGET_CHANGE_CAUSE_SET,
    Cause.RAISED: pb.BUDGET_CHANGE_CAUSE_RAISED,
    Cause.RAISE_ENDED: pb.BUDGET_CHANGE_CAUSE_RAISE_ENDED,
    Cause.PERIOD_BEGAN: pb.BUDGET_CHANGE_CAUSE_PERIOD_BEGAN,
}


class BudgetRequestService(rpc.BudgetRequestServiceServicer):
    """Serves requests for larger budgets, and how budgets changed."""

    def __init__(self, room: RequestRoom) -> None:
        self._room = room

    async def CreateBudgetRequest(
        self, request: pb.CreateBudgetRequestRequest, context: Context
    ) -> pb.CreateBudgetRequestResponse:
        principal = caller(context)
        is_agent = principal.kind is Kind.AGENT
        agent_id = request.agent_id or (principal.subject if is_agent else "")
        with Checks() as checks:
            checks.text("agent_id", agent_id, 1, 100)
            is_given = request.HasField("requested_budget_nanousd")
            checks.given("requested_budget_usd", is_given=is_given)
            _check_budget(checks, "requested_budget_usd", request.requested_budget_nanousd)
            justification = checks.prose("justification", request.justification, 20, 500)
            expires_in_s = _expires_in_s(checks, request)
        asked = Asked(agent_id, request.requested_budget_nanousd, justification, expires_in_s)
        seen = await self._room.create(principal, asked)
        return pb.CreateBudgetRequestResponse(budget_request=_to_proto(seen))

    async def ListBudgetRequests(
        self, request: pb.ListBudgetRequestsRequest, context: Context
    ) -> pb.ListBudgetRequestsResponse:
        with Checks() as checks:
            size = page_size(checks, "page_size", request.page_size)
            before = from_page_token(checks, "page_token", request.page_token)
            checks.text("agent_id", request.agent_id, 0, 100)
            checks.text("requester_id", request.requester_id, 0, 100)
            if request.status and request.status not in FROM_PROTO:
                checks.add("status", f"is {request.status}; there is no such state")
        status = FROM_PROTO[request.status].value if request.status else ""
        wanted = Wanted(request.agent_id, status, request.requester_id)
        seen = await self._room.page(caller(context), wanted, before=before, limit=size + 1)
        response = pb.ListBudgetRequestsResponse(
            budget_requests=[_to_proto(each) for each in seen[:size]]
        )
        if len(seen) > size:
            last = seen[size - 1].request
            response.next_page_token = to_page_token(last.created_at_us, last.request_id)
        return response

    async def GetBudgetRequest(
        self, request: pb.GetBudgetRequestRequest, context: Context
    ) -> pb.GetBudgetRequestResponse:
        with Checks() as checks:
            _check_id(checks, request)
        seen = await self._room.get(caller(context), request.budget_request_id)
        return pb.GetBudgetRequestResponse(budget_request=_to_proto(seen))

    async def ApproveBudgetRequest(
        self, request: pb.ApproveBudgetRequestRequest, context: Context
    ) -> pb.ApproveBudgetRequestResponse:
        given = request.HasField("approved_budget_nanousd")
        with Checks() as checks:
            _check_id(checks, request)
            if given:
                _check_budget(checks, "approved_budget_usd", request.approved_budget_nanousd)
            notes = checks.prose("review_notes", request.review_notes, 0, 1_000)
            expires_in_s = _expires_in_s(checks, request)
        approved_nanousd = request.approved_budget_nanousd if given else None
        approval = Approval(approved_nanousd, expires_in_s, notes)
        seen = await self._room.approve(caller(context), request.budget_request_id, approval)
        return pb.ApproveBudgetRequestResponse(budget_request=_to_proto(seen))

    async def RejectBudgetRequest(
        self, request: pb.RejectBudgetRequestRequest, context: Context
    ) -> pb.RejectBudgetRequestResponse:
        with Checks() as checks:
            _check_id(checks, request)
            reason = checks.prose("rejection_reason", request.rejection_reason, 20, 1_000)
        seen = await self._room.reject(caller(context), request.budget_request_id, reason)
        return pb.RejectBudgetRequestResponse(budget_request=_to_proto(seen))

    async def CancelBudgetRequest(
        self, request: pb.CancelBudgetRequestRequest, context: Context
    ) -> pb.CancelBudgetRequestResponse:
        with Checks() as checks:
            _check_id(checks, request)
        await self._room.cancel(caller(context), request.budget_request_id)
        return pb.CancelBudgetRequestResponse()

    async def ListBudgetChanges(
        self, request: pb.ListBudgetChangesRequest, context: Context
    ) -> pb.ListBudgetChangesResponse:
        with Checks() as checks:
            checks.text("agent_id", request.agent_id, 1, 100)
            size = page_size(checks, "page_size", request.page_size)
            before = from_page_token(checks, "page_token", request.page_token)
        changes, summary = await self._room.changes(
            caller(context),
            request.agent_id,
            before_lsn=before[0] if before else None,
            limit=size + 1,
        )
        response = pb.ListBudgetChangesResponse(
            agent_id=request.agent_id,
            changes=[_change(each) for each in changes[:size]],
            summary=_summary(summary),
        )
        if len(changes) > size:
            response.next_page_token = to_page_token(changes[size - 1].lsn, request.agent_id)
        return response


def _check_id(checks: Checks, request: Any) -> None:
    checks.text("budget_request_id", request.budget_request_id, 1, 100)


def _check_budget(checks: Checks, field: str, budget_nanousd: int) -> None:
    if not 0 < budget_nanousd <= MAX_BUDGET_NANOUSD:
        checks.add(
            field, f"is {budget_nanousd} nano-dollars; it must be above $0, up to $1,000,000"
        )


def _expires_in_s(checks: Checks, request: Any) -> int | None:
    if not request.HasField("expires_in_s"):
        return None
    checks.between("expires_in_s", request.expires_in_s, 1, MAX_EXPIRES_IN_S)
    return int(request.expires_in_s)


def _to_proto(seen: Seen) -> pb.BudgetRequest:
    request, balance = seen.request, seen.balance
    rejected = request.status is Status.REJECTED
    return pb.BudgetRequest(
        id=request.request_id,
        agent_id=request.agent_id,
        agent_name=request.agent_name,
        requester_id=request.requester_id,
        requester_name=request.requester_name,
        requester_kind=request.requester_kind,
        current_budget_nanousd=request.current_nanousd,
        requested_budget_nanousd=request.requested_nanousd,
        justification=request.justification,
        expires_in_s=request.expires_in_s,
        status=STATUSES[request.status],
        reviewer_id=request.reviewer_id,
        reviewed_at=timestamp(request.reviewed_at_us),
        review_notes=None if rejected else request.notes,
        rejection_reason=request.notes if rejected else None,
        previous_budget_nanousd=request.previous_nanousd,
        approved_budget_nanousd=request.approved_nanousd,
        expires_at=timestamp(request.ends_at_us),
        created_at=timestamp(request.created_at_us),
        updated_at=timestamp(request.updated_at_us),
        agent_budget=budget_status(balance) if balance else None,
    )


def _change(change: BudgetChange) -> pb.BudgetChange:
    return pb.BudgetChange(
        sequence=change.lsn,
        agent_id=change.agent_id,
        old_budget_nanousd=change.old_nanousd,
        new_budget_nanousd=change.new_nanousd,
        change_nanousd=change.new_nanousd - change.old_nanousd,
        cause=CAUSES[Cause(change.cause)],
        changed_by=change.changed_by,
        reason=change.reason,
        budget_request_id=change.request_id,
        changed_at=timestamp(change.at_us),
    )


def _summary(summary: BudgetSummary) -> pb.BudgetSummary:
    return pb.BudgetSummary(
        initial_budget_nanousd=summary.initial_nanousd,
        current_budget_nanousd=summary.current_nanousd,
        total_increases_nanousd=summary.increases_nanousd,
        change_count=summary.change_count,
        temporary_nanousd=summary.temporary_nanousd,
        temporary_until=timestamp(summary.temporary_until_us),
    )
