"""The made-up core: does what a request says and remembers what it has seen."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import grpc
from google.api import httpbody_pb2
from google.protobuf import any_pb2, duration_pb2
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

CODES = {code.value[0]: code for code in grpc.StatusCode}


class WorkshopCore:
    def __init__(self, pb: Any) -> None:
        self._pb = pb
        self.requests: list[Any] = []
        self.started: asyncio.Queue[str] = asyncio.Queue()
        self.cancelled: asyncio.Queue[str] = asyncio.Queue()
        self.said: asyncio.Queue[str] = asyncio.Queue()
        self.release = asyncio.Event()
        self.counted = 0
        self.part_version = 7
        self.part_notes = "n" * 2_000
        self.content_type = "text/plain; version=0.0.4"

    async def CreateTool(self, request: Any, context: Any) -> Any:
        self.requests.append(request)
        return self._pb.CreateToolResponse(tool=request.tool)

    async def ListTools(self, request: Any, context: Any) -> Any:
        return self._pb.ListToolsResponse(asked=request)

    async def GetTool(self, request: Any, context: Any) -> Any:
        return self._pb.GetToolResponse(tool=self._pb.Tool(id=request.tool_id))

    async def Echo(self, request: Any, context: Any) -> Any:
        return request

    async def GetPart(self, request: Any, context: Any) -> Any:
        part = self._pb.Part(name=request.part_id, version=self.part_version, notes=self.part_notes)
        return self._pb.GetPartResponse(part=part)

    async def UpdatePart(self, request: Any, context: Any) -> Any:
        if request.HasField("version") and request.version != self.part_version:
            await context.abort(grpc.StatusCode.ABORTED, f"it has version {self.part_version}")
        self.part_version += 1
        return self._pb.UpdatePartResponse(
            part=self._pb.Part(name=request.part.name, version=self.part_version)
        )

    async def UpdateTool(self, request: Any, context: Any) -> Any:
        return self._pb.UpdateToolResponse(asked=request)

    async def DeleteTool(self, request: Any, context: Any) -> Any:
        self.requests.append(request)
        return self._pb.DeleteToolResponse()

    async def Inspect(self, request: Any, context: Any) -> Any:
        remaining_s = context.time_remaining()
        await context.send_initial_metadata((("x-rate-limit-remaining", "99"),))
        context.set_trailing_metadata(
            (("x-after", "yes"), ("internal", "no"), ("retry-after", "7"))
        )
        return self._pb.InspectResponse(
            metadata={key: str(value) for key, value in context.invocation_metadata()},
            remaining_s=-1 if remaining_s is None else remaining_s,
        )

    async def Fail(self, request: Any, context: Any) -> Any:
        details: list[Message] = []
        if request.reason:
            info = error_details_pb2.ErrorInfo(reason=request.reason, metadata=dict(request.facts))
            details.append(info)
        if request.violations:
            details.append(
                error_details_pb2.BadRequest(
                    field_violations=[
                        error_details_pb2.BadRequest.FieldViolation(field=field, description=text)
                        for field, text in request.violations.items()
                    ]
                )
            )
        if request.retry_after_s:
            delay = duration_pb2.Duration()
            delay.FromNanoseconds(int(request.retry_after_s * 1e9))
            details.append(error_details_pb2.RetryInfo(retry_delay=delay))
        if not details:
            await context.abort(CODES[request.code], request.message)
        status = status_pb2.Status(code=request.code, message=request.message)
        for detail in details:
            packed = any_pb2.Any()
            packed.Pack(detail)
            status.details.append(packed)
        await context.abort_with_status(rpc_status.to_status(status))

    FailIgnition = FailAgentBox = FailCyborg = Fail

    async def Wait(self, request: Any, context: Any) -> Any:
        await self.started.put(request.name)
        try:
            await self.release.wait()
        except asyncio.CancelledError:
            self.cancelled.put_nowait(request.name)
            raise
        return self._pb.WaitResponse()

    async def Download(self, request: Any, context: Any) -> Any:
        return httpbody_pb2.HttpBody(content_type=self.content_type, data=b"up 1\n")

    async def Upload(self, request: Any, context: Any) -> Any:
        return self._pb.UploadResponse(
            name=request.name,
            content_type=request.content.content_type,
            size_bytes=len(request.content.data),
        )

    async def Count(self, request: Any, context: Any) -> AsyncIterator[Any]:
        if request.refuse:
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, "who are you?")
        await context.send_initial_metadata((("x-accepted", "yes"),))
        try:
            for number in range(request.after + 1, request.count + 1):
                tick = self._pb.Tick(number=number, padding="x" * request.padding_bytes)
                yield self._pb.CountResponse(tick=tick)
                self.counted = number
            if request.hold:
                await self.started.put("holding")
                await self.release.wait()
            if request.fail:
                await context.abort(CODES[request.fail], "told to fail")
        except asyncio.CancelledError:
            self.cancelled.put_nowait("count")
            raise

    async def Weigh(self, request: Any, context: Any) -> Any:
        self.requests.append(request)
        return self._pb.WeighResponse(
            name=request.name, weight_nanousd=request.weight_nanousd, kind=self._pb.KIND_HAND_SAW
        )

    async def Sum(self, requests: AsyncIterator[Any], context: Any) -> Any:
        return self._pb.SumResponse(sum=sum([request.number async for request in requests]))

    async def Chat(self, requests: AsyncIterator[Any], context: Any) -> AsyncIterator[Any]:
        metadata = dict(context.invocation_metadata())
        if metadata.get("authorization") == "Bearer wrong":
            await context.abort(grpc.StatusCode.PERMISSION_DENIED, "wrong token")
        await context.send_initial_metadata((("x-accepted", "yes"),))
        sequence = 0
        try:
            async for request in requests:
                sequence += 1
                event = self._pb.ChatEvent(sequence=sequence)
                match request.WhichOneof("data"):
                    case "join":
                        event.joined.room = request.join.room
                        if request.join.HasField("since"):
                            event.joined.since = request.join.since
                        event.joined.types.extend(request.join.type)
                        event.joined.authorization = metadata.get("authorization", "")
                    case "say":
                        event.said.message_id = request.message_id
                        event.said.text = request.say.text
                        event.said.tip_nanousd = request.say.tip_nanousd
                        self.said.put_nowait(request.say.text)
                    case "ping":
                        event.pong.timestamp = request.ping.timestamp
                    case "fail":
                        await self.Fail(request.fail, context)
                yield self._pb.ChatResponse(event=event)
            self.said.put_nowait("<end>")
        except asyncio.CancelledError:
            self.cancelled.put_nowait("chat")
            raise

    async def Terminal(self, requests: AsyncIterator[Any], context: Any) -> AsyncIterator[Any]:
        await context.send_initial_metadata((("x-accepted", "yes"),))
        async for request in requests:
            match request.WhichOneof("message"):
                case "input":
                    shown = request.input.data.upper()
                case _:
                    shown = json.dumps([request.resize.rows, request.resize.columns])
            yield self._pb.TerminalResponse(output=self._pb.Output(data=shown))

    async def Infer(self, requests: AsyncIterator[Any], context: Any) -> AsyncIterator[Any]:
        await context.send_initial_metadata((("x-accepted", "yes"),))
        async for request in requests:
            yield self._pb.InferResponse(action=len(request.observation), value=0.5)
