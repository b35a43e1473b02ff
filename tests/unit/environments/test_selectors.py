"""Selectors of labels: the grammar of Kubernetes, and what is none."""

from __future__ import annotations

import pytest

from steward_server.environments.selectors import (
    BadSelector,
    Operator,
    Requirement,
    label_fault,
    parse_selector,
)


@pytest.mark.parametrize(
    ("text", "requirement"),
    [
        ("a=b", Requirement("a", Operator.IN, ("b",))),
        ("a==b", Requirement("a", Operator.IN, ("b",))),
        ("a = b", Requirement("a", Operator.IN, ("b",))),
        ("a!=b", Requirement("a", Operator.NOT_IN, ("b",))),
        ("a in (x,y)", Requirement("a", Operator.IN, ("x", "y"))),
        ("a in ( x , y )", Requirement("a", Operator.IN, ("x", "y"))),
        ("a notin (x)", Requirement("a", Operator.NOT_IN, ("x",))),
        ("a", Requirement("a", Operator.EXISTS)),
        ("!a", Requirement("a", Operator.NOT_EXISTS)),
        ("a=", Requirement("a", Operator.IN, ("",))),
        ("in in (in)", Requirement("in", Operator.IN, ("in",))),
        ("example.com/team=a.b_c-d", Requirement("example.com/team", Operator.IN, ("a.b_c-d",))),
    ],
)
def test_a_requirement_is_read(text: str, requirement: Requirement) -> None:
    assert parse_selector(text) == (requirement,)


def test_requirements_are_listed_in_order_and_none_is_no_condition() -> None:
    assert len(parse_selector("a=b,c!=d, e in (x,y),!f")) == 4
    assert parse_selector("") == parse_selector("  ") == ()


@pytest.mark.parametrize(
    "text",
    [
        *("=b", "a=b=c", "a=b,", ",a", "a in", "a in x", "a in (x", "a in (x))", "a (x)", "!!a"),
        *("a!b", "a in (x,y) z", "a b", "-a=b", "a=-b", "a>1", "a=" + "x" * 64, "x" * 64),
        "Example.com/a=b",
        ",".join(f"a{n}" for n in range(21)),
    ],
)
def test_what_is_no_selector_is_refused(text: str) -> None:
    with pytest.raises(BadSelector):
        parse_selector(text)


def test_a_fault_says_where_it_is() -> None:
    with pytest.raises(BadSelector, match=r"'x' where '\(' is wanted, after 'a in'"):
        parse_selector("a in x")


@pytest.mark.parametrize(
    ("key", "value", "fine"),
    [
        ("project", "my-project", True),
        ("example.com/x", "", True),
        ("a" * 63, "v" * 63, True),
        ("a" * 64, "v", False),
        ("a b", "v", False),
        ("", "v", False),
        ("a", "v w", False),
        ("a", "-v", False),
        ("/a", "v", False),
        ("a", "é", False),
    ],
)
def test_labels_are_of_the_form_kubernetes_has(key: str, value: str, *, fine: bool) -> None:
    assert (label_fault(key, value) == "") is fine
