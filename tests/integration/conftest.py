"""A real server on a free port over a real database file, with a clock the tests turn."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_interceptor.server import AsyncServerInterceptor
from grpc_status import rpc_status

from steward.agents.v1 import agents_pb2
from steward.agents.v1.agents_pb2_grpc import AgentServiceStub
from steward.auth.v1 import auth_pb2
from steward.auth.v1.auth_pb2_grpc import AuthServiceStub
from steward.budget.v1 import budget_pb2
from steward.budget.v1.budget_pb2_grpc import (
    BudgetServiceServicer,
    BudgetServiceStub,
    add_BudgetServiceServicer_to_server,
)
from steward.events.v1 import events_pb2
from steward.events.v1.events_pb2_grpc import (
    EventServiceServicer,
    EventServiceStub,
    add_EventServiceServicer_to_server,
)
from steward.gateway.v1 import options_pb2 as options
from steward.providers.v1.providers_pb2_grpc import ProviderServiceStub
from steward.tokens.v1 import tokens_pb2
from steward.tokens.v1.tokens_pb2_grpc import TokenServiceStub
from steward_server import agents, auth, providers, tokens
from steward_server.agents.config import AgentsConfig
from steward_server.agents.directory import Directory
from steward_server.auth import store as auth_store
from steward_server.auth.accounts import Attempts, Role, User, UserState
from steward_server.auth.administrator import ensure_first_administrator
from steward_server.auth.authenticator import Credentials
from steward_server.auth.config import AuthConfig
from steward_server.auth.passwords import Passwords
from steward_server.auth.people import People
from steward_server.budget.config import BudgetConfig
from steward_server.budget.desk import Desk
from steward_server.budget.store import Terms
from steward_server.db import now_us
from steward_server.db.migrate import migrate
from steward_server.db.sqlite import Sqlite
from steward_server.dispatch import Dispatcher
from steward_server.idempotency.answers import Answers
from steward_server.ids import new_id
from steward_server.interceptors.authentication import Authentication, LiveStreams
from steward_server.interceptors.authorization import Authorization
from steward_server.interceptors.errors import Errors
from steward_server.interceptors.idempotency import Idempotency, applies
from steward_server.interceptors.metrics import Metrics
from steward_server.interceptors.rate_limit import RateLimit, logins
from steward_server.interceptors.request_id import RequestId
from steward_server.observation import Observation
from steward_server.providers.room import Providers
from steward_server.tokens.room import Tokens
from steward_server.vault import Vault

Metadata = Sequence[tuple[str, str]]

ADMIN_PASSWORD = "a long walk in the rain"
ROOMS = ["events", "budget", "auth", "tokens", "agents", "providers", "idempotency"]


class TurnedClock:
    """Microseconds since 1970, from the time it was made; moves only when told to."""

    def __init__(self) -> None:
        self.now_us = now_us()

    def __call__(self) -> int:
        return self.now_us

    def advance(self, seconds: float) -> None:
        self.now_us += round(seconds * 1e6)


@dataclass(frozen=True, slots=True)
class Refusal:
    """How a call was refused."""

    code: grpc.StatusCode
    reason: str
    message: str
    fields: dict[str, str]
    retry_after_s: float | None
    facts: dict[str, str]


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
    retry_after_s = None
    for detail in status.details if status else ():
        if detail.Unpack(retry):
            retry_after_s = retry.retry_delay.ToMilliseconds() / 1000
        else:
            assert detail.Unpack(info) or detail.Unpack(bad), detail
    fields = {each.field: each.description for each in bad.field_violations}
    return Refusal(
        error.code(),
        info.reason,
        error.details() or "",
        fields,
        retry_after_s,
        dict(info.metadata),
    )


class SilentEvents(EventServiceServicer):
    """A stream that says nothing until it is ended."""

    def __init__(self) -> None:
        self.opened = asyncio.Event()

    async def Subscribe(  # noqa: N802 - the proto's name
        self, request: Any, context: Any
    ) -> AsyncIterator[Any]:
        self.opened.set()
        await asyncio.Event().wait()
        yield events_pb2.SubscribeResponse()


class OpenHouse(BudgetServiceServicer):
    """Answers every runtime that is let in."""

    async def Return(  # noqa: N802 - the proto's name
        self, request: Any, context: Any
    ) -> Any:
        return budget_pb2.ReturnResponse(success=True)


@dataclass
class Server:
    """What the tests of the rooms stand on."""

    port: int
    channel: grpc.aio.Channel
    clock: TurnedClock
    database: Sqlite
    folder: Path
    vault: Vault
    streams: LiveStreams
    passwords: Passwords
    desk: Desk
    directory: Directory
    tokens: Any
    providers: Any
    sessions: Any
    answers: Answers
    silent: SilentEvents
    admin: Metadata = ()
    _channels: list[grpc.aio.Channel] = field(default_factory=list)

    @property
    def auth(self) -> Any:
        return AuthServiceStub(self.channel)

    @property
    def agents(self) -> Any:
        return AgentServiceStub(self.channel)

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

    async def add_user(self, username: str, role: Role, *, email: str | None = None) -> User:
        """Someone else, with the same password."""
        administrator = await auth_store.first_administrator(self.database)
        assert administrator is not None
        user = User(
            new_id("user"),
            username,
            email,
            administrator.password_hash,
            role,
            UserState.ACTIVE,
            Attempts(),
            self.clock(),
        )
        await self.database.run(lambda transaction: auth_store.insert_user(transaction, user))
        return user

    async def enter(self, username: str, role: Role) -> tuple[User, Metadata]:
        """Someone else, signed in."""
        user = await self.add_user(username, role)
        return user, bearer((await self.sign_in(username)).access_token)

    async def create_agent(self, **fields: Any) -> Any:
        wanted: dict[str, Any] = {"name": "scout", "budget_nanousd": 5_000_000_000} | fields
        request = agents_pb2.CreateAgentRequest(**wanted)
        return (await self.agents.CreateAgent(request, metadata=self.admin)).agent

    async def create_token(self, agent_id: str, **fields: Any) -> Any:
        request = tokens_pb2.CreateTokenRequest(agent_id=agent_id, **fields)
        return (await self.token_service.CreateToken(request, metadata=self.admin)).ic_token

    async def knock(self, metadata: Metadata = (), ic_token: str = "") -> Any:
        """Call something that is open to every IC token with the scope "budget"."""
        request = budget_pb2.ReturnRequest(lease_id="lease_1", ic_token=ic_token)
        return await self.budget.Return(request, metadata=metadata)

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


def ic_key(token: str) -> Metadata:
    return (("x-ic-key", token),)


@pytest.fixture
def clock() -> TurnedClock:
    return TurnedClock()


@pytest.fixture
def settings() -> dict[str, Any]:
    """What a test may set otherwise: `static_token`, `local_single_user`, `auth`."""
    return {}


@pytest.fixture
async def server(
    tmp_path: Path, clock: TurnedClock, settings: dict[str, Any]
) -> AsyncIterator[Server]:
    database = await Sqlite.open(tmp_path / "steward.db")
    await migrate(database, [f"steward_server.{room}" for room in ROOMS])
    vault = Vault.open(tmp_path / "master.key", create=True)
    auth_config: AuthConfig = settings.get("auth", AuthConfig())
    streams = LiveStreams()
    passwords = Passwords(workers=2, queue=32)
    await ensure_first_administrator(
        database,
        passwords,
        username="admin",
        password=ADMIN_PASSWORD,
        development=False,
        clock=clock,
    )
    sessions = await auth.open_sessions(database, vault, streams, auth_config, clock)
    desk = Desk(BudgetConfig().policy())
    directory = await Directory.load(database)
    ic_tokens = Tokens(database, streams, directory, desk, clock)
    model_providers = Providers(database, vault, directory, clock)
    credentials = Credentials(
        sessions=sessions,
        tokens=ic_tokens,
        people=database,
        static_token=settings.get("static_token"),
        local_single_user=settings.get("local_single_user", False),
    )
    answers = Answers(database, vault, kept_us=86_400 * 1_000_000, clock=clock)
    login_window = logins(auth_config.logins_per_minute)
    observation = Observation()

    def chain(name: str, rule: options.MethodRule) -> list[AsyncServerInterceptor]:
        links: list[AsyncServerInterceptor] = [
            RequestId(),
            Metrics(name, observation.rpcs, observation.rpc_latency, observation.open_streams),
            Errors(),
            Authentication(rule, credentials, streams),
            Authorization(rule),
        ]
        if rule.rate_category == options.RATE_CATEGORY_LOGIN:
            links.append(RateLimit(login_window, clock))
        if applies(rule):
            links.append(Idempotency(name, rule, answers))
        return links

    methods: Any = Dispatcher(chain)
    auth.register(
        methods,
        database,
        sessions=sessions,
        passwords=passwords,
        config=auth_config,
        clock=clock,
    )
    tokens.register(methods, tokens=ic_tokens, clock=clock)
    providers.register(methods, providers=model_providers, development=False)
    agents.register(
        methods,
        database,
        directory=directory,
        purse=desk,
        tokens=ic_tokens,
        providers=model_providers,
        people=People(),
        config=AgentsConfig(),
        clock=clock,
    )
    # What these two leave out answers UNIMPLEMENTED, as the generated code has it.
    silent = SilentEvents()  # type: ignore[abstract]
    add_EventServiceServicer_to_server(silent, methods)
    open_house = OpenHouse()  # type: ignore[abstract]
    add_BudgetServiceServicer_to_server(open_house, methods)
    grpc_server = grpc.aio.server()
    methods.bind(grpc_server)
    port = grpc_server.add_insecure_port("127.0.0.1:0")
    await grpc_server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        made = Server(
            port=port,
            channel=channel,
            clock=clock,
            database=database,
            folder=tmp_path,
            vault=vault,
            streams=streams,
            passwords=passwords,
            desk=desk,
            directory=directory,
            tokens=ic_tokens,
            providers=model_providers,
            sessions=sessions,
            answers=answers,
            silent=silent,
        )
        if not settings.get("local_single_user"):
            made.admin = bearer((await made.sign_in("admin")).access_token)
        yield made
    await grpc_server.stop(None)
    passwords.close()
    await database.close()
