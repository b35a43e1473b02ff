"""One call from its hold to its settlement: sent, relayed byte for byte, measured aside.

Every way a call can end is here, each with what is charged for it (by settlement.py):

    answered, usage told              what the provider counted                     measured
    answered, usage not told          input and output by their bytes               counted
      by a model that thinks unseen   the whole hold                                assumed
    refused by the provider, 3xx-5xx  nothing
    never connected                   nothing
    cut, timed out, stopped           the whole hold, unless usage was told before  assumed
    caller gone, drained              as if it had stayed
    caller gone, cancelled            the whole hold                                assumed
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any

import aiohttp
import orjson
from aiohttp import web
from multidict import CIMultiDict, CIMultiDictProxy

from steward_client.breaker import CircuitBreaker, Ticket
from steward_client.meters import Ask, Meter
from steward_client.meters.sse import DONE, EventSplitter, event_data
from steward_client.pii import PiiAction, PiiKind, PiiStream, may_hold, redact_json, scan_json
from steward_client.prices import Tariff
from steward_client.purse import Hold, Purse
from steward_client.refusals import Refused
from steward_client.settlement import Settlement, Tally

log = logging.getLogger(__name__)

_NOT_RELAYED = frozenset(
    {
        *("connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "te"),
        *("trailer", "trailers", "transfer-encoding", "upgrade", "content-length"),
        *("content-encoding", "host", "authorization", "x-api-key", "api-key", "accept-encoding"),
        *("cookie", "set-cookie", "expect", "x-ic-key"),
    }
)
"""Headers of one hop, and those that carry a credential."""

WATCH_BYTES = 1024
"""Text of a stream is looked through in pieces of this size."""


class AbortPolicy(Enum):
    """What becomes of the provider's answer when the agent goes away in the middle of it."""

    DRAIN = "drain"
    """It is read to its end, for at most `drain_limit_s`, so that what was billed is known."""
    CANCEL = "cancel"
    """It is cancelled; what was billed is not known, so the whole hold is charged."""


@dataclass(frozen=True, slots=True)
class RelayConfig:
    pii_action: PiiAction = PiiAction.ALERT
    abort_policy: AbortPolicy = AbortPolicy.DRAIN
    drain_limit_s: float = 30.0
    idle_timeout_s: float = 600.0
    """How long a provider may be silent, before its answer and between its pieces."""
    connect_timeout_s: float = 10.0


@dataclass(frozen=True, slots=True)
class PiiSeen:
    """Personal data stood in a call."""

    request_id: str
    outgoing: bool
    """In what the agent sent; else in what was answered."""
    action: PiiAction
    found: Counter[PiiKind]


class Call:
    """One call under way. `run` once; `stop` cuts it."""

    def __init__(
        self,
        *,
        request: web.BaseRequest,
        meter: Meter,
        ask: Ask,
        tariff: Tariff,
        hold: Hold,
        purse: Purse,
        tally: Tally,
        config: RelayConfig,
        breaker: CircuitBreaker,
        ticket: Ticket,
        on_pii: Callable[[Tally, PiiSeen], None],
    ) -> None:
        self._request = request
        self._meter = meter
        self._ask = ask
        self._hold = hold
        self.tally = tally
        """Of the run that makes the call."""
        self._config = config
        self._breaker = breaker
        self._ticket: Ticket | None = ticket
        self._on_pii = on_pii
        self._reading = meter.reading()
        self._settlement = Settlement(
            hold, self._reading, ask=ask, tariff=tariff, purse=purse, tally=tally
        )
        self._task: asyncio.Task[Any] | None = None
        self._stop_reason: str | None = None
        self._response: web.StreamResponse | None = None

    def stop(self, reason: str) -> None:
        """Cut the call now: the provider is hung up on and the agent told why."""
        self._stop_reason = reason
        if self._task is not None:
            self._task.cancel()

    async def run(
        self, http: aiohttp.ClientSession, url: Any, payload: bytes, headers: CIMultiDict[str]
    ) -> web.StreamResponse:
        self._task = asyncio.current_task()
        self.tally.calls += 1
        try:
            async with http.post(
                url, data=payload, headers=headers, allow_redirects=False
            ) as upstream:
                return await self._relay(upstream)
        except Refused as refused:
            self._settlement.end_unknown()
            return await self._cut(refused)
        except aiohttp.ClientConnectorError as error:
            self._tell_breaker(ok=False)
            self._settlement.release()
            self.tally.failed += 1
            raise Refused(
                502,
                "provider_unreachable",
                f"the provider cannot be reached: {error.strerror}",
                final=False,
            ) from error
        except (aiohttp.ClientError, TimeoutError) as error:
            self._tell_breaker(ok=False)
            self.tally.failed += 1
            self._settlement.end_unknown()
            return await self._broken(error)
        except asyncio.CancelledError:
            self._settlement.end_unknown()
            if self._stop_reason is None or self._task is None:
                raise
            self._task.uncancel()
            return await self._cut(
                Refused(403, "stopped", f"the agent was told to stop: {self._stop_reason}")
            )
        finally:
            self._settlement.end_unknown()
            if self._ticket is not None:
                self._breaker.forget(self._ticket)

    async def _relay(self, upstream: aiohttp.ClientResponse) -> web.StreamResponse:
        status = upstream.status
        self._tell_breaker(ok=status < 500)
        headers = relayed_headers(upstream.headers)
        if status >= 300:
            body = await upstream.read()
            self._settlement.release()
            self.tally.failed += 1
            return web.Response(status=status, body=body, headers=headers)
        if upstream.headers.get("content-type", "").startswith("text/event-stream"):
            return await self._relay_stream(upstream, headers)
        body = await upstream.read()
        body = self._read_body(body)
        return web.Response(status=status, body=body, headers=headers)

    def _read_body(self, body: bytes) -> bytes:
        try:
            answer = orjson.loads(body)
        except orjson.JSONDecodeError:
            answer = None
        if not isinstance(answer, dict):
            self._settlement.end_unknown()
            return body
        self._reading.body(answer)
        self._settlement.settle()
        if not may_hold(body):
            return body
        said = {name: answer.get(name) for name in ("choices", "content")}
        action = self._config.pii_action
        if action is PiiAction.REDACT:
            redacted, found = redact_json(said)
            self._saw_pii(found)
            if not found:
                return body
            return orjson.dumps({**answer, **{k: v for k, v in redacted.items() if k in answer}})
        found = scan_json(said)
        self._saw_pii(found)
        if found and action is PiiAction.BLOCK:
            raise blocked(found, "the answer")
        return body

    async def _relay_stream(
        self, upstream: aiohttp.ClientResponse, headers: CIMultiDict[str]
    ) -> web.StreamResponse:
        response = web.StreamResponse(status=upstream.status, headers=headers)
        self._response = response
        await response.prepare(self._request)
        splitter = EventSplitter()
        watch = _Watch(eager=self._config.pii_action is PiiAction.BLOCK)
        drops_usage = not self._ask.usage_wanted
        holds_back = drops_usage or watch.eager
        drained_by_s: float | None = None
        while True:
            if drained_by_s is None:
                chunk = await upstream.content.readany()
            else:
                async with asyncio.timeout(drained_by_s - time.monotonic()):
                    chunk = await upstream.content.readany()
            if not chunk:
                break
            try:
                if holds_back:
                    if kept := self._kept(splitter.feed(chunk), watch, drop_usage=drops_usage):
                        await self._write(response, kept, gone=drained_by_s is not None)
                else:
                    await self._write(response, chunk, gone=drained_by_s is not None)
                    self._read_events(splitter.feed(chunk), watch)
            except ConnectionError:
                if not holds_back:
                    self._read_events(splitter.feed(chunk), watch)
                drained_by_s = time.monotonic() + self._config.drain_limit_s
            self._saw_pii(watch.found())
        if splitter.rest:
            kept = self._kept([splitter.rest], watch, drop_usage=drops_usage)
            if holds_back and kept and drained_by_s is None:
                await self._write(response, kept, gone=False)
        watch.finish()
        self._saw_pii(watch.found())
        self._settlement.settle()
        if drained_by_s is None:
            await response.write_eof()
        return response

    async def _write(self, response: web.StreamResponse, chunk: bytes, *, gone: bool) -> None:
        if gone:
            return
        if self._request.transport is None:
            raise ConnectionResetError("the agent has gone away")
        await response.write(chunk)

    def _kept(self, events: list[bytes], watch: _Watch, *, drop_usage: bool) -> bytes:
        kept = []
        for event in events:
            data = event_data(event)
            self._read_event(data, watch)
            if watch.eager and (found := watch.found()):
                self._saw_pii(found)
                raise blocked(found, "the answer")
            if drop_usage and isinstance(data, dict) and self._meter.is_usage_only(data):
                continue
            kept.append(event)
        return b"".join(kept)

    def _read_events(self, events: list[bytes], watch: _Watch) -> None:
        for event in events:
            self._read_event(event_data(event), watch)

    def _read_event(self, data: Any, watch: _Watch) -> None:
        if data is DONE:
            self._reading.ended()
        elif data is not None:
            for name, piece in self._reading.event(data):
                watch.read(name, piece)

    def _tell_breaker(self, *, ok: bool) -> None:
        if self._ticket is not None:
            ticket, self._ticket = self._ticket, None
            self._breaker.record(ticket, ok=ok)

    def _saw_pii(self, found: Counter[PiiKind]) -> None:
        if found:
            seen = PiiSeen(self._hold.call_id, False, self._config.pii_action, found)
            self._on_pii(self.tally, seen)

    async def _broken(self, error: Exception) -> web.StreamResponse:
        if isinstance(error, TimeoutError):
            refused = Refused(
                504,
                "provider_silent",
                "the provider was silent for too long; what it billed is "
                "not known, so the call's whole bound is charged",
                final=False,
            )
        else:
            refused = Refused(
                502,
                "provider_broke_off",
                "the provider broke the answer off; what it billed is "
                "not known, so the call's whole bound is charged",
                final=False,
            )
        return await self._cut(refused)

    async def _cut(self, refused: Refused) -> web.StreamResponse:
        """End the agent's answer by a refusal, or by an event if it has begun."""
        response = self._response
        if response is None:
            raise refused
        try:
            await response.write(
                self._meter.stream_refusal(code=refused.code, message=refused.message)
            )
            await response.write_eof()
        except ConnectionError:
            log.debug("call %s: the agent has gone away", self._hold.call_id)
        return response


class _Watch:
    """Looks through the texts of a stream for personal data."""

    def __init__(self, *, eager: bool) -> None:
        self.eager = eager
        """Every piece at once, so that it can be held back; else when enough has come."""
        self._streams: dict[str, tuple[PiiStream, bytearray]] = {}
        self._found: Counter[PiiKind] = Counter()

    def read(self, name: str, piece: str) -> None:
        if name not in self._streams:
            self._streams[name] = (PiiStream(), bytearray())
        stream, waiting = self._streams[name]
        waiting += piece.encode("utf-8", "replace")
        if self.eager or len(waiting) >= WATCH_BYTES:
            self._found += stream.feed(bytes(waiting))
            waiting.clear()

    def finish(self) -> None:
        for stream, waiting in self._streams.values():
            self._found += stream.feed(bytes(waiting))
            self._found += stream.finish()
        self._streams.clear()

    def found(self) -> Counter[PiiKind]:
        """What was found since last asked."""
        if not self._found:
            return self._found
        found, self._found = self._found, Counter()
        return found


def blocked(found: Counter[PiiKind], where: str) -> Refused:
    kinds = ", ".join(sorted(kind.value for kind in found))
    return Refused(403, "pii_blocked", f"personal data ({kinds}) in {where}: it is held back")


def relayed_headers(headers: CIMultiDictProxy[str] | CIMultiDict[str]) -> CIMultiDict[str]:
    """The headers that pass: not those of one hop, and no credential."""
    return CIMultiDict(
        (name, value) for name, value in headers.items() if name.lower() not in _NOT_RELAYED
    )
