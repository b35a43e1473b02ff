from __future__ import annotations

import asyncio
import os
import socket
import threading
from typing import Any, cast

from steward_server.environments.container import entering
from steward_server.environments.container.entering import Door
from steward_server.environments.container.reach import Reach
from steward_server.environments.sandbox.channel import Channel
from steward_server.environments.sandbox.inside import packets


class _Reach:
    has_own_users = False

    def __init__(self) -> None:
        self.pidfd = os.open("/dev/null", os.O_RDONLY)


async def test_a_container_that_ends_while_the_door_is_made_leads_into_no_other(
    monkeypatch: Any,
) -> None:
    is_closed = threading.Event()
    here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)

    def start(_: Door) -> Channel:
        assert is_closed.wait(10)
        return Channel(here)

    monkeypatch.setattr(entering.Door, "_start", start)
    reach = _Reach()
    wanted = os.fstat(reach.pidfd).st_ino
    going = asyncio.create_task(Door().go_in(cast("Reach", reach)))
    await asyncio.sleep(0.01)
    others = os.open("/dev/zero", os.O_RDONLY)
    os.dup2(others, reach.pidfd)  # it was closed, and the number is another container's
    is_closed.set()
    (await going).close()

    _, fds = packets.receive(there) or ({}, [])
    assert os.fstat(fds[0]).st_ino == wanted
    packets.close_all([*fds, others, reach.pidfd])
    here.close()
    there.close()
