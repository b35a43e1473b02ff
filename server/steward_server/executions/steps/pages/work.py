"""Work that is done on a run's page."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from steward_server.executions.steps.pages.chromium import Browsers, require_playwright
from steward_server.executions.work import Job, Session, Work

if TYPE_CHECKING:
    from steward_server.executions.steps.pages.tab import PageWork, Tab


def on_page(browsers: Browsers, work: PageWork, *, opens: bool = False) -> Work:
    """Work on the page that the steps of a run share; the first of them makes it.

    Work that opens an address may do with a new page where the last one is over.
    """

    async def done(job: Job) -> Mapping[str, Any]:
        tab = await job.session.shared("browser", lambda: _tab(browsers, job.session))
        return await tab.do(job, work, opens=opens)

    return done


@asynccontextmanager
async def _tab(browsers: Browsers, session: Session) -> AsyncIterator[Tab]:
    await require_playwright()
    from steward_server.executions.steps.pages.tab import opened

    async with opened(browsers, session) as tab:
        yield tab
