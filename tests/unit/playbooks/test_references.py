"""References: what they stand for, with what type, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from steward_server.credential import Credential
from steward_server.playbooks.references import (
    BadReference,
    Reference,
    Scope,
    Unresolved,
    parse,
    resolve,
    resolve_known,
)

GATEWAY = Credential("my-gateway", "admin", "hunter2", "http://gw:8088")
SCOPE = Scope(
    parameters={
        "count": 5,
        "flag": True,
        "share": 0.5,
        "words": ["a", "b"],
        "nothing": None,
        "cred": Reference("credential", ("my-gateway",)),
        "secret": Reference("credential", ("my-gateway", "password")),
        "data": "{{ parameter.count }}",
    },
    variables={"site-name": "north", "map": {"2": "two", "a b": "spaced", "deep": [[{"x": 1}]]}},
    credentials={"my-gateway": GATEWAY, "two words": GATEWAY},
    steps={"list-modules": {"modules": [{"name": "mqtt"}], "count": 1}},
)


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("{{ parameter.count }}", 5),
        ("{{count}}", 5),
        ("{{ flag }}", True),
        ("{{ parameter.words }}", ["a", "b"]),
        ("{{ parameter.words[1] }}", "b"),
        ("{{ parameter.words.0 }}", "a"),
        ("{{ parameter.nothing }}", None),
        ("{{ variable.site-name }}", "north"),
        ("{{ variable.map.2 }}", "two"),
        ("{{ variable.map['a b'] }}", "spaced"),
        ("{{ variable.map.deep[0].0['x'] }}", 1),
        ("{{ credential.my-gateway.password }}", "hunter2"),
        ('{{ credential["two words"].username }}', "admin"),
        ("{{ parameter.cred.gateway_url }}", "http://gw:8088"),
        ("{{ parameter.cred }}", GATEWAY),
        ("{{ parameter.secret }}", "hunter2"),
        ("{{ step.list-modules.modules.0.name }}", "mqtt"),
        ("{{ step.list-modules }}", {"modules": [{"name": "mqtt"}], "count": 1}),
    ],
)
def test_a_reference_alone_keeps_its_type(written: str, value: Any) -> None:
    found = resolve(written, SCOPE)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("written", "text"),
    [
        ("{{ count }} of {{ flag }}", "5 of true"),
        ("at {{ parameter.share }}", "at 0.5"),
        ("{{ parameter.words }}!", '["a", "b"]!'),
        (" {{ count }}", " 5"),
        ("{{ credential.my-gateway.username }}@gw", "admin@gw"),
        ('{"a": {"b": {{ count }}}}', '{"a": {"b": 5}}'),
        ('{{ "{{" }} is kept }}', "{{ is kept }}"),
        ("no reference", "no reference"),
        ("", ""),
    ],
)
def test_within_text_a_reference_becomes_text(written: str, text: str) -> None:
    assert resolve(written, SCOPE) == text


def test_values_are_replaced_wherever_they_lie_and_keys_are_not() -> None:
    written = {"{{ count }}": [{"a": "{{ count }}"}, 1, None, "x{{ flag }}"]}
    assert resolve(written, SCOPE) == {"{{ count }}": [{"a": 5}, 1, None, "xtrue"]}


def test_what_a_reference_stands_for_is_not_looked_at_again() -> None:
    assert resolve("{{ parameter.data }}", SCOPE) == "{{ parameter.count }}"


@pytest.mark.parametrize(
    ("written", "message", "hint"),
    [
        ("{{ parameter.cuont }}", "there is no parameter 'cuont'", "count"),
        ("{{ variable.x }}", "there is no variable 'x'", ""),
        ("{{ step.ping.status }}", "step 'ping' gave nothing: it was not completed", ""),
        ("{{ credential.other.password }}", "there is no credential 'other'", ""),
        ("{{ step.list-modules.cont }}", "step.list-modules has no 'cont'", "count"),
        ("{{ parameter.words[2] }}", "parameter.words has 2 items; there is no [2]", ""),
        ("{{ parameter.words.a }}", "parameter.words is a list; 'a' is no index of it", ""),
        ("{{ parameter.count.x }}", "parameter.count is a single value; it has no 'x'", ""),
        ("{{ parameter.nothing.x }}", "parameter.nothing is null; it has no 'x'", ""),
        ("{{ credential.my-gateway.pasword }}", "a credential has no 'pasword'", "password"),
        ("x{{ nothing }}", "{{ parameter.nothing }} within text: it is null, which is no text", ""),
    ],
)
def test_what_stands_for_nothing_is_an_error(written: str, message: str, hint: str) -> None:
    with pytest.raises(Unresolved) as error:
        resolve({"a": [written]}, SCOPE)
    assert (str(error.value), error.value.hint) == (message, hint)
    assert error.value.path == ("a", 0)


def test_a_whole_credential_never_becomes_text() -> None:
    for written in ("{{ credential.my-gateway }}!", "{{ parameter.cred }} {{ count }}"):
        with pytest.raises(Unresolved, match="has no text of its own") as error:
            resolve(written, SCOPE)
        assert "hunter2" not in str(error.value)
    assert "hunter2" not in repr(GATEWAY)


@pytest.mark.parametrize(
    ("written", "message", "offset", "hint"),
    [
        ("a {{ }}", "'{{ }}' is empty", 2, ""),
        ("{{ x", "'{{' without '}}'", 0, ""),
        ("{{ x }", "'{{' without '}}'", 0, ""),
        ("{{ x | upper }}", "'| upper' cannot follow a reference; there are no filters", 0, ""),
        ("{{ x y }}", "'y' cannot follow a reference", 0, ""),
        ("{{ parameter }}", "'parameter' needs a name after it: parameter.name", 0, ""),
        ("{{ parameter. }}", "no name after '.'", 0, ""),
        ("{{ .x }}", "no name where a reference begins", 0, ""),
        ("{{ 1 }}", "no name where a reference begins", 0, ""),
        ("{{ x[a] }}", "'[' takes a number, or a name in quotes", 0, ""),
        ("{{ x[0 }}", "'[' without ']'", 0, ""),
        ("{{ x + 1 }}", "'+ 1' cannot follow a reference", 0, ""),
        (
            "{{ gw.password }}",
            "there is no namespace 'gw', only parameter, variable, credential, step",
            0,
            "parameter.gw.password",
        ),
        (
            "{{ paramter.x }}",
            "there is no namespace 'paramter', only parameter, variable, credential, step",
            0,
            "parameter.x",
        ),
    ],
)
def test_what_is_malformed_is_an_error(written: str, message: str, offset: int, hint: str) -> None:
    with pytest.raises(BadReference) as error:
        parse(written)
    assert (str(error.value), error.value.offset, error.value.hint) == (message, offset, hint)


def test_a_reference_deeper_than_any_value_is_refused() -> None:
    with pytest.raises(BadReference, match="at most 32 deep"):
        parse("{{ step" + ".a" * 40 + " }}")


def test_for_showing_what_is_not_known_stays_as_it_is_written() -> None:
    written = ["{{ count }}", "{{ step.x.y }}", "{{ count }} of {{ step.x.y }}"]
    assert resolve_known(written, SCOPE) == [5, "{{ step.x.y }}", "{{ count }} of {{ step.x.y }}"]
