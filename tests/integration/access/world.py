"""A whole server, and what tables need to make requests that succeed."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import sqlite3
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.descriptor_pool import Default
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from steward.agents.v1 import agents_pb2
from steward.agents.v1.agents_pb2_grpc import AgentServiceStub
from steward.api_keys.v1 import api_keys_pb2
from steward.api_keys.v1.api_keys_pb2_grpc import ApiKeyServiceStub
from steward.auth.v1 import auth_pb2
from steward.auth.v1.auth_pb2_grpc import AuthServiceStub
from steward.credentials.v1 import credentials_pb2
from steward.credentials.v1.credentials_pb2_grpc import CredentialServiceStub
from steward.gateway.v1 import options_pb2
from steward.playbooks.v1 import playbooks_pb2
from steward.playbooks.v1.playbooks_pb2_grpc import PlaybookServiceStub
from steward.providers.v1 import providers_pb2
from steward.providers.v1.providers_pb2_grpc import ProviderServiceStub
from steward.tokens.v1 import tokens_pb2
from steward.tokens.v1.tokens_pb2_grpc import TokenServiceStub
from steward.users.v1 import users_pb2
from steward.users.v1.users_pb2_grpc import UserServiceStub
from steward_server.alerts.config import AlertsConfig
from steward_server.auth.config import AuthConfig
from steward_server.settings import Settings
from tests.integration.conftest import refusal_of
from tests.live import Live, live_server, live_settings

STATIC_TOKEN = "3b2f8e0c9a7d41d6"
LET_IN_AFTER_S = 0.4

Headers = dict[str, str]
"""HTTP headers, and the metadata of gRPC calls."""


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody signed in."""

    user_id: str
    username: str
    password: str
    headers: Headers


@dataclass
class World:
    """Makes things; each is new."""

    live: Live
    folder: Path
    owner: Person = field(init=False)
    """A user whose things are not everybody's."""
    secrets: list[str] = field(default_factory=lambda: [STATIC_TOKEN])
    """Texts that may stand nowhere."""
    _numbers: Any = field(default_factory=lambda: itertools.count(1))

    @property
    def admin(self) -> Headers:
        return self.live.admin.headers

    @property
    def metadata(self) -> Sequence[tuple[str, str]]:
        return tuple(self.admin.items())

    def name(self) -> str:
        return f"name-{next(self._numbers)}"

    def password(self) -> str:
        """Another one; it is looked for where none should be."""
        self.secrets.append(f"canary password {next(self._numbers)}")
        return self.secrets[-1]

    def provider_key(self) -> str:
        self.secrets.append(f"sk-canary-key-{next(self._numbers)}")
        return self.secrets[-1]

    async def person(self, role: str, **fields: Any) -> Person:
        """Somebody new, signed in."""
        username, password = self.name(), self.password()
        request = users_pb2.CreateUserRequest(
            username=username,
            password=password,
            role=options_pb2.Role.Value(f"ROLE_{role.upper()}"),
            **fields,
        )
        users: Any = UserServiceStub(self.live.channel)
        made = await users.CreateUser(request, metadata=self.metadata)
        return await self.entered(made.user.id, username, password)

    async def entered(self, user_id: str, username: str, password: str) -> Person:
        """Somebody there is, signed in once more."""
        login = auth_pb2.LoginRequest(username=username, password=password)
        auth: Any = AuthServiceStub(self.live.channel)
        pair = await auth.Login(login)
        self.secrets += [pair.access_token, pair.refresh_token]
        headers = {"authorization": f"Bearer {pair.access_token}"}
        return Person(user_id, username, password, headers)

    async def agent(self, **fields: Any) -> Any:
        request = agents_pb2.CreateAgentRequest(
            name=self.name(), budget_nanousd=5_000_000_000, **fields
        )
        agents: Any = AgentServiceStub(self.live.channel)
        return (await agents.CreateAgent(request, metadata=self.metadata)).agent

    async def token(self, *, scopes: Sequence[str] = ()) -> Any:
        """The IC token of a new agent."""
        agent = await self.agent()
        request = tokens_pb2.CreateTokenRequest(agent_id=agent.id, scopes=scopes)
        tokens: Any = TokenServiceStub(self.live.channel)
        made = (await tokens.CreateToken(request, metadata=self.metadata)).ic_token
        self.secrets.append(made.token)
        return made

    async def api_key(self, role: str = "user", *, headers: Headers | None = None) -> Any:
        """A key of the administrator, or of whose headers these are."""
        request = api_keys_pb2.CreateApiKeyRequest(
            description=self.name(), role=api_keys_pb2.KeyRole.Value(f"KEY_ROLE_{role.upper()}")
        )
        keys: Any = ApiKeyServiceStub(self.live.channel)
        metadata = tuple((headers or self.admin).items())
        made = (await keys.CreateApiKey(request, metadata=metadata)).api_key
        self.secrets.append(made.key)
        return made

    async def provider(self) -> Any:
        request = providers_pb2.CreateProviderRequest(
            name=self.name(), kind=providers_pb2.PROVIDER_KIND_OPENAI, api_key=self.provider_key()
        )
        providers: Any = ProviderServiceStub(self.live.channel)
        return (await providers.CreateProvider(request, metadata=self.metadata)).provider

    async def credential(self, *, headers: Headers | None = None) -> str:
        """The name of a credential of the administrator's, or of whose headers these are."""
        request = credentials_pb2.CreateCredentialRequest(
            name=self.name(), username="admin", password=self.password()
        )
        credentials: Any = CredentialServiceStub(self.live.channel)
        metadata = tuple((headers or self.admin).items())
        return str((await credentials.CreateCredential(request, metadata=metadata)).name)

    async def playbook(self) -> str:
        """The path of a playbook that the administrator made."""
        request = playbooks_pb2.DuplicatePlaybookRequest(
            source_path="gateway/health_check.yaml", new_name=self.name()
        )
        playbooks: Any = PlaybookServiceStub(self.live.channel)
        metadata = tuple(self.admin.items())
        return str((await playbooks.DuplicatePlaybook(request, metadata=metadata)).new_path)

    async def stub(self, service: str, method: str, request: Message) -> Any:
        """Call a method as the administrator."""
        found = Default().FindMethodByName(f"{service}.{method}")
        return await self.call(found, request, self.admin)

    async def as_owner(self, service: str, method: str, request: Message) -> Any:
        """Call a method as the owner."""
        found = Default().FindMethodByName(f"{service}.{method}")
        return await self.call(found, request, self.owner.headers)

    def call(self, method: MethodDescriptor, request: Message, headers: Headers) -> Any:
        """Call any method by its descriptor; a method that takes a stream is sent nothing."""
        channel = self.live.channel
        kinds: dict[tuple[bool, bool], Any] = {
            (False, False): channel.unary_unary,
            (False, True): channel.unary_stream,
            (True, False): channel.stream_unary,
            (True, True): channel.stream_stream,
        }
        multi = kinds[method.client_streaming, method.server_streaming](
            f"/{method.containing_service.full_name}/{method.name}",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=GetMessageClass(method.output_type).FromString,
        )
        metadata = tuple(headers.items())
        if method.client_streaming:
            return multi(metadata=metadata)
        return multi(request, metadata=metadata)

    def audit_rows(self, after: int = 0) -> list[sqlite3.Row]:
        """What stands in the log, from the file itself."""
        with closing(sqlite3.connect(self.folder / "steward.db")) as connection:
            connection.row_factory = sqlite3.Row
            return connection.execute(
                "SELECT * FROM audit_entry WHERE number > ? ORDER BY number", (after,)
            ).fetchall()


@asynccontextmanager
async def open_world(folder: Path) -> AsyncIterator[World]:
    """A server in which people may sign in as often as they like."""
    auth = AuthConfig(logins_per_minute=100_000, lock_after_failures=100_000)
    alerts = AlertsConfig(allow_private=True)
    settings = live_settings(folder, Settings(auth=auth, alerts=alerts), static_token=STATIC_TOKEN)
    async with live_server(settings) as live:
        world = World(live, folder)
        world.owner = await world.person("user")
        yield world


async def outcome(call: Any, *, streams: bool) -> tuple[grpc.StatusCode, str]:
    """How a call ended, and its reason; a stream that was let in is OK, and left."""
    try:
        if streams:
            # A refusal is there at once; whoever is let in waits for what may never come.
            first = call.read() if hasattr(call, "read") else _sent_nothing(call)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(first, LET_IN_AFTER_S)
        else:
            await call
    except grpc.aio.AioRpcError as error:
        return error.code(), refusal_of(error).reason
    finally:
        call.cancel()
    return grpc.StatusCode.OK, ""


async def _sent_nothing(call: Any) -> None:
    """The answer to a stream of requests that holds none."""
    await call.done_writing()
    await call
