"""PriceService on the wire."""

from __future__ import annotations

from collections.abc import Callable

from steward.budget.v1 import prices_pb2 as pb
from steward.budget.v1.prices_pb2_grpc import PriceServiceServicer
from steward_client.prices import ADMINISTRATOR, Price, Rates
from steward_server.budget.pricing import Listed, PriceBook
from steward_server.calls import Context, caller
from steward_server.checks import Checks
from steward_server.clock import timestamp

MAX_RATE_PICOUSD = 10**12
"""A dollar a token."""

KINDS = ("openai", "anthropic")
RATES = ("input_picousd", "output_picousd", "cache_read_picousd", "cache_write_picousd")


class PriceService(PriceServiceServicer):
    """Lists prices, and lets administrators overrule them."""

    def __init__(self, book: PriceBook, clock: Callable[[], int]) -> None:
        self._book = book
        self._clock = clock

    async def ListPrices(
        self, request: pb.ListPricesRequest, context: Context
    ) -> pb.ListPricesResponse:
        del context
        listed = [
            _to_proto(each)
            for each in self._book.listed
            if request.provider in ("", each.price.provider)
        ]
        return pb.ListPricesResponse(version=self._book.table.version, prices=listed)

    async def SetPrice(self, request: pb.SetPriceRequest, context: Context) -> pb.SetPriceResponse:
        price = request.price
        with Checks() as checks:
            checks.one_of("price.provider", price.provider, KINDS)
            checks.text("price.model", price.model, 1, 100)
            checks.given("price.input_picousd", is_given=price.HasField("input_picousd"))
            checks.given("price.output_picousd", is_given=price.HasField("output_picousd"))
            for field in RATES:
                checks.between(f"price.{field}", getattr(price, field), 0, MAX_RATE_PICOUSD)
        rates = Rates(
            *[
                getattr(price, field) if price.HasField(field) else price.input_picousd  # type: ignore[arg-type]
                for field in RATES
            ]
        )
        listed = await self._book.set(
            caller(context),
            Price(price.provider, price.model.lower(), rates, ADMINISTRATOR),
            self._clock(),
        )
        return pb.SetPriceResponse(price=_to_proto(listed), version=self._book.table.version)


def _to_proto(listed: Listed) -> pb.Price:
    price = listed.price
    return pb.Price(
        provider=price.provider,
        model=price.model,
        input_picousd=price.rates.input_picousd,
        output_picousd=price.rates.output_picousd,
        cache_read_picousd=price.rates.cache_read_picousd,
        cache_write_picousd=price.rates.cache_write_picousd,
        effective_from=timestamp(listed.effective_from_us),
        source=price.source,
    )
