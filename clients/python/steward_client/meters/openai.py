"""The meter of OpenAI's chat completions: `POST /v1/chat/completions`. Pure.

https://platform.openai.com/docs/api-reference/chat, as of openai 3.52.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from steward_client.meters import (
    LEAST_OUTPUT_TOKENS,
    Ask,
    Unmetered,
    refuse_unknown,
    text_bytes,
    whole_number,
)
from steward_client.prices import TokenUsage

PATH = "/chat/completions"

REQUEST_TOKENS = 64
"""Added to the bytes of a request for what frames it; messages bring more bytes than that costs."""

TOOLS_TOKENS = 512
"""Added when tools are offered, for the words that introduce them to the model."""

IMAGE_TOKENS = 50_000
"""The most a picture is counted as: 48,169 by gpt-4o-mini in full detail."""

ANSWER_TOKENS = 64
"""Added per choice to the bytes of an answer whose usage was not told, for what frames it."""

_KNOWN = frozenset(
    {
        *("model", "messages", "stream", "stream_options", "max_tokens", "max_completion_tokens"),
        *("n", "temperature", "top_p", "stop", "presence_penalty", "frequency_penalty", "seed"),
        *("logit_bias", "logprobs", "top_logprobs", "user", "tools", "tool_choice", "functions"),
        *("function_call", "parallel_tool_calls", "response_format", "reasoning_effort"),
        *("verbosity", "metadata", "store", "service_tier", "modalities", "safety_identifier"),
        *("prompt_cache_key", "prompt_cache_retention", "prompt_cache_options"),
    }
)
_TIERS = frozenset({None, "auto", "default", "flex"})
"""Of these none costs more than the list price."""

_OLD_LIMIT = ("gpt-3", "gpt-4", "chatgpt-4", "ft:gpt-3", "ft:gpt-4", "gpt-oss")
"""Models that know `max_tokens` and think nothing unseen; others take `max_completion_tokens`."""

_SMALL_OUTPUT = ("gpt-3", "ft:gpt-3", "gpt-4-", "gpt-4o-2024-05-13", "chatgpt-4", "ft:gpt-4-")


def default_output_tokens(model: str) -> int:
    """The limit set when the caller set none: within what each family of models accepts."""
    if model == "gpt-4" or model.startswith(("gpt-4-0", "gpt-4-32k")):
        return 2048
    if model.startswith(_SMALL_OUTPUT):
        return 4096
    return 16_384


class OpenAiReading:
    """What one chat completion used."""

    def __init__(self) -> None:
        self.usage: TokenUsage | None = None
        self.complete = False
        self.output_bytes = 0
        self.unpriced = ""

    def body(self, answer: Mapping[str, Any]) -> None:
        choices = answer.get("choices") or []
        for choice in choices:
            self.output_bytes += text_bytes(choice.get("message")) + ANSWER_TOKENS
        self.complete = True
        self._usage(answer)

    def event(self, event: Any) -> list[tuple[str, str]]:
        if not isinstance(event, dict):
            return []
        pieces: list[tuple[str, str]] = []
        for choice in event.get("choices") or []:
            delta = choice.get("delta")
            if delta:
                self._delta(choice.get("index", 0), delta, pieces)
        if event.get("usage"):
            self._usage(event)
        return pieces

    def _delta(self, index: int, delta: Mapping[str, Any], pieces: list[tuple[str, str]]) -> None:
        for name, value in delta.items():
            if name == "role":
                self.output_bytes += ANSWER_TOKENS
            elif isinstance(value, str):
                self.output_bytes += len(value.encode("utf-8", "replace"))
                pieces.append((f"{index}.{name}", value))
            elif value:
                self.output_bytes += text_bytes(value) + ANSWER_TOKENS
                if name == "tool_calls":
                    for call in value:
                        arguments = (call.get("function") or {}).get("arguments") or ""
                        pieces.append((f"{index}.tool.{call.get('index', 0)}", arguments))

    def ended(self) -> None:
        self.complete = True

    def _usage(self, answer: Mapping[str, Any]) -> None:
        usage = answer.get("usage")
        if not usage:
            return
        if answer.get("service_tier") not in _TIERS:
            self.unpriced = f"it was served as {answer['service_tier']!r}, which has its own prices"
        try:
            self.usage = TokenUsage.from_openai(usage)
        except (ValueError, AttributeError) as error:
            self.unpriced = f"its usage makes no sense: {error}"


class ChatCompletions:
    """`POST /v1/chat/completions`."""

    kind = "openai"
    path = PATH

    def read(self, body: Mapping[str, Any], *, size_bytes: int) -> Ask:
        refuse_unknown(body, _KNOWN, where="the request")
        model = body.get("model")
        if not isinstance(model, str) or not model:
            raise Unmetered(f"model is a name, not {model!r}")
        if body.get("service_tier") not in _TIERS:
            raise Unmetered(f"service_tier {body['service_tier']!r} costs more than is known here")
        if body.get("modalities") not in (None, ["text"]):
            raise Unmetered(f"modalities {body['modalities']!r}: only text is metered")
        limits = [
            limit
            for name in ("max_tokens", "max_completion_tokens")
            if (limit := whole_number(body, name)) is not None
        ]
        wanted = max(limits) if limits else default_output_tokens(model)
        options = body.get("stream_options") or {}
        if not isinstance(options, dict):
            raise Unmetered(f"stream_options is an object, not {options!r}")
        return Ask(
            model=model,
            stream=body.get("stream") is True,
            input_tokens=_input_tokens(body, size_bytes),
            output_tokens=wanted,
            output_limited=bool(limits),
            least_output_tokens=min(wanted, LEAST_OUTPUT_TOKENS),
            choice_count=whole_number(body, "n") or 1,
            usage_wanted=options.get("include_usage") is True,
            thinks_unseen=not model.startswith(_OLD_LIMIT),
        )

    def prepare(self, body: dict[str, Any], ask: Ask, *, output_tokens: int) -> None:
        given = [n for n in ("max_tokens", "max_completion_tokens") if body.get(n) is not None]
        if not given:
            given = ["max_completion_tokens" if ask.thinks_unseen else "max_tokens"]
        for name in given:
            if body.get(name) is None or body[name] > output_tokens:
                body[name] = output_tokens
        if ask.stream and not ask.usage_wanted:
            body["stream_options"] = {**(body.get("stream_options") or {}), "include_usage": True}

    def reading(self) -> OpenAiReading:
        return OpenAiReading()

    def is_usage_only(self, event: Mapping[str, Any]) -> bool:
        return event.get("choices") == [] and bool(event.get("usage"))

    def refusal(self, *, code: str, message: str) -> dict[str, Any]:
        return {"error": {"message": message, "type": code, "code": code, "param": None}}

    def stream_refusal(self, *, code: str, message: str) -> bytes:
        return b"data: " + orjson.dumps(self.refusal(code=code, message=message)) + b"\n\n"


def _input_tokens(body: Mapping[str, Any], size_bytes: int) -> int:
    messages = body.get("messages")
    if not isinstance(messages, list) or not all(isinstance(each, dict) for each in messages):
        raise Unmetered("messages is a list of objects")
    tokens = size_bytes + REQUEST_TOKENS
    for message in messages:
        if isinstance(message.get("content"), list):
            tokens += sum(_part_tokens(part) for part in message["content"])
    tools = body.get("tools") or []
    if not isinstance(tools, list):
        raise Unmetered(f"tools is a list, not {tools!r}")
    for tool in tools:
        if not isinstance(tool, dict) or tool.get("type") not in ("function", "custom"):
            raise Unmetered("tools of types other than function and custom are not metered")
    if tools or body.get("functions"):
        tokens += TOOLS_TOKENS
    return tokens


def _part_tokens(part: Any) -> int:
    """What a part of a message counts beyond its bytes."""
    kind = part.get("type") if isinstance(part, dict) else None
    if kind in ("text", "refusal"):
        return 0
    if kind != "image_url":
        raise Unmetered(f"content of type {kind!r} is not metered; text and image_url are")
    image = part.get("image_url")
    url = image.get("url") if isinstance(image, dict) else None
    if not isinstance(url, str):
        raise Unmetered("an image_url holds an object with a url")
    # Its bytes stand in the request, each as one byte or more, and are not read as text.
    return IMAGE_TOKENS - len(url)
