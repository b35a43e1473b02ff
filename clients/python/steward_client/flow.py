"""The reports of one lease on their way to the server: in order, and each until it is booked."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from steward.budget.v1 import budget_pb2 as pb
from steward_client.errors import StewardError, error_of_status
from steward_client.outbox import Outbox, Report
from steward_client.wallet import Wallet

log = logging.getLogger(__name__)

MAX_BATCH = 256
MAX_BATCHES_IN_FLIGHT = 16


@dataclass(slots=True)
class Flow:
    outbox: Outbox
    lease_id: str
    wallet: Wallet | None = None
    """None for the lease of a runtime that died."""
    sent: int = 0
    """The highest number sent over this stream."""
    in_flight: int = 0
    """Batches sent and not answered."""
    live: bool = False
    """Resumed over this stream."""
    lost: bool = False
    """The server does not know the lease; what it owes stays in the file."""
    giving_back: bool = False
    """The server is being told what the lease holds of the limits."""
    retiring: bool = False
    """It is given back once everything is acknowledged."""

    @property
    def settled(self) -> bool:
        if self.wallet is not None and self.wallet.open_calls:
            return False
        return self.outbox.unacknowledged(self.lease_id) == 0

    def next_batch(self) -> list[Report]:
        """What is to be sent now, and counts as sent from here on; empty if nothing is."""
        if not self.live or self.in_flight >= MAX_BATCHES_IN_FLIGHT:
            return []
        reports = self.outbox.reports(self.lease_id, after=self.sent, limit=MAX_BATCH)
        # While a batch is out, what is settled meanwhile gathers for the next one.
        if not reports or (self.in_flight and len(reports) < MAX_BATCH):
            return []
        self.sent = reports[-1].sequence
        self.in_flight += 1
        return reports

    def take(self, ack: pb.ReportAck, reports: list[Report]) -> None:
        """The server's answer to a batch: what is booked is deleted, what is refused is kept."""
        self.outbox.acknowledge(self.lease_id, ack.sequence)
        for refused in ack.refused:
            self._refused(reports[refused.index], error_of_status(refused.status))

    def _refused(self, report: Report, error: StewardError) -> None:
        if error.reason == "SEQUENCE_GAP":
            self.sent = min(self.sent, int(error.facts.get("expected", "1")) - 1)
            return
        log.error(
            "report %s of lease %s was refused and is kept in %s: %s",
            report.call_id,
            self.lease_id,
            self.outbox.path,
            error.message,
        )
        if error.reason in ("LEASE_CLOSED", "SEQUENCE_REUSED"):
            self.outbox.refuse(self.lease_id, report, error.reason)
            self.outbox.acknowledge(self.lease_id, report.sequence)
            return
        # The number must be used up by something, or the reports behind it cannot be booked.
        void = pb.Usage(
            request_id=f"{report.call_id[:90]}-void", sequence=report.sequence, model="refused"
        )
        void.cost_nanousd = 0
        self.outbox.refuse(self.lease_id, report, error.reason, void=void.SerializeToString())
        self.sent = min(self.sent, report.sequence - 1)
