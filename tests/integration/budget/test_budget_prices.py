"""PriceService over a real port: what tokens cost, and how an administrator overrules it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import grpc
import pytest

from steward.budget.v1 import prices_pb2 as pb
from steward_client.price_snapshot import SOURCE
from steward_client.prices import ADMINISTRATOR
from tests.integration.budget.conftest import USD, Bank, open_bank
from tests.integration.conftest import refusal

pytestmark = pytest.mark.asyncio(loop_scope="module")

INT64_MAX = 2**63 - 1
MAX_RATE = 10**12


async def listed(bank: Bank, provider: str = "") -> Any:
    request = pb.ListPricesRequest(provider=provider)
    return await bank.prices.ListPrices(request, metadata=bank.admin)


async def price_of(bank: Bank, model: str) -> Any:
    (price,) = [price for price in (await listed(bank)).prices if price.model == model]
    return price


async def test_the_prices_that_ship_are_there_from_the_start(bank: Bank) -> None:
    prices = (await listed(bank)).prices
    gpt = await price_of(bank, "gpt-4o")
    assert len(prices) > 100
    assert {price.provider for price in prices} == {"openai", "anthropic"}
    assert (gpt.input_picousd, gpt.output_picousd) == (2_500_000, 10_000_000)
    assert gpt.source == SOURCE
    assert {price.provider for price in (await listed(bank, "anthropic")).prices} == {"anthropic"}
    assert not (await listed(bank, "nobody")).prices


async def test_an_administrators_price_counts_from_now_on(bank: Bank) -> None:
    before = await bank.price_version()
    rates = {"input_picousd": 7, "output_picousd": 9, "cache_read_picousd": 1}
    answer = await bank.set_price("GPT-4o-Special", **rates, cache_write_picousd=MAX_RATE)
    shown = await price_of(bank, "gpt-4o-special")
    assert answer.price == shown
    assert shown.source == ADMINISTRATOR
    assert shown.effective_from.ToMicroseconds() == bank.clock()
    assert answer.version == await bank.price_version() != before
    (row,) = [r for r in bank.books().of_kind("price.set") if r.subject == "gpt-4o-special"]
    assert row.body["cache_write_picousd"] == MAX_RATE


async def test_agents_may_look_and_only_administrators_may_set(bank: Bank) -> None:
    agent = await bank.agent()
    await bank.prices.ListPrices(pb.ListPricesRequest(), metadata=agent.metadata)
    price = pb.Price(provider="openai", model="gpt-4o")
    request = pb.SetPriceRequest(price=price)
    refused = await refusal(bank.prices.SetPrice(request, metadata=agent.metadata))
    nobody = await refusal(bank.prices.ListPrices(pb.ListPricesRequest()))
    assert refused.code is grpc.StatusCode.PERMISSION_DENIED
    assert nobody.code is grpc.StatusCode.UNAUTHENTICATED


async def test_fields_that_cannot_be_meant_are_all_named(bank: Bank) -> None:
    before = await bank.price_version()
    cases: list[tuple[dict[str, Any], set[str]]] = [
        ({"provider": ""}, {"provider"}),
        ({"provider": "OpenAI"}, {"provider"}),
        ({"model": ""}, {"model"}),
        ({"model": "m" * 101}, {"model"}),
        ({"model": "a\0b"}, {"model"}),
        (
            {"provider": "x", "model": "", "input_picousd": -1},
            {"provider", "model", "input_picousd"},
        ),
    ]
    cases += [
        ({f"{kind}_picousd": value}, {f"{kind}_picousd"})
        for kind in ("input", "output", "cache_read", "cache_write")
        for value in (-1, MAX_RATE + 1, INT64_MAX)
    ]
    for fields, wrong in cases:
        sound: dict[str, Any] = {
            "provider": "openai",
            "model": "m",
            "input_picousd": 1,
            "output_picousd": 2,
        }
        request = pb.SetPriceRequest(price=pb.Price(**sound | fields))
        refused = await refusal(bank.prices.SetPrice(request, metadata=bank.admin))
        assert refused.code is grpc.StatusCode.INVALID_ARGUMENT
        assert set(refused.fields) == {f"price.{field}" for field in wrong}, fields
    assert await bank.price_version() == before


async def test_a_rate_that_is_left_out_is_not_0(bank: Bank) -> None:
    before = await bank.price_version()
    admin = bank.live.admin
    answer = await admin.call("PUT", "/api/v1/prices/openai/left-out")
    assert answer.status == 400
    assert answer.body["error"]["fields"] == {
        "price.input_picousd": "is missing",
        "price.output_picousd": "is missing",
    }
    refused = await admin.call("PUT", "/api/v1/prices/openai/left-out", {"input_picousd": 5})
    assert refused.body["error"]["fields"] == {"price.output_picousd": "is missing"}
    assert await bank.price_version() == before
    rates = {"input_picousd": 5, "output_picousd": 0, "cache_write_picousd": 0}
    free = await admin.call("PUT", "/api/v1/prices/openai/left-out", rates)
    assert free.body["output_picousd"] == free.body["cache_write_picousd"] == 0
    assert free.body["cache_read_picousd"] == 5


async def test_prices_outlive_a_restart_and_are_not_added_again(tmp_path: Path) -> None:
    async with open_bank(tmp_path) as bank:
        await bank.set_price("gpt-4o", input_picousd=1_000)
        before = await listed(bank)
    async with open_bank(tmp_path) as bank:
        agent, lease = await bank.lent(USD)
        usage = {"model": "gpt-4o", "cost_nanousd": None, "input_tokens": 5}
        booked = await bank.report(agent, lease, **usage)
        assert await listed(bank) == before
        assert booked.cost_nanousd == 5
