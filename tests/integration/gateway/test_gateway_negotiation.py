"""What callers say they can take, have already, or may do from a page of another site."""

from __future__ import annotations

import gzip
import json
import zlib
from typing import Any

import aiohttp
import pytest

from steward_gateway.config import GatewayConfig

Http = aiohttp.ClientSession
LONG = "t" * 5_000
APP = "https://app.example"


async def test_a_patch_names_what_it_changes_by_what_its_body_holds(http: Http) -> None:
    tool = {"price_usd": 5, "tags": [], "maker": {"town": "Solingen"}, "bought_at": None}
    async with http.patch("/v1/tools/t1", json=tool) as response:
        asked = (await response.json())["asked"]
    assert asked["update_mask"] == "price_nanousd,tags,maker.town,bought_at"
    assert (asked["tool"]["id"], asked["tool"]["price_usd"]) == ("t1", 5)


async def test_a_patch_that_says_what_it_changes_is_taken_at_its_word(http: Http) -> None:
    async with http.patch("/v1/tools/t1?update_mask=shelf", json={"price_usd": 5}) as response:
        assert (await response.json())["asked"]["update_mask"] == "shelf"


async def test_a_patch_of_nothing_changes_nothing(http: Http) -> None:
    async with http.patch("/v1/tools/t1", json={}) as response:
        assert (await response.json())["asked"]["update_mask"] is None


@pytest.mark.parametrize("accept", ["text/html", "application/json;q=0", "image/*, text/plain"])
async def test_what_cannot_be_given_is_406_and_not_done(http: Http, core: Any, accept: str) -> None:
    async with http.post("/v1/tools", json={}, headers={"Accept": accept}) as response:
        assert response.status == 406
        assert (await response.json())["error"]["code"] == "NOT_ACCEPTABLE"
    assert core.requests == []


@pytest.mark.parametrize(
    "accept", ["*/*", "application/*", "text/html, application/json;q=0.1", "text/html,*/*;q=0.8"]
)
async def test_what_lets_in_json_is_given_json(http: Http, accept: str) -> None:
    async with http.get("/v1/tools/t1", headers={"Accept": accept}) as response:
        assert response.status == 200
        assert response.content_type == "application/json"


async def test_a_stream_is_406_for_who_takes_no_form_of_it(http: Http) -> None:
    async with http.get("/v1/count?to=1", headers={"Accept": "image/png"}) as response:
        assert response.status == 406


async def test_an_answer_that_has_not_changed_is_304_without_a_body(http: Http) -> None:
    async with http.get("/v1/tools/t1") as first:
        etag = first.headers["ETag"]
    for known in (etag, f'"other", {etag}', etag.removeprefix("W/"), "*"):
        async with http.get("/v1/tools/t1", headers={"If-None-Match": known}) as again:
            assert (again.status, await again.read()) == (304, b"")
            assert again.headers["ETag"] == etag
    async with http.get("/v1/tools/t2", headers={"If-None-Match": etag}) as other:
        assert (other.status, (await other.json())["id"]) == (200, "t2")


async def test_a_call_that_changes_something_has_no_tag(http: Http) -> None:
    async with http.post("/v1/tools", json={}, headers={"If-None-Match": "*"}) as response:
        assert response.status == 201
        assert "ETag" not in response.headers


async def test_a_long_answer_is_compressed_for_who_takes_that(http: Http) -> None:
    path = f"/v1/tools/{LONG}"
    async with http.get(path, headers={"Accept-Encoding": "gzip"}) as response:
        assert response.headers["Content-Encoding"] == "gzip"
        assert response.headers["Vary"] == "Accept-Encoding"
        assert int(response.headers["Content-Length"]) < 500
        assert (await response.json())["id"] == LONG
    for other in ("identity", "gzip;q=0", "br"):
        async with http.get(path, headers={"Accept-Encoding": other}) as response:
            assert "Content-Encoding" not in response.headers
            assert int(response.headers["Content-Length"]) > len(LONG)


async def test_a_very_long_answer_is_compressed_whole(http: Http) -> None:
    tool = {"id": "t" * 200_000}
    async with http.post("/v1/tools", json={"tool": tool}) as response:
        assert response.headers["Content-Encoding"] == "gzip"
        assert (await response.json())["id"] == tool["id"]


async def test_a_short_answer_is_sent_as_it_is(http: Http) -> None:
    async with http.get("/v1/tools/t1", headers={"Accept-Encoding": "gzip"}) as response:
        assert "Content-Encoding" not in response.headers


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
async def test_a_compressed_body_is_read(http: Http, coding: str) -> None:
    plain = json.dumps({"tool": {"id": "t1"}}).encode()
    body = gzip.compress(plain) if coding == "gzip" else zlib.compress(plain)
    headers = {"Content-Type": "application/json", "Content-Encoding": coding}
    async with http.post("/v1/tools", data=body, headers=headers) as response:
        assert (response.status, (await response.json())["id"]) == (201, "t1")


async def test_pages_of_other_sites_are_told_nothing_by_default(http: Http) -> None:
    async with http.get("/v1/tools/t1", headers={"Origin": APP}) as response:
        assert not [name for name in response.headers if name.startswith("Access-Control")]


class TestCors:
    @pytest.fixture
    def config(self) -> GatewayConfig:
        return GatewayConfig(cors_origins=frozenset({APP}))

    async def test_a_page_of_a_named_origin_may_ask_first(self, http: Http) -> None:
        headers = {
            "Origin": APP,
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "authorization",
        }
        async with http.options("/v1/tools", headers=headers) as response:
            assert response.status == 204
            assert response.headers["Access-Control-Allow-Origin"] == APP
            assert "POST" in response.headers["Access-Control-Allow-Methods"]
            assert "Authorization" in response.headers["Access-Control-Allow-Headers"]
            assert response.headers["Vary"] == "Origin"

    @pytest.mark.parametrize("path", ["/workshop.v1.WorkshopService/Weigh", "/docs", "/v1/count"])
    async def test_so_it_may_whatever_serves_the_path(self, http: Http, path: str) -> None:
        headers = {
            "Origin": APP,
            "Access-Control-Request-Method": "GET",
            "Access-Control-Request-Headers": "connect-protocol-version, content-type",
        }
        async with http.options(path, headers=headers) as response:
            assert response.status == 204
            assert response.headers["Access-Control-Allow-Origin"] == APP
            assert response.headers["Access-Control-Allow-Methods"] == response.headers["Allow"]
            assert "Connect-Protocol-Version" in response.headers["Access-Control-Allow-Headers"]

    async def test_a_page_that_does_not_ask_is_told_what_is_allowed_and_no_more(
        self, http: Http
    ) -> None:
        async with http.options("/v1/tools", headers={"Origin": APP}) as response:
            assert response.headers["Allow"]
            assert "Access-Control-Allow-Methods" not in response.headers

    @pytest.mark.parametrize("kind", ["connect+json", "grpc-web+json"])
    async def test_it_may_read_streams_of_every_protocol(self, http: Http, kind: str) -> None:
        async with http.post(
            "/workshop.v1.WorkshopService/Count",
            data=b"\0\0\0\0\x0b" + b'{"count":1}',
            headers={"Origin": APP, "Content-Type": f"application/{kind}"},
        ) as response:
            assert b'"number":1' in await response.read()
            assert response.headers["Access-Control-Allow-Origin"] == APP
            assert response.headers["Server"] == "Steward"

    @pytest.mark.parametrize("path", ["/v1/tools/t1", "/v1/nothing", "/v1/count?to=1"])
    async def test_it_may_read_answers_refusals_and_streams(self, http: Http, path: str) -> None:
        async with http.get(path, headers={"Origin": APP}) as response:
            assert response.headers["Access-Control-Allow-Origin"] == APP
            assert "X-Request-Id" in response.headers["Access-Control-Expose-Headers"]
            assert "Access-Control-Allow-Credentials" not in response.headers

    async def test_caches_keep_answers_to_different_pages_apart(self, http: Http) -> None:
        async with http.get(f"/v1/tools/{LONG}", headers={"Origin": APP}) as response:
            assert response.headers["Vary"] == "Accept-Encoding, Origin"

    async def test_a_page_of_another_origin_may_not(self, http: Http) -> None:
        headers = {"Origin": "https://evil.example", "Access-Control-Request-Method": "POST"}
        async with http.options("/v1/tools", headers=headers) as response:
            assert "Access-Control-Allow-Origin" not in response.headers
            assert response.headers["Vary"] == "Origin"
