"""Pages are not trusted: what they may not reach, whatever they do."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from steward_server.executions.steps.pages.chromium import Browsers
from steward_server.executions.steps.pages.config import BrowserConfig
from steward_server.executions.steps.pages.relay import Relay
from steward_server.playbooks.catalogue.binding import BadValues
from tests.certificates import Authority
from tests.integration.executions.run_on_page import Run
from tests.integration.executions.web_pages import WebPages, web_pages
from tests.jobs import TestSession

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(loop_scope="module")
async def run(session: TestSession, browsers: Browsers, site: WebPages) -> Run:
    return Run(session, browsers, site)


@pytest.mark.parametrize(
    "url",
    [
        "http://169.254.169.254/latest/",
        "http://2852039166/",
        "http://0xa9fea9fe/",
        "http://[::ffff:169.254.169.254]/",
        "http://[fd00:ec2::254]/",
        "https://169.254.169.254/",
        "http://100.100.100.200/",
    ],
)
async def test_no_page_is_opened_where_clouds_tell_secrets(run: Run, url: str) -> None:
    failed = await run.why("navigate", url=url)
    assert "belongs to the cloud's metadata, which is closed to pages" in failed


async def test_redirections_do_not_lead_there(run: Run) -> None:
    failed = await run.why("navigate", url=f"{run.site.url}/to-metadata")
    assert failed == (
        f"http://169.254.169.254/latest/meta-data/ cannot be opened, where {run.site.url}"
        "/to-metadata led: 169.254.169.254 belongs to the cloud's metadata, which is closed to "
        "pages"
    )


async def test_parts_of_pages_do_not_come_from_there(run: Run) -> None:
    await run.open("metadata")
    assert await run.title() == "refused"


async def test_names_are_judged_by_what_they_stand_for(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = socket.getaddrinfo

    def resolve(host: str, *rest: Any) -> Any:
        return real("169.254.169.254" if host == "inner.example" else host, *rest)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    failed = await run.why("navigate", url="http://inner.example/")
    assert "inner.example, which is 169.254.169.254, belongs to the cloud's metadata" in failed


@pytest.mark.parametrize("url", ["file:///etc/hostname", "chrome://version", "javascript:1"])
async def test_playbooks_open_nothing_but_web_pages(run: Run, url: str) -> None:
    with pytest.raises(BadValues, match="begins with http://"):
        await run.do("navigate", url=url)


@pytest.mark.parametrize("selector", ["#file", "#chrome"])
async def test_links_lead_nowhere_but_to_web_pages(run: Run, selector: str) -> None:
    await run.open("links")
    await run.do("click", selector=selector)
    assert run.tab.url == f"{run.site.url}/links"


async def test_a_page_that_goes_elsewhere_is_sent_back(run: Run) -> None:
    await run.open("links")
    await run.tab._page.evaluate("setTimeout(() => own.click(), 200)")
    failed = await asyncio.wait_for(run.why("wait", selector="#never"), 30)
    assert failed == "the page went to blob:, which is not opened"
    async with asyncio.timeout(30):
        while run.tab.url != "about:blank":
            await asyncio.sleep(0.05)
    assert await run.why("wait", selector="h1") == (
        "the page went to blob:, which is not opened; open one with browser.navigate"
    )
    assert (await run.open("still"))["http_status"] == 200


async def test_pages_are_not_told_where_they_are_and_send_no_notifications(run: Run) -> None:
    await run.open("still")
    page = run.tab._page
    where = "new Promise(r => navigator.geolocation.getCurrentPosition(r, e => r(e.code)))"
    assert await page.evaluate(where) == 1
    assert await page.evaluate("Notification.requestPermission()") == "denied"


async def test_runs_share_nothing(run: Run, own_session: TestSession, browsers: Browsers) -> None:
    await run.open("still")
    await run.tab._page.evaluate("document.cookie = 'mine=1'")
    other = Run(own_session, browsers, run.site)
    await other.open("still")
    assert await other.tab._page.evaluate("document.cookie") == ""


@asynccontextmanager
async def asking(relay: Relay) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    port = int(relay.url.rpartition(":")[2])
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield reader, writer
    finally:
        writer.close()


async def test_the_relay_ends_what_is_not_socks_and_refuses_what_is_no_connection() -> None:
    async with Relay().opened() as relay:
        async with asking(relay) as (reader, writer):
            writer.write(b"GET / HTTP/1.1\r\n\r\n")
            assert await reader.read() == b""
        async with asking(relay) as (reader, writer):
            writer.write(b"\x05\x01\x00" + b"\x05\x02\x00\x01\x7f\x00\x00\x01\x00\x50")
            assert await reader.read() == b"\x05\x00" + b"\x05\x07\x00\x01" + bytes(6)


async def test_the_relay_closes_every_connection_with_its_run(site: WebPages) -> None:
    port = int(site.url.rpartition(":")[2]).to_bytes(2, "big")
    async with Relay().opened() as relay:
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", int(relay.url.rpartition(":")[2])
        )
        writer.write(b"\x05\x01\x00" + b"\x05\x01\x00\x01\x7f\x00\x00\x01" + port)
        assert await reader.readexactly(12) == b"\x05\x00" + b"\x05\x00\x00\x01" + bytes(6)
    assert await asyncio.wait_for(reader.read(), 30) == b""
    writer.close()


async def test_certificates_that_nobody_vouches_for_are_refused_unless_it_is_allowed(
    run: Run, own_session: TestSession, tmp_path: Path
) -> None:
    pair = Authority(tmp_path).sign("gateway")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(pair.cert, pair.key)
    async with web_pages(context) as secure:
        failed = await run.why("navigate", url=f"{secure.url}/still")
        assert failed == (
            f"{secure.url}/still cannot be opened: nobody vouches for its certificate; if that is "
            "as it should be, set STEWARD_BROWSER_ANY_CERTIFICATE=1"
        )
        trusting = Browsers(BrowserConfig(any_certificate=True))
        assert (await Run(own_session, trusting, secure).open("still"))["http_status"] == 200
        await own_session.aclose()
        await trusting.aclose()
