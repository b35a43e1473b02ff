"""Length-prefixed messages and their compression, as Connect and gRPC-Web share them. Pure."""

from __future__ import annotations

import zlib
from collections.abc import Iterator

HEAD_BYTES = 5
COMPRESSED = 0b0000_0001
GZIP = "gzip"
IDENTITY = "identity"

WORTH_COMPRESSING_BYTES = 1024  # below it gzip saves nothing that a packet would notice
_GZIP_FORMAT = 31  # zlib's word for 32 KiB of window and a gzip header
_QUICK = 1


class BrokenEnvelope(ValueError):
    """The bytes are no such message; the text says why."""


class TooLarge(Exception):
    """A message is larger than allowed, as it was sent or once it is inflated."""


def pack(payload: bytes, flags: int = 0) -> bytes:
    """Put a message into its envelope."""
    return flags.to_bytes(1, "big") + len(payload).to_bytes(4, "big") + payload


def read_head(head: bytes) -> tuple[int, int]:
    """Read the flags and the length of what follows."""
    return head[0], int.from_bytes(head[1:HEAD_BYTES], "big")


def unpack(body: bytes) -> Iterator[tuple[int, bytes]]:
    """Read the messages of a whole body: flags and content of each.

    Raises:
        BrokenEnvelope: it ends within a message.
    """
    position = 0
    while position < len(body):
        begin = position + HEAD_BYTES
        if begin > len(body):
            raise BrokenEnvelope("the body ends within the five bytes before a message")
        flags, length = read_head(body[position:begin])
        position = begin + length
        if position > len(body):
            raise BrokenEnvelope(
                f"the body ends within a message: {length} bytes are announced, "
                f"{len(body) - begin} are there"
            )
        yield flags, body[begin:position]


def deflate(data: bytes) -> bytes:
    """Compress with gzip."""
    packer = zlib.compressobj(_QUICK, wbits=_GZIP_FORMAT)
    return packer.compress(data) + packer.flush()


def inflate(data: bytes, max_bytes: int) -> bytes:
    """Undo gzip; nothing in, nothing out.

    Raises:
        BrokenEnvelope: it is not gzip, or not all of it.
        TooLarge: more than `max_bytes` come out. They are never held.
    """
    if not data:
        return data
    unpacker = zlib.decompressobj(wbits=_GZIP_FORMAT)
    try:
        inflated = unpacker.decompress(data, max_bytes + 1)
    except zlib.error:
        raise BrokenEnvelope("the message is marked as compressed, but is not gzip") from None
    if len(inflated) > max_bytes:
        raise TooLarge
    if not unpacker.eof or unpacker.unused_data:
        raise BrokenEnvelope("the compressed message ends too early or goes on after its end")
    return inflated


def accepts_gzip(accept_encoding: str) -> bool:
    """Whether a list of codings, with or without weights, has gzip in it."""
    for item in accept_encoding.lower().split(","):
        name, _, weight = item.partition(";")
        if name.strip() == GZIP:
            return weight.replace(" ", "") not in ("q=0", "q=0.0", "q=0.00", "q=0.000")
    return False
