"""A version of a policy that is loaded, and the agents it has."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass

from steward_server.inference.arena import Arena, Lease
from steward_server.inference.metering import Owner
from steward_server.inference.model import Floats, Model
from steward_server.inference.repository import Reference
from steward_server.inference.runner import Runner
from steward_server.inference.sampling import Noise

Observe = Callable[[int, float, Sequence[float], Floats | None], None]


class Served:
    """Everything of one version that takes up memory. It is let go of once nobody has it."""

    def __init__(
        self,
        reference: Reference,
        model: Model,
        executor: Executor,
        *,
        capacity: int,
        max_rows: int,
        loaded_at_us: int,
        observe: Observe | None = None,
    ) -> None:
        self.reference = reference
        self.model = model
        self.manifest = model.manifest
        self.loaded_at_us = loaded_at_us
        self.arena = Arena(model.manifest.kept, capacity)
        self.noise = Noise(capacity, model.manifest.action)
        self.runner = Runner(
            model, self.arena, self.noise, executor, max_rows=max_rows, observe=observe
        )
        self.is_retired = False
        """Whether it takes no new sequences: those it has go on to their end."""

    def begin(self, seed: int) -> Lease | None:
        """A slot for an agent; None if all are taken."""
        lease = self.arena.take()
        if lease is not None:
            self.noise.seed(lease.slots[0], seed)
        return lease

    def end(self, lease: Lease) -> None:
        """Take slots back; twice does no harm."""
        self.arena.give_back(lease)


@dataclass(slots=True, eq=False)
class Agent:
    """One sequence: who it belongs to, which policy it has, and what is kept of it.

    Attributes:
        owner: whose it is; the same id of somebody else is another agent.
        under_way: steps that were asked for and are not done.
        has_ended: whether it takes no more of them.
    """

    owner: Owner
    agent_id: str
    served: Served
    lease: Lease
    last_used_us: int
    under_way: int = 0
    has_ended: bool = False

    @property
    def step_count(self) -> int:
        """Since the sequence began."""
        return self.served.arena.figures(self.lease)[0]

    @property
    def pressure(self) -> float | None:
        """Of its memory at the last step; None if the policy has no such figure."""
        return self.served.arena.figures(self.lease)[1] if self.served.manifest.pressure else None

    def end(self) -> None:
        """Take no more steps. Its place is free once those under way are made, which need it."""
        self.has_ended = True
        if not self.under_way:
            self.served.end(self.lease)

    def made_step(self) -> None:
        """One step less is under way."""
        self.under_way -= 1
        if self.has_ended and not self.under_way:
            self.served.end(self.lease)
