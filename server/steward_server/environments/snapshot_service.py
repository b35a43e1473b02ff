"""SnapshotService: translates between protos and the snapshots."""

from __future__ import annotations

from steward.environments.v1 import snapshots_pb2 as pb
from steward.environments.v1 import snapshots_pb2_grpc as rpc
from steward_server.calls import Context, caller
from steward_server.checks import Checks
from steward_server.clock import timestamp
from steward_server.environments.reading import read_name
from steward_server.environments.service import MAX_OFFSET
from steward_server.environments.showing import details
from steward_server.environments.snapshot_store import Snapshot
from steward_server.environments.snapshots import Snapshots, image_of
from steward_server.pages import DEFAULT_PAGE, MAX_PAGE
from steward_server.permissions import Permission


class SnapshotService(rpc.SnapshotServiceServicer):
    """Serves snapshots to people and their programs."""

    def __init__(self, snapshots: Snapshots) -> None:
        self._snapshots = snapshots

    async def CreateSnapshot(
        self, request: pb.CreateSnapshotRequest, context: Context
    ) -> pb.CreateSnapshotResponse:
        with Checks() as checks:
            checks.text("environment_id", request.environment_id, 1, 100)
            read_name(checks, "name", request.name)
        made = await self._snapshots.create(caller(context), request.environment_id, request.name)
        return pb.CreateSnapshotResponse(snapshot=_shown(made))

    async def ListSnapshots(
        self, request: pb.ListSnapshotsRequest, context: Context
    ) -> pb.ListSnapshotsResponse:
        limit = request.limit if request.HasField("limit") else DEFAULT_PAGE
        with Checks() as checks:
            checks.text("environment_id", request.environment_id, 0, 100)
            checks.between("limit", limit, 1, MAX_PAGE)
            checks.between("offset", request.offset, 0, MAX_OFFSET)
        found, total = await self._snapshots.page(
            caller(context),
            environment_id=request.environment_id,
            limit=limit,
            offset=request.offset,
        )
        return pb.ListSnapshotsResponse(
            snapshots=[_shown(each) for each in found],
            total=total,
            limit=limit,
            offset=request.offset,
        )

    async def GetSnapshot(
        self, request: pb.GetSnapshotRequest, context: Context
    ) -> pb.GetSnapshotResponse:
        _check(request.snapshot_id)
        found = await self._snapshots.find(caller(context), request.snapshot_id, Permission.READ)
        return pb.GetSnapshotResponse(snapshot=_shown(found))

    async def DeleteSnapshot(
        self, request: pb.DeleteSnapshotRequest, context: Context
    ) -> pb.DeleteSnapshotResponse:
        _check(request.snapshot_id)
        await self._snapshots.delete(caller(context), request.snapshot_id)
        return pb.DeleteSnapshotResponse()

    async def RestoreEnvironment(
        self, request: pb.RestoreEnvironmentRequest, context: Context
    ) -> pb.RestoreEnvironmentResponse:
        with Checks() as checks:
            checks.text("environment_id", request.environment_id, 1, 100)
            checks.text("snapshot", request.snapshot, 1, 100)
        seen = await self._snapshots.restore(
            caller(context), request.environment_id, request.snapshot
        )
        return pb.RestoreEnvironmentResponse(environment=details(seen))


def _check(snapshot_id: str) -> None:
    with Checks() as checks:
        checks.text("snapshot_id", snapshot_id, 1, 100)


def _shown(snapshot: Snapshot) -> pb.Snapshot:
    return pb.Snapshot(
        id=snapshot.snapshot_id,
        name=snapshot.name,
        image=image_of(snapshot.snapshot_id),
        environment_id=snapshot.environment_id,
        base_image=snapshot.base_image,
        size_bytes=snapshot.size_bytes or 0,
        created_at=timestamp(snapshot.created_at_us),
        owner_id=snapshot.owner_id,
        agent_id=snapshot.agent_id,
    )
