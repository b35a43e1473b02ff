"""References under chance: what is put in comes out, with its type; nothing crashes."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from steward_server.playbooks.checking import examine
from steward_server.playbooks.conditions import BadCondition, parse_condition
from steward_server.playbooks.references import (
    BadReference,
    Reference,
    Scope,
    parse,
    resolve,
    whole,
)
from tests.unit.playbooks.test_reading import WHOLE

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)
names = st.from_regex(r"[A-Za-z_][A-Za-z0-9_-]{0,12}", fullmatch=True)
parts = names | st.text(max_size=8)


@given(
    st.sampled_from(["parameter", "variable", "credential", "step"]), st.lists(parts, min_size=1)
)
def test_a_reference_that_is_written_is_read_as_itself(namespace: str, found: list[str]) -> None:
    reference = Reference(namespace, tuple(found[:32]))
    assert whole(parse(f"{{{{ {reference} }}}}")) == reference


@given(names, json_values)
def test_a_reference_alone_gives_the_value_itself(name: str, value: Any) -> None:
    scope = Scope(variables={name: value})
    found = resolve(f"{{{{ variable.{name} }}}}", scope)
    assert found == value
    assert type(found) is type(value)


def places(value: Any) -> list[tuple[tuple[str, ...], Any]]:
    """Every value within a value, and the way to it."""
    found: list[tuple[tuple[str, ...], Any]] = [((), value)]
    if isinstance(value, dict):
        children = [(key, each) for key, each in value.items()]
    else:
        children = (
            [(str(key), each) for key, each in enumerate(value)] if isinstance(value, list) else []
        )
    for key, each in children:
        found += [((key, *way), inner) for way, inner in places(each)]
    return found


@given(json_values, st.randoms(use_true_random=False))
def test_every_value_within_a_value_can_be_reached(value: Any, random: Any) -> None:
    way, expected = random.choice(places(value))
    scope = Scope(steps={"s": {"out": value}})
    reference = Reference("step", ("s", "out", *way))
    assert resolve(f"{{{{ {reference} }}}}", scope) == expected


@given(json_values.filter(lambda value: value is not None and not isinstance(value, str)))
def test_within_text_a_value_is_json(value: Any) -> None:
    text = resolve("<{{ variable.x }}>", Scope(variables={"x": value}))
    assert json.loads(text[1:-1]) == value


@given(st.lists(st.text() | names.map(lambda name: Reference("variable", (name,))), max_size=6))
def test_text_between_references_is_kept(pieces: list[str | Reference]) -> None:
    def written(piece: str | Reference) -> str:
        if isinstance(piece, Reference):
            return f"{{{{ {piece} }}}}"
        # Two braces are quoted, whichever pieces they come from.
        return piece.replace("{", '{{ "{" }}')

    scope = Scope(
        variables={each.name: each.name for each in pieces if isinstance(each, Reference)}
    )
    text = "".join(map(written, pieces))
    expected = "".join(each.name if isinstance(each, Reference) else each for each in pieces)
    assert resolve(text, scope) == expected


@given(st.text(alphabet="{} .[]'\"ab|0-_\\\n") | st.text())
def test_any_text_is_read_or_refused(text: str) -> None:
    offset = None
    try:
        template = parse(text)
    except BadReference as error:
        offset = error.offset
    if offset is not None:
        assert text.startswith("{{", offset)
    elif "{{" not in text:
        assert template == ((text,) if text else ())


@given(st.text(alphabet="()[]{}<>=!&|'\"., ab0-1\\") | st.text())
def test_any_condition_is_read_or_refused(text: str) -> None:
    offset = 0
    try:
        parse_condition(text)
    except BadCondition as error:
        offset = error.offset
    assert 0 <= offset <= len(text)


@given(st.text(alphabet="abc:-? []{}#&*!|>'\"%@`\n\t,0.") | st.text() | st.binary())
def test_any_text_is_a_playbook_or_has_faults(text: str | bytes) -> None:
    playbook, faults = examine(text)
    assert faults
    assert all(each.line >= 1 and each.column >= 1 for each in faults)
    assert playbook is None or playbook.source.text


@given(
    st.integers(0, len(WHOLE)), st.integers(0, 20), st.text(alphabet="{}[]:-'\"# \n&*!", max_size=4)
)
def test_a_good_playbook_with_a_hole_in_it_is_read_or_refused(
    at: int, length: int, instead: str
) -> None:
    text = WHOLE[:at] + instead + WHOLE[at + length :]
    _, faults = examine(text)
    lines = text.count("\n") + 2
    assert all(1 <= each.line <= lines for each in faults)
