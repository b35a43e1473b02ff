"""What was spent, step by step."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from steward_server.analytics.periods import HOUR_US, MINUTE_US
from tests.integration.analytics.conftest import House
from tests.live import Agent
from tests.spending import borrow

PATH = "spending/over-time"
STEPS = (
    ("last-hour", "minute"),
    ("last-hour", "hour"),
    ("today", "hour"),
    ("last-7-days", "hour"),
    ("last-7-days", "day"),
    ("last-30-days", "week"),
    ("all-time", "day"),
    ("all-time", "week"),
)


def spent(points: list[dict[str, Any]]) -> Decimal:
    return sum((Decimal(str(each["spending"])) for each in points), Decimal())


async def test_nothing_is_told_as_steps_of_zeros(house: House) -> None:
    body = await house.ask(f"{PATH}?period=last-hour")
    assert (body["step"], len(body["data"]) in (60, 61)) == ("minute", True)
    assert {(each["spending"], each["request_count"]) for each in body["data"]} == {(0, 0)}
    assert body["groups"] == []
    grouped = await house.ask(f"{PATH}?period=all-time&group_by=agent")
    assert (len(grouped["data"]), grouped["groups"]) == (1, [])


@pytest.mark.parametrize(("period", "step"), STEPS)
async def test_steps_and_groups_add_up_to_the_total_to_the_nano_dollar(
    house: House, period: str, step: str
) -> None:
    one, other = await house.spender(), await house.spender()
    await one.spend("a", "0.000000003")
    house.clock.now_us += 7 * MINUTE_US
    await other.spend("b", "0.100000001")
    await house.tell(one.agent, house.event())
    total = await house.ask(f"spending/total?period={period}")
    for group_by in ("agent", "provider", "model"):
        body = await house.ask(f"{PATH}?period={period}&step={step}&group_by={group_by}")
        whole = Decimal(str(total["total_spend"]))
        assert whole == spent(body["data"]) == Decimal(str(body["total_spend"]))
        assert whole == sum(spent(group["data"]) for group in body["groups"])
        assert body["total_requests"] == sum(each["request_count"] for each in body["data"])
        assert {len(group["data"]) for group in body["groups"]} == {len(body["data"])}
    if step == "minute":
        assert [each["request_count"] for each in body["data"] if each["request_count"]] == [1, 2]
        assert body["total_tokens"] == 120


async def test_all_but_the_eight_largest_groups_are_one(house: House) -> None:
    spenders = [await house.spender(lent_usd=0.5) for _ in range(10)]
    for number, spender in enumerate(spenders, 1):
        await spender.spend("a", f"0.0{number:02}")
    body = await house.ask(f"{PATH}?period=today&group_by=agent")
    keys = [group["key"] for group in body["groups"]]
    assert keys == [*[each.agent.agent_id for each in reversed(spenders[2:])], ""]
    other = body["groups"][-1]
    assert (other["name"], other["is_other"], other["spending"]) == ("other", True, 0.003)
    assert other["request_count"] == 2


async def test_people_see_what_their_own_agents_spent(house: House) -> None:
    spender = await house.spender()
    await spender.spend("a", "0.5")
    ann_id, ann = await house.enter("ann")
    wish = {"name": "hers", "budget_usd": 3, "owner_id": ann_id}
    her_id = (await house.live.admin.call("POST", "/api/v1/agents", wish)).body["id"]
    token = (await house.live.admin.call("POST", "/api/tokens", {"agent_id": her_id})).body
    hers = await borrow(house.live, Agent(her_id, token["id"], token["token"]))
    await hers.spend("b", "0.25")
    body = await house.ask(f"{PATH}?period=today&group_by=agent", ann)
    assert [group["key"] for group in body["groups"]] == [her_id]
    assert body["total_spend"] == 0.25
    where = f"/api/v1/analytics/{PATH}?agent_id={spender.agent.agent_id}"
    answer = await ann.call("GET", where)
    assert (answer.status, answer.body["error"]["reason"]) == (404, "AGENT_NOT_FOUND")


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ("period=today&step=minute", "last-hour only"),
        ("period=last-30-days&step=hour", "at most 400 are allowed"),
        ("period=all-time&step=hour", "take day or week"),
    ],
)
async def test_steps_that_are_too_many_are_refused(house: House, asked: str, words: str) -> None:
    answer = await house.live.admin.call("GET", f"/api/v1/analytics/{PATH}?{asked}")
    assert (answer.status, answer.body["error"]["reason"]) == (400, "TOO_MANY_POINTS")
    assert words in answer.body["error"]["fields"]["step"]


async def test_what_was_spent_stands_in_its_hour_once_that_is_over(house: House) -> None:
    spender = await house.spender()
    await spender.spend("a", "0.5")
    booked_hour = house.clock.now_us // HOUR_US
    house.clock.now_us += 2 * HOUR_US
    house.live.admin.headers.update((await house.live.api.sign_in()).headers)
    body = await house.ask(f"{PATH}?period=last-7-days&step=hour")
    assert [each["spending"] for each in body["data"][-3:]] == [0.5, 0, 0]
    assert house.clock.now_us // HOUR_US - booked_hour == 2
