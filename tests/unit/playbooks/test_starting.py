"""What a run is started with."""

from __future__ import annotations

from typing import Any

import pytest

from steward_server.playbooks.checking import load
from steward_server.playbooks.references import Reference
from steward_server.playbooks.starting import (
    BadStart,
    autofilled,
    check_gateway_url,
    start_values,
)
from tests.unit.playbooks.writing import SLEEP, log, step, steps


def taking(*parameters: str, written: str = SLEEP) -> Any:
    return load(steps(written, before=f"parameters: [{', '.join(parameters)}]"))


def refused(playbook: Any, given: dict[str, Any]) -> list[str]:
    with pytest.raises(BadStart) as error:
        start_values(playbook, given)
    return [str(each) for each in error.value.problems]


@pytest.mark.parametrize(
    ("kind", "good", "bad", "message"),
    [
        ("string", "a", 5, "text, not the number 5"),
        ("integer", 5, True, "a whole number, not true"),
        ("integer", 5, "5", "a whole number, not text; write it without quotes"),
        ("integer", 5, 5.0, "a whole number, not the number 5.0"),
        ("float", 5, True, "a number, not true"),
        ("float", 5.5, "5.5", "a number, not text"),
        ("float", 5, float("nan"), "a number, not the number nan"),
        ("boolean", False, 0, "true or false, not the number 0"),
        ("list", [], {}, "a list, not a map"),
        ("dict", {}, [], "a map, not a list"),
        ("file", "a.modl", 1, "the path of a file, not the number 1"),
        ("credential", "gw", 1, "a credential, not the number 1"),
    ],
)
def test_values_are_of_their_type_and_nothing_is_coerced(
    kind: str, good: Any, bad: Any, message: str
) -> None:
    playbook = taking(f"{{name: x, type: {kind}}}")
    assert "x" in start_values(playbook, {"x": good})
    assert refused(playbook, {"x": bad}) == [f"parameter 'x' must be {message}"]


def test_all_that_is_wrong_is_told_at_once() -> None:
    playbook = taking("{name: url, type: string}", "{name: n, type: integer}")
    assert refused(playbook, {"ulr": "a", "n": "x"}) == [
        "'Test' has no parameter 'ulr'; there are url, n; did you mean 'url'?",
        "parameter 'n' must be a whole number, not text",
        "parameter 'url' needs a value",
    ]


def test_defaults_count_as_values() -> None:
    playbook = taking(
        "{name: n, type: integer, default: 3}", "{name: m, type: integer, required: false}"
    )
    assert start_values(playbook, {}) == {"n": 3}
    assert start_values(playbook, {"n": None, "m": 1}) == {"n": 3, "m": 1}


def test_what_is_required_and_falsy_is_a_value() -> None:
    playbook = taking(
        "{name: n, type: integer}", "{name: b, type: boolean}", "{name: s, type: string}"
    )
    assert start_values(playbook, {"n": 0, "b": False, "s": ""}) == {"n": 0, "b": False, "s": ""}


def test_there_are_limits() -> None:
    playbook = taking("{name: s, type: string}")
    assert refused(playbook, {"s": "a" * 10_001}) == [
        "parameter the length of 's' must be at most 10000 characters, not 10001"
    ]
    assert refused(playbook, {f"p{each}": 1 for each in range(51)})[0] == (
        "51 parameters; at most 50"
    )


def test_an_optional_parameter_without_a_value_must_not_be_used() -> None:
    playbook = taking("{name: who, type: string, required: false}", written=log("hi {{ who }}"))
    assert start_values(playbook, {"who": "you"}) == {"who": "you"}
    assert refused(playbook, {}) == [
        "parameter 'who' has no value, and step 'say' in line 5 uses it"
    ]


def test_unless_the_step_is_not_run_without_it() -> None:
    guarded = step(
        "say", "utility.log", "when: who is defined", "parameters: {message: 'hi {{ who }}'}"
    )
    playbook = taking("{name: who, type: string, required: false}", written=guarded)
    assert start_values(playbook, {}) == {}


def test_code_uses_no_parameters() -> None:
    code = step("code", "utility.python", "parameters: {script: 'f\"{{who}}\"'}")
    assert (
        start_values(taking("{name: who, type: string, required: false}", written=code), {}) == {}
    )


def test_values_that_a_step_cannot_take_are_refused_before_the_run() -> None:
    sleep = step("nap", "utility.sleep", "timeout: 60", "parameters: {seconds: '{{ s }}'}")
    playbook = taking("{name: s, type: float}", written=sleep)
    assert start_values(playbook, {"s": 60}) == {"s": 60}
    assert refused(playbook, {"s": -1}) == ["step 'nap': 'seconds' must be at least 0 s, not -1"]
    assert refused(playbook, {"s": 61}) == [
        "step 'nap': 'seconds' is 61 s, but the step's timeout of 60 s ends it before"
    ]


def test_a_credential_is_kept_as_a_reference_to_it() -> None:
    playbook = taking("{name: gw, type: credential}")
    assert start_values(playbook, {"gw": "my-gateway"}) == {
        "gw": Reference("credential", ("my-gateway",))
    }


def test_the_runs_gateway_and_credential_fill_parameters_by_their_names() -> None:
    playbook = taking(
        "{name: gateway_url, type: string}",
        "{name: login, type: credential}",
        "{name: user, type: string}",
        "{name: gateway_password, type: string}",
        "{name: username, type: string, default: root}",
        "{name: other, type: string, required: false}",
    )
    filled = autofilled(playbook, {}, gateway_url="http://gw", credential="mine")
    assert filled == {
        "gateway_url": "http://gw",
        "login": "mine",
        "user": Reference("credential", ("mine", "username")),
        "gateway_password": Reference("credential", ("mine", "password")),
    }
    assert "username" in start_values(playbook, filled)
    given = {"gateway_url": "http://other", "user": "me"}
    kept = autofilled(playbook, given, gateway_url="http://gw", credential="mine")
    assert (kept["gateway_url"], kept["user"]) == ("http://other", "me")
    without = autofilled(playbook, {}, credential="mine")
    assert without["gateway_url"] == Reference("credential", ("mine", "gateway_url"))
    assert autofilled(playbook, {}) == {}


@pytest.mark.parametrize("url", ["ftp://gw", "gw:8088", "", "http://" + "a" * 500])
def test_a_gateways_url_is_one(url: str) -> None:
    with pytest.raises(BadStart):
        check_gateway_url(url)


def test_a_gateways_url_may_be_either() -> None:
    check_gateway_url("http://localhost:8088")
    check_gateway_url("https://gw")
