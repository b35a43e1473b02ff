"""`AsyncRuntime`: runs scripts as agents, on money lent by a Steward server.

It takes a lease over one stream, stands as a metering proxy between the scripts and their provider,
and gives back what is left. One runtime is one agent (one IC token); each script it starts is a run
of it. `Runtime` in runtime.py is the same for code without an event loop.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
import sys
import time
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self, TypeVar

import grpc.aio

from steward.budget.v1 import budget_pb2 as pb
from steward.events.v1 import events_pb2
from steward_client.budget_requests import request_budget
from steward_client.channels import server_address
from steward_client.child import Child, agent_environment
from steward_client.client.projects import Usd
from steward_client.client.values import BudgetRequest
from steward_client.environment_run import EnvironmentRun, EnvironmentSpec, Program
from steward_client.errors import StewardError, Unauthorized
from steward_client.lent_key import LentKey
from steward_client.money import NANOUSD_PER_USD, nanousd, usd, usd_text
from steward_client.outbox import Outbox, OutboxBusy
from steward_client.pii import PiiAction, PiiKind
from steward_client.pii_alert import pii_alert
from steward_client.price_list import fetch_prices
from steward_client.prices import PriceTable
from steward_client.proxy import MeteringProxy
from steward_client.purse import Purse, PurseConfig, assumed
from steward_client.relay import AbortPolicy, PiiSeen, RelayConfig
from steward_client.runs import Metrics, RunId, Status, Tokens, UnknownRun
from steward_client.session import Session, SessionConfig
from steward_client.settlement import Tally

T = TypeVar("T")

PRICES_PAUSE_S = 5.0
"""The table is fetched at most this often for the sake of a model that has no price."""


@dataclass(slots=True)
class _Run:
    run_id: RunId
    script: Path
    token: str = field(repr=False)
    tally: Tally
    began_s: float
    child: Child | EnvironmentRun | None = None
    status: Status = "running"
    ended_s: float | None = None


def client_version() -> str:
    """The version of this package; "0" where it is not installed."""
    try:
        return version("steward-agents")
    except PackageNotFoundError:
        return "0"


def default_state_dir() -> Path:
    """Where outboxes are kept: `STEWARD_STATE_DIR`, else below the user's state directory."""
    if given := os.environ.get("STEWARD_STATE_DIR"):
        return Path(given)
    home = os.environ.get("XDG_STATE_HOME")
    return (Path(home) if home else Path.home() / ".local" / "state") / "steward"


class AsyncRuntime:
    """A runtime for code with an event loop; an asynchronous context manager.

    Args:
        budget: the most it takes in all, in dollars: an int, str, Decimal or float, exact to nine
            decimals. It is lent in tranches, not at once.
        verbose: tell on standard error what happens.
        server: `host:port`, or `https://host:port` for TLS; else `STEWARD_SERVER`, else
            127.0.0.1:50051.
        token: the agent's IC token; else `STEWARD_IC_TOKEN`, else `IC_TOKEN`.
        provider: the name of the provider wanted; None leaves it to the server.
        pii_action: "alert", "redact" or "block". "redact" rewrites what is sent and whole answers;
            streamed answers are only reported. "block" ends a stream where it shows some.
        abort_policy: "drain" reads an answer to its end when the agent has gone away, so that its
            cost is known; "cancel" cancels it and charges the call's whole bound.
        tranche: how much is asked for at a time, in dollars; None takes a tenth of the budget, and
            at least a dollar.
        state_dir: where what is owed is kept until the server has it.
        quiet_agents: throw the scripts' own output away.
        stop_grace_s: how long a script may take to end after SIGTERM.
        close_timeout_s: how long closing may wait for the server.
        wait_for_budget_s: how long a call, and opening, waits for the agent's budget to be raised
            when it is used up; 0 refuses at once. A call that was refused may be made again after a
            raise either way.

    Raises:
        ValueError: the budget is 0, negative, not finite or finer than nine decimals, or no token
            is given anywhere; `wait_for_budget_s` is negative or not finite.
    """

    def __init__(
        self,
        budget: str | Decimal | float = 50,
        verbose: bool = False,  # noqa: FBT001, FBT002 - positional in the documented interface
        *,
        server: str | None = None,
        token: str | None = None,
        provider: str | None = None,
        pii_action: Literal["alert", "redact", "block"] = "alert",
        abort_policy: Literal["drain", "cancel"] = "drain",
        tranche: str | Decimal | float | None = None,
        state_dir: str | Path | None = None,
        quiet_agents: bool = False,
        stop_grace_s: float = 5.0,
        close_timeout_s: float = 10.0,
        wait_for_budget_s: float = 0.0,
    ) -> None:
        self.budget_nanousd = nanousd(budget)
        if self.budget_nanousd == 0:
            raise ValueError("a budget is more than 0 dollars")
        if not 0 <= wait_for_budget_s < float("inf"):
            raise ValueError(f"wait_for_budget_s is {wait_for_budget_s}; it is 0 or more, finite")
        self._token = token or os.environ.get("STEWARD_IC_TOKEN") or os.environ.get("IC_TOKEN", "")
        if not self._token:
            raise ValueError("no IC token: pass token=, or set STEWARD_IC_TOKEN")
        self._verbose = verbose
        self._address = server_address(server)
        self._relay = RelayConfig(
            pii_action=PiiAction(pii_action), abort_policy=AbortPolicy(abort_policy)
        )
        self._state_dir = Path(state_dir) if state_dir is not None else default_state_dir()
        self._quiet_agents = quiet_agents
        self._stop_grace_s = stop_grace_s
        self._close_timeout_s = close_timeout_s
        self._runtime_id = f"{socket.gethostname()[:40]}-{os.getpid()}-{secrets.token_hex(4)}"
        self._session_config = SessionConfig(
            runtime_id=self._runtime_id,
            runtime_version=client_version(),
            provider=provider or "",
            wait_for_budget_s=wait_for_budget_s,
        )
        tranche_nanousd = (
            max(self.budget_nanousd // 10, NANOUSD_PER_USD) if tranche is None else nanousd(tranche)
        )
        self._purse = Purse(
            PurseConfig(
                budget_nanousd=self.budget_nanousd,
                tranche_nanousd=max(1, min(self.budget_nanousd, tranche_nanousd)),
                wait_for_budget_s=wait_for_budget_s,
            )
        )
        self._runs: dict[str, _Run] = {}
        self._run_count = 0
        self._channel: grpc.aio.Channel | None = None
        self._session: Session | None = None
        self._proxy: MeteringProxy | None = None
        self._outbox: Outbox | None = None
        self._key: LentKey | None = None
        self._prices = PriceTable("")
        self._prices_fetched_s = 0.0
        self._tasks: set[asyncio.Task[Any]] = set()

    @property
    def agent_id(self) -> str:
        """The agent this runtime is; "" before the first lease."""
        return self._session.agent_id if self._session else ""

    @property
    def port(self) -> int:
        """Where the proxy listens on 127.0.0.1; 0 before it does."""
        return self._proxy.port if self._proxy else 0

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def open(self) -> None:
        """Take the first lease and begin to serve; does nothing if that is done.

        Raises:
            StewardError: the server cannot be reached or refuses.
        """
        if self._session is not None:
            return
        self._channel = self._address.open_async()
        session = Session(
            self._channel,
            ic_token=self._token,
            purse=self._purse,
            config=self._session_config,
            outbox_of=self._open_outbox,
            on_lease=self._leased,
            on_stop=self._stopped,
            on_wait=lambda why: self._say(f"waiting for the budget to be raised: {why}"),
        )
        self._purse.attach(session)
        try:
            # Before the stream, because a stream that is refused may end before it says why.
            await self._fetch_prices()
            await session.open()
            self._session = session
            if self._prices.version != self._purse.price_version:
                await self._fetch_prices()
            await self._serve()
        except BaseException:
            await self.close()
            raise
        self._adopt_leftovers()

    async def _serve(self) -> None:
        if self._key is None:
            raise Unauthorized("the lease came without a provider key")
        self._proxy = MeteringProxy(
            self._purse,
            key=self._key,
            prices=self._prices,
            config=self._relay,
            on_pii=self._saw_pii,
            on_unpriced=self._look_for_price,
            on_circuit_open=self._circuit_opened,
        )
        await self._proxy.start()

    def _open_outbox(self, agent_id: str) -> Outbox:
        if self._outbox is None:
            name = f"{self._runtime_id}.sqlite"
            self._outbox = Outbox.open(self._state_dir / agent_id / name)
            self._outbox.start()
        return self._outbox

    def _adopt_leftovers(self) -> None:
        """Settle what runtimes of this agent left behind that died."""
        if self._session is None or self._outbox is None:
            return
        for path in sorted(self._outbox.path.parent.glob("*.sqlite")):
            if path == self._outbox.path:
                continue
            try:
                outbox = Outbox.open(path)
            except OutboxBusy:
                continue
            count = outbox.assume_open_holds(assumed)
            outbox.start()
            self._say(f"settling what {path.stem} left behind ({count} calls of unknown outcome)")
            self._session.adopt(outbox)

    def _leased(self, key: LentKey, lent: pb.HandshakeResponse) -> None:
        self._key = key
        if self._proxy is not None:
            self._proxy.lend(key)
            self._spawn(self._fetch_prices())
        self._say(
            f"lease {lent.lease_id} of {usd_text(lent.budget_granted_nanousd)} for agent "
            f"{lent.agent_id} on {lent.provider}"
        )

    def _stopped(self, reason: str) -> None:
        """Told to stop: cut the calls under way and end the scripts."""
        self._say(f"told to stop: {reason}")
        if self._proxy is not None:
            self._proxy.cut(reason)
        for run in self._runs.values():
            if run.status == "running":
                self._spawn(self._end(run))

    async def _fetch_prices(self) -> None:
        if self._channel is None:
            return
        self._prices_fetched_s = time.monotonic()
        self._prices = await fetch_prices(
            self._channel, ic_token=self._token, timeout_s=self._session_config.answer_timeout_s
        )
        self._purse.price_version = self._prices.version
        if self._proxy is not None:
            self._proxy.prices = self._prices

    async def _look_for_price(self) -> None:
        if time.monotonic() - self._prices_fetched_s < PRICES_PAUSE_S:
            return
        try:
            await self._fetch_prices()
        except StewardError as error:
            self._say(f"the price table could not be fetched: {error.message}")

    async def request_budget(
        self, budget: Usd, justification: str, *, expires_in_s: int | None = None
    ) -> BudgetRequest:
        """Ask that the agent's budget be raised; an administrator decides.

        The runtime goes on with what is granted as soon as that is decided, within the most it
        takes in all. May be called before `open`, and while that waits.

        Args:
            budget: what the agent's budget is to be in all, in dollars; more than it is.
            justification: for whoever decides, 20 to 500 characters.
            expires_in_s: how long the raise is to hold, in seconds; None: for good.

        Raises:
            StewardError: the server cannot be reached or refuses.
        """
        channel = self._channel or self._address.open_async()
        try:
            return await request_budget(
                channel,
                ic_token=self._token,
                requested_nanousd=nanousd(budget),
                justification=justification,
                expires_in_s=expires_in_s,
                timeout_s=self._session_config.answer_timeout_s,
            )
        finally:
            if channel is not self._channel:
                await channel.close()

    # Runs.

    async def start_agent(
        self,
        path: str | Path,
        args: Sequence[str] = (),
        *,
        env: Mapping[str, str] | None = None,
        environment: str | EnvironmentSpec | None = None,
        files: Sequence[str | Path] = (),
        packages: Sequence[str] = (),
    ) -> RunId:
        """Run a script as the agent; returns once its process has started.

        The script finds its provider in `OPENAI_BASE_URL` and `ANTHROPIC_BASE_URL` and a throw-away
        key, and may use the providers' own packages unchanged.

        Args:
            path: the script.
            args: its arguments.
            env: variables for it, beside those of this process; in an environment there are no
                others.
            environment: run it there, with the proxy as its only way out: the id or the name of one
                that the agent has, or what one is to be like that is made for this run.
            files: files and folders to put beside the script, in an environment.
            packages: packages of this Python to put there with what they need: "openai".

        Raises:
            StewardError: there is no lease and none can be had, or no environment.
            FileNotFoundError: there is no such script, or file.
            ValueError: there is no such package, or none for the Python of the environment; `files`
                or `packages` are given without one.
        """
        if environment is None and (files or packages):
            raise ValueError("files and packages are for environments; a script here has them")
        await self.open()
        session, proxy, key = self._session, self._proxy, self._key
        if session is None or proxy is None or key is None:
            raise RuntimeError("the runtime is closed")
        if self._purse.stop_reason:
            await session.restart()
        self._run_count += 1
        run_id = RunId(f"{session.agent_id}/{self._run_count}")
        token = f"sk-steward-{secrets.token_urlsafe(24)}"
        run = _Run(run_id, Path(path), token, proxy.admit(token), time.monotonic())
        try:
            if environment is None:
                inherited = dict(os.environ) | dict(env or {})
                run.child = Child.start(
                    run.script,
                    args,
                    environment=agent_environment(
                        inherited, token=token, port=proxy.port, secrets=(self._token, key.api_key)
                    ),
                    on_end=lambda exit_code: self._ended(run, exit_code),
                    quiet=self._quiet_agents,
                )
            else:
                run.child = await EnvironmentRun.start(
                    Program(run.script, args, env or {}, list(map(Path, files)), packages),
                    environment,
                    server=self._address,
                    ic_token=self._token,
                    run_token=token,
                    proxy_port=proxy.port,
                    on_end=lambda exit_code: self._ended(run, exit_code),
                    say=self._say,
                    quiet=self._quiet_agents,
                )
        except BaseException:
            proxy.dismiss(token)
            raise
        self._runs[run_id] = run
        if self._session is not session or self._purse.stop_reason:  # while it was being started
            await self._end(run)
            raise RuntimeError(self._purse.stop_reason or "the runtime is closed")
        session.tell(
            events_pb2.AgentStarted(
                runtime_id=self._runtime_id,
                runtime_version=self._session_config.runtime_version,
                script=run.script.name[:200],
                budget_nanousd=self.budget_nanousd,
            )
        )
        self._say(f"run {run_id}: {run.script.name} started in {run.child.where}")
        return run_id

    async def stop_agent(self, run_id: str) -> None:
        """End a run: SIGTERM, then SIGKILL; returns when its process is gone. Idempotent.

        Raises:
            UnknownRun: no such run.
        """
        await self._end(self._run(run_id))

    async def get_metrics(self, run_id: str) -> Metrics:
        """How a run is, by the runtime's own books.

        Raises:
            UnknownRun: no such run.
        """
        run = self._run(run_id)
        tally, usage = run.tally, run.tally.usage
        return Metrics(
            agent_id=run.run_id.agent_id,
            run_id=run.run_id,
            script=str(run.script),
            status=run.status,
            exit_code=run.child.exit_code if run.child else None,
            budget=usd(self.budget_nanousd),
            spent=usd(tally.spent_nanousd),
            remaining=usd(max(0, self.budget_nanousd - self._purse.spent_nanousd)),
            calls=tally.calls,
            refused=tally.refused,
            failed=tally.failed,
            last_refusal=tally.last_refusal,
            tokens=Tokens(
                input=usage.input,
                output=usage.output,
                cache_read=usage.cache_read,
                cache_write=usage.cache_write_total,
                total=usage.total,
            ),
            pii={kind.value: tally.pii[kind] for kind in PiiKind},
            duration_s=(run.ended_s or time.monotonic()) - run.began_s,
        )

    async def wait(self, run_id: str, *, timeout_s: float | None = None) -> int:
        """The exit code of a run's script, once it has ended; negative is a signal's number.

        Raises:
            UnknownRun: no such run.
            TimeoutError: it has not ended in time.
            InvalidRequest: in an environment; it could not be started with these arguments.
            Unavailable: reason RUN_LOST; the server went away that had its environment.
        """
        run = self._run(run_id)
        if run.child is None:
            raise UnknownRun(run_id)
        async with asyncio.timeout(timeout_s):
            await run.child.ended.wait()
        if run.child.fault is not None:
            raise run.child.fault
        if run.child.exit_code is None:
            raise RuntimeError(f"run {run_id} ended without an exit code")
        return run.child.exit_code

    async def close(self) -> None:
        """End the scripts, report what they used, give back what is left. May be called twice."""
        await asyncio.gather(*(self._end(run) for run in self._runs.values()))
        if self._proxy is not None:
            await self._proxy.close(settle_s=1.0)
            self._proxy = None
        session, self._session = self._session, None
        if session is not None and not await session.close(timeout_s=self._close_timeout_s):
            self._say("the server has not taken everything; the next runtime will see to it")
        if self._outbox is not None:
            await self._outbox.close()
            self._outbox = None
        if self._channel is not None:
            await self._channel.close()
            self._channel = None

    def _run(self, run_id: str) -> _Run:
        if run_id in self._runs:
            return self._runs[run_id]
        of_agent = [run for run in self._runs.values() if run.run_id.agent_id == run_id]
        if len(of_agent) == 1:
            return of_agent[0]
        raise UnknownRun(f"no run {run_id!r} in this runtime; it has {sorted(self._runs)}")

    async def _end(self, run: _Run) -> None:
        if run.child is None or run.child.ended.is_set():
            return
        run.status = "stopping"
        if self._proxy is not None:
            self._proxy.dismiss(run.token)
            self._proxy.cut("the run was stopped", tally=run.tally)
        await run.child.stop(grace_s=self._stop_grace_s)

    def _ended(self, run: _Run, exit_code: int | None) -> None:
        asked_to = run.status == "stopping"
        run.ended_s = time.monotonic()
        run.status = "stopped" if asked_to or exit_code == 0 else "failed"
        if self._proxy is not None:
            self._proxy.dismiss(run.token)
        reason = "lost" if exit_code is None else "exited" if exit_code >= 0 else "killed"
        if self._session is not None:
            self._session.tell(
                events_pb2.AgentStopped(
                    runtime_id=self._runtime_id,
                    exit_code=exit_code,
                    reason="stopped" if asked_to else reason,
                )
            )
        spent = usd_text(run.tally.spent_nanousd)
        self._say(
            f"run {run.run_id}: {run.status} "
            f"{'and lost' if exit_code is None else f'with {exit_code}'}; {run.tally.calls} calls, "
            f"{run.tally.usage.total} tokens, {spent}"
        )

    def _saw_pii(self, tally: Tally, seen: PiiSeen) -> None:
        del tally
        if self._session is not None:
            self._session.tell(pii_alert(seen))

    def _circuit_opened(self, failures: int, retry_after_s: float) -> None:
        self._say(f"the provider keeps failing and is not asked for {retry_after_s:g} s")
        if self._session is not None:
            self._session.tell(
                events_pb2.CircuitOpened(
                    provider=self._purse.provider,
                    failures=failures,
                    retry_after_ms=round(retry_after_s * 1_000),
                )
            )

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _say(self, sentence: str) -> None:
        if self._verbose:
            sys.stderr.write(f"steward: {sentence}\n")
            sys.stderr.flush()
