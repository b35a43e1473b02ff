"""The server's price table, fetched."""

from __future__ import annotations

import grpc.aio

from steward.budget.v1 import prices_pb2
from steward.budget.v1.prices_pb2_grpc import PriceServiceStub
from steward_client.errors import error_of
from steward_client.prices import Price, PriceTable, Rates


async def fetch_prices(channel: grpc.aio.Channel, *, ic_token: str, timeout_s: float) -> PriceTable:
    """All prices there are now.

    Raises:
        StewardError: the server cannot be reached or refuses.
    """
    try:
        listed = await PriceServiceStub(channel).ListPrices(
            prices_pb2.ListPricesRequest(),
            metadata=(("x-ic-key", ic_token),),
            timeout=timeout_s,
        )
    except grpc.aio.AioRpcError as error:
        raise error_of(error) from error
    return PriceTable.from_rows(listed.version, (_price(row) for row in listed.prices))


def _price(row: prices_pb2.Price) -> Price:
    rates = Rates(
        input_picousd=row.input_picousd,
        output_picousd=row.output_picousd,
        cache_read_picousd=row.cache_read_picousd,
        cache_write_picousd=row.cache_write_picousd,
    )
    return Price(row.provider, row.model, rates, row.source)
