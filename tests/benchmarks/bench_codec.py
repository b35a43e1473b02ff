"""The compiled codecs against json_format."""

from __future__ import annotations

import timeit
from collections.abc import Callable
from functools import partial
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory
from google.protobuf.message import Message

from steward.agents.v1 import agents_pb2
from steward.system.v1 import system_pb2
from steward_gateway.codec import Codecs, Style
from tests.benchmarks.harness import Figure

REPEATS = 15
LOOPS = 2_000


def flat() -> Any:
    """Six fields, all set: texts, numbers and a truth."""
    kind = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="flat.proto", package="flat", syntax="proto3")
    declared = file.message_type.add(name="Flat")
    fields = {
        "id": kind.TYPE_STRING,
        "agent_id": kind.TYPE_STRING,
        "tokens": kind.TYPE_INT64,
        "attempt": kind.TYPE_INT32,
        "seconds": kind.TYPE_DOUBLE,
        "done": kind.TYPE_BOOL,
    }
    for number, (name, type_) in enumerate(fields.items(), 1):
        declared.field.add(name=name, number=number, type=type_, label=kind.LABEL_OPTIONAL)
    pool = descriptor_pool.Default()
    described = pool.AddSerializedFile(file.SerializeToString()).message_types_by_name["Flat"]
    return message_factory.GetMessageClass(described)(
        id="call_6c5a3d1e6f0e",
        agent_id="agent_8e90305f2f",
        tokens=1_020,
        attempt=2,
        seconds=0.734,
        done=True,
    )


def timed() -> Any:
    """Six fields, all set: a truth, a time, numbers and one amount of money."""
    audit = system_pb2.LedgerAudit(
        balanced=True,
        commit_number=100_042,
        account_count=12,
        open_lease_count=3,
        overrun_nanousd=1_250_000_000,
    )
    audit.checked_at.FromJsonString("2026-11-21T09:30:00Z")
    return audit


def nested() -> Any:
    """Thirty fields on three levels, with times and enums."""
    answer = agents_pb2.ListAgentsResponse(next_page_token="2")
    for number in range(2):
        agent = answer.agents.add(
            id=f"agent_{number}",
            name="nightly report",
            owner_id="user_1",
            provider="openai",
            status=agents_pb2.AGENT_STATUS_RUNNING,
            desired_state=agents_pb2.DESIRED_STATE_RUNNING,
        )
        agent.budget.CopyFrom(
            agents_pb2.BudgetStatus(
                limit_nanousd=50_000_000_000,
                spent_nanousd=12_345_678_901,
                reserved_nanousd=5_000_000_000,
                available_nanousd=32_654_321_099,
                percent_used=24.69,
                state=agents_pb2.BUDGET_STATE_ACTIVE,
            )
        )
        agent.created_at.FromJsonString("2026-11-21T09:30:00Z")
        agent.updated_at.FromJsonString("2026-11-21T09:31:00.250Z")
        agent.last_seen_at.FromJsonString("2026-11-21T09:32:00Z")
    return answer


def time_us(call: Callable[[], object]) -> float:
    """The best of several repeats: what is left is the work, not the neighbours."""
    return min(timeit.repeat(call, number=LOOPS, repeat=REPEATS)) / LOOPS * 1e6


async def measure() -> list[Figure]:
    """How many times quicker than json_format: in the style that is served, and canonical.

    The style that is served prints every field, and so does json_format beside it.
    """
    figures = []
    for name, must, message in (
        ("6 fields", 8, flat()),
        ("6 fields with a time and money", None, timed()),
        ("30 nested fields", 4, nested()),
    ):
        canonical = Codecs(Style.PROTOJSON).of(message.DESCRIPTOR)
        house = Codecs(Style.HOUSE).of(message.DESCRIPTOR)
        write = partial(json_format.MessageToJson, message, indent=None)
        write_all = partial(write, always_print_fields_with_no_presence=True)
        read = partial(_read, type(message))
        rows: dict[str, tuple[Callable[[], object], ...]] = {
            "encode": (
                write,
                write_all,
                partial(canonical.to_json, message),
                partial(house.to_json, message),
            ),
            "decode": (
                partial(read, write()),
                partial(read, write_all()),
                partial(canonical.from_json, canonical.to_json(message)),
                partial(house.from_json, house.to_json(message)),
            ),
        }
        for direction, calls in rows.items():
            base_us, full_base_us, canonical_us, house_us = map(time_us, calls)
            figures.append(
                Figure(
                    f"codec, {name}, {direction}",
                    full_base_us / house_us,
                    "x",
                    must,
                    note=f"{house_us:.3g} µs; canonical style {base_us / canonical_us:.3g} x",
                )
            )
    return figures


def _read(kind: type[Message], text: str) -> Message:
    return json_format.Parse(text, kind())
