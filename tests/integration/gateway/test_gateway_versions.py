"""Versions of resources: `ETag` out of a field, `If-Match` into one, and 412 once it has passed."""

from __future__ import annotations

import re
from typing import Any

import aiohttp
import pytest

Http = aiohttp.ClientSession

PLAIN = {"Accept-Encoding": "identity"}


async def patch(http: Http, if_match: str | None, **headers: str) -> aiohttp.ClientResponse:
    if if_match is not None:
        headers["If-Match"] = if_match
    return await http.patch("/v1/parts/p1", json={"name": "bolt"}, headers=headers)


async def tag_of(http: Http) -> str:
    async with http.get("/v1/parts/p1", headers=PLAIN) as response:
        return response.headers["ETag"]


async def test_a_tag_is_a_version_and_a_digest(http: Http) -> None:
    tag = await tag_of(http)
    assert re.fullmatch(r'"7~[0-9a-f]{18}"', tag)
    async with http.get("/v1/parts/p1", headers={"If-None-Match": f'"6", W/{tag}'}) as response:
        assert (response.status, response.headers["ETag"]) == (304, tag)
        assert response.headers["Cache-Control"] == "private, no-cache"
        assert await response.read() == b""
    async with http.head("/v1/parts/p1", headers={"If-None-Match": tag}) as response:
        assert response.status == 304
    async with http.get("/v1/parts/p1", headers={"If-None-Match": '"7"'}) as response:
        assert response.status == 200


async def test_what_goes_on_within_a_version_is_never_taken_for_unchanged(
    http: Http, core: Any
) -> None:
    tag = await tag_of(http)
    core.part_notes = "used once more"
    async with http.get("/v1/parts/p1", headers={"If-None-Match": tag}) as response:
        assert response.status == 200
        assert response.headers["ETag"].partition("~")[0] == '"7'
    async with await patch(http, tag) as response:  # the version is the one that was read
        assert response.status == 200


async def test_the_tag_of_a_compressed_answer_is_weak(http: Http) -> None:
    async with http.get("/v1/parts/p1", headers={"Accept-Encoding": "gzip"}) as response:
        assert response.headers["Content-Encoding"] == "gzip"
        assert response.headers["ETag"] == f"W/{await tag_of(http)}"


async def test_a_change_is_made_to_the_version_it_was_meant_for(http: Http, core: Any) -> None:
    async with await patch(http, '"7"') as response:
        assert response.status == 200
        assert response.headers["ETag"].startswith('"8~')
    async with await patch(http, '"7"') as response:
        assert response.status == 412
        error = (await response.json())["error"]
        assert (error["code"], error["message"]) == ("PRECONDITION_FAILED", "it has version 8")
    async with await patch(http, 'W/"8"') as response:
        assert response.status == 200
    assert core.part_version == 9


async def test_no_version_is_not_the_same_as_no_condition(http: Http, core: Any) -> None:
    async with await patch(http, '"0"') as response:
        assert response.status == 412
    assert core.part_version == 7


@pytest.mark.parametrize("if_match", [None, "*", ' "7" '])
async def test_a_change_without_a_condition_or_with_a_true_one_is_made(
    http: Http, core: Any, if_match: str | None
) -> None:
    async with await patch(http, if_match) as response:
        assert response.status == 200
    assert core.part_version == 8


@pytest.mark.parametrize(
    "if_match", ["7", '"seven"', '"7', '"6", "7"', '"9223372036854775808"', '""', ""]
)
async def test_a_condition_that_is_none_is_refused(http: Http, core: Any, if_match: str) -> None:
    async with await patch(http, if_match) as response:
        assert response.status == 400
        assert list((await response.json())["error"]["fields"]) == ["If-Match"]
    assert core.part_version == 7


async def test_a_passed_version_in_the_body_alone_is_a_conflict(http: Http) -> None:
    async with http.patch("/v1/parts/p1?version=3", json={"name": "bolt"}) as response:
        assert response.status == 409


async def test_a_condition_is_never_ignored_where_there_are_no_versions(
    http: Http, core: Any
) -> None:
    async with http.post("/v1/tools", json={}, headers={"If-Match": '"7"'}) as response:
        assert response.status == 412
    async with http.delete("/v1/tools/t1", headers={"If-Match": '"7"'}) as response:
        assert response.status == 412
    assert core.requests == []
    async with http.delete("/v1/tools/t1", headers={"If-Match": "*"}) as response:
        assert response.status == 204
