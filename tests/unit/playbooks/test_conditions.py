"""Conditions: what holds, what cannot be decided, and what is none."""

from __future__ import annotations

import pytest

from steward_server.playbooks.conditions import BadCondition, Undecided, parse_condition
from steward_server.playbooks.references import Reference, Scope, Unresolved

SCOPE = Scope(
    parameters={"n": 5, "yes": True, "no": False, "name": "gw-1", "tags": ["a", "b"], "null": None},
    steps={"ping": {"response": True, "info": {"version": "8.1"}}},
)


@pytest.mark.parametrize(
    "text",
    [
        "true",
        "not false",
        "parameter.yes",
        "{{ parameter.yes }}",
        "yes and not no",
        "no or yes",
        "no and yes or yes",
        "not (no or no)",
        "n == 5 and n != 6",
        "n == 5.0",
        "n >= 5 and n <= 5 and n > -1 and n < 5.5e1",
        "name == 'gw-1'",
        'name > "gw-0"',
        "'gw' in name",
        "'a' in tags and 'c' not in tags",
        "n in [1, 5]",
        "tags == ['a', 'b']",
        "'version' in step.ping.info",
        "step.ping.response == true",
        "step.ping.info.version == '8.1'",
        "parameter.null == null",
        "missing is not defined",
        "n is defined and parameter.null is not defined",
        "missing is defined and missing > 3 or yes",
        "yes == (n > 3)",
        r"'it\'s' == 'it\'s'",
    ],
)
def test_it_holds(text: str) -> None:
    condition = parse_condition(text)
    assert condition.holds(SCOPE) is True
    assert parse_condition(f"not ({text})").holds(SCOPE) is False


@pytest.mark.parametrize("text", ["true == 1", "'5' == n", "parameter.no == 0", "null == false"])
def test_nothing_equals_a_value_of_another_type(text: str) -> None:
    assert parse_condition(text).holds(SCOPE) is False


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("n", "a number is neither true nor false; compare it with something"),
        ("name and yes", "a text is neither true nor false; compare it with something"),
        ("parameter.null", "null is neither true nor false; compare it with something"),
        ("n < name", "a number and a text have no order"),
        ("yes > no", "a boolean and a boolean have no order"),
        ("n in 5", ""),
        ("1 in name", "a number cannot be 'in' a text"),
    ],
)
def test_what_cannot_be_decided_is_an_error_and_tells_no_value(text: str, message: str) -> None:
    with pytest.raises(Undecided) as error:
        parse_condition(text).holds(SCOPE)
    assert str(error.value) == (message or "a number cannot be 'in' a number")
    assert "gw-1" not in str(error.value)


def test_what_stands_for_nothing_is_an_error_unless_it_is_not_reached() -> None:
    with pytest.raises(Unresolved):
        parse_condition("missing == 1").holds(SCOPE)
    assert parse_condition("no and missing == 1").holds(SCOPE) is False


@pytest.mark.parametrize(
    ("text", "message", "offset", "hint"),
    [
        ("", "a value is missing before the end", 0, ""),
        ("n == ", "a value is missing before the end", 5, ""),
        ("n = 5", "'=' is no operator", 2, "=="),
        ("yes && no", "'&&' is no operator", 4, "and"),
        ("!yes", "'!' is no operator", 0, "not"),
        ("n == 5)", "')' cannot stand here", 6, ""),
        ("(yes", "'(' without ')'", 0, ""),
        ("n in [1, 2", "'[' without ']'", 5, ""),
        ("1 < n < 9", "comparisons cannot be chained; join two of them with 'and'", 6, ""),
        ("yes no", "'parameter.no' cannot stand here", 4, ""),
        ("'a' and yes", "a condition is true or false; compare the value with something", 4, ""),
        ("5", "a condition is true or false; compare the value with something", 0, ""),
        ("1 < 'a'", "a number and a text have no order", 2, ""),
        ("n is 5", "'is' needs 'defined' or 'not defined' after it", 5, "=="),
        ("5 is defined", "only a reference can be defined", 2, ""),
        ("n not 5", "'not' after a value needs 'in' after it", 2, ""),
        ("name == 'gw", '"\'" cannot stand here', 8, ""),
        ("{{ n }} + 1 == 6", "'+' cannot stand here", 8, ""),
        ("len(tags) > 1", "'(' cannot stand here", 3, ""),
        ("env.HOME == ''", "there is no namespace 'env'", 0, "parameter.env.HOME"),
    ],
)
def test_what_is_no_condition_is_refused(text: str, message: str, offset: int, hint: str) -> None:
    with pytest.raises(BadCondition) as error:
        parse_condition(text)
    assert str(error.value).startswith(message)
    assert (error.value.offset, error.value.hint) == (offset, hint)


def test_conditions_have_a_length_and_a_depth() -> None:
    with pytest.raises(BadCondition, match="at most 2000 characters"):
        parse_condition("n == " + "1" * 2_000)
    for deep in ("(" * 500 + "yes" + ")" * 500, "not " * 400 + "yes", "[" * 500):
        with pytest.raises(BadCondition, match="at most 32 deep"):
            parse_condition(deep)


@pytest.mark.parametrize(
    ("text", "decided"),
    [
        ("yes", True),
        ("step.a.ok", None),
        ("no and step.a.ok", False),
        ("step.a.ok and no", False),
        ("yes or step.a.ok", True),
        ("step.a.ok or yes", True),
        ("yes and step.a.ok", None),
        ("not step.a.ok", None),
        ("step.a.ok is defined", None),
        ("n > 3 and name == 'gw-1'", True),
    ],
)
def test_before_a_run_it_is_decided_as_far_as_is_known(text: str, *, decided: bool | None) -> None:
    def is_known(reference: Reference) -> bool:
        return reference.namespace == "parameter"

    assert parse_condition(text).holds_so_far(SCOPE, is_known) is decided
