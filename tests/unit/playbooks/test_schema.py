"""The published schema: valid itself, fresh, and of one mind with the reader."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from steward_server.playbooks.catalogue import CATALOGUE
from steward_server.playbooks.checking import examine
from steward_server.playbooks.document import read_document
from steward_server.playbooks.folders import SHIPPED
from steward_server.playbooks.reading import (
    PARAMETER_KEYS,
    PLAYBOOK_KEYS,
    RETRY_KEYS,
    STEP_KEYS,
    read,
)
from steward_server.playbooks.schema import main, page, schema
from tests.unit.playbooks.test_broken_files import BROKEN
from tests.unit.playbooks.test_reading import WHOLE
from tests.unit.playbooks.writing import step, steps

ONLY_CHECKING_KNOWS = {
    "a key that is there twice",
    "a tag",
    "a number too large",
    "an id twice",
    "three references with nothing behind them",
    "a filter in a block of text",
    "a parameter that is nearly one",
    "a step that comes later",
    "an output that there is not",
    "a variable that nobody sets",
    "credentials as text",
    "a reference of the wrong type",
    "a timeout around a longer wait",
    "a reference for a key, and one in a default",
    "a path out of the library",
}
"""What no schema can say, or what YAML has and JSON has not."""

Value = dict[str, Any]


@cache
def validator() -> Draft202012Validator:
    return Draft202012Validator(schema())


def accepts(document: Any) -> bool:
    return bool(validator().is_valid(document))


def test_it_is_a_schema() -> None:
    Draft202012Validator.check_schema(schema())


def test_it_names_every_key_and_type() -> None:
    made = schema()
    assert {*made["properties"]} == {*PLAYBOOK_KEYS}
    assert {*made["$defs"]["parameter"]["properties"]} == {*PARAMETER_KEYS}
    assert {*made["$defs"]["step"]["properties"]} == {*STEP_KEYS}
    assert {*made["$defs"]["final"]["properties"]} == {*STEP_KEYS} - {"undo"}
    assert {*made["$defs"]["retry"]["properties"]} == {*RETRY_KEYS}
    for name, step_type in CATALOGUE.items():
        values = made["$defs"]["values"][name]
        assert {*values["properties"]} == {each.name for each in step_type.parameters}


@pytest.mark.parametrize("file", sorted(SHIPPED.rglob("*.yaml")), ids=lambda file: file.stem)
def test_it_accepts_what_ships(file: Path) -> None:
    assert accepts(read_document(file.read_bytes()).value)


def test_it_accepts_everything_there_is() -> None:
    assert accepts(read_document(WHOLE).value)


@pytest.mark.parametrize("what", BROKEN)
def test_it_refuses_broken_files_but_for_what_only_checking_knows(what: str) -> None:
    document = read_document(BROKEN[what][0])
    if document.is_whole:
        assert accepts(document.value) == (what in ONLY_CHECKING_KNOWS)


@pytest.mark.parametrize("name", CATALOGUE)
def test_both_know_which_parameters_a_step_must_have(name: str) -> None:
    text = steps(step("a", name))
    assert accepts(read_document(text).value) == (not examine(text)[1])


def paths(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    children = value.items() if isinstance(value, dict) else enumerate(value)
    for key, each in children:
        yield (*path, key)
        if isinstance(each, dict | list):
            yield from paths(each, (*path, key))


GOOD: Value = read_document(WHOLE).value
PLACES = list(paths(GOOD))


@given(
    st.sampled_from(PLACES),
    st.sampled_from(["remove", "rename", None, 5, -1, 0.5, "x", "", True, [], {}, ["x"], {"x": 1}]),
)
def test_whatever_is_changed_the_schema_refuses_nothing_that_the_reader_takes(
    place: tuple[Any, ...], change: Any
) -> None:
    document = copy.deepcopy(GOOD)
    around: Any = document
    for key in place[:-1]:
        around = around[key]
    if change == "remove":
        del around[place[-1]]
    elif change == "rename" and isinstance(around, dict):
        around["unheard"] = around.pop(place[-1])
    else:
        around[place[-1]] = change
    text = json.dumps(document)
    faults = examine(text)[1]
    if not faults:
        assert accepts(document), [each.message for each in validator().iter_errors(document)]
    # What is wrong in form, but for what only reading can tell, the schema refuses as well.
    form = [
        each.message
        for each in read(text).faults
        if not each.message.startswith(("when:", "there are two", "'most'", "'factor'"))
    ]
    if form:
        assert not accepts(document), form


def test_the_files_in_docs_are_checked_and_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--check", str(tmp_path)]) == 1
    assert main(["--write", str(tmp_path)]) == 0
    assert main(["--check", str(tmp_path)]) == 0
    file = tmp_path / "steps.md"
    file.write_text(file.read_text().replace("gateway.ping", "gateway.pong"))
    capsys.readouterr()
    assert main(["--check", str(tmp_path)]) == 1
    assert capsys.readouterr().err == f"{file} is stale; run: make format\n"


def test_the_page_has_every_step_with_its_parameters_and_outputs() -> None:
    made = page()
    for step_type in CATALOGUE.values():
        _, _, rest = made.partition(f"### `{step_type.name}`\n")
        section = rest.partition("\n###")[0]
        for each in (*step_type.parameters, *step_type.outputs):
            assert f"| `{each.name}` |" in section
