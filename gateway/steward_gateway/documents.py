"""Bytes over HTTP that do not change while the server runs: descriptions, pages and their parts."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Mapping

from aiohttp import web
from grpc import StatusCode

from steward_gateway.errors import Refusal, Refused
from steward_gateway.negotiation import compressed, is_known, takes_gzip

Page = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]

ALLOW = "GET, HEAD, OPTIONS"

TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
"""By the end of a file's name."""


def page_headers(*more: str) -> Mapping[str, str]:
    """Of a page for people: nothing from elsewhere, nothing inline, in nobody's frame.

    What it calls is this server. `more` is added to the content security policy, or said instead.
    """
    policy = {
        "default-src": "'none'",
        "script-src": "'self'",
        "style-src": "'self'",
        "connect-src": "'self'",
        "img-src": "data:",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
    }
    policy |= dict(each.split(" ", 1) for each in more)
    return {
        "Content-Security-Policy": "; ".join(f"{name} {text}" for name, text in policy.items()),
        "Cross-Origin-Opener-Policy": "same-origin",
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
    }


class Document:
    """One of them, made when first asked for, and kept."""

    def __init__(
        self,
        make: Callable[[], bytes],
        content_type: str,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self._make = make
        self._headers = {
            "Content-Type": content_type,
            "Cache-Control": "no-cache",
            "Vary": "Accept-Encoding",
            **(headers or {}),
        }
        self._making = asyncio.Lock()
        self._body: bytes | None = None
        self._packed = b""

    async def serve(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer a GET or HEAD, and say to OPTIONS that this is what is served.

        Raises:
            Refused: it is another method.
        """
        if request.method == "OPTIONS":
            return web.Response(status=204, headers={"Allow": ALLOW})
        if request.method not in ("GET", "HEAD"):
            raise Refused(
                Refusal(
                    StatusCode.UNIMPLEMENTED,
                    f"{request.method} is not served at this path; {ALLOW} are",
                    http=405,
                    headers={"Allow": ALLOW},
                )
            )
        async with self._making:
            if self._body is None:
                body = await asyncio.to_thread(self._make)
                self._packed = await asyncio.to_thread(compressed, body)
                self._headers["ETag"] = f'W/"{hashlib.sha256(body).hexdigest()[:32]}"'
                self._body = body
        headers = self._headers
        if is_known(request.headers.get("If-None-Match", ""), headers["ETag"]):
            return web.Response(status=304, headers=headers)
        if takes_gzip(request.headers.get("Accept-Encoding", "")):
            packed = {**headers, "Content-Encoding": "gzip"}
            return web.Response(body=self._packed, headers=packed)
        return web.Response(body=self._body, headers=headers)
