"""The shapes of what Ignition paths answer: exact keys, exact types."""

from __future__ import annotations

import re
from typing import Any


def refused(error: str, *words: str, **details: Any) -> dict[str, Any]:
    """The shape of a refusal whose message has these words, in their order."""
    told = ".*".join(re.escape(word) for word in words)
    return {
        "detail": {"error": error, "message": re.compile(rf".*{told}.*"), "details": details},
    }


def invalid(*fields: str) -> dict[str, Any]:
    """The shape of a refusal of these fields."""
    return refused("validation_error", *fields, fields=dict.fromkeys(fields, str))


NO_CREDENTIAL = refused("permission_denied", reason="CREDENTIAL_MISSING")
NOT_ALLOWED = refused("permission_denied", reason="ROLE_NOT_ALLOWED")
