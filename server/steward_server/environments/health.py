"""Whether environments can be made here, what room is left for them, and what they use."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from importlib.metadata import version

import structlog
from prometheus_client import CollectorRegistry, Gauge

from steward.environments.v1 import environments_pb2 as pb
from steward_server.environments.driver import Capabilities, Capacity, Unusable
from steward_server.environments.environment import State
from steward_server.environments.quantities import cpu_text, room_text
from steward_server.environments.room import EnvironmentRoom
from steward_server.errors import Unavailable

log = structlog.get_logger(__name__)

VERSION = version("steward-agents")
CAPACITY_TIMEOUT_S = 5.0
"""How long an answer waits for a driver that has to ask others."""


class Health:
    """Tells how things are."""

    def __init__(self, room: EnvironmentRoom, registry: CollectorRegistry) -> None:
        self._room = room
        self._count = Gauge(
            "environments", "Environments by status.", ["status"], registry=registry
        )
        self._usable = Gauge(
            "environments_usable", "1 while environments can be made, else 0.", registry=registry
        )
        self._cpu = Gauge(
            "environment_cpu_cores",
            "Cores that a running environment uses.",
            ["environment_id"],
            registry=registry,
        )
        self._memory = Gauge(
            "environment_memory_bytes",
            "Memory that a running environment uses.",
            ["environment_id"],
            registry=registry,
        )
        self._promised = Gauge(
            "environments_promised", "What is promised to them.", ["resource"], registry=registry
        )

    async def now(self) -> pb.GetHealthResponse:
        """How the machines of this server are.

        Raises:
            Unavailable: the database does not answer.
        """
        told, capacity = await self._told()
        try:
            promised = await self._room.total_use()
        except Exception as error:
            raise Unavailable("the database does not answer") from error
        left_millicores = capacity.millicores - promised.cpu_millicores
        free_millicores = max(0, min(left_millicores, capacity.free_millicores))
        left_bytes = capacity.memory_bytes - promised.memory_bytes
        free_bytes = max(0, min(left_bytes, capacity.free_memory_bytes))
        return pb.GetHealthResponse(
            status="degraded" if told.unusable else "healthy",
            version=VERSION,
            kubernetes=pb.KubernetesHealth(
                connected=bool(capacity.cluster_version), version=capacity.cluster_version
            ),
            capacity=pb.Capacity(
                total_nodes=capacity.node_count,
                available_cpu=cpu_text(free_millicores),
                available_memory=room_text(free_bytes),
            ),
            environments=pb.EnvironmentDriver(
                driver=told.driver,
                backend=told.backend,
                usable=not told.unusable,
                reason=told.unusable,
                features=sorted(told.features),
                limits={name: hold.value for name, hold in told.limits.items()},
                runtime_classes=told.runtime_classes,
                promise=told.promise,
                warnings=told.warnings,
            ),
        )

    async def _told(self) -> tuple[Capabilities, Capacity]:
        """What the driver can do, and of what; unusable too if it cannot even say that now."""
        told = self._room.keeper.ability.capabilities()
        try:
            async with asyncio.timeout(CAPACITY_TIMEOUT_S):
                return told, await self._room.keeper.driver.capacity()
        except TimeoutError:
            why = f"the driver {told.driver!r} did not answer within {CAPACITY_TIMEOUT_S:g} s"
        except (Unusable, Unavailable) as error:
            why = str(error)
        return replace(told, unusable=told.unusable or why), Capacity(node_count=0)

    async def keep_measuring(self, interval_s: float) -> None:
        """Measure for Prometheus until cancelled."""
        while True:
            try:
                await self.measure()
            except Exception:
                log.exception("environments.not_measured")
            await asyncio.sleep(interval_s)

    async def measure(self) -> None:
        """Set what Prometheus reads."""
        counts = await self._room.count_by_state()
        for state in State:
            self._count.labels(state.value).set(counts.get(state.value, 0))
        self._usable.set(not self._room.keeper.ability.capabilities().unusable)
        promised = await self._room.total_use()
        self._promised.labels("cpu_cores").set(promised.cpu_millicores / 1_000)
        self._promised.labels("memory_bytes").set(promised.memory_bytes)
        self._promised.labels("storage_bytes").set(promised.storage_bytes)
        used = {
            each: stats
            for each in await self._room.running_ids()
            if (stats := await self._room.stats(each)) is not None
        }
        self._cpu.clear()
        self._memory.clear()
        for environment_id, stats in used.items():
            self._cpu.labels(environment_id).set(stats.cpu_millicores / 1_000)
            self._memory.labels(environment_id).set(stats.memory_bytes)
