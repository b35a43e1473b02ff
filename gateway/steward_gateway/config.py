"""Settings of the gateway."""

from __future__ import annotations

from dataclasses import dataclass

from steward_gateway.forwarding import Proxies


@dataclass(frozen=True, slots=True)
class GatewayConfig:
    """Limits and times, each with its unit."""

    max_body_bytes: int = 4 * 1024 * 1024
    """Larger bodies are 413. The core takes messages of 4 MiB, gRPC's default."""
    max_frame_bytes: int = 1024 * 1024
    """Larger WebSocket frames close the socket with 1009."""
    head_timeout_s: float = 10
    """A request whose first line and headers take longer to come is 408."""
    body_timeout_s: float = 60
    """A body that takes longer to come is 408."""
    unary_timeout_s: float = 60
    """Deadline of a call without streams whose caller sets none."""
    max_timeout_s: float = 3600
    """The longest deadline a caller may set; longer ones are cut to it."""
    heartbeat_s: float = 30
    """Between pings on a quiet WebSocket and comments on quiet server-sent events. A socket that
    answers no ping within half of it is dropped."""
    accept_timeout_s: float = 10
    """How long a stream may stay unaccepted before its answer is opened all the same."""
    frame_queue_count: int = 16
    """Frames read ahead of the method; then the socket is not read."""
    half_close_grace_s: float = 2
    """How long a stream may go on after its socket was closed, to finish what it was sent."""
    drain_grace_s: float = 10
    """How long calls under way may take to end when the gateway stops."""
    max_connections: int = 10_000
    """More are told 503 and closed. Fewer where the process may not open that many files."""
    max_connections_per_address: int | None = None
    """The same for each address. None behind a proxy, where all callers have one address."""
    proxies: Proxies = Proxies()
    """Proxies whose `X-Forwarded-For` says who calls, as `forwarding.parse_proxies` gives them."""
    cors_origins: frozenset[str] = frozenset()
    """Origins whose pages may call from a browser, and open WebSockets, as `cors.parse_origins`
    gives them. A page of the gateway's own origin always may."""
    access_log: bool = True
    """Whether each request is logged, with its path template; never its query or body."""
