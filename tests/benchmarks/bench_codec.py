"""The compiled codecs against json_format: `python tests/benchmarks/bench_codec.py`."""

from __future__ import annotations

import timeit
from collections.abc import Callable
from typing import Any

from google.protobuf import json_format

from steward.agents.v1 import agents_pb2
from steward.system.v1 import system_pb2
from steward_gateway.codec import Codecs, Style

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


def main() -> None:
    """Print a table of times in µs and how many times quicker than json_format they are."""
    print(f"{'message':8} {'direction':9} {'json_format':>11} {'ProtoJSON':>15} {'house':>15}")
    for name, message in (("small", small()), ("nested", nested())):
        canonical = Codecs(Style.PROTOJSON).of(message.DESCRIPTOR)
        house = Codecs(Style.HOUSE).of(message.DESCRIPTOR)
        text, house_text = canonical.to_json(message), house.to_json(message)
        rows = {
            "encode": (
                time_us(lambda: json_format.MessageToJson(message, indent=None)),  # noqa: B023
                time_us(lambda: canonical.to_json(message)),  # noqa: B023
                time_us(lambda: house.to_json(message)),  # noqa: B023
            ),
            "decode": (
                time_us(lambda: json_format.Parse(text, type(message)())),  # noqa: B023
                time_us(lambda: canonical.from_json(text)),  # noqa: B023
                time_us(lambda: house.from_json(house_text)),  # noqa: B023
            ),
        }
        for direction, (base_us, *ours_us) in rows.items():
            cells = [f"{us:8.2f} {base_us / us:5.1f}x" for us in ours_us]
            print(f"{name:8} {direction:9} {base_us:11.2f} {cells[0]:>15} {cells[1]:>15}")


if __name__ == "__main__":
    main()
