"""The descriptions and the explorer over HTTP: made once, when first asked for; kept as bytes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from importlib import metadata, resources
from pathlib import PurePath
from typing import Any

import orjson
from aiohttp import web

from steward_gateway.bodies import JSON
from steward_gateway.contracts import Contracts
from steward_gateway.documents import TYPES, Document, Page, page_headers

DISTRIBUTION = "steward-agents"

EXPLORER_FILES = ("explorer.js", "explorer.css")


def description_pages(contracts: Contracts) -> Mapping[str, Page]:
    """The pages to serve beside the routes of the contracts, by path."""
    explorer = resources.files("steward_gateway") / "explorer"

    def page(name: str) -> Page:
        content_type = TYPES[PurePath(name).suffix]
        return Document((explorer / name).read_bytes, content_type, page_headers()).serve

    return {
        **{
            f"/{name}.json": Document(partial(describe, contracts), JSON).serve
            for name, describe in DESCRIPTIONS.items()
        },
        "/docs": page("index.html"),
        "/docs/": _to_docs,
        **{f"/docs/{name}": page(name) for name in EXPLORER_FILES},
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
