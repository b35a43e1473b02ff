"""Messages with descriptors over a SEQPACKET socket: one packet is one JSON object.

What is too long for a packet travels in a memory file whose descriptor comes first.
"""

from __future__ import annotations

import array
import errno
import json
import os
import socket
import stat
from collections.abc import Sequence
from typing import Any

MOST_PACKET_BYTES = 64 * 1024  # well below any default of net.core.wmem_default
MOST_MESSAGE_BYTES = 32 * 1024 * 1024  # a command with all its words and variables
MOST_ANSWER_BYTES = 4 * 1024 * 1024  # every process with its words, or some files with long names
MOST_DESCRIPTORS = 16
Message = dict[str, Any]


def send(sock: socket.socket, message: Message, fds: Sequence[int] = ()) -> None:
    """Send a message whole.

    Raises:
        OSError: the other side is gone; BlockingIOError, or takes no more at present.
    """
    payload = json.dumps(message).encode()
    if len(payload) <= MOST_PACKET_BYTES:
        socket.send_fds(sock, [payload], list(fds), socket.MSG_NOSIGNAL)
        return
    memory = os.memfd_create("steward-message")
    try:
        with os.fdopen(os.dup(memory), "wb") as file:
            file.write(payload)
        head = json.dumps({"length": len(payload)}).encode()
        socket.send_fds(sock, [head], [memory, *fds], socket.MSG_NOSIGNAL)
    finally:
        os.close(memory)


def receive(
    sock: socket.socket, *, most_bytes: int = MOST_MESSAGE_BYTES
) -> tuple[Message, list[int]] | None:
    """The next message and its descriptors, which are now the caller's; None at the end.

    Who is on the other side may belong to an attacker by now: what is no message is a fault of the
    connection, and none of it is kept.

    Raises:
        OSError: the connection broke, or that was no message; BlockingIOError, or nothing is there
            yet.
    """
    room = socket.CMSG_SPACE(MOST_DESCRIPTORS * array.array("i").itemsize)
    payload, ancillary, _, _ = sock.recvmsg(MOST_PACKET_BYTES + 1024, room, socket.MSG_CMSG_CLOEXEC)
    fds = array.array("i")
    for level, kind, content in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.frombytes(content[: len(content) - len(content) % fds.itemsize])
    if not payload:
        close_all(fds.tolist())
        return None
    descriptors = fds.tolist()
    try:
        message = _parse(payload)
        if "length" in message:
            memory = descriptors.pop(0)
            try:
                message = _parse(_long(memory, message["length"], most_bytes))
            finally:
                os.close(memory)
    except (ValueError, TypeError, RecursionError, IndexError):
        close_all(descriptors)
        raise OSError(errno.EBADMSG, "what arrived is no message") from None
    except OSError:
        close_all(descriptors)
        raise
    return message, descriptors


def _parse(payload: bytes) -> Message:
    message = json.loads(payload)
    if not isinstance(message, dict):
        raise TypeError("not an object")
    return message


def _long(memory: int, length: object, most_bytes: int) -> bytes:
    """What a memory file holds; never more room is taken than it has content."""
    if not isinstance(length, int) or not 0 <= length <= most_bytes:
        raise ValueError("too long")
    if not stat.S_ISREG(os.fstat(memory).st_mode):
        raise ValueError("not a memory file")
    return os.pread(memory, length, 0)


def close_all(fds: Sequence[int]) -> None:
    """Close what may be closed already."""
    for fd in fds:
        try:
            os.close(fd)
        except OSError:
            continue
