"""Environments: isolated machines for agents. Start reading at environment.py, then keeper.py."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from prometheus_client import CollectorRegistry

from steward.environments.v1.environments_pb2_grpc import add_EnvironmentServiceServicer_to_server
from steward.environments.v1.files_pb2_grpc import add_FileServiceServicer_to_server
from steward.environments.v1.images_pb2_grpc import add_ImageServiceServicer_to_server
from steward.environments.v1.ports_pb2_grpc import add_PortServiceServicer_to_server
from steward.environments.v1.snapshots_pb2_grpc import add_SnapshotServiceServicer_to_server
from steward_server.db import Database
from steward_server.environments.attachments import Attachments
from steward_server.environments.choosing import open_driver
from steward_server.environments.commands import Commands
from steward_server.environments.config import EnvironmentsConfig
from steward_server.environments.creation import Creation
from steward_server.environments.driver import Driver
from steward_server.environments.file_service import FileService
from steward_server.environments.health import Health
from steward_server.environments.image_service import ImageService
from steward_server.environments.keeper import Keeper
from steward_server.environments.logbook import Logbook
from steward_server.environments.needs import Agents, Images, People
from steward_server.environments.networking import Networking
from steward_server.environments.pausing import Pausing
from steward_server.environments.port_service import PortService
from steward_server.environments.previews import Previews
from steward_server.environments.room import EnvironmentRoom
from steward_server.environments.service import EnvironmentService
from steward_server.environments.sharing import Sharing
from steward_server.environments.snapshot_service import SnapshotService
from steward_server.environments.snapshots import Snapshots
from steward_server.environments.tasks import Sweeper, clear
from steward_server.environments.terminals import Terminals
from steward_server.environments.tickets import Tickets
from steward_server.environments.tunnels import Tunnels
from steward_server.vault import Vault

__all__ = ["Previews", "Sweeper", "Tickets", "clear", "open_driver", "open_room", "register"]


@asynccontextmanager
async def open_room(
    database: Database,
    *,
    driver: Driver,
    agents: Agents,
    vault: Vault,
    config: EnvironmentsConfig,
    clock: Callable[[], int],
) -> AsyncIterator[EnvironmentRoom]:
    """The room for the block: machines and rows are brought together at its beginning.

    At its end the machines live on.
    """
    keeper = Keeper(database, driver, vault, config, clock)
    room = EnvironmentRoom(database, keeper, agents, config, clock)
    try:
        await room.start()
        yield room
    finally:
        await room.aclose()


@asynccontextmanager
async def register(
    methods: Any,
    database: Database,
    *,
    room: EnvironmentRoom,
    people: People,
    images: Images | None,
    vault: Vault,
    tickets: Tickets,
    previews: Previews,
    registry: CollectorRegistry,
    config: EnvironmentsConfig,
    clock: Callable[[], int],
) -> AsyncIterator[Health]:
    """Serve EnvironmentService, FileService and ImageService for the block.

    Raises:
        BadSetting: an amount in the settings cannot be read.

    Beside them, run `keep_measuring` of what this gives, and `keep_sweeping` of a `Sweeper`.
    """
    commands = Commands(database, room, config, clock)
    terminals = Terminals(commands, room.uses, config)
    room.uses.on_right_changed.append(terminals.end_of)
    room.uses.on_agent_stopped.append(terminals.end_of_agent)
    health = Health(room, registry)
    snapshots = Snapshots(database, room, images, config, clock)
    service = EnvironmentService(
        room,
        Creation(database, room, images, snapshots, vault, config, clock),
        Pausing(database, room, clock),
        Networking(room),
        Sharing(database, room, people, clock),
        commands,
        Attachments(terminals),
        Logbook(database, room),
        tickets,
        health,
        config,
    )
    add_EnvironmentServiceServicer_to_server(service, methods)
    add_FileServiceServicer_to_server(FileService(database, room, clock), methods)
    add_PortServiceServicer_to_server(
        PortService(room, Tunnels(database, room, clock), previews), methods
    )
    add_ImageServiceServicer_to_server(ImageService(database, images, config, clock), methods)
    add_SnapshotServiceServicer_to_server(SnapshotService(snapshots), methods)
    await snapshots.clear()
    try:
        yield health
    finally:
        await terminals.aclose()
