"""The shapes of what Iron paths answer: exact keys, exact types."""

from __future__ import annotations

import re
from typing import Any

from tests.e2e.curl import MONEY, TIME, error

MAYBE_TIME = (TIME, None)
MAYBE_MONEY = (*MONEY, None)

PAIR = {
    "access_token": str,
    "refresh_token": str,
    "token_type": "Bearer",
    "expires_in": int,
    "expires_at": TIME,
    "user": {"id": str, "username": "admin", "email": "", "role": "admin"},
}
LOGIN = PAIR | {"token": str}
TOKEN = {
    "id": str,
    "agent_id": str,
    "name": str,
    "status": str,
    "prefix": str,
    "scopes": [str],
    "created_at": TIME,
    "expires_at": MAYBE_TIME,
    "last_used_at": MAYBE_TIME,
    "rotated_at": MAYBE_TIME,
    "revoked_at": MAYBE_TIME,
}
NEW_TOKEN = TOKEN | {"status": "active", "token": str}
BUDGET = {
    "limit_usd": MONEY,
    "spent_usd": MONEY,
    "reserved_usd": MONEY,
    "available_usd": MONEY,
    "overrun_usd": MONEY,
    "percent_used": float,
    "state": str,
    "period": str,
    "period_start": MAYBE_TIME,
    "period_end": MAYBE_TIME,
}
SCOPE_BUDGET = {
    "scope": str,
    "id": str,
    "name": str,
    "limit_usd": MAYBE_MONEY,
    "spent_usd": MONEY,
    "reserved_usd": MONEY,
    "available_usd": MAYBE_MONEY,
    "overrun_usd": MONEY,
    "percent_used": (float, None),
    "mode": "restrictive",
    "period": "none",
    "period_start": None,
    "period_end": None,
}
PROJECT = {
    "id": str,
    "name": str,
    "budget": SCOPE_BUDGET,
    "created_at": TIME,
    "updated_at": TIME,
    "version": int,
}
ORGANISATION = {
    "id": "default",
    "name": str,
    "budget": SCOPE_BUDGET | {"scope": "organisation", "id": "organisation"},
    "updated_at": MAYBE_TIME,
    "version": int,
}
AGENT = {
    "id": str,
    "name": str,
    "owner_id": str,
    "provider": str,
    "status": str,
    "desired_state": str,
    "budget": BUDGET,
    "created_at": TIME,
    "updated_at": TIME,
    "last_seen_at": MAYBE_TIME,
    "project_id": str,
    "version": int,
}
STATUS = {
    "agent_id": str,
    "name": str,
    "status": str,
    "desired_state": "running",
    "budget": BUDGET,
    "last_seen_at": MAYBE_TIME,
    "started_at": MAYBE_TIME,
    "stopped_at": MAYBE_TIME,
    "exit_code": (int, None),
    "open_leases": int,
    "commit_number": int,
}
PROVIDER = {
    "id": str,
    "name": str,
    "kind": str,
    "base_url": str,
    "masked_key": str,
    "created_at": TIME,
    "last_used_at": MAYBE_TIME,
    "usable": True,
    "allow_plaintext_key": bool,
    "version": int,
}
USER = {
    "id": str,
    "username": str,
    "email": str,
    "role": str,
    "state": "active",
    "must_change_password": bool,
    "created_at": TIME,
    "last_login_at": MAYBE_TIME,
    "suspended_at": None,
    "suspend_reason": "",
    "version": int,
}
AUDIT_ENTRY = {
    "number": int,
    "at": TIME,
    "action": str,
    "resource_type": str,
    "resource_id": str,
    "actor_kind": str,
    "actor_id": str,
    "actor_role": str,
    "credential": str,
    "address": str,
    "user_agent": str,
    "request_id": str,
    "method": str,
    "before": (dict, None),
    "after": (dict, None),
    "reason": str,
    "hash": re.compile("[0-9a-f]{64}"),
}
GRANT = {
    "lease_id": str,
    "ip_token": str,
    "seal_format": "aes256",
    "seal_salt": str,
    "seal_info": str,
    "budget_requested_usd": MONEY,
    "budget_granted_usd": MONEY,
    "partial": bool,
    "budget_remaining_usd": MONEY,
    "provider": "openai",
    "provider_kind": "openai",
    "base_url": "http://127.0.0.1:9",
    "expires_at": TIME,
    "lease_duration_ms": int,
    "settle_grace_ms": int,
    "desired_state": "running",
    "agent_id": str,
    "price_version": str,
    "commit_number": int,
    "allotment": None,
}
REPORT = {
    "success": True,
    "lease_spent_usd": MONEY,
    "lease_remaining_usd": MONEY,
    "budget_remaining_usd": MONEY,
    "desired_state": "running",
    "sequence": int,
    "cost_usd": MONEY,
    "overrun_usd": MONEY,
    "lease_status": "active",
    "commit_number": int,
}
RETURN = {
    "success": True,
    "returned_usd": MONEY,
    "lease_status": "closed",
    "lease_spent_usd": MONEY,
    "budget_remaining_usd": MONEY,
    "commit_number": int,
}
REFRESH = {
    "status": "approved",
    "reason": "",
    "lease_id": str,
    "budget_granted_usd": MONEY,
    "partial": bool,
    "budget_remaining_usd": MONEY,
    "lease_granted_usd": MONEY,
    "lease_spent_usd": MONEY,
    "expires_at": TIME,
    "lease_duration_ms": int,
    "commit_number": int,
    "allotment": None,
}
HEALTH = {
    "status": "healthy",
    "version": str,
    "timestamp": TIME,
    "ledger": {
        "balanced": True,
        "checked_at": TIME,
        "commit_number": int,
        "account_count": int,
        "open_lease_count": int,
        "overrun_usd": MONEY,
    },
    "notices": [str],
    "uptime_seconds": int,
}

LIMIT = {
    "scope": str,
    "max_requests_per_minute": (int, None),
    "max_tokens_per_day": (int, None),
    "max_cost_per_month_usd": (int, float, None),
    "requests_last_minute": int,
    "requests_shared": int,
    "tokens_today": int,
    "tokens_allotted": int,
    "cost_this_month_usd": MONEY,
    "leased_usd": MONEY,
    "tokens_reset_at": TIME,
    "cost_reset_at": TIME,
    "created_at": TIME,
    "updated_at": TIME,
    "version": int,
}
WEBHOOK = {
    "id": str,
    "url": str,
    "events": [str],
    "description": str,
    "enabled": bool,
    "disabled_reason": str,
    "created_at": TIME,
    "updated_at": TIME,
    "pending_count": int,
}
NEW_WEBHOOK = WEBHOOK | {"secret": str}
DELIVERY = {
    "id": str,
    "event_type": str,
    "sequence": int,
    "status": str,
    "attempts": int,
    "created_at": TIME,
    "next_attempt_at": MAYBE_TIME,
    "delivered_at": MAYBE_TIME,
    "last_status_code": int,
    "last_error": str,
}
PROVIDER_KEY = {
    "lease_id": str,
    "provider": "openai",
    "provider_kind": "openai",
    "base_url": "http://127.0.0.1:9",
    "ip_token": str,
    "seal_format": "aes256",
    "seal_salt": str,
    "seal_info": str,
    "provider_key": "",
    "expires_at": TIME,
}

NO_CREDENTIAL = error("UNAUTHORIZED", "CREDENTIAL_MISSING")
BAD_CREDENTIAL = error("UNAUTHORIZED", "INVALID_TOKEN")
NOT_ALLOWED = error("FORBIDDEN", "ROLE_NOT_ALLOWED")
NO_METHOD = error("METHOD_NOT_ALLOWED")
NO_USER = error("NOT_FOUND", "USER_NOT_FOUND", details={"user": str})
NO_AGENT = error("NOT_FOUND", "AGENT_NOT_FOUND", details={"agent": str})
NO_PROJECT = error("NOT_FOUND", "PROJECT_NOT_FOUND", details={"project": str})
NO_TOKEN = error("NOT_FOUND", "TOKEN_NOT_FOUND", details={"token": str})
NO_WEBHOOK = error("NOT_FOUND", "WEBHOOK_NOT_FOUND", details={"webhook": str})
NO_LEASE = error("NOT_FOUND", "LEASE_NOT_FOUND", details={"lease": str})
MALFORMED = error("VALIDATION_ERROR")
NO_BODY = None
NO_MONEY = {"scope": str, "agent_id": str, "requested_nanousd": str, "available_nanousd": "0"}

Row = tuple[str, str, int, Any]
"""A name, curl's arguments, the status and the shape of the body."""
