"""How limits are divided among leases. Pure.

Requests are like seats: a lease that holds n of them starts at most n calls in any 60 seconds.
Tokens are like money: what a lease was allotted and has not used is set aside for it. In both, what
is held by leases and what was used together never exceed the limit; that holds whatever messages
are lost or late, because `held` is what a runtime may believe at worst:

- it grows before the runtime is told;
- it shrinks when the runtime says that it obeys (`taken`), or when its lease has ended and, for
  requests, 60 seconds have passed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

FIRST_PART = 4
"""One part of so many of the tokens that are left is allotted at once: others may come."""


class Seats(NamedTuple):
    """One lease and the requests it holds."""

    lease_id: str
    scopes: tuple[str, ...]
    """Those of its scopes that limit requests."""
    is_open: bool
    acknowledges: bool
    """Else it calls past the runtime: what it is told is advice, what it reported a fact."""
    told: int | None
    held: int | None
    """None: as many as it likes."""
    made: int
    """Calls it reported in the last 60 seconds."""


class Tokens(NamedTuple):
    """One open lease and the tokens allotted to it, counted from its beginning."""

    lease_id: str
    scopes: tuple[str, ...]
    """Those of its scopes that limit tokens."""
    acknowledges: bool
    told: int | None
    held: int | None
    """None: as many as it likes."""
    booked: int
    """Reported as used."""

    @property
    def outstanding(self) -> int | None:
        """May still be used; None: as many as it likes."""
        return None if self.held is None else max(0, self.held - self.booked)


class Share(NamedTuple):
    """What a lease is told, and what it may hold at worst; None: not limited."""

    told: int | None
    held: int | None


def share_seats(limits: Mapping[str, int], leases: Sequence[Seats]) -> dict[str, Share]:
    """Divide requests evenly among the open leases, in the order given where it does not divide.

    `limits` are those on requests by scope. What ended leases still hold, and what was reported by
    callers that acknowledge nothing, is left out of the division.
    """
    limited = [lease for lease in leases if lease.scopes]
    shares = {lease.lease_id: Share(None, None) for lease in leases if not lease.scopes}
    targets, bases = _targets(limits, limited)
    left = dict(limits)
    for lease in limited:
        base = bases[lease.lease_id]
        for scope in lease.scopes:
            left[scope] -= limits[scope] if base is None else base
    for lease in limited:
        target, held = targets[lease.lease_id], bases[lease.lease_id]
        if held is not None and target > held:
            more = max(0, min(target - held, *(left[scope] for scope in lease.scopes)))
            held += more
            for scope in lease.scopes:
                left[scope] -= more
        told = target if held is None else min(target, held)
        shares[lease.lease_id] = Share(told, held)
    return shares


def fair_seats(limits: Mapping[str, int], leases: Sequence[Seats], lease_id: str) -> int:
    """How many requests one of the leases should hold, once all have what they should."""
    targets, _ = _targets(limits, [lease for lease in leases if lease.scopes])
    return targets[lease_id]


def _targets(
    limits: Mapping[str, int], leases: Sequence[Seats]
) -> tuple[dict[str, int], dict[str, int | None]]:
    """What each lease should hold, and what each holds before anything is added."""
    targets = {lease.lease_id: 0 for lease in leases}
    fixed = {lease.lease_id: _occupied(lease) for lease in leases if not lease.is_open}
    while True:
        left = dict(limits)
        for lease in leases:
            for scope in lease.scopes:
                left[scope] -= fixed.get(lease.lease_id, 0)
        sharing = [lease for lease in leases if lease.lease_id not in fixed]
        targets.update(_fill(left, sharing))
        excessive = {
            lease.lease_id: lease.made
            for lease in sharing
            if not lease.acknowledges and lease.made > targets[lease.lease_id]
        }
        if not excessive:
            break
        fixed |= excessive
    bases: dict[str, int | None] = {}
    for lease in leases:
        target, held = targets[lease.lease_id], lease.held
        if not lease.is_open:
            bases[lease.lease_id] = fixed[lease.lease_id]
        elif lease.acknowledges:
            bases[lease.lease_id] = held
        else:
            bases[lease.lease_id] = max(0 if held is None else min(held, target), lease.made)
    return targets, bases


def _occupied(lease: Seats) -> int:
    if lease.acknowledges and lease.held is not None:
        return lease.held
    return lease.made


def _fill(limits: Mapping[str, int], leases: Sequence[Seats]) -> dict[str, int]:
    """Give all leases one more again and again, until a scope of each is used up."""
    shares = {lease.lease_id: 0 for lease in leases}
    left = {scope: max(0, limit) for scope, limit in limits.items()}
    growing = list(leases)
    while growing:
        counts = Counter(scope for lease in growing for scope in lease.scopes)
        step = min(left[scope] // count for scope, count in counts.items())
        for lease in growing:
            shares[lease.lease_id] += step
            for scope in lease.scopes:
                left[scope] -= step
        tight = {scope for scope, count in counts.items() if left[scope] < count}
        full = [lease for lease in growing if tight.intersection(lease.scopes)]
        growing = [lease for lease in growing if not tight.intersection(lease.scopes)]
        # The rest goes to those that have it already: nobody need be told anything then. One of
        # several scopes may hold most of them back, and leave more than one each to the others.
        full.sort(key=lambda each: (each.held or 0) <= shares[each.lease_id])
        while full := [lease for lease in full if all(left[scope] > 0 for scope in lease.scopes)]:
            for lease in full:
                if all(left[scope] > 0 for scope in lease.scopes):
                    shares[lease.lease_id] += 1
                    for scope in lease.scopes:
                        left[scope] -= 1
    return shares


def seats_taken(lease: Seats, *, requests_held: int) -> int | None:
    """What a lease holds once its runtime has said how much it keeps to; never more than before."""
    if lease.told is None:
        return lease.held
    kept = max(lease.told, requests_held)
    return kept if lease.held is None else min(lease.held, kept)


def free_tokens(
    limits: Mapping[str, int], used: Mapping[str, int], leases: Sequence[Tokens]
) -> dict[str, int]:
    """What each scope has left to allot today; never negative."""
    free = {scope: limit - used.get(scope, 0) for scope, limit in limits.items()}
    for lease in leases:
        for scope in lease.scopes:
            outstanding = lease.outstanding
            free[scope] -= limits[scope] if outstanding is None else outstanding
    return {scope: max(0, amount) for scope, amount in free.items()}


def granted_tokens(free: int, wanted: int) -> int:
    """How many are allotted at once: those wanted, or a part of what is free if that is more."""
    return min(free, max(wanted, -(-free // FIRST_PART)))


def retell_tokens(
    limits: Mapping[str, int], used: Mapping[str, int], leases: Sequence[Tokens]
) -> dict[str, Share]:
    """What leases are told after limits have changed: as before if that fits, else even parts."""
    counts = Counter(scope for lease in leases for scope in lease.scopes)
    room = {scope: max(0, limit - used.get(scope, 0)) for scope, limit in limits.items()}
    claimed: Counter[str] = Counter()
    for lease in leases:
        for scope in lease.scopes:
            outstanding = lease.outstanding
            claimed[scope] += room[scope] + 1 if outstanding is None else outstanding
    shares: dict[str, Share] = {}
    for lease in leases:
        held: int | None = None
        if not lease.scopes:
            shares[lease.lease_id] = Share(None, None)
            continue
        parts = [
            room[scope] // counts[scope] for scope in lease.scopes if claimed[scope] > room[scope]
        ]
        outstanding = lease.outstanding
        if outstanding is not None:
            parts.append(outstanding)
        told = lease.booked + min(parts)
        if not lease.acknowledges:
            held = told
        elif lease.held is not None:
            held = max(lease.held, told)
        shares[lease.lease_id] = Share(told, held)
    return shares


def tokens_taken(lease: Tokens, *, tokens_held: int) -> int | None:
    """As `seats_taken`, for tokens."""
    if lease.told is None:
        return lease.held
    kept = max(lease.told, tokens_held)
    return kept if lease.held is None else min(lease.held, kept)
