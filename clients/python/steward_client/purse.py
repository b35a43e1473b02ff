"""The money a proxy spends from: the wallet of the lease, the outbox, and asking for more.

It decides how a call is made to fit: ask for more, wait for calls under way, shorten the answer,
or refuse. What it never does is to hold less than the worst case.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from google.protobuf.timestamp_pb2 import Timestamp

from steward.budget.v1 import budget_pb2 as pb
from steward_client.call_bound import CallBound
from steward_client.lending import Lender, NotLent, NotSpending, OutOfMoney
from steward_client.outbox import OpenHold, Outbox, OutboxFailed
from steward_client.prices import TokenUsage
from steward_client.wallet import Refusal, Wallet

log = logging.getLogger(__name__)

MEASURED = pb.CERTAINTY_MEASURED
COUNTED = pb.CERTAINTY_COUNTED
ASSUMED = pb.CERTAINTY_ASSUMED


_OVER = (Refusal.EXPIRED, Refusal.DRAINING)
"""Another lease helps."""


@dataclass(frozen=True, slots=True)
class PurseConfig:
    budget_nanousd: int
    """Never more than this is taken in all."""
    tranche_nanousd: int
    """How much is asked for at a time."""
    refresh_wait_s: float = 2.0
    """How long a call waits for more money to be lent."""
    in_flight_wait_s: float = 2.0
    """How long a call waits for others to settle before it is refused."""
    full_answer_wait_s: float = 0.5
    """How long a call waits for others to settle before its answer is shortened instead."""
    denied_pause_s: float = 1.0
    """After a denial nothing is asked for this long, unless the budget changes."""
    wait_for_budget_s: float = 0.0
    """How long a call waits for the agent's budget to be raised before it is refused."""


@dataclass(frozen=True, slots=True)
class Hold:
    """Money set aside for one call; it ends by `settle` or `release`, once."""

    call_id: str
    wallet: Wallet = field(repr=False)
    outbox: Outbox = field(repr=False)
    model: str
    bound_nanousd: int
    output_tokens: int
    """The limit the call is sent with."""
    begun_s: float
    """By the purse's clock."""
    bound_tokens: int = 0
    """The most it can use, input and output together."""


class Purse:
    """One runtime's money. Its methods belong to one event loop."""

    def __init__(
        self,
        config: PurseConfig,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.config = config
        self.provider = ""
        """The name of the lease's provider, as reports carry it."""
        self.price_version = ""
        self.stop_reason = ""
        self.on_change: Callable[[], None] = lambda: None
        """Called after every settled or released call."""
        self._outbox: Outbox | None = None
        self._clock = clock
        self._lender: Lender | None = None
        self._wallet: Wallet | None = None
        self._former: list[Wallet] = []
        """Of leases that are over; calls under way may still settle with them."""
        self._asking: asyncio.Task[bool] | None = None
        self._denied_until_s = 0.0
        self._denied_nanousd = 0
        """The most that a call asked for in vain since something was granted last."""
        self._settled = asyncio.Event()
        self._changed = asyncio.Event()
        self._prefix = secrets.token_hex(6)
        self._calls = 0

    def attach(self, lender: Lender) -> None:
        self._lender = lender

    @property
    def wallet(self) -> Wallet:
        """The wallet of the lease.

        Raises:
            NotSpending: there is no lease yet.
        """
        if self._wallet is None:
            raise NotSpending(Refusal.EXPIRED, "there is no lease yet")
        return self._wallet

    @property
    def spent_nanousd(self) -> int:
        """Of this lease and those before it."""
        spent_nanousd = self._wallet.spent_nanousd if self._wallet else 0
        return spent_nanousd + sum(wallet.spent_nanousd for wallet in self._former)

    @property
    def granted_nanousd(self) -> int:
        """Of this lease, and what those before it spent or may yet spend."""
        granted_nanousd = self._wallet.granted_nanousd if self._wallet else 0
        # What calls under way hold of a former lease may yet be spent.
        return granted_nanousd + sum(
            wallet.spent_nanousd + wallet.held_nanousd for wallet in self._former
        )

    @property
    def left_to_ask_nanousd(self) -> int:
        return max(0, self.config.budget_nanousd - self.granted_nanousd)

    def open_lease(self, wallet: Wallet, outbox: Outbox) -> None:
        """Spend from this lease from now on; calls under way settle with theirs."""
        if self._wallet is not None:
            self._former.append(self._wallet)
        self._wallet = wallet
        self._outbox = outbox
        self.stop_reason = ""
        self._denied_until_s = 0.0
        outbox.open_lease(wallet.lease_id)
        self._wake()

    def allocation_changed(self) -> None:
        """More can be had, perhaps: what was denied before is asked for again."""
        self._denied_until_s = 0.0
        self._wake()
        requested_nanousd = min(self._denied_nanousd, self.left_to_ask_nanousd)
        if requested_nanousd > 0 and self._asking is None:
            self._start(lambda lender: self._grow(lender, requested_nanousd))
        self.tend()

    @property
    def next_change(self) -> asyncio.Event:
        """Set when the allocation or the lease changes, or all is stopped, from now on."""
        return self._changed

    def drain(self) -> None:
        if self._wallet is not None:
            self._wallet.drain()
        self._stir()

    def stop(self, reason: str) -> None:
        """Start nothing more; the calls under way are the proxy's to cut."""
        self.stop_reason = reason
        if self._wallet is not None:
            self._wallet.stop()
        self._wake()

    async def hold(self, call: CallBound) -> Hold:
        """Set the call's worst case aside, durably; ask, wait and shorten the answer as it takes.

        If only a raise of the agent's budget would help, that is waited for as configured.

        Raises:
            OutOfMoney: it does not fit, whatever was tried.
            NotLent: it does not fit now; the lender did not say whether there is more.
            NotSpending: nothing may be started.
            LimitReached: a limit does not allow it now.
            OutboxFailed: the hold is not on disk, so nothing is held.
        """
        deadline_s = self._clock() + self.config.wait_for_budget_s
        while True:
            # Taken before asking: what changes while it is asked must not be missed.
            change, granted_nanousd = self.next_change, self.granted_nanousd
            try:
                return await self._hold(call)
            except OutOfMoney as error:
                if error.raise_helps and self.granted_nanousd > granted_nanousd:
                    continue  # what it waited for with others went to them: it asks for its own
                left_s = deadline_s - self._clock()
                if not error.raise_helps or left_s <= 0:
                    raise
                if not await happens(change, left_s):
                    raise

    async def _hold(self, call: CallBound) -> Hold:
        call = await self._within_limits(call)
        started_s = self._clock()
        asked = unanswered = False
        while True:
            wallet = self.wallet
            now_s = self._clock()
            fits = call.fitting(wallet.available_nanousd)
            enough = fits >= call.least_output_tokens
            if fits == call.output_tokens or (
                enough and asked and self._waited_for_full(call, wallet, now_s - started_s)
            ):
                return await self._take(wallet, call, fits, now_s)
            refusal = wallet.refusal_for(call.nanousd(call.least_output_tokens), now_s)
            if refusal is Refusal.STOPPED:
                raise NotSpending(refusal, self.stop_reason)
            if not asked:
                asked = True
                unanswered = await self._ask_for(call, wallet, refusal) is None
                continue
            if refusal in _OVER:
                raise self._over(call, refusal)
            waited_s = self._clock() - started_s
            left_s = self.config.in_flight_wait_s + self.config.refresh_wait_s - waited_s
            if refusal is Refusal.TOO_LARGE or left_s <= 0:
                raise self._short(call, wallet, refusal or Refusal.IN_FLIGHT, unanswered=unanswered)
            await self._settling(min(left_s, 0.1))

    async def _within_limits(self, call: CallBound) -> CallBound:
        """The call as far as the lease's share of the limits lets it go.

        Raises:
            LimitReached: that is not far enough.
        """
        for _ in range(2):  # the lease may be replaced while more is asked for
            if self.wallet.refusal_for(0, self._clock()) in _OVER:
                await self._renew(self.wallet)
            allowance = self.wallet.allowance
            allowance.begin(self._clock())
            allowance.cancel()  # it is begun when all else is settled
            if call.within(allowance.available_tokens) is call or self._lender is None:
                return call
            wanted = call.tokens(call.output_tokens) - (allowance.available_tokens or 0)
            if await self._lender.allot(wanted) and allowance is self.wallet.allowance:
                break
        allowance = self.wallet.allowance
        fitting = call.within(allowance.available_tokens)
        if fitting.output_tokens < call.least_output_tokens:
            raise allowance.no_tokens(call.tokens(call.least_output_tokens), self._clock())
        return fitting

    def _over(self, call: CallBound, refusal: Refusal) -> Exception:
        """Why a call is refused whose lease is over and was not replaced."""
        if self._lender is not None and self._lender.limit is not None:
            return self._lender.limit
        if self._lender is not None and self._lender.has_nothing_left:
            needed_nanousd = call.nanousd(call.least_output_tokens)
            return OutOfMoney(
                Refusal.TOO_LARGE,
                needed_nanousd=needed_nanousd,
                available_nanousd=0,
                raise_helps=needed_nanousd <= self.config.budget_nanousd - self.spent_nanousd,
            )
        return NotSpending(refusal, "its lease is over and there is no other yet")

    def _short(
        self, call: CallBound, wallet: Wallet, refusal: Refusal, *, unanswered: bool
    ) -> Exception:
        """Why a call is refused that does not fit into its lease."""
        needed_nanousd = call.nanousd(call.least_output_tokens)
        available_nanousd = wallet.available_nanousd
        more_nanousd = self.left_to_ask_nanousd
        could_fit = more_nanousd > 0 and needed_nanousd <= wallet.unspent_nanousd + more_nanousd
        if could_fit and self._lender is not None and self._lender.limit is not None:
            return self._lender.limit
        out_of_reach = self._lender is not None and not self._lender.is_reachable
        if could_fit and (unanswered or out_of_reach):
            return NotLent(needed_nanousd=needed_nanousd, available_nanousd=available_nanousd)
        return OutOfMoney(
            refusal,
            needed_nanousd=needed_nanousd,
            available_nanousd=available_nanousd,
            raise_helps=could_fit and refusal is Refusal.TOO_LARGE,
        )

    def _waited_for_full(self, call: CallBound, wallet: Wallet, waited_s: float) -> bool:
        """No wait would let the whole answer fit, or it has been long enough."""
        if call.nanousd(call.output_tokens) > wallet.unspent_nanousd:
            return True
        return waited_s >= self.config.full_answer_wait_s

    async def _take(self, wallet: Wallet, call: CallBound, tokens: int, now_s: float) -> Hold:
        self._calls += 1
        call_id = f"{self._prefix}-{self._calls}"
        bound_nanousd = call.nanousd(tokens)
        refusal = wallet.hold(call_id, bound_nanousd, now_s)
        if refusal in _OVER and await self._renew(wallet):
            wallet = self.wallet
            refusal = wallet.hold(call_id, bound_nanousd, self._clock())
        if refusal in (Refusal.TOO_LARGE, Refusal.IN_FLIGHT):
            raise OutOfMoney(
                refusal, needed_nanousd=bound_nanousd, available_nanousd=wallet.available_nanousd
            )
        if refusal is not None:
            raise NotSpending(refusal, self.stop_reason or "its lease is over")
        outbox, allowance = self._outbox, wallet.allowance
        bound_tokens = call.tokens(tokens)
        try:
            if outbox is None:
                raise OutboxFailed("there is no outbox yet")
            available_tokens = allowance.available_tokens
            if available_tokens is not None and bound_tokens > available_tokens:
                raise allowance.no_tokens(bound_tokens, self._clock())
            allowance.begin(self._clock())
        except BaseException:
            wallet.release(call_id)
            raise
        allowance.hold_tokens(bound_tokens)
        begun_s = self._clock()
        hold = Hold(
            call_id, wallet, outbox, call.model, bound_nanousd, tokens, begun_s, bound_tokens
        )
        try:
            await outbox.hold(
                lease_id=wallet.lease_id,
                call_id=call_id,
                model=call.model,
                bound_nanousd=bound_nanousd,
                alone=wallet.open_calls == 1,
            )
        except BaseException:
            allowance.cancel()
            self.release(hold)
            raise
        # Counted from when it is sent, which is now.
        allowance.sent(self._clock())
        self.tend()
        return hold

    def settle(
        self, hold: Hold, *, cost_nanousd: int, usage: TokenUsage, certainty: pb.Certainty.ValueType
    ) -> None:
        """End the hold with what the call cost, and have it reported."""
        hold.wallet.settle(hold.call_id, cost_nanousd)
        allowance = hold.wallet.allowance
        is_unknown = certainty == ASSUMED and usage.total == 0
        allowance.settle_tokens(hold.bound_tokens, hold.bound_tokens if is_unknown else usage.total)
        seconds, nanos = divmod(time.time_ns(), 1_000_000_000)
        report = pb.Usage(
            request_id=hold.call_id,
            model=hold.model[:100],
            provider=self.provider,
            input_tokens=usage.input,
            output_tokens=usage.output,
            cache_read_tokens=usage.cache_read,
            cache_write_tokens=usage.cache_write_total,
            cost_nanousd=cost_nanousd,
            price_version=self.price_version,
            certainty=certainty,
            timestamp=Timestamp(seconds=seconds, nanos=nanos),
            duration_ms=round((self._clock() - hold.begun_s) * 1_000),
        )
        if is_unknown and allowance.told.tokens is not None:
            # Of a limited number, what may have been used counts as used.
            report.tokens = hold.bound_tokens

        def numbered(sequence: int) -> bytes:
            report.sequence = sequence
            return report.SerializeToString()

        hold.outbox.settle(lease_id=hold.wallet.lease_id, call_id=hold.call_id, report=numbered)
        self._stir()
        self.tend()

    def release(self, hold: Hold) -> None:
        """End the hold: nothing was charged."""
        hold.wallet.release(hold.call_id)
        hold.wallet.allowance.settle_tokens(hold.bound_tokens, 0)
        hold.outbox.release(hold.call_id)
        self._stir()

    def tend(self) -> None:
        """Ask for money or time in the background if either runs low."""
        wallet = self._wallet
        if wallet is None or self._asking is not None or self._lender is None:
            return
        now_s = self._clock()
        if now_s < self._denied_until_s:
            return
        if wallet.wants_money() and self.left_to_ask_nanousd > 0:
            requested_nanousd = min(self.left_to_ask_nanousd, self.config.tranche_nanousd)
            self._start(lambda lender: lender.refresh(requested_nanousd))
        elif wallet.wants_time(now_s) and not wallet.expired(now_s):
            self._start(lambda lender: lender.refresh(0))

    async def _ask_for(
        self, call: CallBound, wallet: Wallet, refusal: Refusal | None
    ) -> bool | None:
        """Ask for what the call lacks, unless that was just denied; as `_ask`."""
        if self._clock() < self._denied_until_s:
            return False
        if refusal in _OVER:
            return await self._renew(wallet)
        missing_nanousd = call.nanousd(call.output_tokens) - wallet.available_nanousd
        requested_nanousd = min(
            self.left_to_ask_nanousd, max(missing_nanousd, self.config.tranche_nanousd)
        )
        if requested_nanousd <= 0:
            return False
        return await self._ask(lambda lender: self._grow(lender, requested_nanousd))

    async def _grow(self, lender: Lender, requested_nanousd: int) -> bool:
        """Ask for what a call lacks, and remember it if that is denied."""
        granted = await lender.refresh(requested_nanousd)
        denied_nanousd = max(self._denied_nanousd, requested_nanousd)
        self._denied_nanousd = 0 if granted else denied_nanousd
        return granted

    async def _renew(self, over: Wallet) -> bool | None:
        return await self._ask(lambda lender: lender.renew(over.lease_id))

    async def _ask(self, question: Callable[[Lender], Awaitable[bool]]) -> bool | None:
        """Ask and wait a while; a question already under way is waited for instead.

        Returns:
            Whether something came of it; None if no answer came in time.
        """
        task = self._asking or self._start(question)
        if task is None:
            return False
        done, _ = await asyncio.wait([task], timeout=self.config.refresh_wait_s)
        if not done:
            return None
        return not task.cancelled() and task.result()

    def _start(self, question: Callable[[Lender], Awaitable[bool]]) -> asyncio.Task[bool] | None:
        lender = self._lender
        if lender is None:
            return None

        async def ask() -> bool:
            granted = await question(lender)
            if not granted and lender.is_reachable:
                self._denied_until_s = self._clock() + self.config.denied_pause_s
            return granted

        task = asyncio.create_task(ask(), name="steward-ask")
        self._asking = task
        task.add_done_callback(self._asked)
        return task

    def _asked(self, task: asyncio.Task[bool]) -> None:
        self._asking = None
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("asking for money failed", exc_info=error)
        self._stir()

    def _stir(self) -> None:
        """Wake the calls that wait for money."""
        self._settled.set()
        self._settled = asyncio.Event()
        self.on_change()

    def _wake(self) -> None:
        """Wake those that wait for a raise, a lease or the end, and the others too."""
        self._changed.set()
        self._changed = asyncio.Event()
        self._stir()

    async def _settling(self, timeout_s: float) -> None:
        await happens(self._settled, timeout_s)


async def happens(event: asyncio.Event, timeout_s: float) -> bool:
    """Wait for an event; False if it does not happen in time."""
    try:
        async with asyncio.timeout(timeout_s):
            await event.wait()
    except TimeoutError:
        return False
    return True


def assumed(hold: OpenHold, sequence: int, *, price_version: str = "") -> bytes:
    """The report of a call whose runtime died under it: the whole hold, no tokens known."""
    report = pb.Usage(
        request_id=hold.call_id,
        sequence=sequence,
        model=hold.model,
        cost_nanousd=hold.bound_nanousd,
        price_version=price_version,
        certainty=ASSUMED,
    )
    report.timestamp.FromMilliseconds(hold.held_at_ms)
    return report.SerializeToString()
