"""`make demo`: an agent borrows, spends, runs out of money, and the books are checked three ways.

Then it works in a machine of its own, whose only way out is to its money, and tries the others.

Everything is real but the provider, which is the stand-in: a server in a temporary folder, an agent
with the official openai package, and a bill to hold against the ledger. With `--kill` the server is
killed without warning in the middle and started again; nothing is lost. With `--no-machine` it ends
with the first half. Reading from the top tells how the pieces fit together.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import secrets
import signal
import sys
import tempfile
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from decimal import Decimal
from pathlib import Path
from typing import Any

import aiohttp
import grpc
import orjson
from google.protobuf import json_format
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)
from rich.console import Console
from rich.markup import escape

from steward_client import AsyncClient, AsyncRuntime, EnvironmentSpec
from steward_client.channels import Address
from steward_client.cli.output import dollars
from steward_client.client.events import (
    AgentStarted,
    AgentStopped,
    BudgetWarning,
    CostUpdate,
    Event,
    PiiAlert,
)
from steward_client.errors import StewardError
from steward_client.money import usd

LIMIT_S = 60
AGENT = Path(__file__).with_name("agent.py")
ESCAPE = AGENT.with_name("escape.py")
MACHINE = EnvironmentSpec("host", memory="512Mi", storage="256Mi")
AGENT_BUDGET_USD = "0.012"
RAISED_BUDGET_USD = "0.02"
RUNTIME_BUDGET_USD = "0.05"
TRANCHE_USD = "0.004"
MODEL = "gpt-4o"
WORDS_PER_ANSWER = 60
KILL_AFTER_CALLS = 3
QUESTIONS_INSIDE = 4
NOWHERE = "192.0.2.1:80"
"""An address that nobody has: where there is a network, what is sent there is lost."""
SEEN_ON_WS = ("AgentStarted", "CostUpdate", "PiiAlert", "BudgetWarning")

console = Console(highlight=False, soft_wrap=True)


class Server:
    """`steward serve`, started again on the same ports and data whenever it is gone."""

    def __init__(self, folder: Path, password: str) -> None:
        self.grpc = ""
        self.http = ""
        self.starts = 0
        self._folder = folder
        self._process: Process | None = None
        kept = {name: text for name, text in os.environ.items() if not name.startswith("STEWARD_")}
        self._environment = kept | {
            "STEWARD_DATA_DIR": str(folder / "data"),
            "STEWARD_ADMIN_PASSWORD": password,
            "STEWARD_GRPC_PORT": "0",
            "STEWARD_HTTP_PORT": "0",
            "STEWARD_LOG_LEVEL": "warning",
        }

    async def start(self) -> None:
        command = Path(sys.executable).with_name("steward")
        with (self._folder / "server.log").open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                command,
                "serve",
                env=self._environment,
                stdout=PIPE,
                stderr=log,
                start_new_session=True,
            )
        ready = await _first_line(self._process)
        found = re.match(r"ready grpc=(\S+) http=(\S+)", ready)
        if found is None:
            raise SystemExit(
                f"the server did not start: {(self._folder / 'server.log').read_text()}"
            )
        self.grpc, self.http = found[1], found[2]
        self._environment["STEWARD_GRPC_PORT"] = self.grpc.rpartition(":")[2]
        self._environment["STEWARD_HTTP_PORT"] = self.http.rpartition(":")[2]
        self.starts += 1
        tell("server", f"process {self._process.pid}, gRPC on {self.grpc}, REST on {self.http}")

    async def keep_up(self) -> None:
        """Start it again whenever it ends, whoever ended it."""
        while self._process is not None:
            code = await self._process.wait()
            tell("server", f"[red]gone[/] (exit code {code}); starting it again")
            await self.start()

    def kill(self) -> None:
        """`kill -9`."""
        if self._process is not None:
            tell("kill -9", f"process {self._process.pid}, the server, in the middle of it all")
            self._process.send_signal(signal.SIGKILL)

    async def stop(self) -> None:
        await _stop(self._process)


@asynccontextmanager
async def stand_in(ms_per_word: float) -> AsyncIterator[str]:
    """A provider that writes words instead of thinking, and keeps a bill; its address."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "steward_client.standin", "--port", "0"),
        *("--chunks", str(WORDS_PER_ANSWER), "--delay-ms", str(ms_per_word)),
        stdout=PIPE,
        start_new_session=True,
    )
    try:
        found = re.search(r"http://\S+?:\d+", await _first_line(process))
        if found is None:
            raise SystemExit("the stand-in provider did not start")
        yield found[0]
    finally:
        await _stop(process)


async def _first_line(process: Process) -> str:
    if process.stdout is None:
        return ""
    return (await process.stdout.readline()).decode()


async def _stop(process: Process | None) -> None:
    if process is None or process.returncode is not None:
        return
    with suppress(ProcessLookupError):
        process.terminate()
    await process.wait()


def tell(what: str, sentence: str) -> None:
    console.print(f"  [bold cyan]{what:<10}[/] {sentence}")


async def patiently(step: Callable[[], Awaitable[None]]) -> None:
    """Take a step that needs the server, again if that was away; the demo's time bounds it."""
    while True:
        with suppress(aiohttp.ClientError, grpc.RpcError):
            return await step()
        await asyncio.sleep(0.2)


def heading(text: str) -> None:
    console.print(f"\n[bold]{text}[/]")


class Watcher:
    """Tells of events as they come over gRPC, and works out the refreshes between them."""

    def __init__(self, server: Server, *, kills: bool) -> None:
        self.calls = 0
        self.ended = asyncio.Event()
        self._server = server
        self._kills = kills
        self.lease_left_usd = Decimal(0)

    async def watch(self, client: AsyncClient, agent_id: str) -> None:
        events = await client.events.subscribe(agent_id=agent_id, since=0)
        async for event in events:
            self._tell(event)
            if isinstance(event.data, AgentStopped):
                self.ended.set()
                return
            if self._kills and self.calls == KILL_AFTER_CALLS:
                self._kills = False
                self._server.kill()

    def _tell(self, event: Event) -> None:
        match event.data:
            case AgentStarted(script=script):
                tell("started", f"{script}, an ordinary script; it was told no real key")
            case CostUpdate() as cost:
                self.calls += 1
                self._tell_refresh(cost)
                tell(
                    f"call {self.calls}",
                    f"{cost.input_tokens:>3} + {cost.output_tokens:>2} tokens"
                    f"   cost {dollars(cost.cost_usd):<10}   spent {dollars(cost.spent_usd):<10}"
                    f"   left of the lease {dollars(cost.lease_remaining_usd)}",
                )
            case PiiAlert(direction=direction, findings=findings):
                found = ", ".join(f"{each.count} {each.kind}" for each in findings)
                tell("pii", f"[yellow]{found} in the {direction}[/] of the call (never the value)")
            case BudgetWarning(threshold_percent=percent):
                tell("warning", f"[yellow]{percent} % of the agent's budget is spent[/]")
            case AgentStopped(reason=reason, exit_code=code):
                tell("ended", f"the script {reason} with exit code {code}")

    def _tell_refresh(self, cost: CostUpdate) -> None:
        added_usd = cost.lease_remaining_usd + cost.cost_usd - self.lease_left_usd
        self.lease_left_usd = cost.lease_remaining_usd
        if added_usd > 0:
            left = dollars(cost.remaining_usd)
            tell("refresh", f"[green]{dollars(added_usd)} more lent[/], {left} left to lend")


async def demonstrate(folder: Path, *, kills: bool, keeps: bool, has_machine: bool) -> None:
    password = secrets.token_urlsafe(12)
    server = Server(folder, password)
    heading("A server, and a provider that only pretends")
    # A killed server takes a few seconds to come back; the agent shall be at it still.
    async with stand_in(5 if kills else 2) as provider_url:
        tell("provider", f"{provider_url}, OpenAI's API with a bill")
        try:
            await server.start()
            keeper = asyncio.create_task(server.keep_up())
            try:
                await _tour(
                    server, provider_url, password, folder, kills=kills, has_machine=has_machine
                )
                if keeps:
                    heading("The server stays until you press Ctrl-C")
                    tell("sign in", f"steward login --server {server.grpc} --user admin")
                    tell("password", password)
                    await keeper
            finally:
                keeper.cancel()
        finally:
            await server.stop()


async def _tour(
    server: Server,
    provider_url: str,
    password: str,
    folder: Path,
    *,
    kills: bool,
    has_machine: bool,
) -> None:
    async with AsyncClient(server.grpc) as client, aiohttp.ClientSession() as http:
        signed_in = await client.login("admin", password)

        heading("What an administrator sets up")
        await client.providers.create("openai", api_key="sk-standin", base_url=f"{provider_url}/v1")
        tell("provider", "its key is stored encrypted; only a runtime with a lease is handed it")
        agent = await client.agents.create("number-fan", budget_usd=AGENT_BUDGET_USD)
        tell("agent", f"{agent.id} may spend {dollars(agent.budget.limit_usd)}")
        token = await client.tokens.create(agent.id)
        tell("token", f"{token.prefix}…, for the agent's runtime; shown once, kept as a hash")

        heading("The agent at work, as the events tell it")
        await _run_agent(server, client, agent.id, token.token, folder, kills=kills)

        headers = {"authorization": f"Bearer {signed_in.access_token}"}
        heading("The same truth, three more ways")
        await patiently(lambda: _over_rest(http, server, agent.id, headers))
        await patiently(lambda: _over_websocket(http, server, agent.id, headers))
        await patiently(
            lambda: asyncio.to_thread(_over_reflection, server, agent.id, signed_in.access_token)
        )

        heading("The books against the provider's bill")
        await _check(client, http, provider_url, agent.id)

        if not has_machine:
            return
        heading("The same agent in a machine of its own")
        if await _run_inside(server, client, agent.id, token.token, provider_url, folder):
            await _check(client, http, provider_url, agent.id)


async def _run_agent(
    server: Server, client: AsyncClient, agent_id: str, token: str, folder: Path, *, kills: bool
) -> None:
    watcher = Watcher(server, kills=kills)
    watching = asyncio.create_task(watcher.watch(client, agent_id))
    async with AsyncRuntime(
        RUNTIME_BUDGET_USD,
        server=server.grpc,
        token=token,
        # What is lent is what an agent can go on with while the server is away.
        tranche=AGENT_BUDGET_USD if kills else TRANCHE_USD,
        state_dir=folder / "state",
        close_timeout_s=LIMIT_S,
    ) as runtime:
        lent = await client.agents.status(agent_id)
        watcher.lease_left_usd = lent.budget.reserved_usd
        tell(
            "handshake",
            f"[green]{dollars(lent.budget.reserved_usd)} lent[/] in {lent.open_leases} lease, "
            f"{dollars(lent.budget.available_usd)} left to lend",
        )
        run_id = await runtime.start_agent(AGENT, env={"MODEL": MODEL})
        await runtime.wait(run_id)
        metrics = await runtime.get_metrics(run_id)
        await watcher.ended.wait()
    await watching
    tell(
        "refused",
        f"[red]{metrics['refused']} call, {metrics['last_refusal']}[/]: the agent was told 402 and "
        "its worst case never left for the provider",
    )
    back = await client.agents.status(agent_id)
    tell(
        "return",
        f"the lease is closed: {dollars(back.budget.reserved_usd)} lent, "
        f"{dollars(back.budget.available_usd)} free, {dollars(back.budget.spent_usd)} spent",
    )


async def _run_inside(
    server: Server,
    client: AsyncClient,
    agent_id: str,
    token: str,
    provider_url: str,
    folder: Path,
) -> bool:
    """Let it work in an environment, and try to get out; whether one can be made here."""
    raised = await client.agents.update(agent_id, budget_usd=RAISED_BUDGET_USD)
    tell("raise", f"the agent may spend {dollars(raised.budget.limit_usd)} in all")
    async with AsyncRuntime(
        RUNTIME_BUDGET_USD, server=server.grpc, token=token, state_dir=folder / "state"
    ) as runtime:
        try:
            inside = await runtime.start_agent(
                AGENT,
                env={"MODEL": MODEL, "QUESTIONS": str(QUESTIONS_INSIDE)},
                environment=MACHINE,
                packages=["openai"],
            )
        except (StewardError, ValueError) as error:
            tell("machine", f"[yellow]none can be made here: {escape(str(error))}[/]")
            return False
        listed = await client.environments.list(status="running")
        tell("machine", f"{listed[0].id}, no network; with the script and the openai package in it")
        await runtime.wait(inside)
        metrics = await runtime.get_metrics(inside)
        tell(
            "calls",
            f"{metrics['calls']} calls and {metrics['tokens']['total']} tokens for "
            f"{dollars(metrics['spent'])}, through the only way out: its runtime",
        )
        addresses = [provider_url, f"http://{server.grpc}", server.http, f"http://{NOWHERE}"]
        attempts = [each.rpartition("/")[2] for each in addresses]
        files = [str(folder / "data" / "steward.db"), "/etc/shadow"]
        escaping = await runtime.start_agent(ESCAPE, [*attempts, *files], environment=MACHINE)
        if escaped_count := await runtime.wait(escaping):
            raise SystemExit(f"{escaped_count} ways out of the machine are open")
        tell("closed", f"[green]{len(attempts)} addresses and {len(files)} files of the host[/]")
    if await client.environments.list(status="running"):
        raise SystemExit("a machine that was made for a run has outlived it")
    tell("", "both machines are gone, with all that was in them")
    return True


async def _over_rest(
    http: aiohttp.ClientSession, server: Server, agent_id: str, headers: Mapping[str, str]
) -> None:
    url = f"{server.http}/api/agents/{agent_id}/status"
    async with http.get(url, headers=headers) as response:
        answer = orjson.loads(await response.read())
    tell("REST", f'curl -H "Authorization: Bearer $TOKEN" {url}')
    tell("", escape(orjson.dumps(answer["budget"]).decode()))


async def _over_websocket(
    http: aiohttp.ClientSession, server: Server, agent_id: str, headers: Mapping[str, str]
) -> None:
    url = f"{server.http.replace('http', 'ws', 1)}/ws?agent_id={agent_id}&since=0"
    seen: dict[str, int] = {}
    async with http.ws_connect(url, headers=headers) as socket:
        while not seen.get("AgentStopped"):
            message = await socket.receive()
            if message.type is not aiohttp.WSMsgType.TEXT:
                raise aiohttp.ClientConnectionError("the server closed the socket")
            kind = orjson.loads(message.data)["type"]
            seen[kind] = seen.get(kind, 0) + 1
    missing = [kind for kind in SEEN_ON_WS if kind not in seen]
    # An agent that ran dry while nobody could lend it more may have ended below the thresholds.
    if missing and server.starts == 1:
        raise SystemExit(f"/ws did not tell of {', '.join(missing)}")
    tell("WebSocket", url)
    tell("", ", ".join(f"{count} {kind}" for kind, count in seen.items()))


def _over_reflection(server: Server, agent_id: str, access_token: str) -> None:
    """Call a method as grpcurl does, knowing nothing of it but its name."""
    name = "steward.agents.v1.AgentService"
    with Address.parse(server.grpc).open() as channel:
        pool = DescriptorPool(ProtoReflectionDescriptorDatabase(channel))
        method = pool.FindServiceByName(name).methods_by_name["GetAgentStatus"]
        request = GetMessageClass(method.input_type)(agent_id=agent_id)
        ask: Any = channel.unary_unary(
            f"/{name}/{method.name}",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=GetMessageClass(method.output_type).FromString,
        )
        answer = ask(request, metadata=(("authorization", f"Bearer {access_token}"),))
    body = orjson.dumps({"agent_id": agent_id}).decode()
    tell(
        "gRPC",
        f"grpcurl -plaintext -H 'authorization: Bearer '$TOKEN -d '{escape(body)}' "
        f"{server.grpc} {name}/{method.name}",
    )
    shown = json_format.MessageToDict(answer.budget, preserving_proto_field_name=True)
    tell("", escape(orjson.dumps(shown).decode()))


async def _check(
    client: AsyncClient, http: aiohttp.ClientSession, provider_url: str, agent_id: str
) -> None:
    async with http.get(f"{provider_url}/_bill") as response:
        bill = orjson.loads(await response.read())
    budget = await client.budget.status(agent_id)
    billed_usd = usd(bill["billed_nanousd"])
    tell("bill", f"{dollars(billed_usd)} for {bill['keys'][0]['calls']} calls, by the provider")
    tell("ledger", f"{dollars(budget.spent_usd)} spent, by Steward")
    if billed_usd != budget.spent_usd:
        raise SystemExit("the books do not balance")
    tell("", "[bold green]equal, to the nano-dollar[/]")


async def _main(*, kills: bool, keeps: bool, has_machine: bool) -> None:
    with tempfile.TemporaryDirectory(prefix="steward-demo-") as folder:
        try:
            async with asyncio.timeout(None if keeps else LIMIT_S):
                await demonstrate(Path(folder), kills=kills, keeps=keeps, has_machine=has_machine)
        except TimeoutError:
            log = (Path(folder) / "server.log").read_text()
            raise SystemExit(f"the demo took more than {LIMIT_S} seconds\n{log}") from None


def main() -> None:
    parser = argparse.ArgumentParser(prog="make demo DEMO=…", description=__doc__)
    parser.add_argument("--kill", action="store_true", help="kill the server in the middle")
    parser.add_argument("--keep", action="store_true", help="leave the server up until Ctrl-C")
    parser.add_argument("--no-machine", action="store_true", help="end with the first half")
    given = parser.parse_args()
    shown = _main(kills=given.kill, keeps=given.keep, has_machine=not given.no_machine)
    with suppress(KeyboardInterrupt):
        asyncio.run(shown)


if __name__ == "__main__":
    main()
