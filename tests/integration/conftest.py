"""A whole server with a clock the tests turn, and the parts it is made of to look into."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from steward.agents.v1 import agents_pb2
from steward.agents.v1.agents_pb2_grpc import AgentServiceStub
from steward.api_keys.v1 import api_keys_pb2
from steward.api_keys.v1.api_keys_pb2_grpc import ApiKeyServiceStub
from steward.auth.v1 import auth_pb2
from steward.auth.v1.auth_pb2_grpc import AuthServiceStub
from steward.budget.v1 import budget_pb2
from steward.budget.v1.budget_pb2_grpc import BudgetServiceStub
from steward.events.v1 import events_pb2
from steward.events.v1.events_pb2_grpc import EventServiceStub
from steward.gateway.v1 import faults_pb2
from steward.providers.v1.providers_pb2_grpc import ProviderServiceStub
from steward.tokens.v1 import tokens_pb2
from steward.tokens.v1.tokens_pb2_grpc import TokenServiceStub
from steward_server import agents, api_keys, auth
from steward_server.agents.directory import Directory
from steward_server.api_keys.room import ApiKeys
from steward_server.auth.accounts import Role
from steward_server.auth.passwords import Passwords
from steward_server.auth.sessions import Sessions
from steward_server.budget.config import BudgetConfig
from steward_server.budget.desk import Desk
from steward_server.budget.store import Terms
from steward_server.db import Database
from steward_server.providers.room import Providers
from steward_server.settings import Settings
from steward_server.tokens.room import Tokens
from tests.live import ADMIN_PASSWORD, Api, TurnedClock, live_server, live_settings
from tests.people import add_person

Metadata = Sequence[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Refusal:
    """How a call was refused."""

    code: grpc.StatusCode
    reason: str
    message: str
    fields: dict[str, str]
    retry_after_s: float | None
    facts: dict[str, str]
    errors: tuple[faults_pb2.TextError, ...] = ()


async def refusal(call: Awaitable[Any]) -> Refusal:
    """The refusal a call ends with; fails if it does not."""
    try:
        answer = await call
    except grpc.aio.AioRpcError as error:
        return refusal_of(error)
    raise AssertionError(f"the call was answered: {answer}")


def refusal_of(error: grpc.aio.AioRpcError) -> Refusal:
    status = rpc_status.from_call(error)  # type: ignore[arg-type]
    info, bad, retry = (
        error_details_pb2.ErrorInfo(),
        error_details_pb2.BadRequest(),
        error_details_pb2.RetryInfo(),
    )
    wrong = faults_pb2.TextErrors()
    retry_after_s = None
    for detail in status.details if status else ():
        if detail.Unpack(retry):
            retry_after_s = retry.retry_delay.ToMilliseconds() / 1000
        else:
            assert detail.Unpack(info) or detail.Unpack(bad) or detail.Unpack(wrong), detail
    fields = {each.field: each.description for each in bad.field_violations}
    return Refusal(
        error.code(),
        info.reason,
        error.details() or "",
        fields,
        retry_after_s,
        dict(info.metadata),
        tuple(wrong.errors),
    )


@dataclass
class Server:
    """What the tests of the rooms stand on."""

    channel: grpc.aio.Channel
    grpc_address: str
    api: Api
    clock: TurnedClock
    folder: Path
    admin: Metadata
    # What it is made of: the very objects, for what cannot be seen from outside.
    database: Database
    directory: Directory
    desk: Desk
    tokens: Tokens
    keys: ApiKeys
    providers: Providers
    sessions: Sessions
    passwords: Passwords

    @property
    def auth(self) -> Any:
        return AuthServiceStub(self.channel)

    @property
    def agents(self) -> Any:
        return AgentServiceStub(self.channel)

    @property
    def api_keys(self) -> Any:
        return ApiKeyServiceStub(self.channel)

    @property
    def token_service(self) -> Any:
        return TokenServiceStub(self.channel)

    @property
    def provider_service(self) -> Any:
        return ProviderServiceStub(self.channel)

    @property
    def budget(self) -> Any:
        return BudgetServiceStub(self.channel)

    @property
    def events(self) -> Any:
        return EventServiceStub(self.channel)

    async def sign_in(self, username: str, password: str = ADMIN_PASSWORD) -> Any:
        request = auth_pb2.LoginRequest(username=username, password=password)
        return await self.auth.Login(request)

    def add_user(self, username: str, role: Role, *, email: str | None = None) -> str:
        """Someone else, with the same password; their id."""
        return add_person(self.folder, username, role.value, email=email)

    async def enter(self, username: str, role: Role) -> tuple[str, Metadata]:
        """Someone else, signed in: their id and credential."""
        user_id = self.add_user(username, role)
        return user_id, bearer((await self.sign_in(username)).access_token)

    async def create_agent(self, **fields: Any) -> Any:
        wanted: dict[str, Any] = {"name": "scout", "budget_nanousd": 5_000_000_000} | fields
        request = agents_pb2.CreateAgentRequest(**wanted)
        return (await self.agents.CreateAgent(request, metadata=self.admin)).agent

    async def create_token(self, agent_id: str, **fields: Any) -> Any:
        request = tokens_pb2.CreateTokenRequest(agent_id=agent_id, **fields)
        return (await self.token_service.CreateToken(request, metadata=self.admin)).ic_token

    async def create_key(self, metadata: Metadata | None = None, **fields: Any) -> Any:
        """A key of the administrator's, or of whoever is named."""
        request = api_keys_pb2.CreateApiKeyRequest(**fields)
        maker = self.admin if metadata is None else metadata
        return (await self.api_keys.CreateApiKey(request, metadata=maker)).api_key

    async def knock(self, metadata: Metadata = (), ic_token: str = "") -> None:
        """Ask for what is open to every IC token with the scope "budget"; fails if it is not.

        Whoever is let in is told that there is no such lease.
        """
        request = budget_pb2.ReturnRequest(lease_id="lease_none", ic_token=ic_token)
        try:
            await self.budget.Return(request, metadata=metadata)
        except grpc.aio.AioRpcError as error:
            if refusal_of(error).reason != "LEASE_NOT_FOUND":
                raise
            return
        raise AssertionError("a lease that nobody has was returned")

    async def listen(self, metadata: Metadata) -> asyncio.Future[Any]:
        """Open a stream of events; once it stands, gives what will be read from it first."""
        call = self.events.Subscribe(events_pb2.SubscribeRequest(), metadata=metadata)
        await asyncio.wait_for(call.initial_metadata(), 30)
        reading: asyncio.Future[Any] = asyncio.ensure_future(call.read())
        return reading

    async def lend(self, agent_id: str, lease_id: str, amount_nanousd: int) -> None:
        """Lend money to an agent as a handshake does, straight from the desk."""
        terms = Terms(
            provider="openai",
            provider_kind="openai",
            token_id="token_1",
            runtime_id="runtime_1",
            request_id=None,
            request_digest=b"",
            requested_nanousd=amount_nanousd,
        )
        await self.database.run(
            lambda transaction: self.desk.open_lease(
                transaction,
                lease_id=lease_id,
                agent_id=agent_id,
                requested_nanousd=amount_nanousd,
                minimum_nanousd=0,
                terms=terms,
                now_us=self.clock(),
            )
        )

    async def give_back(self, agent_id: str, lease_id: str) -> None:
        """Return a lease unspent."""
        await self.database.run(
            lambda transaction: self.desk.close_lease(
                transaction,
                lease_id=lease_id,
                agent_id=agent_id,
                believed_spent_nanousd=None,
                now_us=self.clock(),
            )
        )

    async def journal(self, prefix: str = "") -> list[Any]:
        rows = await self.database.fetch_all("SELECT * FROM journal ORDER BY lsn")
        return [row for row in rows if row["kind"].startswith(prefix)]


def bearer(token: str) -> Metadata:
    return (("authorization", f"Bearer {token}"),)


def api_key(text: str) -> Metadata:
    return (("x-api-key", text),)


def ic_key(token: str) -> Metadata:
    return (("x-ic-key", token),)


@pytest.fixture
def clock() -> TurnedClock:
    return TurnedClock()


@pytest.fixture
def settings() -> dict[str, Any]:
    """What a test may set otherwise: sections by name, and settings of the server itself."""
    return {}


@pytest.fixture
def noted(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the next server hands its rooms as it is put together, by name: the objects in use."""
    parts: dict[str, Any] = {}
    for room in (auth, agents, api_keys):

        def register(
            methods: Any, *database: Any, served: Any = room.register, **named: Any
        ) -> None:
            parts.update(named)
            if database:
                parts["database"] = database[0]
            served(methods, *database, **named)

        monkeypatch.setattr(room, "register", register)
    return parts


@pytest.fixture
async def server(
    tmp_path: Path, clock: TurnedClock, settings: dict[str, Any], noted: dict[str, Any]
) -> AsyncIterator[Server]:
    """A whole server that does nothing by itself while a test looks."""
    rooms = {name: value for name, value in settings.items() if name in ("auth", "api_keys")}
    still = BudgetConfig(sweep_interval_s=3_600)
    served = {name: value for name, value in settings.items() if name not in rooms}
    folder = tmp_path / "data"
    configured = live_settings(folder, Settings(budget=still, **rooms), **served)
    async with live_server(configured, clock) as live:
        yield Server(
            live.channel,
            live.running.grpc_address,
            live.api,
            clock,
            folder,
            tuple(live.admin.headers.items()),
            database=noted["database"],
            directory=noted["directory"],
            desk=noted["purse"],
            tokens=noted["tokens"],
            keys=noted["keys"],
            providers=noted["providers"],
            sessions=noted["sessions"],
            passwords=noted["passwords"],
        )
