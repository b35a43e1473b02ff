"""What a policy keeps of each agent, in arrays that are made once: a row of each is a slot."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from steward_server.inference.manifest import StateTensor

Slots = NDArray[np.intp]
Floats = NDArray[np.float32]
Mask = NDArray[np.bool_]


class Lease:
    """Slots in somebody's hands. What is late for a slot that was given back is dropped.

    Attributes:
        slots: the numbers of the slots.
        generations: how often each slot was given back before.
        index: the slots, as numpy wants them.
    """

    __slots__ = ("_stamps", "generations", "index", "slots")

    def __init__(self, slots: tuple[int, ...], generations: tuple[int, ...]) -> None:
        self.slots = slots
        self.generations = generations
        self.index: Slots = np.array(slots, np.intp)
        self._stamps = np.array(generations, np.int64)

    @classmethod
    def of_all(cls, leases: Sequence[Lease]) -> Lease:
        """Several as one, in their order."""
        return cls(
            tuple([slot for each in leases for slot in each.slots]),
            tuple([generation for each in leases for generation in each.generations]),
        )

    def held(self, generations: NDArray[np.int64]) -> Mask:
        """Which slots still are what they were, out of the present generations of all."""
        held: Mask = generations[self.index] == self._stamps
        return held


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
        self._steps = np.zeros(capacity + 1, np.int64)
        self._pressures = np.zeros(capacity + 1, np.float32)
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
        for array in self._arrays:
            array[slot] = 0.0
        self._steps[slot] = 0
        self._pressures[slot] = 0.0
        return Lease((slot,), (int(self._generations[slot]),))

    def nobody(self, count: int) -> Lease:
        """For steps from a fresh state; what is put there is dropped."""
        return Lease((self.capacity,) * count, (_NEVER,) * count)

    def give_back(self, lease: Lease) -> None:
        """End a lease; a second time does nothing, so that no slot is ever held by two."""
        held = lease.index[lease.held(self._generations)]
        self._generations[held] += 1
        self._free.extend(held.tolist())

    def gather(self, lease: Lease) -> list[Floats]:
        """Copies of the states, one array for each tensor, in the order of the slots."""
        return [array.take(lease.index, axis=0) for array in self._arrays]

    def scatter(self, lease: Lease, states: Sequence[Floats]) -> None:
        """Take new states, of the slots that are still the lease's; none may be there twice."""
        held = lease.held(self._generations)
        index = lease.index
        if not held.all():
            index = index[held]
            states = [state[held] for state in states]
        for array, state in zip(self._arrays, states, strict=True):
            array[index] = state

    def count(self, lease: Lease, pressures: Floats | None) -> None:
        """A step was made by each slot, none of which may be there twice."""
        self._steps[lease.index] += 1
        if pressures is not None:
            self._pressures[lease.index] = pressures

    def figures(self, lease: Lease) -> tuple[int, float]:
        """Of a lease of one slot: its steps, and the pressure at the last."""
        return int(self._steps[lease.slots[0]]), float(self._pressures[lease.slots[0]])
