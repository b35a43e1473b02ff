"""What a policy keeps of each agent, in arrays that are made once: a row of each is a slot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from steward_server.inference.manifest import StateTensor

Slots = NDArray[np.intp]
Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Lease:
    """Slots in somebody's hands. What is late for a slot that was given back is dropped.

    Attributes:
        generations: how often each slot was given back before.
        listed: the slots, as numbers of Python's; none of those that are nobody's.
    """

    slots: Slots
    generations: NDArray[np.int64]
    listed: tuple[int, ...]

    @classmethod
    def of_all(cls, leases: Sequence[Lease]) -> Lease:
        """Several as one, in their order."""
        return cls(
            np.concatenate([each.slots for each in leases]),
            np.concatenate([each.generations for each in leases]),
            tuple(slot for each in leases for slot in each.listed),
        )


_NEVER = -1
"""No slot is ever in this generation."""


class Arena:
    """The state of up to `capacity` agents.

    The pages of the arrays are the system's until they are written to, so that capacity costs
    address space only.
    """

    def __init__(self, tensors: Sequence[StateTensor], capacity: int) -> None:
        self.capacity = capacity
        # One more than there are: the last is nobody's, and stays as it is.
        self._arrays = [np.zeros((capacity + 1, *each.shape), np.float32) for each in tensors]
        self._generations = np.zeros(capacity + 1, np.int64)
        self._free = list(range(capacity - 1, -1, -1))

    @property
    def used(self) -> int:
        return self.capacity - len(self._free)

    @property
    def bytes_per_slot(self) -> int:
        return sum(array[:1].nbytes for array in self._arrays)

    def take(self) -> Lease | None:
        """A slot with a fresh state; None if all are taken."""
        if not self._free:
            return None
        slot = self._free.pop()
        slots = np.array([slot], np.intp)
        lease = Lease(slots, self._generations[slots], (slot,))
        self.clear(lease)
        return lease

    def nobody(self, count: int) -> Lease:
        """For steps from a fresh state; what is put there is dropped."""
        slots = np.full(count, self.capacity, np.intp)
        return Lease(slots, np.full(count, _NEVER, np.int64), ())

    def give_back(self, lease: Lease) -> None:
        """End a lease; a second time does nothing, so that no slot is ever held by two."""
        held = lease.slots[self.held(lease)]
        self._generations[held] += 1
        self._free.extend(held.tolist())

    def held(self, lease: Lease) -> NDArray[np.bool_]:
        """Which slots are still the lease's."""
        held: NDArray[np.bool_] = self._generations[lease.slots] == lease.generations
        return held

    def holds_all(self, lease: Lease) -> bool:
        """Whether all slots are still the lease's."""
        if len(lease.listed) == 1:
            return bool(self._generations[lease.listed[0]] == lease.generations[0])
        return bool(self.held(lease).all())

    def clear(self, lease: Lease) -> None:
        """Put slots back to the beginning of a sequence."""
        for array in self._arrays:
            array[lease.slots] = 0.0

    def gather(self, lease: Lease) -> list[Floats]:
        """Copies of the states, one array for each tensor, in the order of the slots."""
        return [array[lease.slots] for array in self._arrays]

    def scatter(self, lease: Lease, states: Sequence[Floats]) -> None:
        """Take new states, of the slots that are still the lease's; none may be there twice."""
        held = self.held(lease)
        if held.all():
            for array, state in zip(self._arrays, states, strict=True):
                array[lease.slots] = state
        else:
            for array, state in zip(self._arrays, states, strict=True):
                array[lease.slots[held]] = state[held]
