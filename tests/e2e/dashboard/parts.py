"""Parts of a page, as people find them."""

from __future__ import annotations

from playwright.sync_api import Locator, Page, expect


def row(page: Page, table: str, text: str) -> Locator:
    """The row of a table in which a text stands."""
    region = page.get_by_role("region", name=table, exact=True)
    return region.get_by_role("row").filter(has_text=text)


def behind(page: Page, text: str) -> Locator:
    """The row in which a text stands behind an open dialog, where nothing has a role."""
    return page.locator("tr").filter(has_text=text)


def dialog(page: Page) -> Locator:
    return page.get_by_role("dialog")


def button(page: Page | Locator, name: str) -> Locator:
    return page.get_by_role("button", name=name, exact=True)


def figure(page: Page, label: str) -> Locator:
    return page.locator(".figure").filter(has=page.get_by_text(label, exact=True))


def loaded_again(page: Page) -> None:
    """A page loads again what it shows when the server was away and is back."""
    page.context.set_offline(True)
    expect(page.get_by_text("The server cannot be reached.")).to_be_visible()
    page.context.set_offline(False)
