"""How many objects, lists and values a text of JSON holds, whatever stands in its strings."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from steward_gateway.json_text import _outside_texts

strings = st.text(alphabet='{[,"\\\\:}]ab\n\u00e9')
values: Any = st.recursive(
    st.none() | st.integers() | strings,
    lambda inner: st.lists(inner) | st.dictionaries(strings, inner),
)


def counted(value: Any) -> tuple[int, int]:
    """Objects and lists, and the commas between their items."""
    if not isinstance(value, dict | list):
        return 0, 0
    items = list(value.values() if isinstance(value, dict) else value)
    inside = [counted(item) for item in items]
    return (
        1 + sum(containers for containers, _ in inside),
        max(0, len(items) - 1) + sum(commas for _, commas in inside),
    )


@given(values)
def test_what_stands_in_strings_is_not_counted(value: Any) -> None:
    marks = _outside_texts(json.dumps(value, ensure_ascii=False).encode())
    assert (marks.count(b"{") + marks.count(b"["), marks.count(b",")) == counted(value)
