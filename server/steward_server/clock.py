"""Microseconds since 1970 to and from what protos carry."""

from __future__ import annotations

from datetime import UTC, datetime

from google.protobuf.timestamp_pb2 import Timestamp


def timestamp(at_us: int | None) -> Timestamp | None:
    """The proto's form of a time; nothing for None and for 0, which stands for never."""
    if not at_us:
        return None
    seconds, micros = divmod(at_us, 1_000_000)
    return Timestamp(seconds=seconds, nanos=micros * 1_000)


def microseconds(stamp: Timestamp) -> int:
    """Microseconds since 1970, cut, not rounded."""
    return stamp.seconds * 1_000_000 + stamp.nanos // 1_000


def text(at_us: int) -> str:
    """A time in a sentence: ``2026-11-20T20:15:00Z``, cut to the second."""
    return datetime.fromtimestamp(at_us // 1_000_000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
