"""The metering proxy: what an agent takes for its provider, on 127.0.0.1.

It knows each run by a throw-away token, opens only routes that have a meter, holds the worst case
of a call before sending it, and hands the rest to relay.py. The provider's key is added here and
never reaches the agent.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Any

import aiohttp
import orjson
from aiohttp import web
from multidict import CIMultiDict

from steward_client.allowance import LimitReached
from steward_client.breaker import BreakerConfig, CircuitBreaker, CircuitOpen
from steward_client.call_bound import CallBound
from steward_client.lending import NotLent, NotSpending, OutOfMoney
from steward_client.lent_key import LentKey
from steward_client.listener import MAX_BODY_BYTES, Listener
from steward_client.meters import Ask, Meter, Unmetered
from steward_client.meters.anthropic import Messages
from steward_client.meters.openai import ChatCompletions
from steward_client.outbox import OutboxFailed
from steward_client.pii import PiiAction, may_hold, redact_json, scan_json
from steward_client.prices import PriceTable, Tariff
from steward_client.purse import Purse
from steward_client.refusals import (
    Refused,
    limit_reached,
    not_lent,
    not_metered,
    not_spending,
    out_of_money,
    unpriced,
)
from steward_client.relay import (
    AbortPolicy,
    Call,
    PiiSeen,
    RelayConfig,
    blocked,
    relayed_headers,
)
from steward_client.settlement import Tally

METERS: Mapping[str, Meter] = {"openai": ChatCompletions(), "anthropic": Messages()}


class MeteringProxy:
    """Serves agents from one purse. Its methods belong to one event loop."""

    def __init__(
        self,
        purse: Purse,
        *,
        key: LentKey,
        prices: PriceTable,
        config: RelayConfig | None = None,
        breaker: BreakerConfig | None = None,
        on_pii: Callable[[Tally, PiiSeen], None] | None = None,
        on_unpriced: Callable[[], Awaitable[None]] | None = None,
        on_circuit_open: Callable[[int, float], None] | None = None,
    ) -> None:
        self.prices = prices
        self._purse = purse
        self._config = config or RelayConfig()
        self._breaker = CircuitBreaker(time.monotonic, breaker, on_open=on_circuit_open)
        self._report_pii = on_pii
        self._on_unpriced = on_unpriced
        self._runs: dict[bytes, Tally] = {}
        self._calls: set[Call] = set()
        self._idle: asyncio.Event | None = None
        self._http: aiohttp.ClientSession | None = None
        self._listener = Listener(
            self._handle, cancels=self._config.abort_policy is AbortPolicy.CANCEL
        )
        self.port = 0
        self.lend(key)

    def lend(self, key: LentKey) -> None:
        """Use this provider from now on."""
        self._key = key
        self._meter = METERS[key.kind]
        self._url = key.url(self._meter.path)
        self._models_url = key.url("/models")

    async def start(self) -> None:
        """Listen on a free port of 127.0.0.1."""
        self._http = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=15),
            timeout=aiohttp.ClientTimeout(
                total=None,
                sock_connect=self._config.connect_timeout_s,
                sock_read=self._config.idle_timeout_s,
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            skip_auto_headers=("user-agent", "accept"),
            # A provider out in the world may be reachable through the environment's proxy only.
            trust_env=not self._key.is_local,
        )
        await self._listener.start()
        self.port = self._listener.port

    async def close(self, *, settle_s: float = 0.0) -> None:
        """Let calls end for up to `settle_s`, cut the rest, and stop listening."""
        if self._calls and settle_s > 0:
            self._idle = asyncio.Event()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(settle_s):
                    await self._idle.wait()
        self.cut("the runtime is closing")
        await self._listener.stop()
        if self._http is not None:
            await self._http.close()
            self._http = None

    @property
    def calls_under_way(self) -> int:
        return len(self._calls)

    def admit(self, token: str) -> Tally:
        """Serve whoever shows this token from now on, and count what it does."""
        return self._runs.setdefault(token.encode(), Tally())

    def dismiss(self, token: str) -> None:
        """Serve the token no more."""
        self._runs.pop(token.encode(), None)

    def cut(self, reason: str, *, tally: Tally | None = None) -> None:
        """End calls under way at once: all, or those of one run."""
        for call in list(self._calls):
            if tally is None or call.tally is tally:
                call.stop(reason)

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        meter = self._meter
        dialect = METERS["anthropic" if "anthropic-version" in request.headers else meter.kind]
        tally: Tally | None = None
        try:
            tally = self._authenticate(request)
            if request.method == "POST" and _route(request.path) == meter.path:
                return await self._meter_call(request, tally)
            if request.method == "GET" and _route(request.path).startswith("/models"):
                return await self._relay_models(request)
            raise not_metered(
                request.method, request.path, f"POST /v1{meter.path} and GET /v1/models"
            )
        except Refused as refused:
            if tally is not None:
                tally.refused += 1
                tally.last_refusal = refused.code
            return refused.response(dialect)

    def _authenticate(self, request: web.BaseRequest) -> Tally:
        shown = request.headers.get("authorization", "").removeprefix("Bearer ")
        token = (shown or request.headers.get("x-api-key", "")).encode()
        found = None
        for known, tally in self._runs.items():
            if hmac.compare_digest(known, token):
                found = tally
        if found is None:
            raise Refused(401, "invalid_api_key", "the token is not one this runtime gave out")
        return found

    async def _meter_call(self, request: web.BaseRequest, tally: Tally) -> web.StreamResponse:
        try:
            raw = await request.read()
        except web.HTTPRequestEntityTooLarge as error:
            raise Refused(
                413, "request_too_large", f"a request has at most {MAX_BODY_BYTES} bytes"
            ) from error
        body, ask = self._read(raw)
        tariff = await self._tariff(ask.model)
        try:
            body, pii = self._look_through(raw, body, tally)
        except RecursionError as error:
            raise Refused(400, "invalid_request", "the request is nested too deeply") from error
        try:
            ticket = self._breaker.admit()
        except CircuitOpen as error:
            raise Refused(
                503, "CIRCUIT_OPEN", str(error), retry_after_s=error.retry_after_s, final=False
            ) from error
        try:
            hold = await self._purse.hold(
                CallBound(
                    model=ask.model,
                    tariff=tariff,
                    input_tokens=ask.input_tokens,
                    output_tokens=ask.output_tokens,
                    least_output_tokens=ask.least_output_tokens,
                    choice_count=ask.choice_count,
                    hour_writes=ask.hour_writes,
                )
            )
        except BaseException as error:
            self._breaker.forget(ticket)
            raise _refusal(error) from error
        try:
            if request.transport is None:  # it went away while the call waited for money
                raise Refused(499, "caller_gone", "the caller went away before the call was made")
            if pii is not None:
                self._saw_pii(tally, replace(pii, request_id=hold.call_id))
            self._meter.prepare(body, ask, output_tokens=hold.output_tokens)
            payload = orjson.dumps(body)
            headers = self._headers(request)
            http = self._session
        except BaseException:
            self._breaker.forget(ticket)
            self._purse.release(hold)
            raise
        call = Call(
            request=request,
            meter=self._meter,
            ask=ask,
            tariff=tariff,
            hold=hold,
            purse=self._purse,
            tally=tally,
            config=self._config,
            breaker=self._breaker,
            ticket=ticket,
            on_pii=self._saw_pii,
        )
        self._calls.add(call)
        try:
            return await call.run(http, self._url, payload, headers)
        finally:
            self._calls.discard(call)
            if self._idle is not None and not self._calls:
                self._idle.set()

    def _headers(self, request: web.BaseRequest) -> CIMultiDict[str]:
        headers = relayed_headers(request.headers)
        headers["accept-encoding"] = "identity"
        headers["content-type"] = "application/json"
        self._key.authorize(headers)
        return headers

    def _read(self, raw: bytes) -> tuple[dict[str, Any], Ask]:
        try:
            body = orjson.loads(raw)
        except orjson.JSONDecodeError as error:
            raise Refused(400, "invalid_request", f"the request is no JSON: {error}") from error
        if not isinstance(body, dict):
            raise Refused(400, "invalid_request", "the request is no JSON object")
        try:
            return body, self._meter.read(body, size_bytes=len(raw))
        except Unmetered as error:
            raise Refused(400, "not_metered", str(error)) from error
        except RecursionError as error:
            raise Refused(400, "invalid_request", "the request is nested too deeply") from error

    async def _tariff(self, model: str) -> Tariff:
        tariff = self.prices.find(self._key.kind, model)
        if tariff is None and self._on_unpriced is not None:
            await self._on_unpriced()
            tariff = self.prices.find(self._key.kind, model)
        if tariff is None:
            raise unpriced(model)
        return tariff

    def _look_through(
        self, raw: bytes, body: dict[str, Any], tally: Tally
    ) -> tuple[dict[str, Any], PiiSeen | None]:
        if not may_hold(raw):
            return body, None
        action = self._config.pii_action
        if action is PiiAction.REDACT:
            body, found = redact_json(body)
        else:
            found = scan_json(body)
        if not found:
            return body, None
        seen = PiiSeen("", outgoing=True, action=action, found=found)
        if action is PiiAction.BLOCK:
            self._saw_pii(tally, seen)
            raise blocked(found, "the request")
        return body, seen

    def _saw_pii(self, tally: Tally, seen: PiiSeen) -> None:
        tally.pii.update(seen.found)
        if self._report_pii is not None:
            self._report_pii(tally, seen)

    async def _relay_models(self, request: web.BaseRequest) -> web.Response:
        headers = relayed_headers(request.headers)
        self._key.authorize(headers)
        name = _route(request.path).removeprefix("/models").strip("/")
        url = self._models_url / name if name else self._models_url
        try:
            async with self._session.get(url, headers=headers) as upstream:
                return web.Response(
                    status=upstream.status,
                    body=await upstream.read(),
                    headers=relayed_headers(upstream.headers),
                )
        except (aiohttp.ClientError, TimeoutError) as error:
            raise Refused(
                502, "provider_unreachable", "the provider cannot be reached", final=False
            ) from error

    @property
    def _session(self) -> aiohttp.ClientSession:
        if self._http is None:
            raise Refused(503, "closed", "the runtime is closing", final=False)
        return self._http


def _refusal(error: BaseException) -> BaseException:
    """What a hold that was not had means to the agent."""
    match error:
        case OutOfMoney():
            return out_of_money(error)
        case NotLent():
            return not_lent(error)
        case LimitReached():
            return limit_reached(error)
        case NotSpending():
            return not_spending(error)
        case OutboxFailed():
            return Refused(503, "ledger_unavailable", str(error), retry_after_s=1.0, final=False)
        case _:
            return error


def _route(path: str) -> str:
    """The route without the version some clients put before it."""
    return path.removeprefix("/v1")
