"""The API of a cluster: requests with its errors in our words, watches, and WebSockets.

The library knows how to get there: configuration, certificates, tokens and their renewal. What is
sent and received is plain objects, just as objects.py builds them.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, cast
from urllib.parse import quote, urlencode

import aiohttp
import structlog
from kubernetes_asyncio import config
from kubernetes_asyncio.client import ApiClient, Configuration

from steward_server.errors import Unavailable

log = structlog.get_logger(__name__)

Object = dict[str, Any]
Query = Mapping[str, str | int]

REQUEST_TIMEOUT_S = 30.0
RETRIES = 5
RETRY_FIRST_S, RETRY_LIMIT_S = 0.2, 5.0
WATCH_S = 290
"""How long the server lets a watch go on; the next begins where it ended."""
SILENCE_S = 330.0
"""A watch that outlives its time is a connection that nobody has at the other end."""
PAGE = 500
_SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")


class Refused(Exception):
    """The API's answer is an error; the text is its own."""

    def __init__(
        self, status: int, reason: str, text: str, retry_after_s: float | None = None
    ) -> None:
        super().__init__(f"{text} ({status} {reason})")
        self.status = status
        self.reason = reason
        self.text = text
        self.retry_after_s = retry_after_s


class Cluster:
    """A cluster, by its API. Open it before anything else, and close it."""

    def __init__(self, kubeconfig: Path | None = None, context: str | None = None) -> None:
        """Take where the configuration stands; None: of the pod it runs in, else of the user."""
        self._kubeconfig = kubeconfig
        self._context = context
        self._client: Any = None

    async def open(self) -> None:
        """Read the configuration; nothing is asked of the cluster.

        Raises:
            Unavailable: there is none, or it cannot be read.
        """
        configuration = Configuration()
        try:
            if self._kubeconfig is None and has_service_account():
                config.load_incluster_config(  # type: ignore[no-untyped-call]
                    client_configuration=configuration
                )
            else:
                await config.load_kube_config(
                    config_file=None if self._kubeconfig is None else str(self._kubeconfig),
                    context=self._context,
                    client_configuration=configuration,
                )
            # 100 by itself, and each one who follows a log or holds a terminal needs one.
            configuration.connection_pool_maxsize = 0
            self._client = ApiClient(configuration=configuration)
        except Exception as error:
            raise _away("the configuration of the cluster cannot be read", error) from error

    async def aclose(self) -> None:
        if self._client is not None:
            await self._client.close()
            self._client = None

    def own_namespace(self) -> str:
        """The namespace this server runs in; empty outside of the cluster."""
        with suppress(OSError):
            if self._kubeconfig is None:
                return (_SERVICE_ACCOUNT / "namespace").read_text(encoding="ascii").strip()
        return ""

    # Requests.

    async def get(self, path: str, query: Query | None = None) -> Object:
        """What stands at a path.

        Raises:
            Refused: the API says no.
            Unavailable: it says nothing.
        """
        return await self._ask("GET", path, query)

    async def create(self, path: str, body: Object) -> Object:
        """Add an object to a collection; raises as `get`."""
        return await self._ask("POST", path, body=body)

    async def delete(self, path: str, *, grace_s: int | None = None) -> Object:
        """Begin to delete an object; raises as `get`."""
        options: Object = {"apiVersion": "v1", "kind": "DeleteOptions"}
        options["propagationPolicy"] = "Background"
        if grace_s is not None:
            options["gracePeriodSeconds"] = grace_s
        return await self._ask("DELETE", path, body=options)

    async def all_of(self, path: str, query: Query | None = None) -> tuple[list[Object], str]:
        """The objects of a collection, page by page, and the version they were seen at."""
        items: list[Object] = []
        more: dict[str, str | int] = {**(query or {}), "limit": PAGE}
        while True:
            told = await self.get(path, more)
            items += told.get("items") or ()
            metadata = told.get("metadata") or {}
            if not metadata.get("continue"):
                return items, str(metadata.get("resourceVersion", ""))
            more["continue"] = metadata["continue"]

    async def _ask(
        self, method: str, path: str, query: Query | None = None, body: Object | None = None
    ) -> Object:
        response = await self._answered(method, path, query, body)
        try:
            async with asyncio.timeout(REQUEST_TIMEOUT_S), response:
                content = await response.read()
        except (aiohttp.ClientError, OSError) as error:  # a timeout is an OSError too
            raise unreachable(error) from error
        return cast("Object", json.loads(content)) if content else {}

    async def _answered(
        self, method: str, path: str, query: Query | None = None, body: Object | None = None
    ) -> aiohttp.ClientResponse:
        """An answer that is no error, its content still to be read."""
        delay_s = RETRY_FIRST_S
        for attempt in range(RETRIES + 1):
            try:
                async with asyncio.timeout(REQUEST_TIMEOUT_S):
                    response = await self._send(method, path, query, body)
                    if response.status < 300:
                        return response
                    async with response:
                        content = await response.read()
            except (aiohttp.ClientError, OSError) as error:
                # What is made may have been made: whoever makes it finds it there and goes on.
                if attempt == RETRIES or not _may_be_repeated(error):
                    raise unreachable(error) from error
            else:
                refusal = refused(response.status, content, response.headers)
                if attempt == RETRIES or response.status not in (429, 500, 503, 504):
                    raise refusal
                delay_s = max(delay_s, min(refusal.retry_after_s or 0, RETRY_LIMIT_S))
            await asyncio.sleep(delay_s)
            delay_s = min(2 * delay_s, RETRY_LIMIT_S)
        raise AssertionError  # the last attempt has answered or raised

    async def _send(
        self, method: str, path: str, query: Query | None, body: Object | None
    ) -> aiohttp.ClientResponse:
        response = await self._opened().call_api(
            path,
            method,
            query_params=list((query or {}).items()),
            header_params={"Accept": "application/json"},
            body=body,
            auth_settings=["BearerToken"],
            _preload_content=False,
            # Without a limit of its own, or aiohttp's five minutes would end every stream.
            _request_timeout=aiohttp.ClientTimeout(total=None, sock_connect=10),
        )
        return cast("aiohttp.ClientResponse", response)

    # Streams.

    @asynccontextmanager
    async def stream(self, path: str, query: Query) -> AsyncIterator[aiohttp.StreamReader]:
        """The content at a path as it comes; raises as `get`."""
        async with await self._answered("GET", path, query) as response:
            yield response.content

    async def watch(
        self,
        path: str,
        query: Query,
        *,
        listed: Callable[[Sequence[Object]], Awaitable[None]],
        changed: Callable[[str, Object], Awaitable[None]],
    ) -> None:
        """Follow a collection until cancelled: all of it first, then every change.

        Whenever the thread is lost, all of it is listed again, so that nothing is missed.
        """
        delay_s = RETRY_FIRST_S
        while True:
            try:
                items, version = await self.all_of(path, query)
                await listed(items)
                delay_s = RETRY_FIRST_S
                while version:
                    version = await self._watch_once(path, query, version, changed)
            except (Refused, Unavailable, aiohttp.ClientError, OSError) as error:
                log.warning("kubernetes.watch_broken", path=path, error=str(error))
            await asyncio.sleep(delay_s)
            delay_s = min(2 * delay_s, RETRY_LIMIT_S)

    async def _watch_once(
        self,
        path: str,
        query: Query,
        version: str,
        changed: Callable[[str, Object], Awaitable[None]],
    ) -> str:
        """Follow changes since a version; the last version seen, or empty to list again."""
        more: Query = {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": version,
            "timeoutSeconds": WATCH_S,
        }
        try:
            async with (
                asyncio.timeout(SILENCE_S),
                self.stream(path, {**query, **more}) as content,
            ):
                async for line in lines(content):
                    event = json.loads(line)
                    kind, told = event["type"], event["object"]
                    if kind == "ERROR":  # mostly that the version is too old by now
                        return ""
                    version = told["metadata"]["resourceVersion"]
                    if kind != "BOOKMARK":
                        await changed(kind, told)
        except Refused as refusal:
            if refusal.status == 410:
                return ""
            raise
        return version

    @asynccontextmanager
    async def socket(
        self, path: str, query: Sequence[tuple[str, str]], protocols: Sequence[str]
    ) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
        """A WebSocket at a path, for the block.

        Raises:
            Refused: the API says no, with what it says where it does.
            Unavailable: it says nothing.
        """
        client = self._opened()
        headers: dict[str, str] = dict(client.default_headers)
        pairs: list[tuple[str, str]] = list(query)
        await client.update_params_for_auth(headers, pairs, ["BearerToken"])
        configuration = client.configuration
        url = f"{configuration.host}{path}?{urlencode(pairs, quote_via=quote)}"
        try:
            async with asyncio.timeout(REQUEST_TIMEOUT_S):
                opened = await client.rest_client.pool_manager.ws_connect(
                    url,
                    headers=headers,
                    protocols=tuple(protocols),
                    heartbeat=30,
                    max_msg_size=0,
                    proxy=configuration.proxy,
                    **(
                        {"server_hostname": name} if (name := configuration.tls_server_name) else {}
                    ),
                )
        except aiohttp.WSServerHandshakeError as error:
            # The library has thrown the body away; the status says what must be known.
            raise Refused(error.status, error.message, error.message) from error
        except (aiohttp.ClientError, OSError) as error:
            raise unreachable(error) from error
        try:
            yield opened
        finally:
            await opened.close()

    def _opened(self) -> Any:
        if self._client is None:
            raise Unavailable("the cluster is not open", reason="CLUSTER_UNREACHABLE")
        return self._client


def unreachable(error: BaseException) -> Unavailable:
    """That the API says nothing."""
    return _away("the cluster cannot be reached", error)


def _away(what: str, error: BaseException) -> Unavailable:
    # Health tells everybody; the error may hold addresses, paths and what a program for
    # credentials has written.
    kind = type(error).__name__
    log.warning("kubernetes.away", what=what, error=f"{kind}: {error}")
    told = f"{what} ({kind}); the server's log says more"
    return Unavailable(told, reason="CLUSTER_UNREACHABLE")


def refused(status: int, content: bytes, headers: Mapping[str, str]) -> Refused:
    """What the API says went wrong."""
    told: Object = {}
    with suppress(ValueError):
        parsed = json.loads(content)
        told = parsed if isinstance(parsed, dict) else {}
    text = str(told.get("message") or content[:500].decode(errors="replace") or "no reason given")
    after = headers.get("Retry-After", "")
    seconds = float(after) if after.isdecimal() else None
    return Refused(status, str(told.get("reason") or "Unknown"), text, seconds)


def _may_be_repeated(error: BaseException) -> bool:
    """Nobody was reached, or the connection that was kept open had been closed meanwhile."""
    return isinstance(error, aiohttp.ClientConnectionError | ConnectionError) and not isinstance(
        error, aiohttp.ClientConnectorCertificateError | aiohttp.ServerTimeoutError
    )


MAX_EVENT_BYTES = 4 * 1024 * 1024
"""Of a watch: clusters keep no object of more than 1.5 MiB."""


async def lines(content: aiohttp.StreamReader) -> AsyncIterator[bytes]:
    """The lines of a watch; the reader's own `readline` gives up at a few hundred kB."""
    rest = bytearray()
    async for data in content.iter_any():
        start = len(rest)
        rest += data
        while (end := rest.find(b"\n", start)) >= 0:
            yield bytes(rest[:end])
            del rest[: end + 1]
            start = 0
        if len(rest) > MAX_EVENT_BYTES:
            raise aiohttp.ClientPayloadError("an event of a watch has no end")
    if rest:
        yield bytes(rest)


def in_namespace(namespace: str, kind: str, name: str = "", sub: str = "") -> str:
    """A path of the core group, such as of a pod."""
    return "/".join(filter(None, (f"/api/v1/namespaces/{namespace}/{kind}", name, sub)))


def has_service_account() -> bool:
    """Whether this server runs in a cluster that has told it how to get to its API."""
    return "KUBERNETES_SERVICE_HOST" in os.environ and (_SERVICE_ACCOUNT / "token").exists()
