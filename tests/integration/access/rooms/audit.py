"""The audit log."""

from __future__ import annotations

from tests.integration.access.tables import ADMIN

ACCESS = {
    "steward.audit.v1.AuditService": {
        "ListAuditEntries": ADMIN,
        "VerifyAudit": ADMIN,
    }
}
