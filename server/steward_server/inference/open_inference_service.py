"""GRPCInferenceService: the Open Inference Protocol over the same engine."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from importlib.metadata import version
from typing import Any

import numpy as np
from numpy.typing import NDArray

from steward.open_inference import open_inference_pb2 as pb
from steward.open_inference import open_inference_pb2_grpc as rpc
from steward_server.calls import Context
from steward_server.errors import FailedPrecondition, InvalidArgument, NotFound, StewardError
from steward_server.inference.engine import Engine
from steward_server.inference.manifest import ActionType
from steward_server.inference.metering import Owner
from steward_server.inference.model import Floats
from steward_server.inference.reading import failed, not_finite, owner_of, wrong_length
from steward_server.inference.repository import BadReference, Reference
from steward_server.inference.runner import Results
from steward_server.inference.served import Agent, Served

PLATFORM = "onnxruntime_onnx"
SEQUENCE = "sequence:"
"""What the ids of agents that are sequences begin with."""

_PARAMETERS = ("sequence_id", "sequence_start", "sequence_end", "deterministic")


class OpenInferenceService(rpc.GRPCInferenceServiceServicer):
    """Serves policies as models."""

    def __init__(self, engine: Engine, *, max_batch: int) -> None:
        self._engine = engine
        self._max_batch = max_batch

    async def ServerLive(
        self,
        request: pb.ServerLiveRequest,  # noqa: ARG002 - the shape of a servicer
        context: Context,  # noqa: ARG002
    ) -> pb.ServerLiveResponse:
        return pb.ServerLiveResponse(live=True)

    async def ServerReady(
        self,
        request: pb.ServerReadyRequest,  # noqa: ARG002 - the shape of a servicer
        context: Context,  # noqa: ARG002
    ) -> pb.ServerReadyResponse:
        return pb.ServerReadyResponse(ready=self._engine.is_ready)

    async def ModelReady(
        self,
        request: pb.ModelReadyRequest,
        context: Context,  # noqa: ARG002 - the shape of a servicer
    ) -> pb.ModelReadyResponse:
        try:
            await self._served(request.name, request.version)
        except (NotFound, FailedPrecondition):
            return pb.ModelReadyResponse(ready=False)
        return pb.ModelReadyResponse(ready=True)

    async def ServerMetadata(
        self,
        request: pb.ServerMetadataRequest,  # noqa: ARG002 - the shape of a servicer
        context: Context,  # noqa: ARG002
    ) -> pb.ServerMetadataResponse:
        return pb.ServerMetadataResponse(
            name="steward",
            version=version("steward-agents"),
            extensions=["sequence", "binary_tensor_data"],
        )

    async def ModelMetadata(
        self,
        request: pb.ModelMetadataRequest,
        context: Context,  # noqa: ARG002 - the shape of a servicer
    ) -> pb.ModelMetadataResponse:
        served = await self._served(request.name, request.version)
        tensor = pb.ModelMetadataResponse.TensorMetadata
        kind, size = _action_shape(served)
        known = next(each for each in self._engine.known() if each.name == served.reference.name)
        return pb.ModelMetadataResponse(
            name=served.reference.name,
            versions=[str(each) for each in sorted(known.versions)],
            platform=PLATFORM,
            inputs=[tensor(name="obs", datatype="FP32", shape=[-1, served.manifest.obs_dim])],
            outputs=[
                tensor(name="action", datatype=kind, shape=[-1, *size]),
                tensor(name="value", datatype="FP32", shape=[-1]),
                tensor(name="log_prob", datatype="FP32", shape=[-1]),
                tensor(name="pressure", datatype="FP32", shape=[-1]),
            ],
        )

    async def ModelInfer(
        self, request: pb.ModelInferRequest, context: Context
    ) -> pb.ModelInferResponse:
        return await self._infer(request, owner_of(context))

    async def ModelStreamInfer(
        self, request_iterator: AsyncIterator[pb.ModelInferRequest], context: Context
    ) -> AsyncIterator[pb.ModelStreamInferResponse]:
        await context.send_initial_metadata(())
        owner = owner_of(context)
        async for request in request_iterator:
            try:
                response = await self._infer(request, owner)
            except StewardError as error:
                # The id is all by which a caller knows what went wrong.
                told = pb.ModelInferResponse(model_name=request.model_name, id=request.id)
                yield pb.ModelStreamInferResponse(error_message=error.message, infer_response=told)
            else:
                yield pb.ModelStreamInferResponse(infer_response=response)

    async def _infer(self, request: pb.ModelInferRequest, owner: Owner) -> pb.ModelInferResponse:
        told = _told(request.parameters)
        deterministic = bool(told.get("deterministic", False))
        sequence = told.get("sequence_id", 0)
        if sequence in (0, ""):
            served = await self._served(request.model_name, request.model_version)
            observations = self._observations(request, served)
            results = await self._engine.step_fresh(
                owner, served, observations, deterministic=deterministic
            )
            names = ["a row without a sequence"] * len(observations)
        else:
            agent = await self._agent(request, owner, f"{SEQUENCE}{sequence}", told)
            served = agent.served
            observations = self._observations(request, served)
            if len(observations) != 1:
                raise InvalidArgument.of(
                    {"inputs": f"has {len(observations)} rows; a step of a sequence has one"}
                )
            results = await self._engine.step(
                (agent,), agent.lease, observations, deterministic=deterministic
            )
            names = [str(sequence)]
            if told.get("sequence_end"):
                self._engine.end(agent)
        if results.failed.any():
            raise failed([names[at] for at in np.flatnonzero(results.failed).tolist()])
        return _response(request, results, served)

    async def _agent(
        self, request: pb.ModelInferRequest, owner: Owner, agent_id: str, told: Mapping[str, Any]
    ) -> Agent:
        if told.get("sequence_start"):
            reference = _reference(request.model_name, request.model_version)
            return await self._engine.reset(owner, agent_id, str(reference))
        try:
            return self._engine.agent(owner, agent_id)
        except FailedPrecondition:
            raise FailedPrecondition(
                f"sequence {agent_id.removeprefix(SEQUENCE)} was not begun; its first request has "
                "the parameter `sequence_start`",
                reason="AGENT_NOT_INITIALIZED",
            ) from None

    async def _served(self, name: str, version: str) -> Served:
        return await self._engine.load(_reference(name, version))

    def _observations(self, request: pb.ModelInferRequest, served: Served) -> Floats:
        if len(request.inputs) != 1 or request.inputs[0].name != "obs":
            names = ", ".join(repr(each.name) for each in request.inputs) or "none"
            raise InvalidArgument.of({"inputs": f"has {names}; a policy takes 'obs' and no other"})
        (tensor,) = request.inputs
        wanted, shape = served.manifest.obs_dim, list(tensor.shape)
        if tensor.datatype != "FP32":
            raise InvalidArgument.of(
                {"inputs[0].datatype": f"is {tensor.datatype!r}; it must be 'FP32'"}
            )
        if len(shape) == 1:
            shape = [1, *shape]
        if len(shape) != 2 or not 1 <= shape[0] <= self._max_batch:
            raise InvalidArgument.of(
                {
                    "inputs[0].shape": f"is {list(tensor.shape)}; it must be [n, {wanted}], n from "
                    f"1 to {self._max_batch}"
                }
            )
        if shape[1] != wanted:
            raise wrong_length(wanted, shape[1], "inputs[0].shape")
        if request.raw_input_contents:
            raw = request.raw_input_contents[0]
            if len(request.raw_input_contents) != 1 or len(raw) != 4 * shape[0] * wanted:
                raise wrong_length(shape[0] * wanted, len(raw) // 4, "raw_input_contents")
            rows: NDArray[np.float32] = np.frombuffer(raw, "<f4")
        else:
            given = tensor.contents.fp32_contents
            if len(given) != shape[0] * wanted:
                raise wrong_length(shape[0] * wanted, len(given), "inputs[0].contents")
            rows = np.array(given[:], np.float32)
        if not np.isfinite(rows).all():
            raise not_finite("obs")
        return rows.reshape(shape)


def _reference(name: str, version: str) -> Reference:
    try:
        return Reference.parse(f"{name}@{version}" if version else name)
    except BadReference as error:
        raise InvalidArgument(str(error), fields={"model_name": str(error)}) from None


def _told(parameters: Mapping[str, pb.InferParameter]) -> dict[str, Any]:
    """The parameters that mean something here; whatever else clients send is theirs."""
    return {
        name: getattr(parameters[name], parameters[name].WhichOneof("parameter_choice") or "", "")
        for name in _PARAMETERS
        if name in parameters
    }


def _action_shape(served: Served) -> tuple[str, tuple[int, ...]]:
    action = served.manifest.action
    if action.type is ActionType.DISCRETE:
        return "INT64", ()
    return "FP32", (action.size,)


def _response(
    request: pb.ModelInferRequest, results: Results, served: Served
) -> pb.ModelInferResponse:
    kind, _ = _action_shape(served)
    made: dict[str, tuple[str, NDArray[Any]]] = {
        "action": (kind, results.actions),
        "value": ("FP32", results.values),
        "log_prob": ("FP32", results.log_probs),
        "pressure": ("FP32", results.pressures),
    }
    wanted = [each.name for each in request.outputs] or list(made)
    if unknown := [name for name in wanted if name not in made]:
        raise InvalidArgument.of(
            {"outputs": f"has {unknown[0]!r:.80}; there are {', '.join(made)}"}
        )
    response = pb.ModelInferResponse(
        model_name=served.reference.name,
        model_version=str(served.reference.version),
        id=request.id,
    )
    for name in wanted:
        datatype, array = made[name]
        response.outputs.add(name=name, datatype=datatype, shape=array.shape)
        stored = array.astype("<i8" if datatype == "INT64" else "<f4")
        response.raw_output_contents.append(stored.tobytes())
    return response
