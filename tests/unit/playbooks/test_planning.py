"""Dry runs: what would be done, as far as that is known."""

from __future__ import annotations

import pytest

from steward_server.masking import MARKER
from steward_server.playbooks.checking import load
from steward_server.playbooks.planning import Plan, Will, plan
from steward_server.playbooks.starting import BadStart
from tests.unit.playbooks.writing import SLEEP, Shelf, log, step, steps


def planned(text: str, shelf: Shelf | None = None, **given: object) -> Plan:
    return plan(load(text, library=shelf), given, shelf)


def test_references_are_replaced_where_that_is_possible() -> None:
    made = planned(
        steps(
            step("nap", "utility.sleep", "parameters: {seconds: '{{ n }}'}"),
            log("'{{ n }} {{ step.nap.slept }}'"),
            log("'{{ credential.gw.password }}'", "tell"),
            before="parameters: [{name: n, type: float}]",
        ),
        n=2,
    )
    nap, say, tell = made.steps
    assert (nap.parameters, nap.unknown, nap.will) == ({"seconds": 2}, (), Will.RUN)
    assert say.parameters == {"message": "{{ n }} {{ step.nap.slept }}", "level": "info"}
    assert say.unknown == ("parameter.n", "step.nap.slept")
    assert tell.parameters["message"] == "{{ credential.gw.password }}"


def test_conditions_say_whether_a_step_would_be_run() -> None:
    text = steps(
        step("a", "utility.sleep", "when: go"),
        step("b", "utility.sleep", "when: not go"),
        step("c", "utility.sleep", "when: step.a.slept > 1"),
        before="parameters: [{name: go, type: boolean}]",
    )
    assert [each.will for each in planned(text, go=True).steps] == [
        Will.RUN,
        Will.SKIP,
        Will.DEPEND,
    ]
    assert planned(text, go=True).steps[2].when == "step.a.slept > 1"


def test_variables_are_followed_as_long_as_they_are_known() -> None:
    def set_to(value: str, step_id: str, *lines: str) -> str:
        given = f"parameters: {{name: x, value: {value}}}"
        return step(step_id, "utility.set_variable", *lines, given)

    made = planned(
        steps(
            set_to("[1]", "a"),
            log("'{{ variable.x }}'", "b"),
            set_to("2", "c", "when: step.b.level == 'info'"),
            log("'{{ variable.x }}'", "d"),
        )
    )
    assert made.steps[1].parameters["message"] == "[1]"
    assert made.steps[3].unknown == ("variable.x",)


def test_code_may_set_any_variable() -> None:
    code = step("c", "utility.python", "parameters: {script: 'set_variable(\"x\", 1)'}")
    known = step("a", "utility.set_variable", "parameters: {name: x, value: 1}")
    made = planned(steps(known, code, log("'{{ variable.x }}'")))
    assert made.steps[2].unknown == ("variable.x",)


def test_playbooks_within_are_planned_with_what_they_are_given() -> None:
    shelf = Shelf(
        child=steps(
            log("'{{ who }}'"), before="parameters: [{name: who, type: string, required: false}]"
        )
    )
    run = step("run", "playbook.run", "parameters: {playbook: child.yaml, who: '{{ n }}'}")
    made = planned(steps(run, before="parameters: [{name: n, type: string}]"), shelf, n="me")
    child = made.steps[0].child
    assert child is not None
    assert child.steps[0].parameters["message"] == "me"
    later = step(
        "run", "playbook.run", "parameters: {playbook: child.yaml, who: '{{ step.nap.slept }}'}"
    )
    assert planned(steps(log("a", "nap"), later.replace("slept", "logged")), shelf).steps[1].child


def test_times_and_tries_are_those_of_the_run() -> None:
    wait = step("a", "gateway.wait_for_ready", "retry_count: 2", "parameters: {timeout: 600}")
    made = planned(steps(wait, SLEEP))
    assert (made.steps[0].timeout_s, made.steps[0].attempts) == (630, 3)
    assert made.steps[1].timeout_s == 300
    assert (made.steps[0].is_read_only, made.steps[0].needs) == (True, ("gateway",))


def test_what_undoes_and_what_ends_is_planned() -> None:
    undone = step("a", "utility.sleep", "undo: [{id: u, name: U, type: utility.sleep}]")
    text = steps(undone) + "finally: [{id: f, name: F, type: utility.sleep}]\n"
    made = planned(text)
    assert [each.id for each in made.steps[0].undo] == ["u"]
    assert [each.id for each in made.finally_] == ["f"]


def test_it_is_refused_as_the_run_would_be() -> None:
    with pytest.raises(BadStart):
        planned(steps(SLEEP, before="parameters: [{name: n, type: float}]"))


def test_secrets_are_not_shown_even_where_a_file_has_them_in_it() -> None:
    made = planned(
        steps(
            step("a", "gateway.login", "parameters: {username: me, password: hunter2}"),
            step("b", "gateway.login", "parameters: {username: me, password: '{{ secret }}'}"),
            step("c", "browser.fill", "parameters: {selector: a, value: 'x{{ secret }}'}"),
            step(
                "d",
                "gateway.login",
                "parameters: {username: me, password: '{{ credential.gw.password }}'}",
            ),
            before="parameters: [{name: secret, type: string}]",
        ),
        secret="hunter3",
    )
    shown = [each.parameters.get("password", each.parameters.get("value")) for each in made.steps]
    assert shown == [MARKER, MARKER, MARKER, "{{ credential.gw.password }}"]
