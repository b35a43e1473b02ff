"""The audit log: who changed what, from where. Start reading at trail.py; rooms call `record`."""

from steward_server.audit.store import record
from steward_server.audit.trail import Change

__all__ = ["Change", "record"]
