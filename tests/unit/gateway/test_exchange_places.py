"""What the core is told of where a caller believes to be, and proxies say it is."""

from __future__ import annotations

import pytest
from aiohttp.test_utils import make_mocked_request

from steward_gateway.exchange import metadata_of


@pytest.mark.parametrize(
    ("headers", "told"),
    [
        ({}, {}),
        ({"Host": "localhost:8080"}, {"x-steward-host": "localhost:8080"}),
        (
            {"Host": "example.org", "Origin": "http://localhost"},
            {"x-steward-host": "example.org", "x-steward-origin": "http://localhost"},
        ),
        # Not left out: a core that is told nothing takes the caller for one of its own machine.
        ({"Host": ""}, {"x-steward-host": ""}),
        ({"Host": "\xe4"}, {"x-steward-host": "unreadable"}),
        ({"Origin": "http://\x7f"}, {"x-steward-origin": "unreadable"}),
        ({"X-Forwarded-For": "10.0.0.7"}, {"x-forwarded-for": "10.0.0.7"}),
        ({"X-Forwarded-For": "\xe4"}, {"x-forwarded-for": "unreadable"}),
        ({"X-Steward-Host": "localhost", "X-Steward-Origin": "http://localhost"}, {}),
    ],
)
def test_places_are_passed_on(headers: dict[str, str], told: dict[str, str]) -> None:
    metadata = metadata_of(make_mocked_request("GET", "/", headers=headers), "req_1")
    assert {key: text for key, text in metadata if key != "x-request-id"} == told
