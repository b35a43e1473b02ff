"""What requests ask for, and what answers used."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from steward_client.meters import Unmetered
from steward_client.meters.anthropic import IMAGE_TOKENS as ANTHROPIC_IMAGE_TOKENS
from steward_client.meters.anthropic import Messages
from steward_client.meters.openai import IMAGE_TOKENS, ChatCompletions
from steward_client.meters.sse import DONE, EventSplitter, event_data
from steward_client.prices import TokenUsage

CHAT = ChatCompletions()
MESSAGES = Messages()


def ask(meter: Any, **members: Any) -> Any:
    body = {"model": "gpt-4o", "messages": [{"role": "user", "content": "hi"}], **members}
    return meter.read(body, size_bytes=len(orjson.dumps(body)))


def test_a_request_reads_at_most_as_many_tokens_as_it_has_bytes() -> None:
    body = {"model": "gpt-4o", "messages": [{"role": "user", "content": "Zażółć 🙂" * 50}]}
    size_bytes = len(orjson.dumps(body))

    assert CHAT.read(body, size_bytes=size_bytes).input_tokens >= size_bytes


def test_a_picture_counts_as_a_picture_and_not_by_its_bytes() -> None:
    url = "data:image/png;base64," + "A" * 1_000_000
    content = [
        {"type": "text", "text": "what is it?"},
        {"type": "image_url", "image_url": {"url": url}},
    ]
    asked = ask(CHAT, messages=[{"role": "user", "content": content}])

    assert IMAGE_TOKENS < asked.input_tokens < IMAGE_TOKENS + 1_000


def test_pictures_in_messages_and_results_of_tools_count() -> None:
    image = {"type": "image", "source": {"type": "base64", "data": "A" * 100_000}}
    content = [image, {"type": "tool_result", "tool_use_id": "t", "content": [image]}]
    asked = ask(MESSAGES, max_tokens=5, messages=[{"role": "user", "content": content}])

    assert 2 * ANTHROPIC_IMAGE_TOKENS < asked.input_tokens < 2 * ANTHROPIC_IMAGE_TOKENS + 1_000


def test_tools_that_the_caller_runs_are_metered() -> None:
    plain = ask(MESSAGES, max_tokens=5)
    with_tools = ask(
        MESSAGES,
        max_tokens=5,
        tools=[{"name": "f", "input_schema": {}}, {"type": "bash_20250124", "name": "bash"}],
    )

    assert with_tools.input_tokens > plain.input_tokens + 2_000


def test_a_cache_for_an_hour_is_noticed_wherever_it_is_asked_for() -> None:
    block = {"type": "text", "text": "x", "cache_control": {"type": "ephemeral", "ttl": "1h"}}

    assert ask(MESSAGES, max_tokens=5, system=[block]).hour_writes
    assert ask(MESSAGES, max_tokens=5, messages=[{"role": "user", "content": [block]}]).hour_writes
    block["cache_control"] = {"type": "ephemeral"}
    assert not ask(MESSAGES, max_tokens=5, system=[block]).hour_writes


def test_an_answer_is_not_cut_below_what_thinking_needs() -> None:
    thinking = {"type": "enabled", "budget_tokens": 2_000}

    assert ask(MESSAGES, max_tokens=5_000, thinking=thinking).least_output_tokens == 2_001
    assert ask(MESSAGES, max_tokens=5_000).least_output_tokens == 256
    assert ask(MESSAGES, max_tokens=50).least_output_tokens == 50


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        ({"max_tokens": 500}, {"max_tokens": 100}),
        ({"max_tokens": 50}, {"max_tokens": 50}),
        ({"max_completion_tokens": 500}, {"max_completion_tokens": 100}),
        ({}, {"max_tokens": 100}),
        ({"max_tokens": None}, {"max_tokens": 100}),
    ],
)
def test_a_limit_is_lowered_under_the_name_it_came_by(
    given: dict[str, Any], sent: dict[str, Any]
) -> None:
    body = {"model": "gpt-4o", "messages": [], **given}
    CHAT.prepare(body, CHAT.read(body, size_bytes=10), output_tokens=100)

    assert body == {"model": "gpt-4o", "messages": []} | sent


def test_of_two_limits_both_are_lowered_and_the_larger_bounds_the_call() -> None:
    body = {"model": "gpt-4o", "messages": [], "max_tokens": 700, "max_completion_tokens": 900}
    asked = CHAT.read(body, size_bytes=10)
    CHAT.prepare(body, asked, output_tokens=100)

    assert asked.output_tokens == 900
    assert (body["max_tokens"], body["max_completion_tokens"]) == (100, 100)


def test_usage_is_asked_for_beside_what_was_asked_for() -> None:
    body = {
        "model": "gpt-4o",
        "messages": [],
        "stream": True,
        "stream_options": {"include_obfuscation": False},
    }
    asked = CHAT.read(body, size_bytes=10)
    CHAT.prepare(body, asked, output_tokens=asked.output_tokens)

    assert not asked.usage_wanted
    assert body["stream_options"] == {"include_obfuscation": False, "include_usage": True}


@pytest.mark.parametrize("meter", [CHAT, MESSAGES], ids=["openai", "anthropic"])
@pytest.mark.parametrize(
    "members",
    [
        {"model": None},
        {"model": ""},
        {"messages": None},
        {"messages": [1]},
        {"max_tokens": 0},
        {"max_tokens": True},
        {"max_tokens": 1.5},
        {"tools": "all"},
        {"tools": [1]},
        {"unheard_of": 1},
        {"messages": [{"role": "user", "content": [{"type": "audio"}]}]},
        {"messages": [{"role": "user", "content": ["text"]}]},
    ],
)
def test_a_malformed_request_is_refused(meter: Any, members: dict[str, Any]) -> None:
    with pytest.raises(Unmetered):
        ask(meter, **{"max_tokens": 5, **members})


def test_a_streamed_message_counts_what_its_last_event_says() -> None:
    reading = MESSAGES.reading()
    reading.event(
        {
            "type": "message_start",
            "message": {
                "usage": {"input_tokens": 20, "output_tokens": 1, "cache_read_input_tokens": 7}
            },
        }
    )
    assert reading.usage is None
    pieces = reading.event(
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "hé"}}
    )
    reading.event({"type": "message_delta", "delta": {}, "usage": {"output_tokens": 9}})
    reading.event({"type": "message_stop"})

    assert pieces == [("0.text", "hé")]
    assert reading.output_bytes == 3
    assert reading.complete
    assert reading.usage == TokenUsage(input=20, output=9, cache_read=7)


def test_pieces_of_tool_calls_that_interleave_are_told_apart() -> None:
    reading = CHAT.reading()

    def event(index: int, arguments: str) -> list[tuple[str, str]]:
        call = {"index": index, "function": {"arguments": arguments}}
        return reading.event({"choices": [{"index": 0, "delta": {"tool_calls": [call]}}]})

    assert event(0, '{"a"') == [("0.tool.0", '{"a"')]
    assert event(1, '{"b"') == [("0.tool.1", '{"b"')]
    assert reading.output_bytes > 8


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        ({"service_tier": "priority"}, "priority"),
        ({"usage": {"prompt_tokens": -1, "completion_tokens": 1}}, "makes no sense"),
        ({"usage": {"prompt_tokens": "1", "completion_tokens": 1}}, "makes no sense"),
    ],
)
def test_usage_that_does_not_tell_the_cost_says_why(answer: dict[str, Any], why: str) -> None:
    reading = CHAT.reading()
    reading.body({"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 1}} | answer)

    assert why in reading.unpriced


def test_usage_that_is_null_says_nothing() -> None:
    reading = CHAT.reading()
    reading.event({"choices": [], "usage": None})

    assert reading.usage is None
    assert reading.unpriced == ""


def test_events_are_whole_and_joined_again_are_what_came() -> None:
    text = b'data: {"a":1}\n\nevent: x\ndata: {"b":2}\n\n: comment\n\ndata: [DONE]\r\n\r\nrest'
    for size in range(1, len(text) + 1):
        splitter = EventSplitter()
        events = [
            event
            for at in range(0, len(text), size)
            for event in splitter.feed(text[at : at + size])
        ]
        assert b"".join(events) + splitter.rest == text
        assert [event_data(event) for event in events] == [{"a": 1}, {"b": 2}, None, DONE]


def test_data_on_several_lines_is_one_text() -> None:
    assert event_data(b'data: {"a":\ndata: 1}\n\n') == {"a": 1}
    assert event_data(b"data: not json\n\n") is None
