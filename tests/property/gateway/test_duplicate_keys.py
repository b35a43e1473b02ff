"""A key that an object of a JSON text has twice is found, however it is written, and no other."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steward_gateway.json_text import BadJson, parse

# Few letters, so that keys meet; colons and escapes of them, to lead the counting astray.
texts = st.text(st.sampled_from('ab:\\u003"é'), max_size=4)


class Pairs(list[tuple[str, Any]]):
    """An object as it is written: keys in their order, perhaps twice."""


values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-9, 9), texts),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.lists(st.tuples(texts, inner), max_size=4).map(Pairs)
    ),
    max_leaves=12,
)


def written(value: Any, escapes: st.DataObject) -> str:
    if isinstance(value, Pairs):
        inside = (f"{written(k, escapes)}:{written(v, escapes)}" for k, v in value)
        return "{" + ",".join(inside) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(written(item, escapes) for item in value) + "]"
    text = json.dumps(value, ensure_ascii=escapes.draw(st.booleans()))
    if isinstance(value, str) and escapes.draw(st.booleans()):
        return text.replace(":", escapes.draw(st.sampled_from(["\\u003a", "\\u003A"])))
    return text


def holds_one_twice(value: Any) -> bool:
    if isinstance(value, Pairs):
        keys = [key for key, _ in value]
        return len(set(keys)) < len(keys) or any(holds_one_twice(item) for _, item in value)
    return isinstance(value, list) and any(holds_one_twice(item) for item in value)


@given(values, st.data())
def test_a_key_twice_is_refused_and_nothing_else_is(value: Any, data: st.DataObject) -> None:
    text = written(value, data)
    for form in (text, text.encode()):
        if holds_one_twice(value):
            with pytest.raises(BadJson, match="twice in one object"):
                parse(form)
        else:
            parse(form)


@pytest.mark.parametrize("levels", [254, 255, 300, 900, 1_023])
def test_depth_hides_no_key(levels: int) -> None:
    text = '{"a":' * levels + '{"b":1,"b":2}' + "}" * levels
    with pytest.raises(BadJson):
        parse(text)
