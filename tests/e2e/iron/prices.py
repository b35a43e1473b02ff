"""What tokens cost."""

from __future__ import annotations

from tests.e2e.curl import TIME, error, invalid
from tests.e2e.iron.shapes import NO_CREDENTIAL, NOT_ALLOWED, Row

PRICE = {
    "provider": str,
    "model": str,
    "input_picousd": int,
    "output_picousd": int,
    "cache_read_picousd": int,
    "cache_write_picousd": int,
    "effective_from": TIME,
    "source": str,
}

ROWS: list[Row] = [
    (
        "list prices",
        "$url/api/v1/prices?provider=anthropic $as_runtime",
        200,
        {"version": str, "prices": [PRICE | {"provider": "anthropic"}]},
    ),
    ("list prices as nobody", "$url/api/v1/prices", 401, NO_CREDENTIAL),
    (
        "set a price",
        """-X PUT $url/api/v1/prices/openai/$new_name $as_admin $json \
           -d '{"input_picousd":1000000,"output_picousd":2000000}'""",
        200,
        PRICE | {"provider": "openai", "input_picousd": 1_000_000, "source": "administrator"},
    ),
    (
        "set a negative price",
        """-X PUT $url/api/v1/prices/openai/m $as_admin $json \
        -d '{"input_picousd":-1,"output_picousd":1}'""",
        400,
        invalid("price.input_picousd"),
    ),
    (
        "set a price that is left out",
        "-X PUT $url/api/v1/prices/openai/m $as_admin",
        400,
        invalid("price.input_picousd", "price.output_picousd"),
    ),
    (
        "set a price as a user",
        """-X PUT $url/api/v1/prices/openai/m $as_user $json -d '{"input_picousd":1}'""",
        403,
        NOT_ALLOWED,
    ),
    ("get a price", "$url/api/v1/prices/openai/m $as_admin", 405, error("METHOD_NOT_ALLOWED")),
]
