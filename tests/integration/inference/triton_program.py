"""A program of somebody who knows Triton and not us; run by itself, as its protos are its own."""

from __future__ import annotations

import json
import queue
import sys
from typing import Any

import numpy as np


def main(address: str, token: str) -> None:
    from tritonclient import grpc  # type: ignore[import-untyped]

    headers = {"authorization": f"Bearer {token}"}
    client = grpc.InferenceServerClient(address)
    told: dict[str, Any] = {
        "live": client.is_server_live(),
        "ready": client.is_server_ready(),
        "model_ready": client.is_model_ready("adding", headers=headers),
        "no_model": client.is_model_ready("none", headers=headers),
    }
    metadata = client.get_model_metadata("adding", headers=headers, as_json=True)
    told["inputs"] = metadata["inputs"]
    told["outputs"] = [each["name"] for each in metadata["outputs"]]

    def observation(*rows: list[float]) -> list[Any]:
        tensor = grpc.InferInput("obs", [len(rows), 3], "FP32")
        tensor.set_data_from_numpy(np.array(rows, np.float32))
        return [tensor]

    result = client.infer(
        "adding",
        observation([1, 0, 0], [0, 2, 0]),
        headers=headers,
        parameters={"deterministic": True},
    )
    told["actions"] = result.as_numpy("action").tolist()
    told["values"] = result.as_numpy("value").tolist()
    values = [
        client.infer(
            "adding",
            observation([1, 0, 0]),
            headers=headers,
            sequence_id=7,
            sequence_start=at == 0,
            sequence_end=at == 2,
        ).as_numpy("value")[0]
        for at in range(3)
    ]
    told["sequence"] = [float(each) for each in values]
    try:
        client.infer("adding", observation([1, 0, 0]), headers=headers, sequence_id=7)
    except grpc.InferenceServerException as error:
        told["ended"] = error.message()

    answers: queue.Queue[Any] = queue.Queue()
    client.start_stream(lambda result, error: answers.put((result, error)), headers=headers)
    for at in range(3):
        client.async_stream_infer(
            "adding",
            observation([1, 0, 0]),
            sequence_id="arm",
            sequence_start=at == 0,
            sequence_end=at == 2,
            request_id=str(at),
        )
    client.async_stream_infer("adding", observation([1, 0, 0]), sequence_id="arm")
    streamed = [answers.get(timeout=5) for _ in range(4)]
    client.stop_stream()
    told["stream"] = [float(result.as_numpy("value")[0]) for result, _ in streamed[:3]]
    told["stream_error"] = str(streamed[3][1])
    print(json.dumps(told))


if __name__ == "__main__":
    main(*sys.argv[1:])
