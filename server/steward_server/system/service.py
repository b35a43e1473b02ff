"""SystemService on the wire."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Protocol

from google.api.httpbody_pb2 import HttpBody
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from steward.system.v1 import system_pb2 as pb
from steward.system.v1.system_pb2_grpc import SystemServiceServicer
from steward_server.calls import Context
from steward_server.clock import timestamp
from steward_server.db import Database
from steward_server.errors import Unavailable

VERSION = version("steward-agents")


class Audit(Protocol):
    """One proof, or disproof, of the books."""

    @property
    def balanced(self) -> bool: ...
    @property
    def checked_at_us(self) -> int: ...
    @property
    def lsn(self) -> int: ...
    @property
    def account_count(self) -> int: ...
    @property
    def open_lease_count(self) -> int: ...
    @property
    def overrun_nanousd(self) -> int: ...


@dataclass(frozen=True, slots=True)
class SystemService(SystemServiceServicer):
    """Answers anyone."""

    database: Database
    registry: CollectorRegistry
    newest_audit: Callable[[], Audit | None]
    clock: Callable[[], int]
    notices: list[str] = field(default_factory=list)
    """What is off, and how to turn it on."""
    trouble: Callable[[], str] = str
    """What keeps a part from serving now; empty if nothing does."""
    started_s: float = field(default_factory=time.monotonic)

    async def GetHealth(
        self, request: pb.GetHealthRequest, context: Context
    ) -> pb.GetHealthResponse:
        del request, context
        try:
            await self.database.fetch_one("SELECT 1")
        except Exception as error:
            raise Unavailable("the database does not answer") from error
        audit = self.newest_audit()
        trouble = self.trouble()
        healthy = (audit is None or audit.balanced) and not trouble
        response = pb.GetHealthResponse(
            status="healthy" if healthy else "degraded",
            version=VERSION,
            timestamp=timestamp(self.clock()),
            notices=[*self.notices, trouble] if trouble else self.notices,
            uptime_seconds=int(time.monotonic() - self.started_s),
        )
        if audit is not None:
            response.ledger.CopyFrom(
                pb.LedgerAudit(
                    balanced=audit.balanced,
                    checked_at=timestamp(audit.checked_at_us),
                    commit_number=audit.lsn,
                    account_count=audit.account_count,
                    open_lease_count=audit.open_lease_count,
                    overrun_nanousd=audit.overrun_nanousd,
                )
            )
        return response

    async def GetMetrics(
        self, request: pb.GetMetricsRequest, context: Context
    ) -> pb.GetMetricsResponse:
        del request, context
        # On a thread: it takes tens of milliseconds, in which nothing else would be answered.
        text = await asyncio.to_thread(generate_latest, self.registry)
        return pb.GetMetricsResponse(text=HttpBody(content_type=CONTENT_TYPE_LATEST, data=text))
