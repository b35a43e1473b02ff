"""The dashboard: a page for people, at `/`, that uses what everybody can: REST and WebSockets.

There is no build step. index.html loads main.js, which shows the page that the URL names; each is a
module in pages/. What vendor/ has is made by tools/dashboard/vendor.js.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator, Mapping
from functools import cache, partial
from importlib import resources
from importlib.resources.abc import Traversable

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

_FIRST_PAGE = "overview"
"""What is shown at `/`."""

_MODULES = b"<!-- modules -->"
"""Where index.html leaves room for the modules a page is made of."""

# What is imported while the page runs, in parentheses, is asked for when it is needed.
_IMPORTED = re.compile(r'^(?:import|\} from|export) .*?"(\.[^"]+)";$', re.MULTILINE)

# The terminal makes style sheets of its own while it runs, and what it shows may be an image.
HEADERS = page_headers("style-src 'self' 'unsafe-inline'", "img-src 'self' data: blob:")


def dashboard_pages() -> Mapping[str, Page]:
    """The pages to serve beside the routes of the contracts, by path."""
    files = _all_files()
    index = files["index.html"]
    shown = {name: _page(index, files, name) for name in (_FIRST_PAGE, *SECTIONS)}
    sections = {f"/{name}{end}": shown[name] for name in SECTIONS for end in ("", "/*")}
    return {
        "/": shown[_FIRST_PAGE],
        **sections,
        **{
            f"/dashboard/{path}": Document(
                file.read_bytes, TYPES[posixpath.splitext(path)[1]], HEADERS
            ).serve
            for path, file in files.items()
            if file is not index
        },
    }


def _page(index: Traversable, files: Mapping[str, Traversable], name: str) -> Page:
    """The document of a section."""
    make = partial(_with_modules, index, files, ("main.js", f"pages/{name}.js"))
    return Document(make, TYPES[".html"], HEADERS).serve


def _with_modules(
    index: Traversable, files: Mapping[str, Traversable], first: tuple[str, ...]
) -> bytes:
    """The document with links to all modules of a page.

    A browser that is not told of them asks for each only when it has read the one that imports it.
    """
    found: dict[str, None] = dict.fromkeys(first)
    reading = list(first)
    while reading:
        path = reading.pop()
        for imported in _IMPORTED.findall(files[path].read_text("utf-8")):
            module = posixpath.normpath(posixpath.join(posixpath.dirname(path), imported))
            if module not in found:
                found[module] = None
                reading.append(module)
    links = (f'<link rel="modulepreload" href="/dashboard/{module}">' for module in found)
    return index.read_bytes().replace(_MODULES, "\n  ".join(links).encode())


@cache
def _all_files() -> Mapping[str, Traversable]:
    return dict(_files(resources.files("steward_gateway") / "dashboard"))


def _files(folder: Traversable, below: str = "") -> Iterator[tuple[str, Traversable]]:
    """Each file a browser may ask for, with its path."""
    for each in folder.iterdir():
        if each.is_dir():
            yield from _files(each, f"{below}{each.name}/")
        elif posixpath.splitext(each.name)[1] in TYPES:
            yield below + each.name, each
