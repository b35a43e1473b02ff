"""What is checked of a playbook's meaning beside what broken files show."""

from __future__ import annotations

import pytest

from steward_server.playbooks.catalogue.forms import Need
from steward_server.playbooks.checking import load, needs
from tests.unit.playbooks.writing import SLEEP, Shelf, faults, log, step, steps


def run(path: str, *given: str, step_id: str = "child") -> str:
    return step(step_id, "playbook.run", "parameters:", f"  playbook: {path}", *given)


def child(*parameters: str) -> str:
    return steps(SLEEP, before=f"parameters: [{', '.join(parameters)}]" if parameters else "")


def test_a_parameter_can_be_written_without_its_namespace() -> None:
    assert not faults(steps(log("'{{ who }}'"), before="parameters: [{name: who, type: string}]"))


def test_references_reach_into_outputs_as_far_as_the_catalogue_knows() -> None:
    listing = step("list", "gateway.list_modules")
    assert not faults(steps(listing, log("'{{ step.list.modules[0].name }}'")))
    assert not faults(steps(listing, log("'{{ step.list.modules }}'")))
    assert faults(steps(listing, log("'{{ step.list.modules.name }}'"))) == [
        "11:17: 'modules' is a list; 'name' is no index of it"
    ]
    assert faults(steps(listing, log("'{{ step.list.modules[0].nam }}'"))) == [
        (
            "11:17: 'module' has no 'nam', but id, name, version, state, description, "
            "license_required; did you mean 'name'?"
        )
    ]
    assert faults(steps(listing, log("'{{ step.list.count.x }}'"))) == [
        "11:17: 'count' is integer; it has no 'x'"
    ]


def test_code_gives_what_it_likes_and_sets_the_variables_it_names() -> None:
    code = step(
        "code",
        "utility.python",
        "parameters:",
        "  script: |",
        "    set_variable('colour', f'{{1}}')",
        "    print('a=1')",
    )
    assert not faults(steps(code, log("'{{ step.code.a }} {{ variable.colour }}'")))
    assert faults(steps(code, log("'{{ variable.shape }}'"))) == [
        "15:17: no step before sets the variable 'shape'"
    ]


def test_what_runs_at_the_end_may_use_all_that_ran_before() -> None:
    end = """\
finally:
  - {id: end, name: E, type: utility.log, parameters: {message: "{{ step.nap.slept }}"}}
"""
    assert not faults(steps(SLEEP) + end)
    early = steps(SLEEP, log("'{{ step.end.logged }}'")) + end
    assert faults(early) == ["11:17: step 'end' has not run by then"]


def test_undo_steps_use_the_step_that_they_undo() -> None:
    make = step(
        "make",
        "environment.create",
        "parameters: {image: a}",
        "undo:",
        "  - id: gone",
        "    name: Gone",
        "    type: environment.delete",
        "    parameters: {environment_id: '{{ step.make.environment_id }}'}",
    )
    assert not faults(steps(make))
    later = steps(make, log("'{{ step.gone.environment_id }}'"))
    assert faults(later) == ["17:17: step 'gone' has not run by then"]
    failing = step("nap", "utility.sleep", "on_failure: rollback")
    assert not faults(steps(make, failing))


def test_a_condition_alone_must_be_a_boolean() -> None:
    text = steps(
        step("a", "utility.sleep", "when: who or not {{ many }}"),
        before="parameters: [{name: who, type: string}, {name: many, type: boolean}]",
    )
    assert faults(text) == [
        "8:11: parameter.who is string, neither true nor false; compare it with something"
    ]


def test_a_whole_credential_is_taken_where_a_step_takes_one() -> None:
    login = step("a", "gateway.login", "parameters: {credential: '{{ credential.my-gateway }}'}")
    named = step("b", "gateway.login", "parameters: {credential: my-gateway}")
    given = step("c", "gateway.login", "parameters: {credential: '{{ cred }}'}")
    before = "parameters: [{name: cred, type: credential}]"
    assert not faults(steps(login, named, given, before=before))
    kept = step("d", "utility.set_variable", "parameters: {name: x, value: '{{ cred }}'}")
    assert faults(steps(kept, before=before)) == [
        "8:34: 'value' must be a value, not credential {{ parameter.cred }}"
    ]


def test_credentials_that_are_not_stored_are_told_where_it_is_known_which_are() -> None:
    text = steps(log("'{{ credential.my-gatewy.username }}'"))
    assert not faults(text)
    assert faults(text, credentials=["my-gateway"]) == [
        "8:17: there is no credential 'my-gatewy'; did you mean 'my-gateway'?"
    ]


@pytest.mark.parametrize(
    ("timeout", "wait", "is_well"),
    [("timeout: 5", 5000, True), ("timeout: 5", 5001, False), ("", 600_000, True)],
)
def test_a_step_has_time_for_what_it_waits_for(timeout: str, wait: int, *, is_well: bool) -> None:
    lines = [timeout] if timeout else []
    click = step("a", "browser.click", *lines, f"parameters: {{selector: a, timeout: {wait}}}")
    assert (faults(steps(click)) == []) is is_well


def test_no_wait_is_longer_than_the_run() -> None:
    wait = step("a", "approval.wait", "parameters: {message: ok, timeout: 7200}")
    assert faults(steps(wait)) == [
        "7:40: 'timeout' is 7200 s, but the run's timeout of 3600 s ends it before"
    ]
    assert not faults(steps(wait, before="timeout: 7200"))


def test_a_child_is_given_what_it_takes() -> None:
    shelf = Shelf(
        child=child("{name: url, type: string}", "{name: n, type: integer, required: false}")
    )
    assert not faults(steps(run("child.yaml", "  url: a", "  n: 3")), library=shelf)
    assert not faults(steps(run("child.yaml", "  parameters: {url: a}")), library=shelf)
    assert faults(steps(run("child.yaml", "  ulr: a", "  n: many")), library=shelf) == [
        "4:5: 'child.yaml' needs the parameter 'url'",
        "9:7: 'child.yaml' has no parameter 'ulr'; did you mean 'url'?",
        "10:10: 'n' must be a whole number, not text",
    ]
    twice = steps(run("child.yaml", "  url: a", "  parameters: {url: b}"))
    assert faults(twice, library=shelf) == ["9:7: 'url' is given twice to 'child.yaml'"]


def test_a_child_may_be_given_a_whole_credential() -> None:
    shelf = Shelf(child=child("{name: cred, type: credential}", "{name: s, type: string}"))
    before = "parameters: [{name: mine, type: credential}]"
    well = run("child.yaml", "  cred: '{{ mine }}'", "  s: '{{ parameter.mine.username }}'")
    assert not faults(steps(well, before=before), library=shelf)
    bad = run("child.yaml", "  cred: my-gateway", "  s: '{{ mine }}'")
    assert faults(steps(bad, before=before), library=shelf) == [
        "11:10: 's' must be text, not credential {{ parameter.mine }}"
    ]


def test_a_playbook_that_is_not_there_is_told() -> None:
    assert faults(steps(run("chidl.yaml")), library=Shelf(child=child())) == [
        "8:17: there is no playbook 'chidl.yaml'; did you mean 'child.yaml'?"
    ]


def test_a_child_that_is_broken_is_told() -> None:
    told = faults(steps(run("child.yaml")), library=Shelf(child="name: A\n"))
    assert told == [
        "8:17: playbook 'child.yaml' cannot be used: 1:1: a playbook needs the key 'steps'"
    ]


def test_a_child_that_gives_its_own_child_too_little_is_told() -> None:
    shelf = Shelf(middle=steps(run("inner.yaml")), inner=child("{name: url, type: string}"))
    assert faults(steps(run("middle.yaml")), library=shelf) == [
        "8:17: playbook 'middle.yaml' cannot be used: 4:5: 'inner.yaml' needs the parameter 'url'"
    ]


def test_circles_are_told() -> None:
    shelf = Shelf(a=steps(run("b.yaml")), b=steps(run("a.yaml")))
    assert faults(shelf.texts["a.yaml"], library=shelf, path="a.yaml") == [
        "8:17: playbooks run each other in a circle: a.yaml -> b.yaml -> a.yaml"
    ]
    itself = Shelf(a=steps(run("a.yaml")))
    assert faults(itself.texts["a.yaml"], library=itself, path="a.yaml") == [
        "8:17: playbooks run each other in a circle: a.yaml -> a.yaml"
    ]
    assert faults(steps(run("a.yaml")), library=shelf) == [
        "8:17: playbooks run each other in a circle: this playbook -> a.yaml -> b.yaml -> a.yaml"
    ]


def test_three_levels_are_well_and_four_are_not() -> None:
    shelf = Shelf(a=steps(run("b.yaml")), b=steps(run("c.yaml")), c=steps(SLEEP))
    assert not faults(shelf.texts["a.yaml"], library=shelf, path="a.yaml")
    assert faults(steps(run("a.yaml")), library=shelf, path="top.yaml") == [
        "8:17: playbooks run each other more than 3 deep: top.yaml -> a.yaml -> b.yaml -> c.yaml"
    ]


def test_what_a_playbook_needs_is_what_its_children_need_as_well() -> None:
    shelf = Shelf(
        page=steps(step("a", "browser.navigate", "parameters: {url: 'http://a'}")),
    )
    playbook = load(steps(step("p", "gateway.ping"), run("page.yaml")), library=shelf)
    assert needs(playbook) == {Need.GATEWAY}
    assert needs(playbook, shelf) == {Need.GATEWAY, Need.BROWSER}
    pdf = step("r", "fat.export_report", "parameters: {report_id: a, format: pdf}")
    assert needs(load(steps(pdf))) == {Need.BROWSER}


@pytest.mark.parametrize(
    "path",
    ["/a.yaml", "a/../b.yaml", "./a.yaml", "a//b.yaml", "a\\b.yaml", "~/a.yaml", "a.txt"],
)
def test_a_path_stays_in_the_library(path: str) -> None:
    told = faults(steps(run(repr(path))), library=Shelf())
    assert len(told) == 1
    assert told[0].startswith("8:17: ")


def test_dots_within_a_name_are_no_way_out() -> None:
    assert not faults(steps(run("a..b.yaml")), library=Shelf(**{"a..b": child()}))
