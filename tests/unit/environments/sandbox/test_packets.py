from __future__ import annotations

import json
import os
import socket
import threading
from contextlib import closing
from pathlib import Path

import pytest

from steward_server.environments.driver import Gone
from steward_server.environments.sandbox.channel import Channel
from steward_server.environments.sandbox.inside import file_work, packets


def _pair() -> tuple[socket.socket, socket.socket]:
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def test_messages_arrive_with_their_descriptors() -> None:
    here, there = _pair()
    read, write = os.pipe()
    with here, there:
        packets.send(here, {"a": "größe\udcff"}, [write])
        message, fds = packets.receive(there) or ({}, [])
        os.write(fds[0], b"through")

        assert message == {"a": "größe\udcff"}
        assert os.read(read, 100) == b"through"
        assert not os.get_inheritable(fds[0])
        packets.close_all([read, write, *fds])


def test_what_is_too_long_for_a_packet_arrives_too() -> None:
    here, there = _pair()
    read, write = os.pipe()
    with here, there:
        packets.send(here, {"a": "x" * 5_000_000}, [write])
        message, fds = packets.receive(there) or ({}, [])

        assert message == {"a": "x" * 5_000_000}
        assert len(fds) == 1
        packets.close_all([read, write, *fds])


def test_the_end_is_told() -> None:
    here, there = _pair()
    with there:
        here.close()
        assert packets.receive(there) is None


def test_closing_what_is_closed_is_no_fault() -> None:
    packets.close_all([-1, 99_999])


_DEEP = b"[" * 60_000


@pytest.mark.parametrize(
    "payload",
    [
        b"\xff\xfe",
        b"{",
        b"[]",
        b"7",
        _DEEP,
        b'{"length": 5}',
        b'{"length": -1}',
        b'{"length": "x"}',
        b'{"length": 1099511627776}',
    ],
)
@pytest.mark.parametrize("count", [0, 1, 16])
@pytest.mark.attack
def test_what_is_no_message_breaks_nothing_and_keeps_nothing(payload: bytes, count: int) -> None:
    here, there = _pair()
    read, write = os.pipe()
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    with here, there:
        socket.send_fds(here, [payload], [write] * count)
        with pytest.raises(OSError, match="no message"):
            packets.receive(there)
        assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208
    packets.close_all([read, write])


@pytest.mark.parametrize("content", [b"", b"{", b"[]"])
@pytest.mark.attack
def test_a_memory_file_that_does_not_hold_what_it_says_is_no_message(content: bytes) -> None:
    here, there = _pair()
    memory = os.memfd_create("lie")
    os.write(memory, content)
    with here, there:
        head = json.dumps({"length": packets.MOST_MESSAGE_BYTES}).encode()
        socket.send_fds(here, [head], [memory])
        with pytest.raises(OSError, match="no message"):
            packets.receive(there)
    os.close(memory)


@pytest.mark.attack
async def test_the_server_reads_no_more_of_an_answer_than_a_machine_has_to_say() -> None:
    here, there = _pair()
    here.setblocking(False)
    with there, closing(Channel(here)) as channel:
        packets.send(there, {"a": "x" * (packets.MOST_ANSWER_BYTES - 100)})
        told, _ = await channel.receive()
        assert len(told["a"]) == packets.MOST_ANSWER_BYTES - 100
        packets.send(there, {"a": "x" * packets.MOST_ANSWER_BYTES})
        with pytest.raises(Gone, match="no message"):
            await channel.receive()


@pytest.mark.attack
def test_a_packet_of_files_with_the_worst_names_is_no_longer_than_the_server_reads(
    tmp_path: Path,
) -> None:
    here, there = _pair()
    for number in range(60):
        name = "\udcff" * 250 + f"{number:03d}"
        (tmp_path / name).symlink_to("\udcff" * 4_000)
    with here, there:
        listing = threading.Thread(target=file_work._list, args=(here, str(tmp_path)))
        listing.start()
        told, _ = packets.receive(there, most_bytes=packets.MOST_ANSWER_BYTES // 2) or ({}, [])
        listing.join()
    assert len(told["files"]) == 50
