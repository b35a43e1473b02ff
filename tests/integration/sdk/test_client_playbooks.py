"""`client.playbooks`: the library of a server, as frozen values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from steward_client.errors import Conflict, InvalidRequest, NotFound, TextError

TEXT = """name: Nap
version: "1"
parameters:
  - {name: naps, type: list, default: [1, 2]}
steps:
  - id: nap
    name: Nap
    type: utility.sleep
    parameters: {seconds: 1}
"""

Call = Callable[..., Any]


async def test_playbooks_are_listed_shown_saved_copied_and_deleted(call: Call) -> None:
    gateway = await call("playbooks.list", domain="gateway")
    assert [each.path for each in gateway][:2] == [
        "gateway/health_check.yaml",
        "gateway/module_upgrade.yaml",
    ]
    assert gateway[1].origin == "built_in"
    upgrade = await call("playbooks.get", "gateway/module_upgrade.yaml")
    assert [each.default for each in upgrade.parameters] == [None, None, False, False]
    assert (upgrade.steps[0].id, upgrade.steps[0].needs) == ("login", ("gateway",))

    digest = await call("playbooks.save", "nap.yaml", TEXT, expected_digest="")
    nap = await call("playbooks.get", "nap.yaml")
    assert (nap.digest, nap.parameters[0].default, nap.steps[0].timeout_s) == (
        digest,
        [1, 2],
        None,
    )
    assert (await call("playbooks.source", "nap.yaml")).text == TEXT
    assert await call("playbooks.duplicate", "nap.yaml", "Another") == "another.yaml"
    with pytest.raises(Conflict) as passed:
        await call("playbooks.delete", "nap.yaml", expected_digest="0" * 64)
    assert passed.value.reason == "VERSION_PASSED"
    await call("playbooks.delete", "nap.yaml", expected_digest=digest)
    with pytest.raises(NotFound, match=r"Playbook 'nap\.yaml' not found"):
        await call("playbooks.get", "nap.yaml")


async def test_everything_that_is_wrong_with_a_text_is_told(call: Call) -> None:
    wrong = TEXT.replace("seconds", "second").replace("list", "lists")
    told = await call("playbooks.check", "a.yaml", text=wrong)
    assert [(each.line, each.path) for each in told] == [
        (4, "a.yaml"),  # the type, and the default, which is of none
        (4, "a.yaml"),
        (9, "a.yaml"),
    ]
    assert str(told[0]).startswith("a.yaml:4:24: ")
    with pytest.raises(InvalidRequest) as refused:
        await call("playbooks.save", "a.yaml", wrong)
    assert refused.value.errors == told
    assert await call("playbooks.check", text=TEXT) == ()
    assert await call("playbooks.check", "gateway/health_check.yaml") == ()


async def test_a_plan_has_each_step_with_what_it_is_given(call: Call) -> None:
    plan = await call(
        "playbooks.plan",
        "gateway/restart_and_wait.yaml",
        parameters={"reason": "new licence", "ask_first": False},
    )
    assert plan.parameters["ask_first"] is False
    assert {each.id: each.will for each in plan.steps}["approval"] == "skip"
    assert plan.steps[-1].child.name == "Gateway Health Check"
    with pytest.raises(InvalidRequest) as refused:
        await call("playbooks.plan", text=TEXT, parameters={"naps": 5})
    assert [*refused.value.fields] == ["parameters.naps"]


def test_where_a_text_has_no_place_its_errors_have_none() -> None:
    assert str(TextError(1, 2, "", "it is wrong")) == "1:2: it is wrong"
