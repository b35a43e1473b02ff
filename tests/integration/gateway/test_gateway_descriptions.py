"""The descriptions and the explorer over HTTP."""

from __future__ import annotations

import re
from typing import Any

import aiohttp
import pytest

Http = aiohttp.ClientSession

PAGES = {
    "/openapi.json": "application/json",
    "/asyncapi.json": "application/json",
    "/docs": "text/html; charset=utf-8",
    "/docs/explorer.js": "text/javascript; charset=utf-8",
    "/docs/explorer.css": "text/css; charset=utf-8",
}


@pytest.mark.parametrize(("path", "content_type"), PAGES.items())
async def test_a_page_is_whole_and_asked_again_cheaply(
    http: Http, path: str, content_type: str
) -> None:
    async with http.get(path) as response:
        assert (response.status, response.headers["Content-Type"]) == (200, content_type)
        assert response.headers["Cache-Control"] == "no-cache"
        assert response.headers["X-Request-Id"]
        etag = response.headers["ETag"]
        assert await response.read()
    for known in (etag, f'"other", {etag}', etag.removeprefix("W/"), "*"):
        async with http.get(path, headers={"If-None-Match": known}) as response:
            assert (response.status, await response.read()) == (304, b"")
    async with http.get(path, headers={"If-None-Match": '"other"'}) as response:
        assert response.status == 200
    async with http.head(path) as response:
        assert (response.status, await response.read()) == (200, b"")
    async with http.post(path) as response:
        assert (response.status, response.headers["Allow"]) == (405, "GET, HEAD, OPTIONS")
    async with http.options(path) as response:
        assert (response.status, response.headers["Allow"]) == (204, "GET, HEAD, OPTIONS")
    sizes = []
    for coding in ("identity", "gzip"):
        async with http.get(path, headers={"Accept-Encoding": coding}) as response:
            assert response.headers["Vary"] == "Accept-Encoding"
            assert response.headers.get("Content-Encoding", "identity") == coding
            sizes.append(int(response.headers["Content-Length"]))
            assert len(await response.read()) == sizes[0]  # unpacked by the client
    assert sizes[1] < sizes[0]


async def test_the_description_is_of_what_is_served(http: Http) -> None:
    async with http.get("/openapi.json") as response:
        document: Any = await response.json()
    upload = document["paths"]["/v1/upload/{name}"]["put"]
    assert upload["requestBody"]["content"] == {"*/*": {"schema": {}}}
    old = document["paths"]["/old/tools/{tool_shelf}"]["post"]
    assert old["x-alias-of"] == "POST /v1/tools"
    held = old["requestBody"]["content"]["application/json"]["schema"]["properties"]
    assert "shelf" not in held
    listed = document["paths"]["/v1/tools"]["get"]["parameters"]
    assert {"like.rating", "max_price_usd", "tags"} <= {each["name"] for each in listed}
    parameter = document["paths"]["/v1/paths/{tool_id}"]["get"]["parameters"][0]
    assert "May hold slashes." in parameter["description"]
    assert parameter["x-slashes"] is True
    assert "422" in document["paths"]["/cyborg/fail"]["post"]["responses"]
    assert "LOCK" not in str(document["paths"]["/v1/tools/{tool_id}"].keys())


async def test_the_explorer_lets_nothing_in_and_nothing_out(http: Http) -> None:
    async with http.get("/docs") as response:
        page = await response.text()
        policy = response.headers["Content-Security-Policy"]
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        assert response.headers["Referrer-Policy"] == "no-referrer"
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    async with http.get("/docs/explorer.js") as response:
        script = await response.text()
    async with http.get("/docs/explorer.css") as response:
        style = await response.text()
    for text in (page, script, style):
        assert not re.search(r"https?://|innerHTML|outerHTML|insertAdjacent|document\.write", text)
        assert not re.search(r"localStorage|sessionStorage|document\.cookie|eval\(", text)
    assert not re.search(r"<script(?![^>]* src=)|\son\w+=|style=", page)
    assert "url(" not in style


async def test_what_the_explorer_loads_is_there(http: Http) -> None:
    async with http.get("/docs") as response:
        page = await response.text()
    for path in re.findall(r'(?:src|href)="(docs/[^"]+)"', page):
        async with http.get(f"/{path}") as response:
            assert response.status == 200, path
    async with http.get("/docs/", allow_redirects=True) as response:
        assert response.url.path == "/docs"
    async with http.get("/docs/nothing") as response:
        assert response.status == 404
