"""Networks that another server computes, by the Open Inference Protocol: Triton, KServe and others.

What is kept of agents, and how actions are drawn, stays here: the other server is given the states
of a run and gives new ones, and keeps nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, cast

import grpc
import numpy as np
from numpy.typing import NDArray

from steward.open_inference import open_inference_pb2 as pb
from steward.open_inference.open_inference_pb2_grpc import GRPCInferenceServiceStub
from steward_server.errors import Unavailable
from steward_server.inference.manifest import ModelServer

RUN_S = 5.0
"""How long a run may take, there and back."""
_MAX_MESSAGE_BYTES = 256 * 1024 * 1024


class RemoteNetwork:
    """A model of another server. Its calls block: they belong into a thread."""

    def __init__(self, server: ModelServer) -> None:
        self._server = server
        options = [
            ("grpc.max_send_message_length", _MAX_MESSAGE_BYTES),
            ("grpc.max_receive_message_length", _MAX_MESSAGE_BYTES),
        ]
        self._channel = (
            grpc.secure_channel(server.address, grpc.ssl_channel_credentials(), options)
            if server.is_tls
            else grpc.insecure_channel(server.address, options)
        )
        self._stub = cast("Any", GRPCInferenceServiceStub(self._channel))

    def names(self) -> tuple[set[str], set[str]]:
        """What the model takes, and what it gives.

        Raises:
            Unavailable: the server does not answer, or has no such model.
        """
        server = self._server
        request = pb.ModelMetadataRequest(name=server.model, version=server.version)
        told = self._ask(self._stub.ModelMetadata, request)
        return {each.name for each in told.inputs}, {each.name for each in told.outputs}

    def run(
        self, outputs: Sequence[str], given: Mapping[str, NDArray[np.float32]]
    ) -> list[NDArray[Any]]:
        """Compute the outputs named.

        Raises:
            Unavailable: the server does not answer, refuses, or gives something else.
        """
        request = pb.ModelInferRequest(
            model_name=self._server.model, model_version=self._server.version
        )
        for name, array in given.items():
            request.inputs.add(name=name, datatype="FP32", shape=array.shape)
            request.raw_input_contents.append(array.astype("<f4", copy=False).tobytes())
        for name in outputs:
            request.outputs.add(name=name)
        told = self._ask(self._stub.ModelInfer, request)
        found = dict(self._arrays(told))
        if missing := [name for name in outputs if name not in found]:
            raise self._unavailable(f"its answer has no {missing[0]!r}")
        return [found[name] for name in outputs]

    def close(self) -> None:
        """Let go of the connection."""
        self._channel.close()

    def _arrays(self, told: pb.ModelInferResponse) -> list[tuple[str, NDArray[Any]]]:
        arrays: list[tuple[str, NDArray[Any]]] = []
        raw = told.raw_output_contents
        for at, output in enumerate(told.outputs):
            shape = tuple(output.shape)
            if output.datatype != "FP32":
                raise self._unavailable(f"{output.name!r} is {output.datatype}, not FP32")
            array = (
                np.frombuffer(raw[at], "<f4")
                if at < len(raw)
                else np.array(output.contents.fp32_contents[:], np.float32)
            )
            if any(size < 0 for size in shape) or math.prod(shape) != array.size:
                raise self._unavailable(
                    f"{output.name!r} has {array.size} numbers, and says it is {list(shape)}"
                )
            # A copy: what comes of the wire cannot be written to, as states are.
            arrays.append((output.name, array.reshape(shape).copy()))
        return arrays

    def _ask(self, call: Any, request: Any) -> Any:
        try:
            return call(request, timeout=RUN_S)
        except grpc.RpcError as error:
            raise self._unavailable(f"{error.code().name}: {error.details()}") from None

    def _unavailable(self, why: str) -> Unavailable:
        server = self._server
        return Unavailable(
            f"the model server at {server.address} does not compute {server.model!r}: {why:.300}",
            reason="MODEL_UNAVAILABLE",
        )
