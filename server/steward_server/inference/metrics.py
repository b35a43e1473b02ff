"""What each policy leaves behind: counted by plain adds, collected only when somebody reads it."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from itertools import accumulate

import numpy as np
from prometheus_client import CollectorRegistry
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from steward_server.inference.engine import Engine
from steward_server.inference.model import Floats
from steward_server.inference.repository import Reference

SECONDS = (
    *(0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01),
    *(0.025, 0.05, 0.1, 0.25, 0.5, 1.0),
)
ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096)
PRESSURES = tuple(tenth / 10 for tenth in range(1, 11))
_PRESSURES = np.array(PRESSURES, np.float32)


class _Histogram:
    def __init__(self, edges: Sequence[float]) -> None:
        self.edges = edges
        self.buckets = [0] * (len(edges) + 1)
        self.total = 0.0

    def add(self, value: float) -> None:
        self.buckets[bisect_left(self.edges, value)] += 1
        self.total += value

    def add_all(self, values: Sequence[float]) -> None:
        """Add values that lie near each other, mostly: then they are one addition."""
        bucket = bisect_left(self.edges, max(values))
        if bucket == bisect_left(self.edges, min(values)):
            self.buckets[bucket] += len(values)
            self.total += sum(values)
        else:
            for value in values:
                self.add(value)


class _Series:
    """The figures of one version of a policy."""

    def __init__(self) -> None:
        self.rows = _Histogram(ROWS)
        self.waited = _Histogram(SECONDS)
        self.ran = _Histogram(SECONDS)
        self.pressures = _Histogram(PRESSURES)

    def observe(
        self, rows: int, ran_s: float, waited_s: Sequence[float], pressures: Floats | None
    ) -> None:
        self.rows.add(rows)
        self.ran.add(ran_s)
        self.waited.add_all(waited_s)
        if pressures is not None:
            counts = np.bincount(np.searchsorted(_PRESSURES, pressures), minlength=11)
            self.pressures.buckets = [
                old + new for old, new in zip(self.pressures.buckets, counts.tolist(), strict=True)
            ]
            self.pressures.total += float(pressures.sum())


class PolicyMetrics(Collector):
    """Of all policies, for the registry of the server."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._series: dict[Reference, _Series] = {}
        self._engine: Engine | None = None
        registry.register(self)

    def watch(self, engine: Engine) -> None:
        """Tell of this engine's agents."""
        self._engine = engine

    def of(self, reference: Reference) -> _Series:
        """The series of a policy; names come from folders, never from callers."""
        return self._series.setdefault(reference, _Series())

    def collect(self) -> Iterator[Metric]:
        """Called by the registry, from a thread of its own."""
        labels = ["policy", "version"]
        steps = CounterMetricFamily("policy_steps", "Steps that were computed.", labels=labels)
        failed = CounterMetricFamily(
            "policy_not_finite", "Steps for which the policy gave no finite numbers.", labels=labels
        )
        agents = GaugeMetricFamily("policy_agents", "Agents whose state is kept.", labels=labels)
        waiting = GaugeMetricFamily("policy_waiting_steps", "Steps that wait.", labels=labels)
        for known in self._engine.known() if self._engine else ():
            for version, served in sorted(known.served.items()):
                name = [known.name, str(version)]
                steps.add_metric(name, served.runner.counts.rows)
                failed.add_metric(name, served.runner.counts.failed_rows)
                agents.add_metric(name, served.arena.used)
                waiting.add_metric(name, served.runner.waiting_rows)
        yield from (steps, failed, agents, waiting)
        told = {
            "policy_run_steps": ("Steps computed in one run.", "rows"),
            "policy_queue_seconds": ("How long steps waited for their run.", "waited"),
            "policy_run_seconds": ("How long runs took.", "ran"),
            "policy_pressure": ("Pressure of agents' memories, at each step.", "pressures"),
        }
        for title, (documentation, kind) in told.items():
            family = HistogramMetricFamily(title, documentation, labels=labels)
            for reference, series in list(self._series.items()):
                histogram: _Histogram = getattr(series, kind)
                edges = (*map(str, map(float, histogram.edges)), "+Inf")
                reached = accumulate(list(histogram.buckets))
                family.add_metric(
                    [reference.name, str(reference.version)],
                    list(zip(edges, reached, strict=True)),
                    histogram.total,
                )
            yield family
