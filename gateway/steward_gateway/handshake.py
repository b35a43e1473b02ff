"""Whether a request may become a WebSocket: asked before the core is."""

from __future__ import annotations

from aiohttp import web
from grpc import StatusCode

from steward_gateway.cors import Cors
from steward_gateway.errors import Refusal, Refused

VERSION = "13"


def is_upgrade(request: web.BaseRequest) -> bool:
    """Whether the request asks for a WebSocket."""
    wanted = request.headers.get("Upgrade")
    return wanted is not None and "websocket" in wanted.lower()


def check_handshake(request: web.BaseRequest, cors: Cors) -> None:
    """Let a handshake pass that is of our version and from no strange page.

    Raises:
        Refused: with 426 or 403.
    """
    headers = request.headers
    if headers.get("Sec-WebSocket-Version") != VERSION:
        raise Refused(
            Refusal(
                StatusCode.FAILED_PRECONDITION,
                f"WebSockets of version {VERSION} are served",
                http=426,
                headers={"Sec-WebSocket-Version": VERSION},
            )
        )
    if not cors.lets_open(headers):
        raise Refused(
            Refusal(
                StatusCode.PERMISSION_DENIED,
                "pages of this origin may not open a WebSocket here; "
                "origins that may are set by `cors_origins`",
                reason="ORIGIN_NOT_ALLOWED",
            )
        )


def upgrade_required() -> Refusal:
    """What a plain request to a WebSocket's path is told."""
    return Refusal(
        StatusCode.FAILED_PRECONDITION,
        "this path is a WebSocket; connect with an upgrade",
        http=426,
        headers={"Upgrade": "websocket", "Connection": "Upgrade"},
    )
