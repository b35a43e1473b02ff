"""PolicyService: translates between protos and what the engine has loaded."""

from __future__ import annotations

from collections.abc import Callable

from steward.inference.v1 import policies_pb2 as pb
from steward.inference.v1 import policies_pb2_grpc as rpc
from steward_server.audit import Change, record
from steward_server.calls import Context, caller
from steward_server.completion import complete
from steward_server.db import Database, Transaction
from steward_server.inference.engine import Engine, Known
from steward_server.inference.manifest import ActionType, StateTensor
from steward_server.inference.reading import reference_of
from steward_server.inference.repository import Reference

_TYPES = {
    ActionType.DISCRETE: pb.ACTION_TYPE_DISCRETE,
    ActionType.CONTINUOUS: pb.ACTION_TYPE_CONTINUOUS,
}


class PolicyService(rpc.PolicyServiceServicer):
    """Serves the list of policies."""

    def __init__(self, database: Database, engine: Engine, clock: Callable[[], int]) -> None:
        self._database = database
        self._engine = engine
        self._clock = clock

    async def ListPolicies(
        self,
        request: pb.ListPoliciesRequest,  # noqa: ARG002 - the shape of a servicer
        context: Context,  # noqa: ARG002
    ) -> pb.ListPoliciesResponse:
        return pb.ListPoliciesResponse(policies=[_policy(each) for each in self._engine.known()])

    async def GetPolicy(
        self,
        request: pb.GetPolicyRequest,
        context: Context,  # noqa: ARG002 - the shape of a servicer
    ) -> pb.GetPolicyResponse:
        return pb.GetPolicyResponse(policy=self._shown(reference_of(request.policy).name))

    async def LoadPolicy(
        self, request: pb.LoadPolicyRequest, context: Context
    ) -> pb.LoadPolicyResponse:
        wanted = reference_of(request.policy)

        async def work() -> None:
            await self._engine.look()
            served = await self._engine.load_newest(wanted)
            await self._write_down(context, "policy.loaded", str(served.reference))

        await complete(work())
        return pb.LoadPolicyResponse(policy=self._shown(wanted.name))

    async def UnloadPolicy(
        self, request: pb.UnloadPolicyRequest, context: Context
    ) -> pb.UnloadPolicyResponse:
        wanted = reference_of(request.policy)

        async def work() -> None:
            await self._engine.unload(wanted, force=request.force)
            await self._write_down(context, "policy.unloaded", str(wanted))

        await complete(work())
        return pb.UnloadPolicyResponse(policy=self._shown(wanted.name))

    def _shown(self, name: str) -> pb.Policy:
        self._engine.find(Reference(name))
        return next(_policy(each) for each in self._engine.known() if each.name == name)

    async def _write_down(self, context: Context, action: str, name: str) -> None:
        now_us, who = self._clock(), caller(context)

        async def work(transaction: Transaction) -> None:
            await record(transaction, now_us, who, Change(action, name))

        await self._database.run(work)


def _policy(known: Known) -> pb.Policy:
    return pb.Policy(
        name=known.name,
        latest=known.latest,
        is_default=known.is_default,
        versions=[_version(known, each) for each in sorted(known.versions, reverse=True)],
    )


def _version(known: Known, number: int) -> pb.PolicyVersion:
    shown = pb.PolicyVersion(version=number, fault=known.faults.get(number, ""))
    if (manifest := known.manifests.get(number)) is not None:
        shown.description = manifest.description
        shown.model_sha256 = manifest.model_sha256
        shown.obs_dim = manifest.obs_dim
        shown.action_type = _TYPES[manifest.action.type]
        shown.action_size = manifest.action.size
        shown.state.extend(_tensor(each) for each in manifest.states)
        if manifest.memory is not None:
            shown.memory.CopyFrom(_tensor(manifest.memory))
        shown.pressure = manifest.pressure
    if (served := known.served.get(number)) is not None:
        counts = served.runner.counts
        shown.is_loaded = True
        shown.loaded_at.FromMicroseconds(served.loaded_at_us)
        shown.agent_count = served.arena.used
        shown.step_count = counts.rows
        shown.run_count = counts.runs
    return shown


def _tensor(tensor: StateTensor) -> pb.StateTensor:
    return pb.StateTensor(name=tensor.name, shape=tensor.shape)
