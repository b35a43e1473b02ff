"""A run whose steps are done on pages of a site."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from steward_server.executions.steps import browser, perspective
from steward_server.executions.steps.pages.chromium import Browsers
from steward_server.executions.work import StepFailed, Work
from tests.integration.executions.web_pages import WebPages
from tests.jobs import TestSession

PNG = b"\x89PNG\r\n\x1a\n"


class Run:
    """Does steps by their names: `browser.` may be left out."""

    def __init__(self, session: TestSession, browsers: Browsers, site: WebPages) -> None:
        self.session = session
        self.site = site
        self._work: Mapping[str, Work] = {**browser.work(browsers), **perspective.work(browsers)}

    async def open(self, page: str, **parameters: Any) -> Any:
        return await self.do("navigate", url=f"{self.site.url}/{page}", **parameters)

    async def do(self, step: str, **parameters: Any) -> Any:
        step_type = step if "." in step else f"browser.{step}"
        return await self.session.do(self._work, step_type, **parameters)

    async def fails(self, step: str, **parameters: Any) -> StepFailed:
        with pytest.raises(StepFailed) as failed:
            await self.do(step, **parameters)
        return failed.value

    async def why(self, step: str, **parameters: Any) -> str:
        return str(await self.fails(step, **parameters))

    @property
    def tab(self) -> Any:
        return self.session.opened["browser"]

    async def title(self) -> str:
        return str(await self.tab.title())
