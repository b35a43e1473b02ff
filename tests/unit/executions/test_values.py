"""How deep values may be."""

from __future__ import annotations

from typing import Any

from steward_server.executions.steps.values import MOST_DEPTH, is_deep


def test_depth_is_that_of_lists_and_maps_in_each_other() -> None:
    value: Any = []
    for number in range(MOST_DEPTH - 1):
        value = [value] if number % 2 else {"a": value, "b": []}
    assert not is_deep(value)
    assert is_deep([value])


def test_what_is_wide_is_not_deep() -> None:
    assert not is_deep([{"a": index} for index in range(10_000)])
