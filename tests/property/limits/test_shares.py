"""No limit is ever exceeded, whatever leases come and go and whatever messages are lost or late."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from hypothesis import example, given, settings
from hypothesis import strategies as st

from steward_client.allowance import WINDOW_S, Allowance, LimitReached, Told
from steward_server.limits.shares import (
    Seats,
    Share,
    Tokens,
    free_tokens,
    granted_tokens,
    retell_tokens,
    seats_taken,
    share_seats,
    tokens_taken,
)

LIMITS = {"everyone": 7, "user:a": 5, "agent:x": 3}
SCOPES = [("everyone", "user:a", "agent:x"), ("everyone", "user:a"), ("everyone",)]


@dataclass
class Lease:
    """A lease at the server, its runtime, and the messages between them that may get lost."""

    number: int
    scopes: tuple[str, ...]
    allowance: Allowance = field(default_factory=Allowance)
    version: int = 1
    told: int | None = 0
    held: int | None = 0
    ended_at_s: float | None = None
    down: list[Told] = field(default_factory=list)
    up: list[tuple[int, int]] = field(default_factory=list)

    @property
    def name(self) -> str:
        return f"lease_{self.number:03}"

    def seats(self) -> Seats:
        return Seats(
            self.name,
            self.scopes,
            is_open=self.ended_at_s is None,
            acknowledges=True,
            told=self.told,
            held=self.held,
            made=0,
        )


class World:
    """A server that shares requests out, and runtimes that keep to their shares."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.leases: list[Lease] = []
        self.calls: list[tuple[float, tuple[str, ...]]] = []

    def share(self) -> None:
        counted = [
            lease
            for lease in self.leases
            if lease.ended_at_s is None or self.now_s - lease.ended_at_s < WINDOW_S
        ]
        shares = share_seats(LIMITS, [lease.seats() for lease in counted])
        for lease in counted:
            share = shares[lease.name]
            if lease.ended_at_s is not None:
                continue
            if share.told != lease.told:
                lease.version += 1
                lease.down.append(Told(lease.version, share.told))
            lease.told, lease.held = share.told, share.held
        for scope, limit in LIMITS.items():
            held = sum(each.held or 0 for each in counted if scope in each.scopes)
            assert held <= limit, (scope, held)

    def open(self, kind: int) -> None:
        lease = Lease(len(self.leases), SCOPES[kind % len(SCOPES)])
        self.leases.append(lease)
        self.share()
        lease.allowance.obey(Told(lease.version, lease.told))

    def call(self, at: int) -> None:
        lease = self._pick(at, (each for each in self.leases if each.ended_at_s is None))
        if lease is None:
            return
        try:
            lease.allowance.begin(self.now_s)
        except LimitReached:
            return
        lease.allowance.sent(self.now_s)
        self.calls.append((self.now_s, lease.scopes))
        self.calls = [each for each in self.calls if self.now_s - each[0] < WINDOW_S]
        for scope, limit in LIMITS.items():
            made = sum(scope in scopes for _, scopes in self.calls)
            assert made <= limit, (scope, made)

    def hear(self, at: int) -> None:
        """A runtime hears one of what it was told, not always the oldest."""
        lease = self._pick(at, (each for each in self.leases if each.down))
        if lease is not None:
            lease.allowance.obey(lease.down.pop(at % len(lease.down)))

    def say(self, at: int) -> None:
        lease = self._pick(at, (each for each in self.leases if each.ended_at_s is None))
        if lease is not None:
            said = (lease.allowance.told.version, lease.allowance.requests_held(self.now_s))
            lease.up.append(said)

    def take(self, at: int) -> None:
        """The server hears one of what a runtime said, not always the oldest."""
        lease = self._pick(at, (each for each in self.leases if each.up))
        if lease is None:
            return
        version, held = lease.up.pop(at % len(lease.up))
        if lease.ended_at_s is None and version == lease.version:
            lease.held = seats_taken(lease.seats(), requests_held=held)
            self.share()

    def end(self, at: int, *, tells: bool) -> None:
        lease = self._pick(at, (each for each in self.leases if each.ended_at_s is None))
        if lease is None:
            return
        lease.ended_at_s = self.now_s
        if tells:
            lease.held = min(lease.held or 0, lease.allowance.calls_in_window(self.now_s))
        self.share()

    def _pick(self, at: int, among: Iterable[Lease]) -> Lease | None:
        found = list(among)
        return found[at % len(found)] if found else None


STEPS = st.lists(
    st.tuples(
        st.sampled_from(
            ["open", "call", "call", "call", "hear", "say", "take", "end", "return", "wait"]
        ),
        st.integers(0, 11),
    ),
    max_size=120,
)


@settings(max_examples=300, deadline=None)
@given(STEPS)
def test_requests_never_exceed_a_limit_in_any_minute(steps: list[tuple[str, int]]) -> None:
    world = World()
    for step, at in steps:
        match step:
            case "open":
                world.open(at)
            case "call":
                world.call(at)
            case "hear":
                world.hear(at)
            case "say":
                world.say(at)
            case "take":
                world.take(at)
            case "end":
                world.end(at, tells=False)
            case "return":
                world.end(at, tells=True)
            case "wait":
                world.now_s += [0.5, 7.0, 20.0, 59.9, 60.0, 61.0][at % 6]
                world.share()


@given(
    st.dictionaries(st.sampled_from(list(LIMITS)), st.integers(1, 50), min_size=1),
    st.lists(st.integers(0, 2), min_size=1, max_size=12),
)
@example({"everyone": 3, "user:a": 3, "agent:x": 1}, [0, 0, 0, 1])
def test_shares_are_even_and_leave_nothing_that_somebody_could_have(
    limits: dict[str, int], kinds: list[int]
) -> None:
    leases = [
        Seats(
            f"lease_{number}",
            tuple(scope for scope in SCOPES[kind] if scope in limits),
            is_open=True,
            acknowledges=True,
            told=0,
            held=0,
            made=0,
        )
        for number, kind in enumerate(kinds)
    ]
    shares = share_seats(limits, leases)
    used = {
        scope: sum(shares[each.lease_id].told or 0 for each in leases if scope in each.scopes)
        for scope in limits
    }
    for lease in leases:
        told = shares[lease.lease_id].told
        if not lease.scopes:
            assert told is None
            continue
        assert told is not None
        # A scope of the lease is used up, and nobody in it has more than one above the lease.
        full = [scope for scope in lease.scopes if used[scope] == limits[scope]]
        assert full, (lease, shares)
        assert any(
            all(
                (shares[each.lease_id].told or 0) <= told + 1
                for each in leases
                if scope in each.scopes
            )
            for scope in full
        )


def test_a_lease_that_joins_moves_no_more_than_it_must() -> None:
    held = [
        Seats(f"lease_{n}", ("everyone",), True, True, told, told, 0)
        for n, told in enumerate([4, 3])
    ]
    new = Seats("lease_new", ("everyone",), is_open=True, acknowledges=True, told=0, held=0, made=0)
    shares = share_seats({"everyone": 7}, [*held, new])
    assert shares == {
        "lease_0": Share(3, 4),
        "lease_1": Share(2, 3),
        "lease_new": Share(0, 0),
    }


def test_what_a_caller_past_every_runtime_reported_is_taken_from_the_others() -> None:
    runtime = Seats("lease_a", ("everyone",), True, True, told=0, held=0, made=0)
    other = Seats("lease_b", ("everyone",), True, acknowledges=False, told=5, held=5, made=8)
    shares = share_seats({"everyone": 10}, [runtime, other])
    assert shares["lease_a"] == Share(2, 2)


@settings(max_examples=200, deadline=None)
@given(
    st.integers(1, 1_000),
    st.lists(
        st.tuples(
            st.sampled_from(["open", "ask", "use", "report", "end", "day"]), st.integers(0, 400)
        ),
        max_size=80,
    ),
)
def test_tokens_never_exceed_a_limit_in_any_day(limit: int, steps: list[tuple[str, int]]) -> None:
    """Used and reported today, and what may still be used, together stay within the limit."""
    limits = {"everyone": limit}
    booked_today = used_today = 0
    leases: list[tuple[Tokens, Allowance]] = []
    for step, at in steps:
        free = free_tokens(limits, {"everyone": booked_today}, [each for each, _ in leases])
        index = at % len(leases) if leases else -1
        match step:
            case "open":
                told = granted_tokens(free["everyone"], 0)
                row = Tokens(f"lease_{len(leases)}", ("everyone",), True, told, told, 0)
                leases.append((row, Allowance(Told(1, None, told))))
            case "ask" if leases:
                row, allowance = leases[index]
                told = (row.told or 0) + granted_tokens(free["everyone"], at)
                leases[index] = (row._replace(told=told, held=told), allowance)
                allowance.obey(Told(allowance.told.version + 1, None, told))
            case "use" if leases:
                _, allowance = leases[index]
                count = min(at, allowance.available_tokens or 0)
                allowance.hold_tokens(count)
                allowance.settle_tokens(count, count)
                used_today += count
            case "report" if leases:
                row, allowance = leases[index]
                booked_today += allowance.tokens_used - row.booked
                leases[index] = (row._replace(booked=allowance.tokens_used), allowance)
            case "end" if leases:
                row, allowance = leases.pop(index)
                booked_today += allowance.tokens_used - row.booked
            case "day":
                unreported = sum(each.tokens_used - row.booked for row, each in leases)
                booked_today, used_today = 0, unreported
        outstanding = sum(row.outstanding or 0 for row, _ in leases)
        assert booked_today + outstanding <= limit
        assert used_today <= limit


@given(
    st.integers(1, 500),
    st.integers(0, 600),
    st.lists(st.tuples(st.integers(0, 300), st.integers(0, 300)), min_size=1, max_size=6),
)
def test_a_lowered_limit_on_tokens_fits_once_everybody_has_obeyed(
    limit: int, used: int, leases: list[tuple[int, int]]
) -> None:
    rows = [
        Tokens(f"lease_{n}", ("everyone",), True, booked + more, booked + more, booked)
        for n, (booked, more) in enumerate(leases)
    ]
    shares = retell_tokens({"everyone": limit}, {"everyone": used}, rows)
    obeyed = [
        row._replace(
            told=shares[row.lease_id].told,
            held=tokens_taken(row._replace(told=shares[row.lease_id].told), tokens_held=row.booked),
        )
        for row in rows
    ]
    assert sum(row.outstanding or 0 for row in obeyed) <= max(0, limit - used)
    assert all((row.told or 0) >= row.booked for row in obeyed)
