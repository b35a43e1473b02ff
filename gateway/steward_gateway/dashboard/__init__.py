"""The dashboard: a page for people, at `/`, that uses what everybody can: REST and WebSockets.

There is no build step. index.html loads main.js, which shows the page that the URL names; each is a
module in pages/. What vendor/ has is made by tools/dashboard/vendor.js.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import PurePath

from steward_gateway.documents import TYPES, Document, Page, page_headers

SECTIONS = (
    "agents",
    "spending",
    "environments",
    "playbooks",
    "executions",
    "inference",
    "settings",
)
"""The first segments of URLs the page answers to; main.js knows what to show there."""

# The terminal makes style sheets of its own while it runs, and what it shows may be an image.
HEADERS = page_headers("style-src 'self' 'unsafe-inline'", "img-src 'self' data: blob:")


def dashboard_pages() -> Mapping[str, Page]:
    """The pages to serve beside the routes of the contracts, by path."""
    folder = resources.files("steward_gateway") / "dashboard"
    files = {path: _served(path, file) for path, file in _files(folder)}
    index = files["index.html"]
    sections = {f"/{name}{end}": index for name in SECTIONS for end in ("", "/*")}
    return {
        "/": index,
        **sections,
        **{f"/dashboard/{path}": page for path, page in files.items()},
    }


def _served(path: str, file: Traversable) -> Page:
    return Document(file.read_bytes, TYPES[PurePath(path).suffix], HEADERS).serve


def _files(folder: Traversable, below: str = "") -> Iterator[tuple[str, Traversable]]:
    """Each file a browser may ask for, with its path."""
    for each in folder.iterdir():
        if each.is_dir():
            yield from _files(each, f"{below}{each.name}/")
        elif PurePath(each.name).suffix in TYPES:
            yield below + each.name, each
