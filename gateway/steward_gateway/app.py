"""The gateway put together: routes compiled, requests dispatched, a listener run."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping, MutableMapping
from dataclasses import dataclass, field
from typing import Any

import orjson
import structlog
from aiohttp import web
from grpc import StatusCode

from steward.gateway.v1 import options_pb2
from steward_gateway import errors
from steward_gateway.bodies import JSON
from steward_gateway.codec import BadJson, FieldErrors, Style, codecs_of
from steward_gateway.config import GatewayConfig
from steward_gateway.connections import Listener, Misframed
from steward_gateway.contracts import Contracts, load_contracts
from steward_gateway.cors import Cors
from steward_gateway.dashboard import dashboard_pages
from steward_gateway.describe import description_pages
from steward_gateway.documents import Page
from steward_gateway.errors import Dialect, Refusal, Refused
from steward_gateway.exchange import REQUEST_ID, SERVER, headers_of, request_id_of
from steward_gateway.handshake import is_upgrade, upgrade_required
from steward_gateway.passages import Passage, passages_of
from steward_gateway.rest import Exchange, RestRoute
from steward_gateway.routes import build_routes
from steward_gateway.rpc import RpcDoors
from steward_gateway.templates import BadPath, Found, Trie
from steward_gateway.transport import RpcFailure, Transport
from steward_gateway.websocket import WebSocketRoute
from steward_gateway.whole import is_whole

log = structlog.get_logger(__name__)

UNMATCHED = "unmatched"
"""The endpoint of requests that no route takes: their paths are the callers' invention."""

FLUSH_S = 1.0
"""How long answers may take to be written, once the requests they belong to are over."""

Observe = Callable[[str, int, float], None]
"""Called once per request with the path template, the HTTP status and the time it took in s."""


@dataclass(slots=True)
class _Seen:
    """What is known of a request by the time it ends, for errors, metrics and the log."""

    request_id: str
    endpoint: str = UNMATCHED
    dialect: Dialect = options_pb2.DIALECT_IRON
    facts: dict[str, str] = field(default_factory=dict)
    """What else its line in the log says."""


class Gateway:
    """Answers HTTP requests from a core. Made by `build_app`; `handle` is an aiohttp handler."""

    def __init__(
        self,
        transport: Transport,
        contracts: Contracts,
        config: GatewayConfig,
        observe: Observe | None,
        pages: Mapping[str, Page],
    ) -> None:
        self.config = config
        self.routes = build_routes(contracts)
        self._statuses = contracts.statuses
        self._observe = observe
        # Looked up once: most lines a busy gateway does not write are these.
        self._logs_requests = config.access_log and log.is_enabled_for(logging.INFO)
        self._pages = {path: page for path, page in pages.items() if not path.endswith("/*")}
        self._page_trees = {
            path.removesuffix("*"): page for path, page in pages.items() if path.endswith("/*")
        }
        self._cors = Cors(config.cors_origins) if config.cors_origins else None
        self._stopping = asyncio.Event()
        self._under_way = 0
        self._idle = asyncio.Event()
        """Set once no request is under way, after someone began to wait for that."""
        self._streams: set[asyncio.Task[Any]] = set()
        self._sessions: set[asyncio.Task[None]] = set()
        self._rest: Trie[RestRoute] = Trie()
        self._sockets: Trie[WebSocketRoute] = Trie()
        self._passages = passages_of(contracts, transport, config)
        self._rpc = RpcDoors(contracts, transport, config, stopping=self._stopping)
        codecs = codecs_of(Style.HOUSE)
        plain: dict[tuple[str, str], RestRoute] = {}
        conditional: list[RestRoute] = []
        for route in self.routes:
            if route.kind == "websocket":
                socket = WebSocketRoute(route, transport, codecs, config, sessions=self._sessions)
                self._sockets.add(route.template, route.verb, socket)
            else:
                rest = RestRoute(route, transport, codecs, config, stopping=self._stopping)
                if route.taken_if:
                    conditional.append(rest)
                else:
                    plain[route.verb, route.template.shape] = rest
                    self._rest.add(route.template, route.verb, rest)
        for rest in conditional:
            plain[rest.route.verb, rest.route.template.shape].if_true = rest

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request; whatever goes wrong is told in the dialect of the path."""
        begun_s = time.perf_counter()  # a loop's own clock may count in milliseconds
        seen = _Seen(request_id_of(request.headers))
        status = errors.CLIENT_CLOSED_REQUEST
        self._under_way += 1
        try:
            try:
                response = await self._dispatch(request, seen)
            except ConnectionError:
                raise  # there is nobody left to answer
            except Exception as error:  # noqa: BLE001 - whatever it is, it is answered
                response = self._refused(error, seen)
            status = response.status
            if not response.prepared:
                headers = response.headers
                headers.setdefault(REQUEST_ID, seen.request_id)
                if not is_whole(response):
                    headers.update(SERVER)
                if self._cors is not None:
                    _add(headers, self._cors.headers_for(request.headers))
                    if request.method == "OPTIONS":
                        allowed = headers.get("Allow", "")
                        headers.update(self._cors.preflight(request.headers, allowed))
            return response
        finally:
            self._under_way -= 1
            if self._stopping.is_set() and not self._under_way:
                self._idle.set()
            self._done(request, seen, status, time.perf_counter() - begun_s)

    def _refused(self, error: Exception, seen: _Seen) -> web.StreamResponse:
        """The answer to a request that ended with an error."""
        told: dict[str, str] = {}
        if isinstance(error, Refused):
            refusal = error.refusal
        elif isinstance(error, BadJson | FieldErrors | BadPath):
            refusal = errors.refusal_of_input(error)
        elif isinstance(error, RpcFailure):
            refusal = errors.refusal_of(error, seen.request_id, self._statuses)
            told = headers_of(error.initial_metadata + error.trailing_metadata)
            if error.message != refusal.message:
                log.warning(
                    "gateway.call_failed",
                    endpoint=seen.endpoint,
                    code=error.code.name,
                    message=error.message,
                    request_id=seen.request_id,
                )
        elif isinstance(error, web.HTTPException):  # aiohttp's own: a broken handshake, say
            text = error.text or error.reason
            refusal = Refusal(StatusCode.INVALID_ARGUMENT, text, http=error.status)
        else:
            log.error(
                "gateway.failed",
                endpoint=seen.endpoint,
                request_id=seen.request_id,
                exc_info=error,
            )
            refusal = errors.internal(seen.request_id)
        answer = errors.answer(refusal, seen.dialect)
        headers = {**told, **answer.headers, REQUEST_ID: seen.request_id, "Content-Type": JSON}
        body = orjson.dumps(answer.body)
        response = web.Response(status=answer.status, body=body, headers=headers)
        if headers.get("Connection") == "close":
            response.force_close()  # aiohttp does not read that header of its own answers
        return response

    def _dispatch(self, request: web.BaseRequest, seen: _Seen) -> Awaitable[web.StreamResponse]:
        """Find what serves the request; a coroutine of its own would cost every call one more."""
        if isinstance(request, Misframed):
            raise Refused(request.refusal)
        target = request.raw_path
        path, _, query = target.partition("?")
        if not path.startswith("/"):
            path = _path_of(request)
        if not target.isascii() or "#" in target:
            raise BadPath("the path and query must be ASCII, percent-encoded, without a `#`")
        method = request.method
        for passage in self._passages:
            if path.startswith(passage.path):
                exchange = Exchange(request, seen.request_id, [], query, seen.facts)
                return self._pass_on(passage, exchange, path, seen)
        if "." in path and (door := self._rpc.find(path)) is not None:
            seen.endpoint = door.name
            if door.streams:
                self._ends_with_gateway()
            return door.serve(Exchange(request, seen.request_id, [], query, seen.facts))
        if self._stopping.is_set():
            raise Refused(errors.STOPPING)
        if is_upgrade(request):
            socket = self._sockets.find(path, method)
            if socket is not None and method in socket.targets:
                opened = socket.targets[method]
                seen.endpoint, seen.dialect = opened.route.template.text, opened.route.dialect
                return opened.serve(
                    Exchange(request, seen.request_id, socket.segments, query, seen.facts)
                )
        found = self._rest.find(path, method)
        route = _target(found, method)
        if route is None and method == "HEAD":
            found = self._rest.find(path, "GET")
            route = _target(found, "GET")
        if found is not None and route is not None:
            route = route.taken(query)
            seen.endpoint, seen.dialect = route.route.template.text, route.route.dialect
            exchange = Exchange(request, seen.request_id, found.segments, query, seen.facts)
            if route.streams:
                self._ends_with_gateway()
            return route.serve(exchange)
        if (page := self._page(path, seen)) is not None:
            return page(request)
        return self._not_served(path, request, found, seen)

    def _pass_on(
        self, passage: Passage, exchange: Exchange, path: str, seen: _Seen
    ) -> Coroutine[Any, Any, web.StreamResponse]:
        seen.endpoint, seen.dialect = f"{passage.path}*", passage.dialect
        if self._stopping.is_set():
            raise Refused(errors.STOPPING)
        self._ends_with_gateway()
        return passage.serve(exchange, path)

    def _ends_with_gateway(self) -> None:
        """Let `end_streams` end the request being answered, which would not end by itself."""
        task = asyncio.current_task()
        if task is not None:
            self._streams.add(task)
            task.add_done_callback(self._streams.discard)

    def _page(self, path: str, seen: _Seen) -> Page | None:
        page = self._pages.get(path)
        if page is not None:
            seen.endpoint = path
            return page
        for beginning, tree in self._page_trees.items():
            if path.startswith(beginning):
                seen.endpoint = beginning + "*"
                return tree
        return None

    async def _not_served(
        self, path: str, request: web.BaseRequest, found: Found[RestRoute] | None, seen: _Seen
    ) -> web.StreamResponse:
        """Say why nothing serves the request: no such path, or not with this HTTP method.

        Raises:
            Refused: unless it only asked what is allowed.
        """
        method = request.method
        if method == "CONNECT":
            raise Refused(_NO_TUNNEL)
        if path == "*":  # what the server as a whole can do
            methods = sorted({route.verb for route in self.routes} | {"HEAD", "OPTIONS"})
            return web.Response(status=204, headers={"Allow": ", ".join(methods)})
        socket = self._sockets.find(path, "GET")
        if found is None and socket is None:
            dialects = {route.route.dialect for route in self._rest.nearest(path)}
            if len(dialects) == 1:
                seen.dialect = dialects.pop()
            raise Refused(_NO_SUCH_PATH)
        known = next(iter((found or socket).targets.values())).route  # type: ignore[union-attr]
        seen.endpoint, seen.dialect = known.template.text, known.dialect
        allowed = sorted({*(found.targets if found else ()), *(["GET"] if socket else ())})
        if "GET" in allowed and found is not None:
            allowed.append("HEAD")
        allow = ", ".join([*allowed, "OPTIONS"])
        if method == "OPTIONS":
            return web.Response(status=204, headers={"Allow": allow})
        if method == "GET" and socket is not None:
            raise Refused(upgrade_required())
        raise Refused(
            Refusal(
                StatusCode.UNIMPLEMENTED,
                f"{method} is not served at this path; {allow} are",
                http=405,
                headers={"Allow": allow},
            )
        )

    def _done(self, request: web.BaseRequest, seen: _Seen, status: int, time_s: float) -> None:
        if self._observe is not None:
            self._observe(seen.endpoint, status, time_s)
        if self._logs_requests:
            log.info(
                "http.request",
                method=request.method,
                endpoint=seen.endpoint,
                status="success" if status < 400 else "error",
                http_status=status,
                latency_ms=round(time_s * 1000, 3),
                peer=request.remote,
                request_id=seen.request_id,
                **seen.facts,
            )

    async def end_streams(self) -> None:
        """Refuse new requests and end what would not end by itself: streams and sockets."""
        self._stopping.set()
        ending = {*self._streams, *self._sessions}
        # Told once, they say goodbye; a reader too slow to hear it is told again, and cut off.
        for grace_s in (self.config.drain_grace_s, 1):
            for task in ending:
                task.cancel()
            if ending:
                _, ending = await asyncio.wait(ending, timeout=grace_s)

    async def finish_requests(self) -> None:
        """Wait for the requests under way, as long as they may still take."""
        if self._under_way:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self.config.drain_grace_s):
                    await self._idle.wait()


def _target(found: Found[RestRoute] | None, method: str) -> RestRoute | None:
    if found is None:
        return None
    return found.targets.get(method) or found.targets.get("*")


def _add(headers: MutableMapping[str, str], more: Mapping[str, str]) -> None:
    for name, value in more.items():
        both = name == "Vary" and headers.get(name, value) != value
        headers[name] = f"{headers[name]}, {value}" if both else value


def _path_of(request: web.BaseRequest) -> str:
    """The path of a request whose target does not begin with one."""
    if request.raw_path == "*" or request.method == "CONNECT":
        return request.raw_path
    return request.rel_url.raw_path  # the form proxies are sent: with scheme and host


_NO_TUNNEL = Refusal(
    StatusCode.UNIMPLEMENTED,
    "this is no proxy: CONNECT is not served",
    http=501,
    headers={"Connection": "close"},
)
_NO_SUCH_PATH = Refusal(StatusCode.NOT_FOUND, "nothing is served at this path")


def build_app(
    transport: Transport,
    *,
    contracts: Contracts | None = None,
    config: GatewayConfig | None = None,
    observe: Observe | None = None,
    pages: Mapping[str, Page] | None = None,
) -> Gateway:
    """Compile the routes of the contracts into a handler of HTTP requests.

    Without contracts everything in the `steward` package is served. `observe` is told of every
    request's end. `pages` are served beside the routes, by path; one that ends in "/*" is a tree.

    Raises:
        ContractFault: the contracts cannot be served as they are written.
    """
    served = load_contracts() if contracts is None else contracts
    return Gateway(
        transport,
        served,
        config or GatewayConfig(),
        observe,
        {**description_pages(served), **dashboard_pages(), **(pages or {})},
    )


class RunningGateway:
    """A gateway that listens. `stop` once, from the loop it was started on."""

    def __init__(self, gateway: Gateway, runner: web.ServerRunner, host: str, port: int) -> None:
        self.gateway = gateway
        self.host = host
        self.port = port
        self._runner = runner

    async def stop(self) -> None:
        """Take no more connections, end streams and sockets (1001), let calls under way end.

        Calls that last longer than `drain_grace_s` are cancelled.
        """
        for site in list(self._runner.sites):
            await site.stop()
        await self.gateway.end_streams()
        # Here, because aiohttp would read no more of the bodies that are still on their way.
        await self.gateway.finish_requests()
        await self._runner.cleanup()


async def serve_gateway(
    gateway: Gateway,
    *,
    host: str = "127.0.0.1",
    port: int = 8080,
    ssl_context: ssl.SSLContext | None = None,
    reuse_port: bool = False,
) -> RunningGateway:
    """Start to listen; port 0 takes a free one, which the result names.

    Raises:
        OSError: the address cannot be listened at.
    """
    server = Listener(gateway.handle, gateway.config, asyncio.get_running_loop())
    runner = web.ServerRunner(server, shutdown_timeout=FLUSH_S)
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, port, ssl_context=ssl_context, reuse_port=reuse_port)
        await site.start()
    except BaseException:
        await runner.cleanup()
        raise
    bound: int = runner.addresses[0][1]
    log.info("gateway.listening", host=host, port=bound, tls=ssl_context is not None)
    return RunningGateway(gateway, runner, host, bound)
