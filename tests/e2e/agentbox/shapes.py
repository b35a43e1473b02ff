"""The shapes of what AgentBox paths answer: exact keys, exact types."""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import Any

from tests.e2e.curl import TIME

API_KEY = {
    "id": str,
    "description": str,
    "created_at": TIME,
    "expires_at": (TIME, None),
    "last_used_at": (TIME, None),
    "permissions": [{"environment_id": str, "permission": str}],
    "kind": str,
    "role": str,
    "prefix": str,
    "user_id": str,
}
NEW_API_KEY = API_KEY | {"key": re.compile(r"(agentbox|itk)_[0-9a-f]{16}_[A-Za-z0-9_-]{43}")}


def refused(status: int, *words: str) -> dict[str, Any]:
    """The shape of a refusal whose message has these words, in their order."""
    told = ".*".join(re.escape(word) for word in words)
    return {
        "error": HTTPStatus(status).phrase,
        "message": re.compile(rf".*{told}.*"),
        "code": status,
    }
