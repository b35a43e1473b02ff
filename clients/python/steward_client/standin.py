"""A provider to try things on: OpenAI's chat completions and Anthropic's messages, with a bill.

`python -m steward_client.standin --port 9101` serves both on 127.0.0.1 and prints what it listens
on. It writes words instead of thinking, honours limits, counts what it would charge in exact
nano-dollars per key (`GET /_bill`), and fails on demand: by the header `x-standin-fault`, by a
model's suffix (`gpt-4o-mini+cut`), or by configuration. It is meant for tests, benchmarks and
demonstrations; nothing of the client's runtime uses it.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import hmac
from collections import deque
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import Enum
from typing import Any, Self

import orjson
from aiohttp import web

from steward_client.listener import Listener
from steward_client.prices import PriceTable, Tariff, TokenUsage


class Fault(Enum):
    """What goes wrong with a call."""

    NONE = ""
    RATE_LIMITED = "429"
    BROKEN = "500"
    CUT = "cut"
    """The connection ends in the middle of the answer, which is billed as far as it came."""
    HANG = "hang"
    """Nothing more comes after the first piece, until the caller goes away."""
    NO_USAGE = "no-usage"
    """The answer does not say what it used, though it is billed."""
    NULL_USAGE = "null-usage"
    """Each piece of a stream carries `usage: null`, as some providers do."""
    SLOW = "slow"
    """A tenth of a second between pieces."""


class AbortPolicy(Enum):
    """What is billed when the caller goes away in the middle."""

    GENERATED = "generated"
    """What was written until then."""
    ALL = "all"
    """The whole answer, as if it had been read."""


@dataclass(frozen=True, slots=True)
class StandInConfig:
    api_keys: tuple[str, ...] = ("sk-standin",)
    chunk_count: int = 16
    """Words of an answer, when the request sets no lower limit; each is one token."""
    chunk_delay_s: float = 0.0
    """Between the pieces of a stream, and per word before a whole answer."""
    cached_share: float = 0.0
    """Of the prompt's tokens, how many are said to come from a cache: 0 to 1."""
    reasoning_tokens: int = 0
    """Counted as output and not shown."""
    fault: Fault = Fault.NONE
    abort_policy: AbortPolicy = AbortPolicy.GENERATED
    word: str = "word"
    """What answers are made of."""
    words: tuple[str, ...] = ()
    """What answers are made of, one after the other, in place of `word`."""


@dataclass(slots=True)
class Account:
    """What one key owes."""

    calls: int = 0
    billed_nanousd: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    aborted: int = 0


class _Gone(Exception):
    """The caller went away."""


class StandIn:
    """The provider; `url` once it listens. An asynchronous context manager."""

    def __init__(self, prices: PriceTable, config: StandInConfig | None = None) -> None:
        self.config = config or StandInConfig()
        self.accounts = {key: Account() for key in self.config.api_keys}
        self.url = ""
        self.running = 0
        """Answers being written now."""
        self._bodies: deque[dict[str, Any]] = deque(maxlen=1_000)
        self._prices = prices
        self._listener = Listener(self.handler, cancels=True)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.stop()

    async def start(self, port: int = 0) -> None:
        """Listen on 127.0.0.1; 0 picks a free port."""
        await self._listener.start(port)
        self.url = f"http://127.0.0.1:{self._listener.port}"

    async def stop(self) -> None:
        await self._listener.stop()

    @property
    def bodies(self) -> list[dict[str, Any]]:
        """The newest requests, as they arrived; at most 1,000."""
        return list(self._bodies)

    @property
    def billed_nanousd(self) -> int:
        """What all keys owe."""
        return sum(account.billed_nanousd for account in self.accounts.values())

    async def handler(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.path == "/_bill":
            return _json(self._bill())
        anthropic = request.path.endswith("/messages") or "anthropic-version" in request.headers
        key = _api_key(request.headers)
        account = next(
            (
                account
                for known, account in self.accounts.items()
                if hmac.compare_digest(known.encode(), key.encode())
            ),
            None,
        )
        if account is None:
            return _error(401, "invalid_api_key", "the API key is not known", anthropic=anthropic)
        if request.path.endswith("/models"):
            names = sorted({name for _, name in self._prices.tariffs})
            return _json({"object": "list", "data": [{"id": n, "object": "model"} for n in names]})
        if request.method != "POST" or not request.path.endswith(
            ("/chat/completions", "/messages")
        ):
            return _error(404, "not_found", f"no route {request.path}", anthropic=anthropic)
        body = orjson.loads(await request.read())
        self._bodies.append(body)
        kind = "anthropic" if anthropic else "openai"
        model, _, suffix = str(body.get("model", "")).partition("+")
        tariff = self._prices.find(kind, model)
        if tariff is None:
            return _error(404, "model_not_found", f"no model {model!r}", anthropic=anthropic)
        fault = Fault(request.headers.get("x-standin-fault", suffix) or self.config.fault.value)
        if fault is Fault.RATE_LIMITED:
            return _error(429, "rate_limit_exceeded", "slow down", anthropic=anthropic)
        if fault is Fault.BROKEN:
            return _error(500, "server_error", "it broke", anthropic=anthropic)
        call = _Call(self, account, tariff, body, fault, anthropic=anthropic)
        self.running += 1
        try:
            return await call.answer(request)
        except ConnectionError:
            call.aborted()
            raise asyncio.CancelledError from None  # what aiohttp takes a caller's leaving for
        except (asyncio.CancelledError, _Gone):
            call.aborted()
            raise
        finally:
            self.running -= 1

    def _bill(self) -> dict[str, Any]:
        return {
            "billed_nanousd": self.billed_nanousd,
            "keys": [
                {
                    "key": f"{key[:4]}…{key[-3:]}",
                    "calls": account.calls,
                    "aborted": account.aborted,
                    "billed_nanousd": account.billed_nanousd,
                    "input_tokens": account.input_tokens,
                    "output_tokens": account.output_tokens,
                }
                for key, account in self.accounts.items()
            ],
        }


class _Call:
    """One answer being written and billed."""

    def __init__(
        self,
        standin: StandIn,
        account: Account,
        tariff: Tariff,
        body: dict[str, Any],
        fault: Fault,
        *,
        anthropic: bool,
    ) -> None:
        config = standin.config
        self._config = config
        self._account = account
        self._tariff = tariff
        self._body = body
        self._fault = fault
        self._anthropic = anthropic
        self._choices = body.get("n") or 1
        limit = body.get("max_completion_tokens") or body.get("max_tokens") or 2**31
        hidden = min(config.reasoning_tokens, limit)
        self._word_count = max(0, min(config.chunk_count, limit - hidden))
        self._reason = "length" if config.chunk_count + hidden > limit else "stop"
        prompt = max(1, len(orjson.dumps(body.get("messages", []))) // 4)
        cached = int(prompt * config.cached_share)
        self._usage = TokenUsage(
            input=prompt - cached,
            output=(self._word_count + hidden) * self._choices,
            cache_read=cached,
        )
        self._hidden = hidden
        self._written = 0
        self._billed = False

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        if self._body.get("stream"):
            return await self._stream(request)
        delay_s = self._delay_s() * self._word_count
        if delay_s:
            await asyncio.sleep(delay_s)
        if self._fault is Fault.HANG:
            await asyncio.sleep(3600)
        self._written = self._word_count
        answer = self._whole()
        if self._fault is Fault.NO_USAGE:
            del answer["usage"]
        text = orjson.dumps(answer)
        if self._fault is Fault.CUT:
            response = web.StreamResponse(headers={"content-length": str(len(text))})
            await response.prepare(request)
            await response.write(text[: len(text) // 2])
            self._bill(self._usage)
            _hang_up(request)
            return response
        self._bill(self._usage)
        return web.Response(body=text, content_type="application/json")

    async def _stream(self, request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        delay_s = self._delay_s()
        async for piece in self._pieces():
            if delay_s:
                await asyncio.sleep(delay_s)
            if request.transport is None:
                raise _Gone
            await response.write(piece)
            if self._fault is Fault.CUT and self._written > self._word_count // 2:
                self._bill(self._generated())
                _hang_up(request)
                return response
            if self._fault is Fault.HANG and self._written:
                await asyncio.sleep(3600)
        self._bill(self._usage)
        await response.write_eof()
        return response

    def _delay_s(self) -> float:
        return 0.1 if self._fault is Fault.SLOW else self._config.chunk_delay_s

    def aborted(self) -> None:
        """The caller went away: bill as the policy says."""
        if self._billed:
            return
        self._account.aborted += 1
        whole = self._config.abort_policy is AbortPolicy.ALL
        self._bill(self._usage if whole else self._generated())

    def _generated(self) -> TokenUsage:
        return replace(self._usage, output=(self._written + self._hidden) * self._choices)

    def _bill(self, usage: TokenUsage) -> None:
        if self._billed:
            return
        self._billed = True
        self._account.calls += 1
        self._account.billed_nanousd += self._tariff.cost_nanousd(usage)
        self._account.input_tokens += usage.input_total
        self._account.output_tokens += usage.output

    def _word(self, number: int) -> str:
        words = self._config.words
        word = words[number % len(words)] if words else self._config.word
        return word if number == 0 or words else f" {word}"

    def _text(self) -> str:
        return "".join(self._word(number) for number in range(self._word_count))

    def _whole(self) -> dict[str, Any]:
        if self._anthropic:
            return self._message([{"type": "text", "text": self._text()}], stop=True)
        return {
            **self._completion("chat.completion"),
            "choices": [
                {
                    "index": index,
                    "message": {"role": "assistant", "content": self._text()},
                    "finish_reason": self._reason,
                }
                for index in range(self._choices)
            ],
            "usage": self._openai_usage(),
        }

    def _completion(self, kind: str) -> dict[str, Any]:
        return {
            "id": "chatcmpl-standin",
            "object": kind,
            "created": 1_700_000_000,
            "model": self._body["model"],
        }

    def _message(self, content: list[Any], *, stop: bool) -> dict[str, Any]:
        usage = self._anthropic_usage()
        if not stop:
            usage["output_tokens"] = 1
        reason = "max_tokens" if self._reason == "length" else "end_turn"
        return {
            "id": "msg_standin",
            "type": "message",
            "role": "assistant",
            "model": self._body["model"],
            "content": content,
            "stop_reason": reason if stop else None,
            "stop_sequence": None,
            "usage": usage,
        }

    def _openai_usage(self) -> dict[str, Any]:
        usage = self._usage
        return {
            "prompt_tokens": usage.input_total,
            "completion_tokens": usage.output,
            "total_tokens": usage.total,
            "prompt_tokens_details": {"cached_tokens": usage.cache_read},
            "completion_tokens_details": {"reasoning_tokens": self._hidden * self._choices},
        }

    def _anthropic_usage(self) -> dict[str, Any]:
        return {
            "input_tokens": self._usage.input,
            "cache_creation_input_tokens": self._usage.cache_write,
            "cache_read_input_tokens": self._usage.cache_read,
            "output_tokens": self._usage.output,
        }

    async def _pieces(self) -> AsyncIterator[bytes]:
        pieces = self._anthropic_pieces() if self._anthropic else self._openai_pieces()
        async for piece in pieces:
            yield piece

    async def _openai_pieces(self) -> AsyncIterator[bytes]:
        asked = bool((self._body.get("stream_options") or {}).get("include_usage"))
        nulls = {"usage": None} if asked or self._fault is Fault.NULL_USAGE else {}

        def chunk(delta: Mapping[str, Any], finish: str | None = None) -> bytes:
            choices = [
                {"index": index, "delta": delta, "finish_reason": finish}
                for index in range(self._choices)
            ]
            return _data({**self._completion(_CHUNK), "choices": choices, **nulls})

        yield chunk({"role": "assistant", "content": ""})
        for number in range(self._word_count):
            self._written = number + 1
            yield chunk({"content": self._word(number)})
        yield chunk({}, self._reason)
        if asked and self._fault is not Fault.NO_USAGE:
            usage = self._openai_usage()
            yield _data({**self._completion(_CHUNK), "choices": [], "usage": usage})
        yield b"data: [DONE]\n\n"

    async def _anthropic_pieces(self) -> AsyncIterator[bytes]:
        yield _event("message_start", message=self._message([], stop=False))
        yield _event("content_block_start", index=0, content_block={"type": "text", "text": ""})
        for number in range(self._word_count):
            self._written = number + 1
            delta = {"type": "text_delta", "text": self._word(number)}
            yield _event("content_block_delta", index=0, delta=delta)
        yield _event("content_block_stop", index=0)
        reason = "max_tokens" if self._reason == "length" else "end_turn"
        told = {} if self._fault is Fault.NO_USAGE else {"usage": self._anthropic_usage()}
        yield _event("message_delta", delta={"stop_reason": reason, "stop_sequence": None}, **told)
        yield _event("message_stop")


_CHUNK = "chat.completion.chunk"


def _data(value: Mapping[str, Any]) -> bytes:
    return b"data: " + orjson.dumps(value) + b"\n\n"


def _event(kind: str, **members: Any) -> bytes:
    return f"event: {kind}\n".encode() + _data({"type": kind, **members})


def _hang_up(request: web.BaseRequest) -> None:
    if request.transport is not None:
        request.transport.abort()


def _api_key(headers: Mapping[str, str]) -> str:
    bearer = headers.get("authorization", "").removeprefix("Bearer ")
    return headers.get("x-api-key", bearer)


def _json(value: Any) -> web.Response:
    return web.Response(body=orjson.dumps(value), content_type="application/json")


def _error(status: int, kind: str, message: str, *, anthropic: bool) -> web.Response:
    error = {"type": kind, "message": message}
    body = {"type": "error", "error": error} if anthropic else {"error": {**error, "code": kind}}
    headers = {"retry-after": "1"} if status == 429 else {}
    return web.Response(
        status=status,
        body=orjson.dumps(body),
        content_type="application/json",
        headers=headers,
    )


async def _serve(port: int, config: StandInConfig) -> None:
    from steward_client.price_snapshot import shipped_table

    standin = StandIn(shipped_table(datetime.now(UTC)), config)
    await standin.start(port)
    print(f"stand-in provider on {standin.url} (OpenAI: {standin.url}/v1)", flush=True)  # noqa: T201
    try:
        await asyncio.Event().wait()
    finally:
        await standin.stop()


def main() -> None:
    """Serve until interrupted."""
    parser = argparse.ArgumentParser(prog="python -m steward_client.standin")
    parser.add_argument("--port", type=int, default=9101, help="0 picks a free one")
    parser.add_argument("--api-key", action="append", help="may be given again; sk-standin")
    parser.add_argument("--chunks", type=int, default=16, help="words of an answer")
    parser.add_argument("--delay-ms", type=float, default=0, help="between words")
    parser.add_argument("--reasoning-tokens", type=int, default=0)
    parser.add_argument(
        "--fault", choices=[fault.value for fault in Fault if fault.value], default=""
    )
    parser.add_argument(
        "--abort-policy", choices=[policy.value for policy in AbortPolicy], default="generated"
    )
    given = parser.parse_args()
    config = StandInConfig(
        api_keys=tuple(given.api_key or ["sk-standin"]),
        chunk_count=given.chunks,
        chunk_delay_s=given.delay_ms / 1000,
        reasoning_tokens=given.reasoning_tokens,
        fault=Fault(given.fault),
        abort_policy=AbortPolicy(given.abort_policy),
    )
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_serve(given.port, config))


if __name__ == "__main__":
    main()
