"""What runs leave behind for whoever watches the server."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from steward_server.executions.run import State, StepState

SECONDS = (0.01, 0.05, 0.1, 0.5, 1, 5, 10, 30, 60, 300, 900, 3_600)


class ExecutionMetrics:
    """Counts runs and steps as they end."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._runs = Counter(
            "steward_executions_ended", "Runs that are over.", ["status"], registry=registry
        )
        self._steps = Counter(
            "steward_execution_steps_ended",
            "Steps of runs that are over.",
            ["type", "status"],
            registry=registry,
        )
        self._seconds = Histogram(
            "steward_execution_step_seconds",
            "How long steps took, with all attempts.",
            ["type"],
            buckets=SECONDS,
            registry=registry,
        )
        self._now = Gauge(
            "steward_executions", "Runs that are made, or wait.", ["status"], registry=registry
        )

    def watch(self, running: Callable[[], int], waiting: Callable[[], int]) -> None:
        """Show how many runs there are now."""
        self._now.labels("running").set_function(running)
        self._now.labels("pending").set_function(waiting)

    def run_ended(self, state: State) -> None:
        self._runs.labels(state).inc()

    def step_ended(self, step_type: str, state: StepState, seconds: float) -> None:
        self._steps.labels(step_type, state).inc()
        if state is not StepState.SKIPPED:
            self._seconds.labels(step_type).observe(seconds)
