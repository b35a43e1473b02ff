from __future__ import annotations

import json
import os
import socket

import pytest

from steward_server.environments.sandbox.inside import packets


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
