"""Environments, their files, and images."""

from __future__ import annotations

import asyncio

from google.api.httpbody_pb2 import HttpBody
from google.protobuf.message import Message

from steward.api_keys.v1 import api_keys_pb2 as keys
from steward.environments.v1 import environments_pb2 as pb
from steward.environments.v1 import files_pb2 as files
from steward.environments.v1 import images_pb2 as images
from steward.environments.v1 import ports_pb2 as ports
from steward.environments.v1 import snapshots_pb2 as snapshots
from tests.integration.access.tables import (
    ADMIN,
    ENVIRONMENT_AGENTS,
    EVERYONE,
    PEOPLE,
    WRITERS,
    Recorded,
)
from tests.integration.access.world import World

SERVICE = "steward.environments.v1.EnvironmentService"
FILES = "steward.environments.v1.FileService"
IMAGES = "steward.environments.v1.ImageService"
PORTS = "steward.environments.v1.PortService"
SNAPSHOTS = "steward.environments.v1.SnapshotService"

EXECUTORS = WRITERS | {"executor key"}

ACCESS = {
    SERVICE: {
        "CreateEnvironment": WRITERS | ENVIRONMENT_AGENTS,
        "ListEnvironments": PEOPLE | ENVIRONMENT_AGENTS,
        "GetEnvironment": PEOPLE | ENVIRONMENT_AGENTS,
        "UpdateEnvironment": WRITERS | ENVIRONMENT_AGENTS,
        "DeleteEnvironment": WRITERS | ENVIRONMENT_AGENTS,
        "Exec": EXECUTORS | ENVIRONMENT_AGENTS,
        "ExecStream": EXECUTORS | ENVIRONMENT_AGENTS,
        "GetLogs": PEOPLE | ENVIRONMENT_AGENTS,
        "FollowLogs": PEOPLE | ENVIRONMENT_AGENTS,
        "FollowLogLines": PEOPLE | ENVIRONMENT_AGENTS,
        "Attach": EXECUTORS | ENVIRONMENT_AGENTS,
        "CreateTicket": PEOPLE,
        "PauseEnvironment": EXECUTORS | ENVIRONMENT_AGENTS,
        "ResumeEnvironment": EXECUTORS | ENVIRONMENT_AGENTS,
        "ListProcesses": PEOPLE | ENVIRONMENT_AGENTS,
        "SignalProcess": EXECUTORS | ENVIRONMENT_AGENTS,
        "ShareEnvironment": WRITERS,
        "UnshareEnvironment": WRITERS,
        "ListShares": PEOPLE,
        "GetHealth": EVERYONE,
    },
    FILES: {
        "StatFile": PEOPLE | ENVIRONMENT_AGENTS,
        "ListFiles": PEOPLE | ENVIRONMENT_AGENTS,
        "ReadFile": PEOPLE | ENVIRONMENT_AGENTS,
        "WriteFile": EXECUTORS | ENVIRONMENT_AGENTS,
        "PutFile": EXECUTORS | ENVIRONMENT_AGENTS,
        "MakeDirectory": EXECUTORS | ENVIRONMENT_AGENTS,
        "RemoveFile": EXECUTORS | ENVIRONMENT_AGENTS,
        "MoveFile": EXECUTORS | ENVIRONMENT_AGENTS,
        "WatchFiles": PEOPLE | ENVIRONMENT_AGENTS,
    },
    IMAGES: {
        "ListImages": PEOPLE | ENVIRONMENT_AGENTS,
        "GetImage": PEOPLE | ENVIRONMENT_AGENTS,
        "RemoveImage": ADMIN,
        "ImportImage": ADMIN,
    },
    SNAPSHOTS: {
        "CreateSnapshot": WRITERS | ENVIRONMENT_AGENTS,
        "ListSnapshots": PEOPLE | ENVIRONMENT_AGENTS,
        "GetSnapshot": PEOPLE | ENVIRONMENT_AGENTS,
        "DeleteSnapshot": WRITERS | ENVIRONMENT_AGENTS,
        "RestoreEnvironment": WRITERS | ENVIRONMENT_AGENTS,
    },
    PORTS: {
        **dict.fromkeys(("Connect", "Listen", "Accept"), EXECUTORS | ENVIRONMENT_AGENTS),
        "CreatePreview": EXECUTORS,
    },
}


def creation(world: World) -> pb.CreateEnvironmentRequest:
    variable = world.provider_key()  # one of the secrets that may stand nowhere
    return pb.CreateEnvironmentRequest(
        name=world.name(),
        image="python:3.11",
        resources=pb.Resources(cpu="10m", memory="8Mi", storage="1Mi"),
        env={"SECRET": variable},
    )


async def _create(world: World) -> Message:
    return creation(world)


async def running(world: World, *command: str) -> str:
    """An environment that runs, of somebody new, who is the owner from now on; its id."""
    world.owner = await world.person("user")
    request = creation(world)
    request.command.extend(command)
    made = await world.as_owner(SERVICE, "CreateEnvironment", request)
    environment_id = str(made.environment.id)
    asked = pb.GetEnvironmentRequest(environment_id=environment_id)
    async with asyncio.timeout(10):
        while True:
            seen = await world.as_owner(SERVICE, "GetEnvironment", asked)
            if seen.environment.status == pb.ENVIRONMENT_STATUS_RUNNING:
                return environment_id
            await asyncio.sleep(0.01)


async def _get(world: World) -> Message:
    return pb.GetEnvironmentRequest(environment_id=await running(world))


async def _update(world: World) -> Message:
    return pb.UpdateEnvironmentRequest(environment_id=await running(world), labels={"a": "b"})


async def _delete(world: World) -> Message:
    return pb.DeleteEnvironmentRequest(environment_id=await running(world))


async def _exec(world: World) -> Message:
    return pb.ExecRequest(environment_id=await running(world), command=["true"])


async def _logs(world: World) -> Message:
    return pb.GetLogsRequest(environment_id=await running(world))


async def _follow(world: World) -> Message:
    return pb.FollowLogsRequest(environment_id=await running(world), follow=True)


async def _follow_lines(world: World) -> Message:
    return pb.FollowLogLinesRequest(environment_id=await running(world))


async def _ticket(world: World) -> Message:
    return pb.CreateTicketRequest(environment_id=await running(world))


async def _pause(world: World) -> Message:
    return pb.PauseEnvironmentRequest(environment_id=await running(world))


async def _resume(world: World) -> Message:
    environment_id = await running(world)
    request = pb.PauseEnvironmentRequest(environment_id=environment_id)
    await world.as_owner(SERVICE, "PauseEnvironment", request)
    return pb.ResumeEnvironmentRequest(environment_id=environment_id)


async def _processes(world: World) -> Message:
    return pb.ListProcessesRequest(environment_id=await running(world))


async def _signal(world: World) -> Message:
    environment_id = await running(world, "sleep", "600")
    asked = pb.ListProcessesRequest(environment_id=environment_id)
    found = (await world.as_owner(SERVICE, "ListProcesses", asked)).processes
    return pb.SignalProcessRequest(
        environment_id=environment_id, pid=found[0].pid, signal="SIGCONT"
    )


async def _share(world: World) -> Message:
    other = await world.person("user")
    return pb.ShareEnvironmentRequest(
        environment_id=await running(world), user=other.username, permission=keys.PERMISSION_READ
    )


async def _unshare(world: World) -> Message:
    share = await _share(world)
    assert isinstance(share, pb.ShareEnvironmentRequest)
    await world.as_owner(SERVICE, "ShareEnvironment", share)
    return pb.UnshareEnvironmentRequest(environment_id=share.environment_id, user=share.user)


async def _shares(world: World) -> Message:
    return pb.ListSharesRequest(environment_id=await running(world))


async def with_file(world: World) -> str:
    """An environment of the owner's with a file `/a`."""
    environment_id = await running(world)
    await world.as_owner(FILES, "PutFile", _content(environment_id))
    return environment_id


def _content(environment_id: str) -> files.PutFileRequest:
    return files.PutFileRequest(
        environment_id=environment_id, path="/a", content=HttpBody(data=b"a")
    )


async def _stat(world: World) -> Message:
    return files.StatFileRequest(environment_id=await with_file(world), path="/a")


async def _list(world: World) -> Message:
    return files.ListFilesRequest(environment_id=await running(world))


async def _read(world: World) -> Message:
    return files.ReadFileRequest(environment_id=await with_file(world), path="/a")


async def _put(world: World) -> Message:
    return _content(await running(world))


async def _make_directory(world: World) -> Message:
    return files.MakeDirectoryRequest(environment_id=await running(world), path="/b")


async def _remove(world: World) -> Message:
    return files.RemoveFileRequest(environment_id=await with_file(world), path="/a")


async def _move(world: World) -> Message:
    return files.MoveFileRequest(environment_id=await with_file(world), path="/a", to="/b")


async def _watch(world: World) -> Message:
    return files.WatchFilesRequest(environment_id=await running(world))


async def _listen(world: World) -> Message:
    return ports.ListenRequest(environment_id=await running(world))


async def _snapshot(world: World) -> Message:
    return snapshots.CreateSnapshotRequest(environment_id=await running(world), name="mine")


async def _kept(world: World) -> snapshots.Snapshot:
    """A snapshot of the owner's."""
    made = await world.as_owner(SNAPSHOTS, "CreateSnapshot", await _snapshot(world))
    found: snapshots.Snapshot = made.snapshot
    return found


async def _get_snapshot(world: World) -> Message:
    return snapshots.GetSnapshotRequest(snapshot_id=(await _kept(world)).id)


async def _delete_snapshot(world: World) -> Message:
    return snapshots.DeleteSnapshotRequest(snapshot_id=(await _kept(world)).id)


async def _restore(world: World) -> Message:
    kept = await _kept(world)
    return snapshots.RestoreEnvironmentRequest(environment_id=kept.environment_id, snapshot=kept.id)


async def _preview(world: World) -> Message:
    environment_id = await running(world)
    policy = pb.NetworkPolicy(allowed_ingress_ports=[8080])
    request = pb.UpdateEnvironmentRequest(environment_id=environment_id, network=policy)
    await world.as_owner(SERVICE, "UpdateEnvironment", request)
    return ports.CreatePreviewRequest(environment_id=environment_id, port=8080)


async def _remove_image(world: World) -> Message:
    del world
    return images.RemoveImageRequest(name="python:3.11")


FOREIGN = {
    SERVICE: {
        "GetEnvironment": _get,
        "UpdateEnvironment": _update,
        "DeleteEnvironment": _delete,
        "Exec": _exec,
        "GetLogs": _logs,
        "FollowLogs": _follow,
        "FollowLogLines": _follow_lines,
        "CreateTicket": _ticket,
        "PauseEnvironment": _pause,
        "ResumeEnvironment": _resume,
        "ListProcesses": _processes,
        "SignalProcess": _signal,
        "ShareEnvironment": _share,
        "UnshareEnvironment": _unshare,
        "ListShares": _shares,
    },
    FILES: {
        "StatFile": _stat,
        "ListFiles": _list,
        "ReadFile": _read,
        "PutFile": _put,
        "MakeDirectory": _make_directory,
        "RemoveFile": _remove,
        "MoveFile": _move,
        "WatchFiles": _watch,
    },
    PORTS: {"Listen": _listen, "CreatePreview": _preview},
    SNAPSHOTS: {
        "CreateSnapshot": _snapshot,
        "ListSnapshots": "it chooses among the caller's own",
        "GetSnapshot": _get_snapshot,
        "DeleteSnapshot": _delete_snapshot,
        "RestoreEnvironment": _restore,
    },
}

RECORDED = {
    SERVICE: {
        "CreateEnvironment": Recorded(_create, ("environment.created",)),
        "UpdateEnvironment": Recorded(_update, ("environment.updated",)),
        "DeleteEnvironment": Recorded(_delete, ("environment.deleted", "environment.stopped")),
        "Exec": Recorded(_exec, ("environment.command_executed",)),
        "CreateTicket": "it changes nothing, and what it is used for is written down",
        "PauseEnvironment": Recorded(_pause, ("environment.paused",)),
        "ResumeEnvironment": Recorded(_resume, ("environment.resumed",)),
        "SignalProcess": Recorded(_signal, ("environment.process_signalled",)),
        "ShareEnvironment": Recorded(_share, ("environment.shared",)),
        "UnshareEnvironment": Recorded(_unshare, ("environment.unshared",)),
    },
    FILES: {
        "PutFile": Recorded(_put, ("environment.file_written",)),
        "MakeDirectory": Recorded(_make_directory, ("environment.directory_made",)),
        "RemoveFile": Recorded(_remove, ("environment.file_removed",)),
        "MoveFile": Recorded(_move, ("environment.file_moved",)),
    },
    PORTS: {
        "CreatePreview": "it changes nothing, and what it is used for is written down",
    },
    SNAPSHOTS: {
        "CreateSnapshot": Recorded(_snapshot, ("environment.snapshot_made",)),
        "DeleteSnapshot": Recorded(_delete_snapshot, ("snapshot.deleted",)),
        "RestoreEnvironment": Recorded(_restore, ("environment.restored",)),
    },
    IMAGES: {"RemoveImage": Recorded(_remove_image, ("image.removed",))},
}
