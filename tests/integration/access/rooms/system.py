"""The server itself."""

from __future__ import annotations

from tests.integration.access.tables import EVERYONE

ACCESS = {
    "steward.system.v1.SystemService": {
        "GetHealth": EVERYONE,
        "GetMetrics": EVERYONE,
    }
}
