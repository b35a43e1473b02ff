"""The document of each section, and what a browser asks for after it."""

from __future__ import annotations

import re
from urllib.request import urlopen

import pytest

from steward_gateway.dashboard import SECTIONS
from tests.e2e.dashboard.site import Site, Window


@pytest.mark.parametrize("path", ["/", *(f"/{name}" for name in SECTIONS)])
def test_a_document_names_every_module_its_page_begins_with(
    window: Window, site: Site, path: str
) -> None:
    with urlopen(site.url + path, timeout=10) as answer:
        named = set(
            re.findall(r'"modulepreload" href="(/dashboard/\S+\.js)"', answer.read().decode())
        )
    fetched: set[str] = set()
    window.page.on("request", lambda request: fetched.add(request.url.removeprefix(site.url)))
    window.open(path)
    window.page.wait_for_load_state("networkidle")
    modules = {each for each in fetched if each.startswith("/dashboard/") and each.endswith(".js")}
    later = {each for each in modules - named if "/vendor/" not in each}  # charts, a terminal
    assert later == set()
    assert len(named) > 10
