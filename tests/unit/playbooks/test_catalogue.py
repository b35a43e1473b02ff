"""The catalogue: that it is whole, and what steps are given."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from steward_server.credential import Credential
from steward_server.playbooks.catalogue import CATALOGUE, MISSPELT_TYPES, NOT_AVAILABLE
from steward_server.playbooks.catalogue.binding import BadValues, bound, references_of, timeout_s
from steward_server.playbooks.catalogue.forms import Field, misfit
from steward_server.playbooks.checking import load
from steward_server.playbooks.references import Scope
from tests.unit.playbooks.writing import step, steps

WANTED = {
    "gateway": (
        "login logout ping get_info get_health list_modules upload_module "
        "wait_for_module_installation list_projects get_project restart wait_for_ready"
    ),
    "browser": (
        "navigate click fill keyboard file_upload screenshot wait verify verify_text "
        "verify_attribute verify_state get_text"
    ),
    "perspective": (
        "discover_page extract_component_metadata execute_test_manifest verify_navigation "
        "verify_dock_opened"
    ),
    "designer": "launch launch_shortcut login open_project close screenshot wait",
    "utility": "sleep log set_variable python",
    "playbook": "run",
    "fat": "generate_report export_report",
    "environment": "create exec delete",
    "inference": "reset step",
    "budget": "check",
    "http": "request",
    "approval": "wait",
}


def every_field() -> Iterator[tuple[str, Field]]:
    def within(name: str, field: Field) -> Iterator[tuple[str, Field]]:
        yield name, field
        for each in (*field.fields, *((field.item,) if field.item else ())):
            yield from within(name, each)

    for step_type in CATALOGUE.values():
        for each in (*step_type.parameters, *step_type.outputs):
            yield from within(f"{step_type.name}.{each.name}", each)


def test_every_type_of_step_is_there() -> None:
    wanted = [f"{room}.{name}" for room, names in WANTED.items() for name in names.split()]
    assert sorted(CATALOGUE) == sorted(wanted)


def test_what_is_declared_makes_sense() -> None:
    for step_type in CATALOGUE.values():
        names = [each.name for each in step_type.parameters]
        assert len(names) == len(set(names)), step_type.name
        assert {name for group in step_type.alternatives for name in group} <= {*names}
        assert {*step_type.misspelt.values()} <= {*names}, step_type.name
        assert not {*step_type.misspelt} & {*names}, step_type.name
        assert step_type.is_repeatable or not step_type.is_read_only, step_type.name
        assert step_type.outputs, step_type.name
        assert step_type.doc.endswith("."), step_type.name
    for name, field in every_field():
        assert field.doc, name
        assert not (field.required and field.default is not None), name
        if field.default is not None:
            assert not [*misfit(field, field.default, (field.name,))], name
        if field.name == "timeout":
            browser = name.startswith(("browser.", "perspective."))
            assert field.unit == ("ms" if browser else "s"), name


def test_names_of_others_lead_to_ours() -> None:
    assert {*MISSPELT_TYPES.values()} <= {*CATALOGUE}
    assert not {*MISSPELT_TYPES, *NOT_AVAILABLE} & {*CATALOGUE}


def test_a_step_is_given_its_values_with_their_types_and_its_defaults() -> None:
    scope = Scope(parameters={"n": 5, "words": ["ls", "-l"]})
    values = bound(
        CATALOGUE["environment.exec"],
        {"environment_id": "e", "command": "{{ words }}", "timeout": "{{ n }}"},
        scope,
    )
    assert values == {
        "environment_id": "e",
        "command": ["ls", "-l"],
        "timeout": 5,
        "env": {},
        "working_dir": None,
        "stdin": "",
        "must_succeed": True,
    }


def test_where_a_text_is_wanted_what_a_reference_stands_for_becomes_text() -> None:
    scope = Scope(parameters={"n": 5, "words": ["a"], "yes": True, "none": None})
    given = {
        "environment_id": "{{ yes }}",
        "command": ["sleep", "{{ n }}", "{{ words }}"],
        "env": {"N": "{{ n }}"},
    }
    values = bound(CATALOGUE["environment.exec"], given, scope)
    assert values["environment_id"] == "true"
    assert values["command"] == ["sleep", "5", '["a"]']
    assert values["env"] == {"N": "5"}
    with pytest.raises(BadValues, match=r"'command\[0\]' must be text, not null"):
        bound(CATALOGUE["environment.exec"], {**given, "command": ["{{ none }}"]}, scope)


def test_what_does_not_fit_is_told_all_at_once() -> None:
    scope = Scope(parameters={"n": "5"})
    with pytest.raises(BadValues) as error:
        bound(
            CATALOGUE["environment.exec"],
            {"environment_id": "{{ step.a.id }}", "timeout": "{{ n }}"},
            scope,
        )
    assert [str(each) for each in error.value.problems] == [
        "'environment_id': step 'a' gave nothing: it was not completed",
        "'timeout' must be a whole number, not text; write it without quotes",
        "environment.exec needs the parameter 'command'",
    ]


def test_values_that_look_like_references_are_only_values() -> None:
    scope = Scope(parameters={"x": "{{ parameter.x }} {{ oh"})
    values = bound(CATALOGUE["utility.log"], {"message": "{{ x }}"}, scope)
    assert values["message"] == "{{ parameter.x }} {{ oh"


def test_in_code_nothing_is_replaced() -> None:
    script = "print(f'{{x}}', {{ oh"
    parameters = {"script": script, "inputs": {"x": "{{ x }}"}}
    step_type = CATALOGUE["utility.python"]
    values = bound(step_type, parameters, Scope(parameters={"x": 1}))
    assert values == {"script": script, "inputs": {"x": 1}}
    assert [str(each) for each in references_of(step_type, parameters)] == ["parameter.x"]


def test_a_whole_credential_reaches_only_what_takes_one() -> None:
    gateway = Credential("gw", "admin", "hunter2")
    scope = Scope(credentials={"gw": gateway})
    login = bound(CATALOGUE["gateway.login"], {"credential": "{{ credential.gw }}"}, scope)
    assert login["credential"] is gateway
    for name, parameters in (
        ("utility.set_variable", {"name": "x", "value": "{{ credential.gw }}"}),
        ("utility.set_variable", {"name": "x", "value": [{"a": "{{ credential.gw }}"}]}),
        ("utility.log", {"message": "{{ credential.gw }}"}),
        ("http.request", {"url": "http://a", "json": {"a": "{{ credential.gw }}"}}),
    ):
        with pytest.raises(BadValues, match="credential 'gw'; name a field of it") as error:
            bound(CATALOGUE[name], parameters, scope)
        assert "hunter2" not in str(error.value)


@pytest.mark.parametrize(
    ("lines", "seconds"),
    [
        (["timeout: 5"], 5),
        ([], 300),
        (["parameters: {timeout: 1000}"], 1030),
    ],
)
def test_an_attempt_may_take_as_long_as_is_written_or_as_it_waits(
    lines: list[str], seconds: float
) -> None:
    read = load(steps(step("a", "gateway.wait_for_ready", *lines))).steps[0]
    assert timeout_s(read, CATALOGUE[read.type], read.parameters) == seconds


def test_a_person_has_longer_than_a_step_without_a_wait() -> None:
    assert (
        timeout_s(
            load(steps(step("a", "approval.wait", "parameters: {message: ok}"))).steps[0],
            CATALOGUE["approval.wait"],
            {},
        )
        == 3630
    )


def test_null_is_a_value_only_where_it_means_something() -> None:
    verify = CATALOGUE["browser.verify_attribute"]
    given = {"selector": "a", "attribute": "b", "value": None}
    assert bound(verify, given, Scope())["value"] is None
    with pytest.raises(BadValues, match="'selector' must be text, not null"):
        bound(verify, {**given, "selector": None}, Scope())


@pytest.mark.parametrize("name", ["a/b", "..", ".hidden", "a\\b", "a\n", "", "-a", "a" * 101])
def test_an_artifact_is_called_nothing_that_leads_elsewhere(name: str) -> None:
    scope = Scope(parameters={"name": name})
    with pytest.raises(BadValues, match="name"):
        bound(CATALOGUE["browser.screenshot"], {"name": "{{ parameter.name }}"}, scope)
