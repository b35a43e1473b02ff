"""The back end `native`: root, control groups, and nothing that is not in the kernel.

Where runsc works too, its machines may have a kernel of their own: the runtime class `gvisor`.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

from steward_server.environments.driver import Capabilities, Unusable
from steward_server.environments.environment import Spec
from steward_server.environments.sandbox import making, offer, probe
from steward_server.environments.sandbox.cgroups import Cgroups
from steward_server.environments.sandbox.gvisor import probe as gvisor
from steward_server.environments.sandbox.gvisor.limits import with_a_kernel
from steward_server.environments.sandbox.gvisor.machine import GvisorMachine
from steward_server.environments.sandbox.launching import Launching
from steward_server.environments.sandbox.limits import Limits
from steward_server.environments.sandbox.machine import Machine
from steward_server.environments.sandbox.making import Maker
from steward_server.environments.sandbox.native_machine import NativeMachine
from steward_server.environments.sandbox.record import Record


class Native:
    """It, on a host that has what it needs."""

    name = offer.NATIVE
    has_network = True
    has_spares = True

    def __init__(self, folder: Path, label: str, *, log_bytes: int, runsc: str | None) -> None:
        """Find out whether this host can.

        Raises:
            probe.NotHere: it cannot.
        """
        probe.check_host()
        self.groups: Cgroups = probe.find_cgroups(label)
        self._launching = Launching(folder)
        self.maker = Maker(
            folder,
            self.groups,
            self._launching,
            log_segment_bytes=log_bytes // 16,
            log_segment_count=16,
        )
        self._runsc, self._no_gvisor = "", ""
        try:
            self._runsc = gvisor.find(runsc)
        except probe.NotHere as error:
            self._no_gvisor = str(error)

    async def open(self) -> None:
        await self._launching.open()

    @property
    def more_classes(self) -> tuple[str, ...]:
        return (offer.GVISOR,) if self._runsc else ()

    def lose_class(self, name: str, why: str) -> None:
        del name  # there is one
        self._runsc, self._no_gvisor = "", why

    def shaped(self, shape: making.Shape, runtime_class: str) -> making.Shape:
        if runtime_class != offer.GVISOR:
            return shape
        limits: Limits = with_a_kernel(shape.limits)
        return replace(shape, limits=limits, runsc=self._runsc)

    def machine(self, folder: Path, record: Record, pidfd: int) -> Machine:
        kind = GvisorMachine if record.runtime_class == offer.GVISOR else NativeMachine
        return kind(folder, record, self.groups, pidfd)

    async def clear(self, folder: Path, cgroup: str) -> None:
        await making.clear(folder, self.groups, cgroup)

    def names(self) -> Collection[str]:
        """What has a control group here."""
        return self.groups.names()

    def capabilities(self, *, has_network: bool, has_spares: bool) -> Capabilities:
        told = offer.capabilities(has_network=has_network, has_spares=has_spares)
        if not self._runsc:
            return replace(told, missing_classes={offer.GVISOR: self._no_gvisor})
        return replace(
            told,
            runtime_classes=(*told.runtime_classes, offer.GVISOR),
            promise=f"{told.promise} {offer.GVISOR_PROMISE}",
        )

    def refuse(self, spec: Spec) -> None:
        if spec.runtime_class == offer.GVISOR and self._no_gvisor:
            raise Unusable(
                "RUNTIME_CLASS",
                f"the sandbox has no runtime class 'gvisor' here: {self._no_gvisor}",
            )
        offer.refuse(spec, self.name, self.more_classes)

    def close(self) -> None:
        self._launching.close()
        self.groups.close()
