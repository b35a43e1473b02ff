"""What a debugger that knows nothing finds out and calls: the way grpcurl works."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor import FileDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.json_format import MessageToDict, Parse
from google.protobuf.message_factory import GetMessageClass
from grpc_reflection.v1alpha import reflection_pb2 as pb
from grpc_reflection.v1alpha.reflection_pb2_grpc import ServerReflectionStub

from steward_gateway.contracts import load_contracts
from tests.live import ADMIN_PASSWORD, Live, live_server, live_settings

OURS = {service.full_name for service in load_contracts().services}
ALWAYS = OURS | {"grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection"}
CHANNELZ = "grpc.channelz.v1.Channelz"


class Reflection:
    """Asks a server what it serves, and builds messages from what it says alone."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._channel = channel
        self._stub: Any = ServerReflectionStub(channel)
        self._pool = DescriptorPool()
        self._known: set[str] = set()

    async def services(self) -> set[str]:
        answer = await self._ask(list_services="")
        return {service.name for service in answer.list_services_response.service}

    async def describe(self, service: str) -> dict[str, tuple[str, str]]:
        """The methods of a service, each with the names of what it takes and gives."""
        await self._load(file_containing_symbol=service)
        methods = self._pool.FindServiceByName(service).methods
        return {
            each.name: (each.input_type.full_name, each.output_type.full_name) for each in methods
        }

    async def files_of(self, symbol: str) -> set[str]:
        """The file that declares a symbol, and those it needs."""
        answer = await self._ask(file_containing_symbol=symbol)
        return {
            FileDescriptorProto.FromString(data).name
            for data in answer.file_descriptor_response.file_descriptor_proto
        }

    async def call(self, service: str, method: str, body: str, **metadata: str) -> Any:
        """Call a method with a JSON body; the answer as JSON has it."""
        await self._load(file_containing_symbol=service)
        found = self._pool.FindServiceByName(service).methods_by_name[method]
        request = Parse(body, GetMessageClass(found.input_type)())
        rpc: Any = self._channel.unary_unary(
            f"/{service}/{method}",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=GetMessageClass(found.output_type).FromString,
        )
        response = await rpc(request, metadata=tuple(metadata.items()))
        return MessageToDict(response, preserving_proto_field_name=True)

    async def _ask(self, **request: str) -> Any:
        async for answer in self._stub.ServerReflectionInfo(
            iter([pb.ServerReflectionRequest(**request)])
        ):
            assert not answer.HasField("error_response"), answer.error_response
            return answer
        raise AssertionError("no answer")

    async def _load(self, **request: str) -> None:
        answer = await self._ask(**request)
        for data in answer.file_descriptor_response.file_descriptor_proto:
            file = FileDescriptorProto.FromString(data)
            if file.name in self._known:
                continue
            self._known.add(file.name)
            for needed in file.dependency:
                if needed not in self._known:
                    await self._load(file_by_filename=needed)
            self._pool.Add(file)


async def test_all_services_are_listed_and_described(live: Live) -> None:
    reflection = Reflection(live.channel)
    assert await reflection.services() == ALWAYS
    methods = {name: await reflection.describe(name) for name in OURS}
    assert methods["steward.tokens.v1.TokenService"]["RotateToken"] == (
        "steward.tokens.v1.RotateTokenRequest",
        "steward.tokens.v1.RotateTokenResponse",
    )
    assert all(methods.values())


async def test_a_method_a_message_and_an_enum_are_found_by_their_own_names(live: Live) -> None:
    reflection = Reflection(live.channel)
    for name in ("BudgetService.Handshake", "HandshakeRequest", "LeaseState"):
        files = await reflection.files_of(f"steward.budget.v1.{name}")
        assert "steward/budget/v1/budget.proto" in files


async def test_a_method_is_called_with_nothing_but_what_reflection_tells(live: Live) -> None:
    reflection = Reflection(live.channel)
    login = json.dumps({"username": "admin", "password": ADMIN_PASSWORD})
    pair = await reflection.call("steward.auth.v1.AuthService", "Login", login)
    created = await reflection.call(
        "steward.agents.v1.AgentService",
        "CreateAgent",
        '{"name": "scout", "budget_nanousd": "1500000000"}',
        authorization=f"Bearer {pair['access_token']}",
    )
    assert created["agent"]["budget"]["limit_nanousd"] == "1500000000"


async def test_what_is_not_there_is_not_found(live: Live) -> None:
    stub: Any = ServerReflectionStub(live.channel)
    unknown = ("steward.nothing.v1.Service", "steward.budget.v1.BudgetService.Nothing", "nothing")
    requests = [pb.ServerReflectionRequest(file_containing_symbol=name) for name in unknown]
    answers = [answer async for answer in stub.ServerReflectionInfo(iter(requests))]
    assert len(answers) == len(unknown)
    for answer in answers:
        assert answer.error_response.error_code == grpc.StatusCode.NOT_FOUND.value[0]


async def test_channelz_is_served_in_the_development_profile_alone(
    tmp_path: Path, live: Live
) -> None:
    call: Any = live.channel.unary_unary(f"/{CHANNELZ}/GetServers")
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await call(b"")
    assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED

    async with live_server(live_settings(tmp_path / "other", profile="development")) as other:
        reflection = Reflection(other.channel)
        assert await reflection.services() == ALWAYS | {CHANNELZ}
        servers = await reflection.call(CHANNELZ, "GetServers", "{}")
    assert int(servers["server"][0]["data"]["calls_started"]) >= 1


def test_every_file_of_ours_can_be_shown_by_reflection() -> None:
    from google.protobuf.descriptor_pool import Default

    for name in OURS:
        file: FileDescriptor = Default().FindFileContainingSymbol(name)
        assert file.serialized_pb
