"""What the figures of inference are held against: answers of the same shape, and nothing computed.

Prints its ports: HTTP with WebSocket, and gRPC.
"""

from __future__ import annotations

import asyncio
import gc
import sys
from collections.abc import AsyncIterator
from typing import Any

import grpc
import orjson
import uvloop
from aiohttp import WSMsgType, web

from steward.inference.v1 import inference_pb2 as pb
from steward.inference.v1.inference_pb2_grpc import (
    InferenceServiceServicer,
    add_InferenceServiceServicer_to_server,
)

ANSWER = {"action": 1, "value": 0.5, "log_prob": -0.5, "agent_id": "agent-1", "pressure": 0.25}


class Echo(InferenceServiceServicer):
    """Answers a stream message by message."""

    async def Stream(  # noqa: N802 - the proto's name
        self,
        request_iterator: AsyncIterator[pb.StreamRequest],
        context: Any,
    ) -> AsyncIterator[pb.StreamResponse]:
        async for request in request_iterator:
            response = pb.StreamResponse(sequence=request.sequence)
            if request.HasField("packed"):
                size = len(request.packed.observations) // 4  # as many bytes as 4 floats have rows
                response.packed.actions = response.packed.values = bytes(size)
            elif request.HasField("open"):
                response.opened.policies.append("echo@1")
            else:
                response.step.action.choice = 1
            yield response


async def answer(request: web.BaseRequest) -> web.StreamResponse:
    """One answer to one request, or to each message."""
    if request.path != "/stream":
        orjson.loads(await request.read())
        return web.Response(body=orjson.dumps(ANSWER), content_type="application/json")
    socket = web.WebSocketResponse(compress=False)
    await socket.prepare(request)
    async for message in socket:
        if message.type is WSMsgType.TEXT:
            orjson.loads(message.data)
            await socket.send_str(orjson.dumps(ANSWER).decode())
    return socket


async def main() -> None:
    runner = web.ServerRunner(web.Server(answer, access_log=None))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    server = grpc.aio.server()
    add_InferenceServiceServicer_to_server(Echo(), server)  # type: ignore[abstract]
    grpc_port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    gc.collect()
    gc.freeze()
    sys.stdout.write(f"{runner.addresses[0][1]} {grpc_port}\n")
    sys.stdout.flush()
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(main())
