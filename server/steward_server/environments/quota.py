"""How much may be promised to environments at a time, to one person and to all. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from steward_server.environments.environment import Resources
from steward_server.environments.quantities import bytes_text, cpu_text
from steward_server.errors import ResourceExhausted


@dataclass(frozen=True, slots=True)
class Use:
    """What environments that are not over hold together."""

    count: int = 0
    cpu_millicores: int = 0
    memory_bytes: int = 0
    storage_bytes: int = 0

    def plus(self, resources: Resources) -> Use:
        """With one more of them."""
        return Use(
            self.count + 1,
            self.cpu_millicores + resources.cpu_millicores,
            self.memory_bytes + resources.memory_bytes,
            self.storage_bytes + resources.storage_bytes,
        )


@dataclass(frozen=True, slots=True)
class Quota:
    """The most of it; None: any amount."""

    count: int | None = None
    cpu_millicores: int | None = None
    memory_bytes: int | None = None
    storage_bytes: int | None = None

    def must_hold(self, before: Use, after: Use, whose: str) -> None:
        """Refuse what goes beyond it.

        Raises:
            ResourceExhausted: QUOTA_EXCEEDED, with every amount that does.
        """
        told: list[str] = []
        facts: dict[str, str] = {}
        for name, limit, held, wanted in self._amounts(before, after):
            told.append(f"{name}: {limit} at most, {held} in use, {wanted} with this one")
            facts |= {f"{name}_limit": limit, f"{name}_used": held, f"{name}_wanted": wanted}
        if told:
            raise ResourceExhausted(
                f"{whose} would have more than the quota allows ({'; '.join(told)}); delete an "
                "environment first",
                reason="QUOTA_EXCEEDED",
                facts=facts,
            )

    def _amounts(self, before: Use, after: Use) -> Iterator[tuple[str, str, str, str]]:
        if self.count is not None and after.count > self.count:
            yield "count", str(self.count), str(before.count), str(after.count)
        cpu = self.cpu_millicores
        if cpu is not None and after.cpu_millicores > cpu:
            held, wanted = before.cpu_millicores, after.cpu_millicores
            yield "cpu", cpu_text(cpu), cpu_text(held), cpu_text(wanted)
        amounts = (
            ("memory", self.memory_bytes, before.memory_bytes, after.memory_bytes),
            ("storage", self.storage_bytes, before.storage_bytes, after.storage_bytes),
        )
        for name, limit, held, wanted in amounts:
            if limit is not None and wanted > limit:
                yield name, bytes_text(limit), bytes_text(held), bytes_text(wanted)
