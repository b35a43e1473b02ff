"""A wallet under any sequence of holds, settlements, releases, grants and moments."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    invariant,
    multiple,
    rule,
)

from steward_client.wallet import Refusal, UnknownHold, Wallet

AMOUNTS = st.integers(0, 1_000)


class WalletMachine(RuleBasedStateMachine):
    """Predicts the wallet by a dictionary of open holds."""

    open_calls = Bundle("open_calls")
    ended_calls = Bundle("ended_calls")

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 0.0
        self.granted = 1_000
        self.spent = 0
        self.holds: dict[str, int] = {}
        self.calls = 0
        self.wallet = Wallet.of_lease(
            "lease_1", granted_nanousd=self.granted, duration_s=60, asked_at_s=0.0
        )

    @rule(target=open_calls, bound=AMOUNTS)
    def hold(self, bound: int) -> object:
        self.calls += 1
        call_id = str(self.calls)
        left = self.granted - self.spent - sum(self.holds.values())
        refusal = self.wallet.hold(call_id, bound, self.now_s)
        if self.now_s >= self.wallet.expires_at_s - self.wallet.margin_s:
            assert refusal is Refusal.EXPIRED
            return multiple()
        assert (refusal is None) == (bound <= left)
        if refusal is None:
            self.holds[call_id] = bound
            return call_id
        fits_later = bound <= self.granted - self.spent
        assert refusal is (Refusal.IN_FLIGHT if fits_later else Refusal.TOO_LARGE)
        return multiple()

    @rule(target=ended_calls, call_id=consumes(open_calls), share=st.floats(0, 1))
    def settle(self, call_id: str, share: float) -> str:
        cost = int(self.holds.pop(call_id) * share)
        self.wallet.settle(call_id, cost)
        self.spent += cost
        return call_id

    @rule(target=ended_calls, call_id=consumes(open_calls))
    def release(self, call_id: str) -> str:
        del self.holds[call_id]
        self.wallet.release(call_id)
        return call_id

    @rule(call_id=ended_calls)
    def end_again(self, call_id: str) -> None:
        ends: list[Callable[[], None]] = [
            lambda: self.wallet.settle(call_id, 1),
            lambda: self.wallet.release(call_id),
        ]
        for end in ends:
            try:
                end()
            except UnknownHold:
                continue
            raise AssertionError(f"the hold of call {call_id} ended twice")

    @rule(amount=AMOUNTS, late_s=st.floats(0, 5))
    def grow(self, amount: int, late_s: float) -> None:
        before_s = self.wallet.expires_at_s
        self.wallet.grow(
            granted_nanousd=amount, duration_s=60, asked_at_s=max(0.0, self.now_s - late_s)
        )
        self.granted += amount
        assert self.wallet.expires_at_s >= before_s

    @rule(seconds=st.floats(0, 30))
    def time_passes(self, seconds: float) -> None:
        self.now_s += seconds

    @invariant()
    def never_spends_more_than_was_granted(self) -> None:
        wallet = self.wallet
        assert wallet.spent_nanousd + wallet.held_nanousd <= wallet.granted_nanousd
        assert wallet.overrun_nanousd == 0
        assert min(wallet.spent_nanousd, wallet.held_nanousd, wallet.available_nanousd) >= 0

    @invariant()
    def agrees_with_the_model(self) -> None:
        wallet = self.wallet
        assert wallet.granted_nanousd == self.granted
        assert wallet.spent_nanousd == self.spent
        assert wallet.held_nanousd == sum(self.holds.values())
        assert wallet.open_calls == len(self.holds)


TestWallet = WalletMachine.TestCase
TestWallet.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
