"""The meter of Anthropic's messages: `POST /v1/messages`. Pure.

https://docs.claude.com/en/api/messages, as of anthropic 2.11.
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

PATH = "/messages"

REQUEST_TOKENS = 64
"""Added to the bytes of a request for what frames it."""

TOOLS_TOKENS = 1_000
"""Added when tools are offered: the words that introduce them take up to 530."""

CLIENT_TOOL_TOKENS = 1_500
"""Added for each tool Anthropic defines and the caller runs; computer use takes up to 1,234."""

IMAGE_TOKENS = 5_000
"""The most a picture is counted as: 4,784 by models that see it in full size."""

ANSWER_TOKENS = 64

_KNOWN = frozenset(
    {
        *("model", "messages", "system", "max_tokens", "metadata", "stop_sequences", "stream"),
        *("temperature", "top_p", "top_k", "tools", "tool_choice", "thinking", "service_tier"),
        *("output_config", "output_format", "cache_control", "speed", "inference_geo", "prefill"),
    }
)
_AT_LIST_PRICE: dict[str, frozenset[str | None]] = {
    "service_tier": frozenset({None, "auto", "standard_only"}),
    "speed": frozenset({None, "standard"}),
    "inference_geo": frozenset({None, "global"}),
}
"""What may be asked for without costing more than the list price."""

_SERVED_AT_LIST_PRICE: dict[str, frozenset[str | None]] = {
    "service_tier": frozenset({None, "standard", "batch"}),
    "speed": frozenset({None, "standard"}),
    "inference_geo": frozenset({None, "global", "not_available"}),
}
_CLIENT_TOOLS = ("bash_", "text_editor_", "computer_", "memory_")
_PLAIN_BLOCKS = frozenset({"text", "tool_use", "thinking", "redacted_thinking", "search_result"})


class AnthropicReading:
    """What one message used."""

    def __init__(self) -> None:
        self.usage: TokenUsage | None = None
        self.complete = False
        self.output_bytes = 0
        self.unpriced = ""
        self._counts: dict[str, Any] = {}

    def body(self, answer: Mapping[str, Any]) -> None:
        self.output_bytes += text_bytes(answer.get("content")) + ANSWER_TOKENS
        self.complete = True
        self._usage(answer.get("usage"), final=True)

    def event(self, event: Any) -> list[tuple[str, str]]:
        if not isinstance(event, dict):
            return []
        match event.get("type"):
            case "content_block_delta":
                return self._delta(event.get("index", 0), event.get("delta") or {})
            case "content_block_start":
                self.output_bytes += text_bytes(event.get("content_block")) + ANSWER_TOKENS
            case "message_start":
                self._usage((event.get("message") or {}).get("usage"), final=False)
            case "message_delta":
                self._usage(event.get("usage"), final=True)
            case "message_stop":
                self.complete = True
        return []

    def _delta(self, index: int, delta: Mapping[str, Any]) -> list[tuple[str, str]]:
        pieces = []
        for name, value in delta.items():
            if name != "type" and isinstance(value, str):
                self.output_bytes += len(value.encode("utf-8", "replace"))
                if name != "signature":
                    pieces.append((f"{index}.{name}", value))
        return pieces

    def ended(self) -> None:
        """Messages end by an event, not by a mark."""

    def _usage(self, usage: Any, *, final: bool) -> None:
        if not isinstance(usage, dict):
            return
        # Counts of later events are of the whole message; what they leave out stands.
        self._counts |= {name: value for name, value in usage.items() if value is not None}
        if not final:
            return
        for name, priced in _SERVED_AT_LIST_PRICE.items():
            if self._counts.get(name) not in priced:
                self.unpriced = f"it was served with {name} {self._counts[name]!r}"
        if any((self._counts.get("server_tool_use") or {}).values()):
            self.unpriced = "tools that charge by themselves were used"
        try:
            self.usage = TokenUsage.from_anthropic(self._counts)
        except (ValueError, AttributeError) as error:
            self.unpriced = f"its usage makes no sense: {error}"


class Messages:
    """`POST /v1/messages`."""

    kind = "anthropic"
    path = PATH

    def read(self, body: Mapping[str, Any], *, size_bytes: int) -> Ask:
        refuse_unknown(body, _KNOWN, where="the request")
        model = body.get("model")
        if not isinstance(model, str) or not model:
            raise Unmetered(f"model is a name, not {model!r}")
        for name, allowed in _AT_LIST_PRICE.items():
            if body.get(name) not in allowed:
                raise Unmetered(f"{name} {body[name]!r} costs more than is known here")
        wanted = whole_number(body, "max_tokens")
        if wanted is None:
            raise Unmetered("max_tokens is missing; messages need it")
        thinking = body.get("thinking") or {}
        budget = thinking.get("budget_tokens") if isinstance(thinking, dict) else None
        thinks = isinstance(thinking, dict) and thinking.get("type", "disabled") != "disabled"
        least = min(wanted, LEAST_OUTPUT_TOKENS)
        if thinks and isinstance(budget, int):
            least = min(wanted, max(least, budget + 1))
        return Ask(
            model=model,
            stream=body.get("stream") is True,
            input_tokens=_input_tokens(body, size_bytes),
            output_tokens=wanted,
            output_limited=True,
            least_output_tokens=least,
            hour_writes=_has_hour_ttl(body),
            thinks_unseen=thinks,
        )

    def prepare(self, body: dict[str, Any], ask: Ask, *, output_tokens: int) -> None:
        if output_tokens < ask.output_tokens:
            body["max_tokens"] = output_tokens

    def reading(self) -> AnthropicReading:
        return AnthropicReading()

    def is_usage_only(self, event: Mapping[str, Any]) -> bool:
        del event
        return False

    def refusal(self, *, code: str, message: str) -> dict[str, Any]:
        return {"type": "error", "error": {"type": code, "message": message}}

    def stream_refusal(self, *, code: str, message: str) -> bytes:
        body = orjson.dumps(self.refusal(code=code, message=message))
        return b"event: error\ndata: " + body + b"\n\n"


def _has_hour_ttl(value: Any) -> bool:
    """Something in the request is to be cached for an hour, at twice the price of input."""
    if isinstance(value, dict):
        control = value.get("cache_control")
        if isinstance(control, dict) and control.get("ttl") not in (None, "5m"):
            return True
        return any(_has_hour_ttl(member) for member in value.values())
    if isinstance(value, list):
        return any(_has_hour_ttl(item) for item in value)
    return False


def _input_tokens(body: Mapping[str, Any], size_bytes: int) -> int:
    messages = body.get("messages")
    if not isinstance(messages, list) or not all(isinstance(each, dict) for each in messages):
        raise Unmetered("messages is a list of objects")
    tokens = size_bytes + REQUEST_TOKENS
    tokens += sum(_content_tokens(message.get("content")) for message in messages)
    tokens += _content_tokens(body.get("system"))
    tools = body.get("tools") or []
    if not isinstance(tools, list):
        raise Unmetered(f"tools is a list, not {tools!r}")
    for tool in tools:
        kind = tool.get("type") if isinstance(tool, dict) else "?"
        if kind in (None, "custom"):
            continue
        if not isinstance(kind, str) or not kind.startswith(_CLIENT_TOOLS):
            raise Unmetered(f"a tool of type {kind!r} charges by itself; it is not metered")
        tokens += CLIENT_TOOL_TOKENS
    return tokens + TOOLS_TOKENS if tools else tokens


def _content_tokens(content: Any) -> int:
    """What a message's content counts beyond its bytes."""
    if not isinstance(content, list):
        return 0
    return sum(_block_tokens(block) for block in content)


def _block_tokens(block: Any) -> int:
    kind = block.get("type") if isinstance(block, dict) else None
    if kind in _PLAIN_BLOCKS:
        return 0
    if kind == "tool_result":
        return _content_tokens(block.get("content"))
    if kind == "image":
        source = block.get("source")
        data = source.get("data") if isinstance(source, dict) else None
        # Its bytes stand in the request, each as one byte or more, and are not read as text.
        return IMAGE_TOKENS - (len(data) if isinstance(data, str) else 0)
    source = block.get("source") if kind == "document" else None
    if isinstance(source, dict) and source.get("type") == "text":
        return 0
    raise Unmetered(f"content of type {kind!r} is not metered; text, images and tool calls are")
