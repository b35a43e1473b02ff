"""The metrics every call leaves behind, on a registry of the server's own."""

from __future__ import annotations

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
)
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

LATENCY_BUCKETS_S = (
    *(0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01),
    *(0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0),
)


class Observation:
    """Counters and histograms, by REST endpoint and by rpc."""

    def __init__(self) -> None:
        # They are one more line for every series, and nobody reads them.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        self._requests = Counter(
            "request_count_total",
            "Total requests by endpoint",
            ["endpoint", "status"],
            registry=self.registry,
        )
        self._request_latency = Histogram(
            "request_latency_seconds",
            "Request latency",
            ["endpoint"],
            buckets=LATENCY_BUCKETS_S,
            registry=self.registry,
        )
        self.rpcs = Counter(
            "rpc_count_total",
            "Total calls by method and status code, whichever port they came through.",
            ["method", "code"],
            registry=self.registry,
        )
        self.rpc_latency = Histogram(
            "rpc_latency_seconds",
            "Latency of calls without a response stream.",
            ["method"],
            buckets=LATENCY_BUCKETS_S,
            registry=self.registry,
        )
        self.open_streams = Gauge(
            "rpc_open_streams", "Streams open now.", ["method"], registry=self.registry
        )

    def request(self, endpoint: str, status: int, seconds: float) -> None:
        """Count one HTTP request; `endpoint` is the path's template, never the path."""
        outcome = "success" if status < 400 else "error"
        self._requests.labels(endpoint, outcome).inc()
        self._request_latency.labels(endpoint).observe(seconds)
