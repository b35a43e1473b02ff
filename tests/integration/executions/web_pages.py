"""A site on loopback with pages that are good, bad and hostile."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

FORM = """
<!doctype html><title>A form</title>
<style>body { font: 18px sans-serif; padding: 2em }</style>
<h1>Sign in</h1>
<form onsubmit="event.preventDefault(); document.title = 'Sent ' + name.value">
  <label>Name <input id=name name=name placeholder="Your name"></label>
  <label>Password <input id=password type=password></label>
  <label>Age <input id=age type=number></label>
  <textarea id=notes>  some notes  </textarea>
  <select id=choice><option value=a>A</option><option value=b selected>B</option></select>
  <button id=send data-kind=main>Send</button>
  <button id=off disabled>Off</button>
  <button id=sealed hidden>Hidden</button>
  <input id=fixed readonly value=fixed>
  <input id=file type=file onchange="document.title = 'File ' + this.files[0].name">
</form>
<ul><li>one</li><li>two</li><li>three</li></ul>
<p id=text>  Hello, <b>world</b>  </p>
"""
LATE = """
<!doctype html><title>Late</title><h1 id=head>Wait</h1><p id=leaving>Leaving</p>
<button id=button disabled onclick="document.title = 'Clicked'">Soon</button>
<script>setTimeout(() => {
  head.textContent = "Ready"; leaving.remove(); button.disabled = false;
  document.body.insertAdjacentHTML("beforeend", "<p id=new data-state=on>New</p>");
}, 300)</script>
"""
COVERED = """
<!doctype html><title>Covered</title><button id=under>Under</button>
<div id=cover style="position: fixed; inset: 0"></div>
"""
TRAP = """
<!doctype html><title>Trap</title><button id=later hidden
  onclick="fetch('/clicked')">Later</button>
<script>setTimeout(() => { later.hidden = false }, 1500)</script>
"""
LINKS = """
<!doctype html><title>Links</title>
<a id=small href=/small download>small</a> <a id=big href=/big>big</a>
<a id=slow href=/slow-download>slow</a> <a id=named href=/slow-download download>named</a>
<a id=blob onclick="this.href = window.URL.createObjectURL(new Blob(['made here']))" href=#
   download="../../made.txt">blob</a>
<a id=file href=file:///etc/hostname>file</a> <a id=chrome href=chrome://version>chrome</a>
<button id=own onclick="location = window.URL.createObjectURL(
  new Blob(['own'], {type: 'text/html'}))">own</button>
<button id=popup onclick="window.open('/form')">popup</button>
<button id=many onclick="for (let i = 0; i < 12; i++) window.open('/form?' + i)">many</button>
<button id=ask onclick="document.title = 'Answer ' + confirm('Really?')">ask</button>
"""
BURST = """
<!doctype html><title>Burst</title><h1 id=head>0</h1>
<script>
const begun = performance.now();
const step = () => {
  head.textContent = performance.now() - begun < 1300 ? performance.now() : "rests";
  if (head.textContent !== "rests") requestAnimationFrame(step);
};
step();
</script>
"""
CHANGING = """
<!doctype html><title>Changing</title><canvas id=canvas width=400 height=300></canvas>
<script>
const draw = canvas.getContext("2d");
const step = () => {
  draw.fillStyle = `hsl(${Math.random() * 360} 80% 50%)`;
  draw.fillRect(Math.random() * 350, Math.random() * 250, 50, 50);
  requestAnimationFrame(step);
};
step();
</script>
"""
BUSY = """
<!doctype html><title>Busy</title><h1>Busy</h1>
<script>onload = () => setTimeout(() => { for (;;); }, 50)</script>
"""
TALL = "<!doctype html><title>Tall</title><div style='height: 40000px'>tall</div>"
PERSPECTIVE = """
<!doctype html><title>Perspective</title>
<div data-component=ia.container.flex data-component-path=C.0>
  <button id=start data-component-id=startButton>Start</button>
  <label>Speed <input name=speed placeholder="rpm"></label>
  <input name=speed type=checkbox>
  <a href=/form>Details</a>
  <input type=password value=hunter2>
  <div class=noise><button>Noise</button></div>
  <x-gauge></x-gauge>
</div>
<nav id=dock hidden>Dock</nav>
<button id=opener onclick="dock.hidden = false">Open dock</button>
<script>
class Gauge extends HTMLElement {
  connectedCallback() {
    this.attachShadow({mode: "open"}).innerHTML = "<p><button>In the shadow</button></p>";
  }
}
customElements.define("x-gauge", Gauge);
</script>
"""
LYING = """
<!doctype html><title>Lying</title><button id=a>A</button>
<script>
const push = Array.prototype.push;
Array.prototype.push = function (each) {
  return push.call(this, each?.xpath === undefined ? each : {
    id: "x".repeat(1e6), index: "one", visible: "yes", position: {x: NaN, y: "\\ud800"},
    dataAttributes: [1, 2],
  });
};
</script>
"""
METADATA = """
<!doctype html><title>Metadata</title>
<img src=http://169.254.169.254/picture onerror="document.title = 'refused'">
"""


@dataclass
class WebPages:
    """What is served, and what has been asked for."""

    url: str = ""
    asked: list[str] = field(default_factory=list)
    cut_off: asyncio.Event = field(default_factory=asyncio.Event)


@asynccontextmanager
async def web_pages(tls: ssl.SSLContext | None = None) -> AsyncIterator[WebPages]:
    site = WebPages()
    app = web.Application(middlewares=[_remember(site)])
    pages = {
        "form": FORM,
        "late": LATE,
        "covered": COVERED,
        "trap": TRAP,
        "links": LINKS,
        "burst": BURST,
        "changing": CHANGING,
        "busy": BUSY,
        "tall": TALL,
        "perspective": PERSPECTIVE,
        "lying": LYING,
        "metadata": METADATA,
        "still": "<!doctype html><title>Still</title><h1>Still</h1>",
    }
    for name, html in pages.items():
        app.router.add_get(f"/{name}", _page(html))
    app.router.add_get("/broken", _page("<title>Broken</title><h1>Broken</h1>", status=500))
    app.router.add_get("/clicked", _page(""))
    app.router.add_get("/polled", _page(""))
    app.router.add_get("/hangs", _hangs)
    app.router.add_get("/polls", _page("<script>setInterval(() => fetch('/polled'), 50)</script>"))
    app.router.add_get("/drops", _drops)
    app.router.add_get("/circle", _leads_to("/circle"))
    app.router.add_get("/to-metadata", _leads_to("http://169.254.169.254/latest/meta-data/"))
    app.router.add_get("/small", _download("report.csv", b"a,b\n1,2\n"))
    app.router.add_get("/slow-download", _download("slow.txt", b"slow", wait_s=0.5))
    app.router.add_get("/big", _endless(site))
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    listening = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls)
    await listening.start()
    site.url = f"{'https' if tls else 'http'}://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield site
    finally:
        await runner.cleanup()


def _remember(site: WebPages) -> Middleware:
    @web.middleware
    async def remember(request: web.Request, handler: Handler) -> web.StreamResponse:
        site.asked.append(request.path)
        return await handler(request)

    return remember


def _page(html: str, status: int = 200) -> Handler:
    async def page(request: web.Request) -> web.StreamResponse:
        return web.Response(text=html, content_type="text/html", status=status)

    return page


def _leads_to(url: str) -> Handler:
    async def elsewhere(request: web.Request) -> web.StreamResponse:
        raise web.HTTPFound(url)

    return elsewhere


def _download(name: str, content: bytes, wait_s: float = 0) -> Handler:
    async def download(request: web.Request) -> web.StreamResponse:
        await asyncio.sleep(wait_s)
        disposition = {"Content-Disposition": f'attachment; filename="{name}"'}
        return web.Response(body=content, headers=disposition)

    return download


def _endless(site: WebPages) -> Handler:
    async def endless(request: web.Request) -> web.StreamResponse:
        disposition = {"Content-Disposition": 'attachment; filename="big.bin"'}
        response = web.StreamResponse(headers=disposition)
        await response.prepare(request)
        with suppress(ConnectionError):
            for _ in range(2_000):
                await response.write(b"x" * 500_000)
                await asyncio.sleep(0.005)
        site.cut_off.set()
        return response

    return endless


async def _hangs(request: web.Request) -> web.StreamResponse:
    await asyncio.sleep(60)
    return web.Response()


async def _drops(request: web.Request) -> web.StreamResponse:
    assert request.transport is not None
    request.transport.abort()
    return web.Response()
