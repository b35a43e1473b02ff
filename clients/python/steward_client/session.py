"""One runtime's stream to the server: takes leases, reports what was used, hears what is wanted.

A cut stream changes nothing for the calls: it is opened again, and the leases go on. What the
server has not acknowledged is sent again, by number. Leases of runtimes that died are settled the
same way, from the files they left.
"""

from __future__ import annotations

import asyncio
import logging
import random
import secrets
import time
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import grpc
import grpc.aio
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from steward.budget.v1 import budget_pb2 as pb
from steward.budget.v1.budget_pb2_grpc import BudgetServiceStub
from steward.events.v1 import events_pb2
from steward_client.allotted import limit_of, told_of
from steward_client.allowance import LimitReached
from steward_client.errors import (
    AgentStopped,
    BudgetExceeded,
    DeadlineExceeded,
    NotFound,
    StewardError,
    Unauthorized,
    Unavailable,
    error_of,
)
from steward_client.flow import Flow
from steward_client.lent_key import LentKey
from steward_client.outbox import Outbox, Report
from steward_client.purse import Purse, happens
from steward_client.seal import open_ip_token
from steward_client.stream import Stream
from steward_client.wallet import Wallet

log = logging.getLogger(__name__)

MAX_TOLD = 1_000
CUT_PAUSE_S = 0.01
"""Before a question that was cut off is asked again."""

Told = (
    events_pb2.AgentStarted
    | events_pb2.AgentStopped
    | events_pb2.PiiAlert
    | events_pb2.CircuitOpened
)

_TELLS = {
    events_pb2.AgentStarted: "agent_started",
    events_pb2.AgentStopped: "agent_stopped",
    events_pb2.PiiAlert: "pii_alert",
    events_pb2.CircuitOpened: "circuit_opened",
}


@dataclass(frozen=True, slots=True)
class SessionConfig:
    runtime_id: str
    runtime_version: str
    provider: str = ""
    """The name of the provider wanted; empty leaves it to the server."""
    answer_timeout_s: float = 10.0
    """How long the server may take to answer before the stream counts as cut."""
    heartbeat_s: float = 10.0
    gather_s: float = 0.05
    """Reports wait this long for others to be sent with; nobody waits for them."""
    backoff_s: float = 0.1
    """Before the first new attempt after a cut; doubled each time, up to `backoff_limit_s`."""
    backoff_limit_s: float = 5.0
    wait_for_budget_s: float = 0.0
    """How long the first lease is waited for if there is no money for it."""


class Session:
    """The lender of a purse. Its methods belong to one event loop.

    `on_lease` is called with the key of each new lease, `on_stop` with the reason when the agent
    is told to stop or its credential ends, `on_wait` with the server's words when there is no money
    for the first lease and that is waited for.
    """

    def __init__(
        self,
        channel: grpc.aio.Channel,
        *,
        ic_token: str,
        purse: Purse,
        config: SessionConfig,
        outbox_of: Callable[[str], Outbox],
        on_lease: Callable[[LentKey, pb.HandshakeResponse], None],
        on_stop: Callable[[str], None],
        on_wait: Callable[[str], None] = lambda _: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.agent_id = ""
        self._stub = BudgetServiceStub(channel)
        self._ic_token = ic_token
        self._purse = purse
        self._config = config
        self._outbox_of = outbox_of
        self._on_lease = on_lease
        self._on_stop = on_stop
        self._on_wait = on_wait
        self._clock = clock
        self._flows: list[Flow] = []
        self._stream: Stream | None = None
        self._told: deque[tuple[str, Told]] = deque(maxlen=MAX_TOLD)
        self._work = asyncio.Event()
        self._up = asyncio.Event()
        """There is a stream, and the leases are taken up on it."""
        self._quiet = asyncio.Event()
        self._renewing = asyncio.Lock()
        """A call and the server itself may find at once that the lease is over."""
        self._tasks: set[asyncio.Task[Any]] = set()
        self._supervisor: asyncio.Task[None] | None = None
        self._opened: asyncio.Future[None] | None = None
        self._closing = False
        self._leaving = False
        """What is lent is being given back: nothing more is taken."""
        self._has_nothing_left = False
        self._limit: LimitReached | None = None
        self._waits_until_s: float | None = None
        """There is no money for the first lease, and somebody may yet see to it."""
        purse.on_change = self._money_moved

    # Opening and closing.

    async def open(self) -> None:
        """Connect and take the first lease.

        Raises:
            StewardError: the server cannot be reached or refuses.
            SealBroken: the key it sent does not open.
        """
        self._opened = asyncio.get_running_loop().create_future()
        self._supervisor = asyncio.create_task(self._supervise(), name="steward-session")
        self._supervisor.add_done_callback(lambda _: self._quiet.set())
        try:
            await asyncio.wait([self._opened, self._supervisor], return_when="FIRST_COMPLETED")
            if not self._opened.done():
                self._opened.cancel()
                await self._supervisor
            await self._opened
        except BaseException:
            await self._end()
            raise

    def adopt(self, outbox: Outbox) -> None:
        """Settle what a runtime that died left behind."""
        outbox.on_durable = self._work.set
        for lease_id in outbox.leases():
            self._flows.append(Flow(outbox, lease_id, retiring=True))
        self._spawn(self._resume_new())

    async def close(self, *, timeout_s: float) -> bool:
        """Have everything acknowledged, give the leases back, and end the stream.

        Returns:
            Whether nothing is owed any more; else the outbox keeps it for the next runtime.
        """
        self._leaving = True
        for flow in self._flows:
            flow.retiring = True
        self._work.set()
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while self._owes_and_may_pay():
                    self._quiet.clear()
                    self._retire_settled()
                    await self._quiet.wait()
        await self._end()
        return not self._flows

    def _owes_and_may_pay(self) -> bool:
        if self._supervisor is None or self._supervisor.done():
            return False  # the credential has ended: nothing more will be taken
        return bool(self._told) or any(not flow.lost for flow in self._flows)

    async def _end(self) -> None:
        self._closing = True
        tasks = [*self._tasks, *([self._supervisor] if self._supervisor else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def tell(self, told: Told) -> None:
        """Send an event; kept and sent again until the server has taken it."""
        self._told.append((_TELLS[type(told)], told))
        self._work.set()

    async def restart(self) -> None:
        """Take a lease again after having been told to stop.

        Raises:
            StewardError: the server cannot be reached or refuses, AgentStopped for one.
        """
        if not await self._handshake():
            raise BudgetExceeded("the runtime's own budget is spent; make one with a larger budget")

    # What the purse asks.

    async def refresh(self, requested_nanousd: int) -> bool:
        request_id = secrets.token_hex(8)

        async def question() -> bool:
            flow = self._current()
            if flow is None or flow.wallet is None or flow.retiring:
                return False
            if requested_nanousd == 0:
                return await self._resume(flow)
            return await self._grow(flow, flow.wallet, requested_nanousd, request_id)

        return await self._attempt(question)

    async def renew(self, lease_id: str) -> bool:
        async with self._renewing:
            current = self._current()
            if current is not None and current.lease_id != lease_id:
                return True  # whoever asked first has it
            return await self._attempt(self._handshake)

    async def allot(self, tokens: int) -> bool:
        async def question() -> bool:
            flow = self._current()
            return flow is not None and await self._take_allotment(flow, tokens_wanted=tokens)

        return await self._attempt(question)

    @property
    def limit(self) -> LimitReached | None:
        return self._limit

    @property
    def has_nothing_left(self) -> bool:
        return self._has_nothing_left

    @property
    def is_reachable(self) -> bool:
        return self._up.is_set()

    async def _attempt(self, question: Callable[[], Awaitable[bool]]) -> bool:
        """Ask, over the next stream if this one is cut; False if the server refuses."""
        deadline_s = self._clock() + self._config.answer_timeout_s
        while True:
            try:
                async with asyncio.timeout(max(0.0, deadline_s - self._clock())):
                    await self._up.wait()
                return await question()
            except (Unavailable, DeadlineExceeded):
                if self._closing or self._clock() >= deadline_s:
                    return False
                # A stream may be dead before its reader has noticed: asking on would spin.
                await asyncio.sleep(CUT_PAUSE_S)
            except TimeoutError:
                return False
            except StewardError as error:
                self._refusal(error)
                return False

    def _refusal(self, error: StewardError) -> None:
        if isinstance(error, AgentStopped):
            self._stop(error.message)
            return
        self._limit = limit_of(error)
        if isinstance(error, BudgetExceeded) and self._limit is None:
            self._has_nothing_left = True
        log.info("the server refused: %s", error.message)

    async def _grow(
        self, flow: Flow, wallet: Wallet, requested_nanousd: int, request_id: str
    ) -> bool:
        asked_at_s = self._clock()
        response = await self._ask(
            refresh=pb.RefreshRequest(
                lease_id=flow.lease_id,
                requested_budget_nanousd=requested_nanousd,
                request_id=request_id,
            )
        )
        answer = response.refresh
        self._limit = None
        self._obey_share(flow, answer)
        if answer.status != "approved":
            if answer.reason == "agent_stopped":
                self._stop("the agent was asked to stop")
            return False
        # The ledger's own total: a grant whose answer was lost is in it.
        wallet.grow(
            granted_nanousd=max(0, answer.lease_granted_nanousd - wallet.granted_nanousd),
            duration_s=answer.lease_duration_ms / 1000,
            asked_at_s=asked_at_s,
        )
        return True

    # One stream after the other.

    async def _supervise(self) -> None:
        backoff_s = self._config.backoff_s
        while not self._closing:
            began_s = self._clock()
            try:
                await self._connect()
            except grpc.aio.AioRpcError as failure:
                error = error_of(failure)
                if not self._is_open and not self._may_wait(error):
                    self._fail_to_open(error)
                    return
                if isinstance(error, Unauthorized):
                    self._stop(error.message)
                    return
                log.info("the stream to the server was cut: %s", error.message)
            except Exception:
                if not self._is_open:
                    raise
                log.exception("the session failed; it goes on over a new stream")
            if self._clock() - began_s > 5.0:
                backoff_s = self._config.backoff_s
            await asyncio.sleep(backoff_s * random.uniform(0.5, 1.5))  # noqa: S311 - spreads load
            backoff_s = min(backoff_s * 2, self._config.backoff_limit_s)

    async def _connect(self) -> None:
        stream = Stream(
            self._stub.Session(metadata=(("x-ic-key", self._ic_token),)),
            answer_timeout_s=self._config.answer_timeout_s,
            on_control=self._obey,
        )
        self._stream = stream
        reader = asyncio.create_task(stream.read())
        keeper = asyncio.create_task(self._keep())
        try:
            await asyncio.wait([reader, keeper], return_when="FIRST_COMPLETED")
            if reader.done():
                await reader
            else:
                await keeper
        finally:
            self._stream = None
            self._up.clear()
            reader.cancel()
            keeper.cancel()
            stream.cut()
            await asyncio.gather(reader, keeper, return_exceptions=True)
            for flow in self._flows:
                flow.live = False
                flow.in_flight = 0

    async def _keep(self) -> None:
        """Take up the leases, then send reports and signs of life until the stream is cut."""
        try:
            if not self._is_open:
                await self._first_lease()
            for flow in list(self._flows):
                if not flow.live:
                    await self._resume(flow)
        except StewardError as error:
            if not self._is_open and not self._may_wait(error):
                self._fail_to_open(error)
                return
            if isinstance(error, Unavailable | DeadlineExceeded):
                return
            log.warning("a lease was not resumed: %s", error.message)
        self._up.set()
        if not self._is_open and self._opened is not None:
            self._opened.set_result(None)
        self._budget_changed()  # perhaps, while there was no stream
        beats_at_s = self._next_beat_s()
        while True:
            self._send_reports()
            self._retire_settled()
            if not await self._tell_next():
                return
            with suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, beats_at_s - self._clock())):
                    await self._work.wait()
                    if not self._closing and not any(flow.retiring for flow in self._flows):
                        await asyncio.sleep(self._config.gather_s)
            self._work.clear()
            if self._clock() >= beats_at_s:
                beats_at_s = self._next_beat_s()
                self._purse.tend()
                try:
                    await self._ask(heartbeat=pb.SessionHeartbeat())
                except (Unavailable, DeadlineExceeded):
                    return

    async def _first_lease(self) -> None:
        """Take the first lease; without money for it, wait for that as configured.

        Raises:
            StewardError: the server refuses.
        """
        while True:
            change = self._purse.next_change
            try:
                await self._handshake()
                return
            except BudgetExceeded as error:
                if self._waits_until_s is None:
                    self._waits_until_s = self._clock() + self._config.wait_for_budget_s
                left_s = self._waits_until_s - self._clock()
                if left_s <= 0:
                    raise
                self._on_wait(error.message)
            # Asked again now and then too: what was decided while a stream was cut is not told.
            await happens(change, min(left_s, self._config.heartbeat_s))

    @property
    def _is_open(self) -> bool:
        """The first lease was had, or refused for good."""
        return self._opened is not None and self._opened.done()

    def _may_wait(self, error: StewardError) -> bool:
        """Whether a runtime that waits for its first lease goes on to wait after this."""
        if not isinstance(error, Unavailable | DeadlineExceeded):
            return False
        return self._waits_until_s is not None and self._clock() < self._waits_until_s

    def _fail_to_open(self, error: StewardError) -> None:
        if self._opened is not None:
            self._opened.set_exception(error)
        self._closing = True

    def _next_beat_s(self) -> float:
        """Soon enough that a lease is renewed in the last third of its time."""
        flow = self._current()
        if flow is None or flow.wallet is None:
            return self._clock() + self._config.heartbeat_s
        return self._clock() + min(self._config.heartbeat_s, flow.wallet.duration_s / 5)

    async def _tell_next(self) -> bool:
        """Send what is to be told, one after the other; False if the stream is dead."""
        while self._told:
            name, told = self._told[0]
            try:
                await self._ask(**{name: told})
            except (Unavailable, DeadlineExceeded):
                return False
            except StewardError as error:
                log.warning("%s was refused: %s", name, error.message)
            if self._told and self._told[0][1] is told:
                self._told.popleft()
            self._quiet.set()
        return True

    async def _ask(self, **message: Any) -> pb.SessionResponse:
        """Send one message over the stream there is and wait for its answer.

        Raises:
            StewardError: it was refused, or the stream is cut.
        """
        if self._stream is None:
            raise Unavailable("there is no stream to the server now")
        return await self._stream.ask(**message)

    # Leases.

    async def _handshake(self) -> bool:
        private_key = X25519PrivateKey.generate()
        asked_at_s = self._clock()
        wanted_nanousd = min(
            self._purse.config.tranche_nanousd,
            self._purse.config.budget_nanousd - self._purse.spent_nanousd,
        )
        if wanted_nanousd <= 0:
            self._has_nothing_left = True
            return False
        response = await self._ask(
            handshake=pb.HandshakeRequest(
                requested_budget_nanousd=wanted_nanousd,
                provider=self._config.provider,
                runtime_id=self._config.runtime_id,
                runtime_version=self._config.runtime_version,
                public_key=private_key.public_key().public_bytes_raw(),
            )
        )
        self._has_nothing_left = False
        self._limit = None
        lent = response.handshake
        opener = self._ic_token if lent.seal_format == pb.SEAL_FORMAT_AES256 else private_key
        key = LentKey(lent.provider_kind, lent.base_url, open_ip_token(lent, opener))
        self.agent_id = lent.agent_id
        wallet = Wallet.of_lease(
            lent.lease_id,
            granted_nanousd=lent.budget_granted_nanousd,
            duration_s=lent.lease_duration_ms / 1000,
            asked_at_s=asked_at_s,
        )
        outbox = self._outbox_of(lent.agent_id)
        outbox.on_durable = self._work.set
        for flow in self._flows:
            flow.retiring = True
            if flow.wallet is not None:
                flow.wallet.drain()
        new_flow = Flow(outbox, lent.lease_id, wallet, live=True)
        self._flows.append(new_flow)
        self._obey_share(new_flow, lent)
        self._purse.provider = lent.provider
        self._purse.price_version = lent.price_version
        self._purse.open_lease(wallet, outbox)
        self._on_lease(key, lent)
        self._work.set()
        return True

    async def _resume(self, flow: Flow) -> bool:
        asked_at_s = self._clock()
        try:
            response = await self._ask(resume_lease=pb.ResumeLease(lease_id=flow.lease_id))
        except NotFound as error:
            log.warning("%s; what it owes stays in %s", error.message, flow.outbox.path)
            flow.lost = True
            self._quiet.set()
            return False
        state = response.lease_resumed
        flow.outbox.acknowledge(flow.lease_id, state.sequence)
        if not flow.live:
            flow.sent = state.sequence
            flow.live = True
        if flow.wallet is None:
            self._work.set()
            return True
        self._obey_share(flow, state)
        if state.lease_status == pb.LEASE_STATE_ACTIVE:
            flow.wallet.grow(
                granted_nanousd=max(0, state.lease_granted_nanousd - flow.wallet.granted_nanousd),
                duration_s=state.lease_duration_ms / 1000,
                asked_at_s=asked_at_s,
            )
            if state.desired_state == pb.DESIRED_STATE_STOPPED:
                self._stop("the agent was asked to stop")
            return True
        self._lease_ended(flow)
        return False

    async def _resume_new(self) -> None:
        for flow in list(self._flows):
            if not flow.live and not flow.lost and self._stream is not None:
                await self._attempt(partial(self._resume, flow))
        self._work.set()

    def _lease_ended(self, flow: Flow) -> None:
        """The server takes the lease back: settle it, and take another unless told to stop."""
        if flow.retiring:
            return
        flow.retiring = True
        if flow.wallet is not None:
            flow.wallet.drain()
        self._work.set()
        self._spawn(self.renew(flow.lease_id))

    def _money_moved(self) -> None:
        if any(flow.retiring for flow in self._flows):
            self._work.set()

    def _retire_settled(self) -> None:
        for flow in list(self._flows):
            if flow.retiring and flow.live and not flow.in_flight and flow.settled:
                flow.live = False
                self._spawn(self._give_back(flow))

    async def _give_back(self, flow: Flow) -> None:
        request = pb.ReturnRequest(lease_id=flow.lease_id)
        if flow.wallet is not None:
            request.spent_nanousd = flow.wallet.spent_nanousd
            request.requests_last_minute = flow.wallet.allowance.calls_in_window(self._clock())
        stream = self._stream
        try:
            await self._ask(return_lease=request)
        except (Unavailable, DeadlineExceeded):
            flow.live = stream is not None and stream is self._stream  # to be tried again
            return
        except StewardError as error:
            log.debug("lease %s was over: %s", flow.lease_id, error.message)
        flow.outbox.forget(flow.lease_id)
        self._flows.remove(flow)
        if flow.wallet is None and not flow.outbox.leases():
            await flow.outbox.close()
        self._quiet.set()

    # Shares of limits.

    def _obey_share(self, flow: Flow, answer: Any) -> None:
        """Keep to the share an answer tells, and say so once that is true."""
        if flow.wallet is None or not answer.HasField("allotment"):
            return
        allowance, allotment = flow.wallet.allowance, answer.allotment
        before = allowance.told
        if not allowance.obey(told_of(allotment, self._clock())):
            return
        if allotment.version > before.version and not flow.giving_back:
            flow.giving_back = True
            self._spawn(self._give_back_share(flow))

    async def _give_back_share(self, flow: Flow) -> None:
        """Tell the server what the lease holds, until that is no more than its share."""
        try:
            while flow in self._flows and flow.wallet is not None:
                allowance = flow.wallet.allowance
                version = allowance.told.version
                is_done = not allowance.gives_back(self._clock())
                said = await self._attempt(partial(self._take_allotment, flow))
                if said and is_done and version == allowance.told.version:
                    return
                wait_s = allowance.next_leaves_s(self._clock()) if said else 1.0
                await asyncio.sleep(0.0 if is_done and said else max(0.05, wait_s))
        finally:
            flow.giving_back = False

    async def _take_allotment(self, flow: Flow, *, tokens_wanted: int = 0) -> bool:
        if flow.wallet is None:
            return False
        allowance = flow.wallet.allowance
        response = await self._ask(
            take_allotment=pb.TakeAllotment(
                lease_id=flow.lease_id,
                version=allowance.told.version,
                requests_held=allowance.requests_held(self._clock()),
                tokens_held=allowance.tokens_claimed,
                tokens_wanted=tokens_wanted,
            )
        )
        before = allowance.available_tokens or 0
        self._obey_share(flow, response)
        return tokens_wanted == 0 or (allowance.available_tokens or 0) > before

    # Reports.

    def _send_reports(self) -> None:
        for flow in self._flows:
            while reports := flow.next_batch():
                self._spawn(self._send_batch(flow, reports))

    async def _send_batch(self, flow: Flow, reports: list[Report]) -> None:
        batch = pb.ReportBatch(lease_id=flow.lease_id)
        for report in reports:
            batch.usages.add().ParseFromString(report.body)
        stream = self._stream
        try:
            response = await self._ask(report_batch=batch)
        except (Unavailable, DeadlineExceeded):
            return
        except StewardError as error:
            log.warning("reports of lease %s were refused: %s", flow.lease_id, error.message)
            await asyncio.sleep(1.0)
            flow.sent = 0
            return
        finally:
            if stream is self._stream:
                flow.in_flight = max(0, flow.in_flight - 1)
            self._work.set()
        self._acknowledge(flow, reports, response.report_ack)

    def _acknowledge(self, flow: Flow, reports: list[Report], ack: pb.ReportAck) -> None:
        flow.take(ack, reports)
        if flow.wallet is not None and flow is self._current():
            if ack.lease_status not in (pb.LEASE_STATE_ACTIVE, pb.LEASE_STATE_UNSPECIFIED):
                self._lease_ended(flow)
            elif ack.desired_state == pb.DESIRED_STATE_STOPPED:
                self._stop("the agent was asked to stop")
        self._quiet.set()

    # What the server says by itself.

    def _obey(self, control: pb.Control) -> None:
        if control.HasField("budget_remaining_nanousd"):
            self._limit = None
            self._budget_changed()
        if control.HasField("allotment"):
            for flow in self._flows:
                if flow.lease_id == control.allotment.lease_id:
                    self._obey_share(flow, control)
            self._purse.allocation_changed()
        if control.lease_id:
            for flow in self._flows:
                if flow.lease_id == control.lease_id and flow.wallet is not None:
                    self._lease_ended(flow)
            return
        if control.desired_state == pb.DESIRED_STATE_STOPPED:
            self._stop(control.reason or "the agent was asked to stop")

    def _budget_changed(self) -> None:
        """Ask again for what was refused before, without waiting for a call to need it."""
        self._purse.allocation_changed()
        if not self._has_nothing_left or self._leaving or self._purse.stop_reason:
            return
        flow = self._current()
        if flow is None or flow.retiring:
            self._spawn(self.renew(flow.lease_id if flow else ""))

    def _stop(self, reason: str) -> None:
        self._purse.stop(reason)
        for flow in self._flows:
            flow.retiring = True
        self._work.set()
        self._on_stop(reason)

    def _current(self) -> Flow | None:
        return next((flow for flow in reversed(self._flows) if flow.wallet is not None), None)

    def _spawn(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a task of the session failed", exc_info=error)
