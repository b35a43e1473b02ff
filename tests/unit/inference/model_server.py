"""A server of the Open Inference Protocol: it computes one model, and keeps nothing."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import onnxruntime

from steward.open_inference import open_inference_pb2 as pb
from steward.open_inference import open_inference_pb2_grpc as rpc


class ModelServer(rpc.GRPCInferenceServiceServicer):
    """Serves `model` out of a file, with contents raw or as numbers."""

    def __init__(self, file: Path, *, is_raw: bool = True) -> None:
        self._session = onnxruntime.InferenceSession(file.read_bytes())
        self._is_raw = is_raw
        self.rows: list[int] = []
        """Of each run."""

    def ModelMetadata(  # noqa: N802
        self, request: pb.ModelMetadataRequest, context: Any
    ) -> pb.ModelMetadataResponse:
        if request.name != "model":
            context.abort(grpc.StatusCode.NOT_FOUND, f"no model {request.name}")
        tensor = pb.ModelMetadataResponse.TensorMetadata
        return pb.ModelMetadataResponse(
            name="model",
            inputs=[tensor(name=each.name) for each in self._session.get_inputs()],
            outputs=[tensor(name=each.name) for each in self._session.get_outputs()],
        )

    def ModelInfer(  # noqa: N802
        self, request: pb.ModelInferRequest, context: Any
    ) -> pb.ModelInferResponse:
        del context
        given = {
            tensor.name: np.frombuffer(raw, "<f4").reshape(tuple(tensor.shape))
            for tensor, raw in zip(request.inputs, request.raw_input_contents, strict=True)
        }
        self.rows.append(len(given["obs"]))
        wanted = [each.name for each in request.outputs]
        response = pb.ModelInferResponse(model_name="model")
        for name, array in zip(wanted, self._session.run(wanted, given), strict=True):
            output = response.outputs.add(name=name, datatype="FP32", shape=array.shape)
            if self._is_raw:
                response.raw_output_contents.append(array.tobytes())
            else:
                output.contents.fp32_contents.extend(array.ravel().tolist())
        return response


@contextmanager
def serving(servicer: ModelServer, port: int = 0) -> Iterator[int]:
    """Serve until the end of the block; the port."""
    server = grpc.server(ThreadPoolExecutor(2), options=[("grpc.so_reuseport", 0)])
    rpc.add_GRPCInferenceServiceServicer_to_server(servicer, server)
    port = server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    try:
        yield port
    finally:
        server.stop(None).wait()
