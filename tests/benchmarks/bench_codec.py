"""The compiled codecs against json_format."""

from __future__ import annotations

import timeit
from collections.abc import Callable
from functools import partial
from typing import Any

from google.protobuf import json_format

from steward.agents.v1 import agents_pb2
from steward.system.v1 import system_pb2
from steward_gateway.codec import Codecs, Style
from tests.benchmarks.harness import Figure

REPEATS = 15
LOOPS = 2_000


def small() -> Any:
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
    """How many times quicker than json_format, canonical and in the house style."""
    figures = []
    for name, message in (("6 fields", small()), ("30 nested fields", nested())):
        canonical = Codecs(Style.PROTOJSON).of(message.DESCRIPTOR)
        house = Codecs(Style.HOUSE).of(message.DESCRIPTOR)
        text, house_text = canonical.to_json(message), house.to_json(message)
        kind = type(message)
        rows: dict[str, tuple[Callable[[], object], ...]] = {
            "encode": (
                partial(json_format.MessageToJson, message, indent=None),
                partial(canonical.to_json, message),
                partial(house.to_json, message),
            ),
            "decode": (
                lambda text=text, kind=kind: json_format.Parse(text, kind()),  # type: ignore[misc]
                partial(canonical.from_json, text),
                partial(house.from_json, house_text),
            ),
        }
        for direction, calls in rows.items():
            base_us, canonical_us, house_us = map(time_us, calls)
            figures.append(
                Figure(
                    f"codec, {name}, {direction}",
                    base_us / canonical_us,
                    "x",
                    note=f"{canonical_us:.3g} µs; house style {base_us / house_us:.3g} x",
                )
            )
    return figures
