"""Analytics: what was asked of LLMs and what it cost. Start reading at figures.py.

Sums are kept by rollups.py in the ledger's own transactions, and read by queries.py.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from steward.analytics.v1.analytics_pb2_grpc import add_AnalyticsServiceServicer_to_server
from steward.analytics.v1.traces_pb2_grpc import add_TraceServiceServicer_to_server
from steward.analytics.v1.usage_pb2_grpc import add_UsageServiceServicer_to_server
from steward_server.analytics.config import AnalyticsConfig
from steward_server.analytics.ingestion import Ingestion
from steward_server.analytics.needs import Agents, Ledger, Projects, Providers, Purse
from steward_server.analytics.room import AnalyticsRoom
from steward_server.analytics.service import AnalyticsService
from steward_server.analytics.trace_service import TraceService
from steward_server.analytics.traces import TraceRoom
from steward_server.analytics.usage_service import UsageService
from steward_server.db import Database, now_us


def register(
    methods: Any,
    database: Database,
    *,
    agents: Agents,
    purse: Purse,
    ledger: Ledger,
    providers: Providers,
    projects: Projects,
    config: AnalyticsConfig,
    clock: Callable[[], int] = now_us,
) -> None:
    """Serve AnalyticsService, UsageService and TraceService."""
    room = AnalyticsRoom(database, agents, purse, providers, projects, clock)
    ingestion = Ingestion(database, agents, ledger, clock)
    add_AnalyticsServiceServicer_to_server(AnalyticsService(room, ingestion, clock), methods)
    add_UsageServiceServicer_to_server(UsageService(room, clock), methods)
    traces = TraceRoom(database, agents, projects, config.trace_retention_us, clock)
    add_TraceServiceServicer_to_server(TraceService(traces), methods)
