"""What a playbook's text says."""

from __future__ import annotations

import pytest

from steward_server.playbooks.checking import load
from steward_server.playbooks.document import read_document
from steward_server.playbooks.playbook import Backoff, OnFailure, ParameterType, Retry
from tests.unit.playbooks.writing import HEAD, SLEEP, log, step, steps

WHOLE = """\
name: Whole
version: 4.1
description: Everything there is
domain: gateway
group: Test
verified: true
timeout: 60
metadata: {author: me, tags: [a]}
parameters:
  - name: url
    type: string
  - name: count
    type: integer
    required: false
    default: 3
    description: How many
steps:
  - id: nap
    name: Nap
    type: utility.sleep
    undo: [{id: wake, name: Wake, type: utility.log, parameters: {message: up}}]
  - id: make
    name: Make
    type: environment.create
    timeout: 50
    when: parameter.count > 0
    on_failure: rollback
    retry: {attempts: 4, delay: 1, backoff: exponential, factor: 3, most: 5, jitter: 0.5}
    parameters:
      image: "{{ parameter.url }}"
      wait: 20
    undo:
      - id: unmake
        name: Unmake
        type: environment.delete
        parameters: {environment_id: "{{ step.make.environment_id }}"}
  - id: say
    name: Say
    type: utility.log
    on_failure: continue
    retry_count: 2
    retry_delay: 0.5
    parameters: {message: "{{ count }} of {{ step.make.name }}"}
finally:
  - id: end
    name: End
    type: utility.log
    parameters: {message: "{{ step.say.logged }}"}
"""


def test_everything_that_is_written_is_there() -> None:
    playbook = load(WHOLE)
    assert (playbook.name, playbook.version, playbook.domain) == ("Whole", "4.1", "gateway")
    assert (playbook.group, playbook.verified, playbook.timeout_s) == ("Test", True, 60)
    assert playbook.metadata == {"author": "me", "tags": ["a"]}
    url, count = playbook.parameters
    assert (url.type, url.required, url.default) == (ParameterType.STRING, True, None)
    assert (count.required, count.default, count.description) == (False, 3, "How many")
    _, make, say = playbook.steps
    assert make.on_failure is OnFailure.ROLLBACK
    assert make.timeout_s == 50
    assert make.retry == Retry(4, 1.0, Backoff.EXPONENTIAL, 3.0, 0.5, 5.0)
    assert make.when is not None
    assert make.when.text == "parameter.count > 0"
    assert [each.id for each in make.undo] == ["unmake"]
    assert (say.retry.attempts, say.retry.delay_s, say.timeout_s) == (3, 0.5, None)
    assert say.parameters == {"message": "{{ count }} of {{ step.make.name }}"}
    assert [each.id for each in playbook.all_steps] == [
        "nap",
        "wake",
        "make",
        "unmake",
        "say",
        "end",
    ]
    assert [each.id for each in playbook.finally_] == ["end"]


def test_a_step_is_undone_only_where_it_was_completed_the_last_one_first() -> None:
    undoable = [
        step(name, "utility.sleep", f"undo: [{{id: un{name}, name: U, type: utility.sleep}}]")
        for name in ("a", "b", "c")
    ]
    playbook = load(steps(*undoable))
    assert [each.id for each in playbook.rollback({"a", "c"})] == ["unc", "una"]


def test_waits_between_attempts() -> None:
    fixed = (
        load(steps(step("a", "utility.sleep", "retry_count: 3", "retry_delay: 7"))).steps[0].retry
    )
    assert [fixed.wait_s(failed, 0.9) for failed in (1, 2, 50)] == [7, 7, 7]
    rising = Retry(9, 1.0, Backoff.EXPONENTIAL, 2.0, 0.0, 10.0)
    assert [rising.wait_s(failed, 0.9) for failed in (1, 2, 3, 4, 5, 10**6)] == [1, 2, 4, 8, 10, 10]
    shaken = Retry(9, 1.0, Backoff.EXPONENTIAL, 2.0, 0.5, 10.0)
    assert [shaken.wait_s(3, chance) for chance in (0, 0.5, 1)] == [4, 3, 2]


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("yes", "yes"),
        ("on", "on"),
        ("2026-11-20", "2026-11-20"),
        ("012", 12),
        ("1e3", 1000.0),
        (".5", 0.5),
        ("~", None),
        ("", None),
        ("True", True),
        ('"5"', "5"),
        ("!!str 5", "5"),
        (".nan", ".nan"),
        ("1:30", "1:30"),
    ],
)
def test_scalars_are_those_of_yaml_1_2(written: str, value: object) -> None:
    document = read_document(f"a: {written}\n")
    assert document.value == {"a": value}
    assert type(document.value["a"]) is type(value)
    assert not document.faults


def test_keys_are_words_whatever_they_look_like() -> None:
    assert read_document("1: a\ntrue: b\n").value == {"1": "a", "true": "b"}
    told = read_document("? [a]\n: b\nc: d\n")
    assert [str(each) for each in told.faults] == ["1:3: a key must be a word"]
    assert told.value == {"c": "d"}


@pytest.mark.parametrize("written", ["a: {{ parameter.x }}\n", "{a: {{ x }}}\n"])
def test_a_reference_without_quotes_is_known_for_one(written: str) -> None:
    told = [fault.message for fault in read_document(written).faults]
    assert told[0] == 'a key must be a word; a reference stands in quotes: "{{ … }}"'


def test_a_byte_order_mark_and_windows_lines_change_no_position() -> None:
    text = "\ufeff" + steps(SLEEP, log("'{{ oh }}'")).replace("\n", "\r\n")
    (fault,) = _faults(text.encode())
    assert fault == "11:17: there is no parameter 'oh'"


def _faults(content: bytes) -> list[str]:
    from steward_server.playbooks.checking import examine

    return [str(each) for each in examine(content)[1]]


@pytest.mark.parametrize(
    ("written", "place"),
    [
        ("a {{ oh }}", "8:18"),
        ('"a {{ oh }}"', "8:19"),
        ("'it''s {{ oh }}'", "8:23"),
        (">-\n    folded\n    text {{ oh }}", "10:14"),
        ("|\n    {{ 'a' }} {{ oh }}", "9:19"),
        ('"\\t{{ oh }}"', "8:19"),
    ],
)
def test_a_fault_within_text_is_where_its_braces_are(written: str, place: str) -> None:
    assert _faults(steps(log(written)).encode()) == [f"{place}: there is no parameter 'oh'"]


def test_a_playbook_without_anything_optional_is_enough() -> None:
    playbook = load(f"{HEAD}steps: [{{id: a, name: A, type: utility.sleep}}]")
    assert playbook.steps[0].retry.attempts == 1
    assert playbook.timeout_s == 3600
