"""A server, and a window of a real browser that shows its dashboard."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from axe_playwright_python.base import AXE_SCRIPT, AxeResults
from playwright.sync_api import Browser, Page, Route, expect, sync_playwright

from steward_server.executions.steps.pages.chromium import USUAL_NAMES
from tests.e2e.process import Steward
from tests.live import ADMIN_PASSWORD
from tests.missing import missing

PATIENCE_MS = 20_000
TWO_FRAMES = "new Promise((tell) => requestAnimationFrame(() => requestAnimationFrame(tell)))"
"""Within them charts are drawn anew for a window of another size."""
RULES: dict[Literal["light", "dark"], list[str]] = {
    "light": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"],
    "dark": ["color-contrast", "link-in-text-block"],
}
"""All rules of WCAG that a program can check, and in the dark those that are about colours."""
OFFLINE = ("Failed to load resource: net::ERR", "WebSocket connection to")
"""What a browser logs by itself when the server is away or refuses: no fault of the page's."""


class Site:
    """A server whose administrator is signed in."""

    def __init__(self, server: Steward) -> None:
        self.server = server
        self.url = server.url
        self.session = self.sign_in("admin", ADMIN_PASSWORD)

    def sign_in(self, username: str, password: str) -> dict[str, Any]:
        """What a login answers."""
        wish = {"username": username, "password": password}
        answer: dict[str, Any] = self.call("POST", "/api/auth/login", wish, token="")
        return answer

    def call(self, method: str, path: str, body: object = None, *, token: str | None = None) -> Any:
        """The JSON a call is answered with, made by the administrator.

        Raises:
            AssertionError: it was refused.
        """
        bearer = self.session["access_token"] if token is None else token
        headers = {"Content-Type": "application/json"}
        if bearer:
            headers["Authorization"] = f"Bearer {bearer}"
        data = None if body is None else json.dumps(body).encode()
        request = Request(self.url + path, data, headers, method=method)
        try:
            with urlopen(request, timeout=30) as answer:
                return json.load(answer)
        except HTTPError as error:
            raise AssertionError(f"{method} {path}: {error.code} {error.read()!r}") from error

    def end(self, path: str) -> None:
        """Delete what is at a path; the answer to that has no body."""
        bearer = f"Bearer {self.session['access_token']}"
        request = Request(self.url + path, headers={"Authorization": bearer}, method="DELETE")
        with urlopen(request, timeout=30) as answer:
            assert answer.status == 204

    def agent(self, name: str, budget_usd: float = 10) -> str:
        """The id of a new agent."""
        provider = self.call("GET", "/api/v1/providers")["providers"] or [
            self.call(
                "POST",
                "/api/v1/providers",
                {"name": "openai", "kind": "openai", "api_key": "sk-1"},
            )
        ]
        wish = {"name": name, "budget_usd": budget_usd, "provider": provider[0]["name"]}
        agent_id: str = self.call("POST", "/api/v1/agents", wish)["id"]
        return agent_id

    def person(self, username: str, role: str) -> dict[str, Any]:
        """What a new person's login answers."""
        password = "a quiet evening by the lake"
        wish = {"username": username, "password": password, "role": role}
        self.call("POST", "/api/v1/users", {**wish, "must_change_password": False})
        return self.sign_in(username, password)


@contextmanager
def chromium() -> Iterator[Browser]:
    """A browser without windows."""
    found = next(filter(None, map(shutil.which, USUAL_NAMES)), None)
    if found is None:
        missing("Chromium is not installed: make system-packages")
    expect.set_options(timeout=PATIENCE_MS)
    with sync_playwright() as playwright:
        switches = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        browser = playwright.chromium.launch(executable_path=found, args=switches)
        yield browser
        browser.close()


class Window:
    """A page of the dashboard, and what went wrong in it."""

    def __init__(self, page: Page, site: Site) -> None:
        self.page = page
        self.site = site
        self.faults: list[str] = []
        page.on("pageerror", lambda error: self.faults.append(str(error)))
        page.on("console", lambda said: self._hear(said.type, said.text))
        page.set_default_timeout(PATIENCE_MS)

    def _hear(self, kind: str, text: str) -> None:
        if kind == "error" and not text.startswith(OFFLINE):
            self.faults.append(text)

    def open(self, path: str) -> Page:
        """Go to a URL of the dashboard, and wait for its head."""
        self.page.goto(self.site.url + path)
        self.page.locator("h1").wait_for()
        return self.page

    def assert_accessible(self) -> None:
        """No rule of WCAG A or AA that a program can check is broken, in light or in dark."""
        self.page.evaluate(AXE_SCRIPT)
        for scheme, rules in RULES.items():
            self.page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
            options = {"runOnly": rules, "resultTypes": ["violations"]}
            found = AxeResults(self.page.evaluate("(options) => axe.run(options)", options))
            assert found.violations_count == 0, found.generate_report()

    def assert_fits(self, width: int) -> None:
        """Nothing has to be scrolled sideways to be read."""
        self.page.set_viewport_size({"width": width, "height": 900})
        self.page.evaluate(TWO_FRAMES)
        inner = self.page.evaluate("document.documentElement.scrollWidth")
        assert inner <= width, f"the page is {inner} px wide in a window of {width} px"


@contextmanager
def window_of(
    browser: Browser, site: Site, session: dict[str, Any] | None, *, width: int = 1280
) -> Iterator[Window]:
    """A window, signed in if there is a session; at its end nothing may have gone wrong in it."""
    with browser.new_context(viewport={"width": width, "height": 900}) as context:
        if session is not None:
            context.add_init_script(_keeping(session))
        window = Window(context.new_page(), site)
        yield window
        assert window.faults == [], f"it went wrong in the window: {window.faults}"


def held_at(page: Page, path: str) -> list[Route]:
    """The calls of a path from now on; each waits until the test lets it go on."""
    held: list[Route] = []

    def hold(route: Route) -> None:
        held.append(route)

    page.route(path, hold)
    return held


def _keeping(session: dict[str, Any]) -> str:
    """Puts a sign-in where the dashboard looks for one, once."""
    kept = json.dumps(
        {"access": session["access_token"], "refresh": session["refresh_token"], "endsAtMs": 0}
    )
    return f"""
        if (!sessionStorage.getItem("test")) {{
          const kept = {kept};
          kept.endsAtMs = Date.now() + 3_600_000;
          localStorage.setItem("steward.session", JSON.stringify(kept));
          sessionStorage.setItem("test", "kept");
        }}
    """
