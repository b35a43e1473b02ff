"""The descriptions and the explorer over HTTP: made once, when first asked for; kept as bytes."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from importlib import metadata, resources
from typing import Any

import orjson
from aiohttp import web
from grpc import StatusCode

from steward_gateway.bodies import JSON
from steward_gateway.contracts import Contracts
from steward_gateway.errors import Refusal, Refused
from steward_gateway.negotiation import compressed, is_known, takes_gzip

Page = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]

DISTRIBUTION = "steward-agents"

ALLOW = "GET, HEAD, OPTIONS"

EXPLORER_FILES = {
    "explorer.js": "text/javascript; charset=utf-8",
    "explorer.css": "text/css; charset=utf-8",
}
EXPLORER_HEADERS = {
    # Nothing from elsewhere, nothing inline, in nobody's frame; calls go to this server only.
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
        "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


def description_pages(contracts: Contracts) -> Mapping[str, Page]:
    """The pages to serve beside the routes of the contracts, by path."""
    explorer = resources.files("steward_gateway") / "explorer"

    def page(name: str, content_type: str) -> Page:
        make = (explorer / name).read_bytes
        return _Document(make, content_type, EXPLORER_HEADERS).serve

    return {
        **{
            f"/{name}.json": _Document(partial(describe, contracts), JSON).serve
            for name, describe in DESCRIPTIONS.items()
        },
        "/docs": page("index.html", "text/html; charset=utf-8"),
        "/docs/": _to_docs,
        **{f"/docs/{name}": page(name, kind) for name, kind in EXPLORER_FILES.items()},
    }


async def _to_docs(request: web.BaseRequest) -> web.StreamResponse:
    """The page's own links count from a path without a slash at its end."""
    del request
    return web.Response(status=308, headers={"Location": "../docs"})


def _openapi(contracts: Contracts) -> bytes:
    from steward_gateway.describe.openapi import build_openapi

    return _described(build_openapi, contracts)


def _asyncapi(contracts: Contracts) -> bytes:
    from steward_gateway.describe.asyncapi import build_asyncapi

    return _described(build_asyncapi, contracts)


DESCRIPTIONS: Mapping[str, Callable[[Contracts], bytes]] = {
    "openapi": _openapi,
    "asyncapi": _asyncapi,
}
"""What there is to read of the contracts, as JSON."""


def _described(build: Callable[..., dict[str, Any]], contracts: Contracts) -> bytes:
    from steward_gateway.describe.comments import read_comments

    return orjson.dumps(build(contracts, read_comments(contracts.descriptor_set()), _version()))


def _version() -> str:
    try:
        return metadata.version(DISTRIBUTION)
    except metadata.PackageNotFoundError:  # run from source that was never installed
        return "0"


class _Document:
    """Bytes that do not change while the server runs."""

    def __init__(
        self,
        make: Callable[[], bytes],
        content_type: str,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self._make = make
        self._headers = {
            "Content-Type": content_type,
            "Cache-Control": "no-cache",
            "Vary": "Accept-Encoding",
            **(headers or {}),
        }
        self._making = asyncio.Lock()
        self._body: bytes | None = None
        self._packed = b""

    async def serve(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer a GET or HEAD, and say to OPTIONS that this is what is served.

        Raises:
            Refused: it is another method.
        """
        if request.method == "OPTIONS":
            return web.Response(status=204, headers={"Allow": ALLOW})
        if request.method not in ("GET", "HEAD"):
            raise Refused(
                Refusal(
                    StatusCode.UNIMPLEMENTED,
                    f"{request.method} is not served at this path; {ALLOW} are",
                    http=405,
                    headers={"Allow": ALLOW},
                )
            )
        async with self._making:
            if self._body is None:
                body = await asyncio.to_thread(self._make)
                self._packed = await asyncio.to_thread(compressed, body)
                self._headers["ETag"] = f'W/"{hashlib.sha256(body).hexdigest()[:32]}"'
                self._body = body
        headers = self._headers
        if is_known(request.headers.get("If-None-Match", ""), headers["ETag"]):
            return web.Response(status=304, headers=headers)
        if takes_gzip(request.headers.get("Accept-Encoding", "")):
            packed = {**headers, "Content-Encoding": "gzip"}
            return web.Response(body=self._packed, headers=packed)
        return web.Response(body=self._body, headers=headers)
