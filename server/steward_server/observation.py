"""The metrics every call leaves behind, on a registry of the server's own."""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator
from itertools import accumulate

from prometheus_client import CollectorRegistry, Gauge, disable_created_metrics
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

LATENCY_BUCKETS_S = (
    *(0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01),
    *(0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0),
)
_EDGES = (*(str(edge) for edge in LATENCY_BUCKETS_S), "+Inf")


class Series:
    """The calls of one name: how many ended how, and how long those that count took."""

    def __init__(self) -> None:
        self.counts: defaultdict[str, int] = defaultdict(int)
        self.buckets = [0] * len(_EDGES)
        self.total_s = 0.0

    def count(self, outcome: str) -> None:
        """One more call ended like this."""
        self.counts[outcome] += 1

    def time(self, seconds: float) -> None:
        """One more call took so long."""
        self.buckets[bisect_left(LATENCY_BUCKETS_S, seconds)] += 1
        self.total_s += seconds


class Calls(Collector):
    """A counter and a histogram over calls, by name.

    The library's own take a lock and a look-up by labels for each, which every call would pay for
    several times; these are collected only when they are read.
    """

    def __init__(self, prefix: str, label: str, outcome: str, *, counted: str, timed: str) -> None:
        self._prefix = prefix
        self._labels = (label, outcome)
        self._documentation = (counted, timed)
        self._series: dict[str, Series] = {}

    def of(self, name: str) -> Series:
        """The series of a name; names come from contracts, never from callers."""
        series = self._series.get(name)
        if series is None:
            series = self._series[name] = Series()
        return series

    def collect(self) -> Iterator[Metric]:
        """Called by the registry, from a thread of its own."""
        counted, timed = self._documentation
        counts = CounterMetricFamily(f"{self._prefix}_count", counted, labels=self._labels)
        times = HistogramMetricFamily(
            f"{self._prefix}_latency_seconds", timed, labels=self._labels[:1]
        )
        for name, series in list(self._series.items()):
            for outcome, count in list(series.counts.items()):
                counts.add_metric((name, outcome), count)
            total_s, reached = series.total_s, list(accumulate(list(series.buckets)))
            if reached[-1] == 0:
                continue  # hundreds of methods, most never called or never timed
            times.add_metric((name,), list(zip(_EDGES, reached, strict=True)), total_s)
        yield counts
        yield times


class Observation:
    """Counters and histograms, by REST endpoint and by rpc."""

    def __init__(self) -> None:
        # They are one more line for every series, and nobody reads them.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        self._requests = Calls(
            "request",
            "endpoint",
            "status",
            counted="Total requests by endpoint",
            timed="Request latency",
        )
        self.rpcs = Calls(
            "rpc",
            "method",
            "code",
            counted="Total calls by method and status code, whichever port they came through.",
            timed="Latency of calls without a response stream.",
        )
        self.registry.register(self._requests)
        self.registry.register(self.rpcs)
        self.open_streams = Gauge(
            "rpc_open_streams", "Streams open now.", ["method"], registry=self.registry
        )

    def request(self, endpoint: str, status: int, seconds: float) -> None:
        """Count one HTTP request; `endpoint` is the path's template, never the path."""
        series = self._requests.of(endpoint)
        series.count("success" if status < 400 else "error")
        series.time(seconds)
