"""A budget request: who asks for what, and how it is decided, once. Pure.

A change returns a new value; the time is an argument. Amounts are what a budget is to be, not by
how much it is to grow, so that a decision means the same whatever happened since it was asked.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

from steward_server.clock import text
from steward_server.errors import FailedPrecondition, InvalidArgument, PermissionDenied

MAX_EXPIRES_IN_S = 366 * 24 * 3_600


class Status(StrEnum):
    """Where a request stands. The values are what the table holds."""

    PENDING = "pending"
    APPROVED = "approved"
    REJECTED = "rejected"
    CANCELLED = "cancelled"


NEXT: dict[Status, frozenset[Status]] = {
    Status.PENDING: frozenset({Status.APPROVED, Status.REJECTED, Status.CANCELLED}),
    Status.APPROVED: frozenset(),
    Status.REJECTED: frozenset(),
    Status.CANCELLED: frozenset(),
}


class AlreadyReviewed(FailedPrecondition):
    """Somebody decided about the request before."""

    reason = "REQUEST_ALREADY_REVIEWED"

    def __init__(self, request: BudgetRequest) -> None:
        reviewed_at = text(request.reviewed_at_us or 0)
        super().__init__(
            f"request {request.request_id!r} was {request.status} by {request.reviewer_id!r} at "
            f"{reviewed_at}; make another",
            facts={
                "budget_request_id": request.request_id,
                "status": request.status,
                "reviewer_id": request.reviewer_id or "",
                "reviewed_at": reviewed_at,
            },
        )


@dataclass(frozen=True, slots=True)
class BudgetRequest:
    """One request for a larger budget."""

    request_id: str
    agent_id: str
    agent_name: str
    owner_id: str
    """Of the agent, when it was asked; while it is pending, of now."""
    requester_id: str
    requester_name: str
    requester_kind: str
    """"person" or "agent"."""
    current_nanousd: int
    """The agent's budget when it was asked."""
    requested_nanousd: int
    justification: str
    expires_in_s: int | None
    """How long the raise is to hold from its approval; None: for good."""
    created_at_us: int
    updated_at_us: int
    status: Status = Status.PENDING
    reviewer_id: str | None = None
    """Who decided, a cancellation included; None while it is pending."""
    reviewed_at_us: int | None = None
    notes: str | None = None
    """What the reviewer said about it; empty if nothing."""
    previous_nanousd: int | None = None
    """The agent's budget just before the approval."""
    approved_nanousd: int | None = None
    ends_at_us: int | None = None
    """When the raise ends; None if it was not approved, or holds for good."""

    def check_increase(self) -> BudgetRequest:
        """The request itself.

        Raises:
            InvalidArgument: it asks for what the agent has, or for less.
        """
        asked, current = self.requested_nanousd, self.current_nanousd
        if asked > current:
            return self
        raise InvalidArgument(
            f"agent {self.agent_id!r} has a budget of {current} nano-dollars and the request asks "
            f"for {asked}; ask for more, as the budget in all",
            reason="BUDGET_UNCHANGED" if asked == current else "BUDGET_DECREASE_REQUEST",
            fields={"requested_budget_usd": "must be more than the agent's budget"},
            facts={"current_nanousd": str(current), "requested_nanousd": str(asked)},
        )

    def approve(
        self,
        by: str,
        *,
        budget_nanousd: int,
        approved_nanousd: int | None,
        expires_in_s: int | None,
        notes: str,
        now_us: int,
    ) -> BudgetRequest:
        """Grant what was asked, or less.

        Args:
            by: the administrator.
            budget_nanousd: the agent's budget now.
            approved_nanousd: what it is to be; None: what was asked.
            expires_in_s: how long that holds; None: as was asked.
            notes: for the requester; may be empty.
            now_us: the time.

        Raises:
            AlreadyReviewed: somebody decided before.
            InvalidArgument: it is more, or for longer, than was asked, or no more than there is.
        """
        decided = self._decide(Status.APPROVED, by, notes, now_us)
        approved_nanousd = self.requested_nanousd if approved_nanousd is None else approved_nanousd
        if approved_nanousd > self.requested_nanousd:
            raise InvalidArgument(
                f"request {self.request_id!r} asks for {self.requested_nanousd} nano-dollars; "
                f"{approved_nanousd} is more than that",
                reason="APPROVAL_EXCEEDS_REQUEST",
                fields={"approved_budget_usd": "must be at most what was asked"},
            )
        if approved_nanousd <= budget_nanousd:
            raise InvalidArgument(
                f"agent {self.agent_id!r} has a budget of {budget_nanousd} nano-dollars by now, "
                f"which {approved_nanousd} does not raise; approve more, or reject the request",
                reason="APPROVAL_DECREASES_BUDGET",
                fields={"approved_budget_usd": "must be more than the agent's budget"},
                facts={"current_nanousd": str(budget_nanousd)},
            )
        holds_s = self._holds_s(expires_in_s)
        return replace(
            decided,
            previous_nanousd=budget_nanousd,
            approved_nanousd=approved_nanousd,
            ends_at_us=None if holds_s is None else now_us + holds_s * 1_000_000,
        )

    def reject(self, by: str, *, reason: str, now_us: int) -> BudgetRequest:
        """Turn it down.

        Raises:
            AlreadyReviewed: somebody decided before.
        """
        return self._decide(Status.REJECTED, by, reason, now_us)

    def cancel(self, by: str, *, why: str, now_us: int) -> BudgetRequest:
        """Take it back.

        Raises:
            AlreadyReviewed: somebody decided before.
        """
        return self._decide(Status.CANCELLED, by, why, now_us)

    def is_of(self, person: str) -> bool:
        """Whether the person asked, by themselves or through an agent of theirs."""
        asked_by = {self.requester_id}
        if self.requester_kind == "agent":
            asked_by.add(self.owner_id)
        return person in asked_by

    def check_reviewer(self, reviewer: str, *, is_sole_administrator: bool) -> None:
        """Refuse to let anyone decide about what they asked for, if there is somebody else.

        Raises:
            PermissionDenied: the reviewer asked, and is not the only administrator.
        """
        if self.is_of(reviewer) and not is_sole_administrator:
            raise PermissionDenied(
                f"request {self.request_id!r} is your own; another administrator decides about it",
                reason="SELF_REVIEW_FORBIDDEN",
                facts={"budget_request_id": self.request_id},
            )

    def _decide(self, to: Status, by: str, notes: str, now_us: int) -> BudgetRequest:
        if to not in NEXT[self.status]:
            raise AlreadyReviewed(self)
        return replace(
            self,
            status=to,
            reviewer_id=by,
            reviewed_at_us=now_us,
            updated_at_us=now_us,
            notes=notes,
        )

    def _holds_s(self, wanted_s: int | None) -> int | None:
        if wanted_s is None or self.expires_in_s is None:
            return self.expires_in_s if wanted_s is None else wanted_s
        if wanted_s > self.expires_in_s:
            raise InvalidArgument(
                f"request {self.request_id!r} asks for {self.expires_in_s} s; {wanted_s} s is "
                "longer than that",
                reason="APPROVAL_EXCEEDS_REQUEST",
                fields={"expires_in_s": "must be at most what was asked"},
            )
        return wanted_s
