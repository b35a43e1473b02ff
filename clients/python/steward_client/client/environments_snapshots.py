"""Snapshots of environments as they are asked for, like the nouns of resources.py."""

from __future__ import annotations

from typing import Any

from steward.environments.v1 import snapshots_pb2 as pb
from steward.environments.v1.snapshots_pb2_grpc import SnapshotServiceStub
from steward_client.client.calls import Call, Manner, every, first, nothing, rpc
from steward_client.client.environments_values import EnvironmentDetails, Snapshot
from steward_client.client.holding import Holding
from steward_client.client.values import value_of

PAGE_SIZE = 500
COPY_S = 3_600.0
"""What a server takes at most to keep the files of an environment."""


class Snapshots(Holding[Manner]):
    """The files of environments, kept: to make others of, or to put one back to."""

    @rpc
    def create(self, environment_id: str, name: str) -> Call[Snapshot]:
        """Keep the files of an environment, which stands still meanwhile.

        What it gives as `image` is what new environments are made of. Processes, memory and
        variables are not kept.

        Raises:
            Conflict: it does not run, or the driver cannot.
            RateLimited: reason QUOTA_EXCEEDED, more than the caller may keep.
        """
        return Call(
            SnapshotServiceStub,
            "CreateSnapshot",
            pb.CreateSnapshotRequest(environment_id=environment_id, name=name),
            read=first(lambda answer: value_of(Snapshot, answer.snapshot)),
            takes_s=COPY_S,
        )

    @rpc
    def list(self, environment_id: str = "") -> Call[tuple[Snapshot, ...]]:
        """The caller's snapshots, the newest first; only those of one environment."""

        def page(offset: int) -> pb.ListSnapshotsRequest:
            return pb.ListSnapshotsRequest(
                environment_id=environment_id, limit=PAGE_SIZE, offset=offset
            )

        def next_page(answer: pb.ListSnapshotsResponse) -> Any:
            read = answer.offset + len(answer.snapshots)
            return page(read) if answer.snapshots and read < answer.total else None

        return Call(
            SnapshotServiceStub,
            "ListSnapshots",
            page(0),
            read=every(lambda answer: [value_of(Snapshot, each) for each in answer.snapshots]),
            next_page=next_page,
            repeatable=True,
        )

    @rpc
    def get(self, snapshot_id: str) -> Call[Snapshot]:
        """One snapshot."""
        return Call(
            SnapshotServiceStub,
            "GetSnapshot",
            pb.GetSnapshotRequest(snapshot_id=snapshot_id),
            read=first(lambda answer: value_of(Snapshot, answer.snapshot)),
            repeatable=True,
        )

    @rpc
    def delete(self, snapshot_id: str) -> Call[None]:
        """Remove one.

        Raises:
            Conflict: an environment stands on it.
        """
        request = pb.DeleteSnapshotRequest(snapshot_id=snapshot_id)
        return Call(SnapshotServiceStub, "DeleteSnapshot", request, read=nothing)

    @rpc
    def restore(self, environment_id: str, snapshot_id: str) -> Call[EnvironmentDetails]:
        """Put an environment back: everything in it ends, and its main command begins anew.

        It is pending until that runs; see `wait_until_running`.

        Raises:
            Conflict: it does not run.
        """
        return Call(
            SnapshotServiceStub,
            "RestoreEnvironment",
            pb.RestoreEnvironmentRequest(environment_id=environment_id, snapshot=snapshot_id),
            read=first(lambda answer: value_of(EnvironmentDetails, answer.environment)),
        )
