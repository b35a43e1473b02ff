"""What the server is told of personal data that was seen: kinds and counts, never values."""

from __future__ import annotations

from steward.events.v1 import events_pb2
from steward_client.pii import PiiAction, PiiKind
from steward_client.relay import PiiSeen

_PII_KINDS = {
    PiiKind.EMAIL: events_pb2.PII_KIND_EMAIL,
    PiiKind.PHONE: events_pb2.PII_KIND_PHONE,
    PiiKind.SSN: events_pb2.PII_KIND_SSN,
    PiiKind.CARD: events_pb2.PII_KIND_CARD,
    PiiKind.IBAN: events_pb2.PII_KIND_IBAN,
}
_PII_ACTIONS = {
    PiiAction.ALERT: events_pb2.PII_ACTION_ALERT,
    PiiAction.REDACT: events_pb2.PII_ACTION_REDACT,
    PiiAction.BLOCK: events_pb2.PII_ACTION_BLOCK,
}


def pii_alert(seen: PiiSeen) -> events_pb2.PiiAlert:
    return events_pb2.PiiAlert(
        request_id=seen.request_id,
        direction=(
            events_pb2.PII_DIRECTION_INPUT if seen.outgoing else events_pb2.PII_DIRECTION_OUTPUT
        ),
        action=_PII_ACTIONS[seen.action],
        findings=[
            events_pb2.PiiFinding(kind=_PII_KINDS[kind], count=count)
            for kind, count in seen.found.items()
        ],
    )
