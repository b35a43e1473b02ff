"""What the back end `bubblewrap` offers, promises and refuses."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from steward_server.environments.driver import Capabilities, Feature, Hold
from steward_server.environments.environment import Spec
from steward_server.environments.sandbox import offer
from steward_server.environments.sandbox.bubblewrap import delegated, probe
from steward_server.environments.sandbox.bubblewrap.machine import BubblewrapMachine
from steward_server.environments.sandbox.bubblewrap.making import NAME, Maker, clear
from steward_server.environments.sandbox.machine import Machine
from steward_server.environments.sandbox.making import Shape
from steward_server.environments.sandbox.record import Record

_FEATURES = frozenset(
    (
        Feature.ATTACH,
        Feature.FILES,
        Feature.INGRESS,
        Feature.PAUSE,
        Feature.SIGNAL,
        Feature.SNAPSHOT,
        Feature.TUNNEL,
    )
)
_ENFORCED = ("storage", "inodes", "processes", "network")


class Bubblewrap:
    """It, on a host that has what it needs."""

    name = NAME
    has_network = False
    has_spares = False

    def __init__(self, folder: Path, label: str, *, log_bytes: int, runsc: str | None) -> None:
        """Find out whether this host can.

        Raises:
            probe.NotHere: it cannot.
        """
        del runsc  # what it needs of the host takes root
        program = probe.find()
        probe.try_out(program)
        self._groups, self._no_groups = delegated.find(label)
        self.maker = Maker(folder, program, self._groups, log_bytes=log_bytes)

    async def open(self) -> None:
        pass

    more_classes: tuple[str, ...] = ()

    def lose_class(self, name: str, why: str) -> None:
        pass  # it has none to lose

    def shaped(self, shape: Shape, runtime_class: str) -> Shape:
        del runtime_class  # it has one
        return shape

    def machine(self, folder: Path, record: Record, pidfd: int) -> Machine:
        return BubblewrapMachine(folder, record, self._groups, pidfd)

    async def clear(self, folder: Path, cgroup: str) -> None:
        await clear(folder, self._groups, cgroup)
        await self.maker.bury(folder.name)

    def names(self) -> Collection[str]:
        return self._groups.names() if self._groups is not None else ()

    def capabilities(self, *, has_network: bool, has_spares: bool) -> Capabilities:
        del has_network, has_spares  # it never has
        by_groups = Hold.ADVISORY if self._groups is None else Hold.ENFORCED
        return Capabilities(
            "sandbox",
            NAME,
            features=_FEATURES,
            limits={
                **dict.fromkeys(_ENFORCED, Hold.ENFORCED),
                "cpu": by_groups,
                "memory": by_groups,
            },
            runtime_classes=(NAME,),
            promise=self._promise(),
        )

    def _promise(self) -> str:
        parts = [offer.PROMISE]
        if self._groups is None:
            parts.append(
                "Memory is limited for each process and not for all together, and CPU by a choice "
                "of cores that a process can undo, because "
                f"{self._no_groups}; {delegated.HOW}."
            )
        parts.append(
            "All environments share the host's user id of the server, so an escape owns the "
            "server's files. What an environment writes is kept in memory. It has no network."
        )
        return " ".join(parts)

    def refuse(self, spec: Spec) -> None:
        offer.refuse(spec, self.name)

    def close(self) -> None:
        self.maker.bury_all()
        if self._groups is not None:
            self._groups.close()
