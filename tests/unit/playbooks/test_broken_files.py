"""Broken files, and all that is said of each: line, column, what, and what was meant."""

from __future__ import annotations

import pytest

from steward_server.playbooks import document
from tests.unit.playbooks.writing import HEAD, SLEEP, faults, log, step, steps

BROKEN: dict[str, tuple[str | bytes, list[str]]] = {
    "an empty file": ("", ["1:1: the file is empty; a playbook begins with `name: …`"]),
    "a list": ("- a\n", ["1:1: a playbook is a map, beginning with `name: …`"]),
    "a bracket that is not closed": (
        "name: [\n",
        [
            (
                "2:1: it is no YAML: while parsing a flow node expected the node content, but "
                "found '<stream end>'"
            )
        ],
    ),
    "a tab": ("name:\n\tb: 1\n", ["2:1: a tab; YAML is indented with spaces"]),
    "a line that is indented too far": (
        "name: A\n  version: 1\n",
        [
            (
                "2:10: a colon that cannot stand here: the line is indented too far, or its text "
                "needs quotes"
            )
        ],
    ),
    "two documents": (
        steps(SLEEP) + "---\nname: B\n",
        ["7:1: a second document; a file holds one playbook"],
    ),
    "a key that is there twice": (
        f"name: A\n{steps(SLEEP)}",
        ["2:1: the key 'name' is there twice; it is in line 1 already"],
    ),
    "an alias": (
        steps(step("a", "utility.log", "parameters: {message: &x hi, level: *x}")),
        ["7:41: '*x' stands for another place; write the value out"],
    ),
    "a tag": (
        steps(SLEEP, before="description: !!python/object:os.system A"),
        ["3:14: the tag '!!python/object:os.system' is not taken; write the plain value"],
    ),
    "a control character": ("name: \x07\n", ["1:7: character 7 cannot stand here"]),
    "bytes that are no text": (b"name: A\xff\n", ["1:8: the file is not UTF-8 from here on"]),
    "values too deep": (
        "name: " + "[" * 40 + "\n",
        ["1:38: values lie more than 32 deep in each other"],
    ),
    "a number too large": (
        steps(step("a", "utility.sleep", "parameters: {seconds: 99999999999999999999}")),
        ["7:27: 99999999999999999999 is beyond what 64 bits hold"],
    ),
    "a key of a playbook": (
        steps(SLEEP, before="paramters: []"),
        ["3:1: unknown key 'paramters' of a playbook; did you mean 'parameters'?"],
    ),
    "no name, no steps": (
        "version: 1\n",
        ["1:1: a playbook needs the key 'name'", "1:1: a playbook needs the key 'steps'"],
    ),
    "no steps in it": (f"{HEAD}steps: []\n", ["3:8: a playbook has at least one step"]),
    "steps that are no list": (f"{HEAD}steps: 5\n", ["3:8: 'steps' must be a list"]),
    "a parameter with nothing right": (
        steps(
            SLEEP,
            before="""
            parameters:
              - name: x y
                type: strin
                required: yes
                defalt: 1
            """,
        ),
        [
            "4:11: 'x y' cannot name a parameter: a letter or _, then letters, digits, _ and -",
            (
                "5:11: 'type' must be one of string, integer, float, boolean, file, credential, "
                "list, dict, not 'strin'; did you mean 'string'?"
            ),
            "6:15: 'required' must be true or false; did you mean 'true'?",
            "7:5: unknown key 'defalt' of a parameter; did you mean 'default'?",
        ],
    ),
    "a default of another type, a name twice": (
        steps(
            SLEEP,
            before="""
            parameters:
              - {name: x, type: integer, default: true}
              - {name: x, type: int}
            """,
        ),
        [
            "4:39: 'default' must be a whole number, not true",
            "5:12: there are two parameters 'x'",
            (
                "5:21: 'type' must be one of string, integer, float, boolean, file, credential, "
                "list, dict, not 'int'; did you mean 'integer'?"
            ),
        ],
    ),
    "a step's key, and a step that is none": (
        f"{HEAD}steps:\n  - id: 5\n    name: A\n    typ: utility.sleep\n  - 5\n",
        [
            "4:9: 'id' must be text; put it in quotes",
            "6:5: unknown key 'typ' of a step; did you mean 'type'?",
            "7:5: a step is a map, such as {id: ping, name: …, type: gateway.ping}",
        ],
    ),
    "an id twice": (
        steps(SLEEP, SLEEP),
        ["7:9: there are two steps with the id 'nap'; the first in line 4"],
    ),
    "a type that is nearly one": (
        steps(step("a", "gateway.pin")),
        ["6:11: there is no type of step 'gateway.pin'; did you mean 'gateway.ping'?"],
    ),
    "times and counts": (
        steps(
            step("a", "utility.sleep", "timeout: 0", "retry_count: 1.5", "retry_delay: a"),
        ),
        [
            "7:14: 'timeout' must be from 0.001 to 604800, not 0",
            "8:18: 'retry_count' must be a whole number",
            "9:18: 'retry_delay' must be a number",
        ],
    ),
    "a retry that says everything twice": (
        steps(
            step(
                "a",
                "utility.sleep",
                "retry_count: 1",
                "retry: {attempts: 3, facto: 2, backoff: linear}",
            )
        ),
        [
            "7:5: 'retry_count' and 'retry' say the same; keep one",
            "8:26: unknown key 'facto' of retry; did you mean 'factor'?",
            (
                "8:45: 'backoff' must be one of fixed, exponential, not 'linear'; did you mean "
                "'fixed'?"
            ),
        ],
    ),
    "a value of another type": (
        steps(step("a", "utility.sleep", 'parameters: {seconds: "5"}')),
        ["7:27: 'seconds' must be a number, not text; write it without quotes"],
    ),
    "a value out of bounds, and one that is no choice": (
        steps(
            step("a", "utility.sleep", "parameters: {seconds: -1}"),
            step("b", "browser.verify_state", "parameters: {selector: a, state: visibel}"),
        ),
        [
            "7:27: 'seconds' must be at least 0 s, not -1",
            (
                "11:38: 'state' must be one of visible, hidden, enabled, disabled, not 'visibel'; "
                "did you mean 'visible'?"
            ),
        ],
    ),
    "a command that is no list, and one with a number in it": (
        steps(
            step("a", "environment.exec", "parameters: {environment_id: x, command: ls -l}"),
            step("b", "environment.exec", "parameters: {environment_id: x, command: [ls, 5]}"),
        ),
        [
            "7:46: 'command' must be a list, not text",
            "11:51: 'command[1]' must be text, not the number 5",
        ],
    ),
    "a parameter of a step": (
        steps(step("a", "utility.log", "parameters:", "  message: a", "  lvel: info")),
        ["9:7: utility.log has no parameter 'lvel'; did you mean 'level'?"],
    ),
    "names with folders in them, and an address of a file": (
        steps(
            step("a", "browser.screenshot", "parameters: {name: ../../etc/cron.d/x}"),
            step("b", "fat.export_report", "parameters: {report_id: r, output_path: /tmp/r.html}"),
            step("c", "http.request", "parameters: {url: 'file:///etc/passwd'}"),
            step("d", "browser.screenshot", "parameters: {name: page 1.png}"),
            step("e", "browser.navigate", "parameters: {url: 'file:///etc/passwd'}"),
        ),
        [
            (
                "7:24: 'name' must be a name without folders: letters, digits, spaces, '.', '_' "
                "and '-'"
            ),
            (
                "11:45: 'output_path' must be a name without folders: letters, digits, spaces, "
                "'.', '_' and '-'"
            ),
            "15:23: 'url' must be an address that begins with http:// or https://",
            "23:23: 'url' must be an address that begins with http:// or https://",
        ],
    ),
    "half a sign-in": (
        steps(step("a", "gateway.login", "parameters: {username: x}")),
        ["4:5: gateway.login needs 'password' beside 'username'"],
    ),
    "three references with nothing behind them": (
        steps(log("'{{ step.b.x }} {{ env.X }} {{ oh'")),
        [
            "8:17: there is no step 'b' before",
            (
                "8:32: there is no namespace 'env', only parameter, variable, credential, step; "
                "did you mean 'parameter.env.X'?"
            ),
            "8:44: '{{' without '}}'",
        ],
    ),
    "a filter in a block of text": (
        steps(log("|\n    hello\n      you {{ x | upper }}")),
        ["10:15: '| upper' cannot follow a reference; there are no filters"],
    ),
    "a parameter that is nearly one": (
        steps(log("about {{ parameter.nane }}"), before="parameters: [{name: name, type: string}]"),
        ["9:22: there is no parameter 'nane'; did you mean 'name'?"],
    ),
    "a step that comes later": (
        steps(log("'{{ step.nap.slept }}'"), SLEEP),
        ["8:17: step 'nap' has not run by then"],
    ),
    "an output that there is not": (
        steps(SLEEP, log("'{{ step.nap.slep }}'")),
        ["11:17: utility.sleep gives no 'slep', but slept; did you mean 'slept'?"],
    ),
    "a variable that nobody sets": (
        steps(
            step("a", "utility.set_variable", "parameters: {name: colour, value: red}"),
            log("'{{ variable.color }}'"),
        ),
        ["12:17: no step before sets the variable 'color'; did you mean 'colour'?"],
    ),
    "credentials as text": (
        steps(
            step(
                "a",
                "gateway.login",
                "parameters:",
                "  password: '{{ credential.gw }}'",
                "  username: 'as {{ credential.gw }}, {{ credential.gw.pasword }}'",
            )
        ),
        [
            "8:17: 'password' must be text, not credential {{ credential.gw }}",
            "9:21: credential.gw is a whole credential, which has no text; name a field of it",
            (
                "9:42: a credential has no 'pasword', but name, username, password, gateway_url, "
                "description; did you mean 'password'?"
            ),
        ],
    ),
    "a reference of the wrong type": (
        steps(
            step("a", "environment.exec", "parameters:", "  environment_id: x", "  command: [ls]"),
            step("b", "utility.sleep", "parameters: {seconds: '{{ step.a.stdout }}'}"),
        ),
        ["13:27: 'seconds' must be a number, not string {{ step.a.stdout }}"],
    ),
    "a timeout around a longer wait": (
        steps(
            step("a", "browser.click", "timeout: 3", "parameters: {selector: '#a', timeout: 5000}")
        ),
        ["8:43: 'timeout' is 5000 ms, but the step's timeout of 3 s ends it before"],
    ),
    "conditions": (
        steps(
            step("a", "utility.sleep", "when: parameter.x = 1"),
            step("b", "utility.sleep", "when: 1 < 2 < 3"),
            step("c", "utility.sleep", "when: parameter.x and"),
            step("d", "utility.sleep", "when: '{{ parameter.x'"),
            step("e", "utility.sleep", "when: not parameter.y"),
            step("f", "utility.sleep", "when: 5"),
            before="parameters: [{name: x, type: string}]",
        ),
        [
            "8:23: when: '=' is no operator; did you mean '=='?",
            "12:17: when: comparisons cannot be chained; join two of them with 'and'",
            "16:26: when: a value is missing before the end",
            "20:12: when: '{{' without '}}'",
            "24:15: there is no parameter 'y'",
            "28:11: 'when' must be a condition, such as: parameter.count > 0",
        ],
    ),
    "a rollback of nothing, and an undo of an undo": (
        steps(
            step("a", "utility.sleep", "on_failure: rollback"),
            step(
                "b",
                "utility.sleep",
                "on_failure: rollback",
                "undo: [{id: c, name: C, type: utility.log, undo: []}]",
            ),
        ),
        [
            "7:17: there is nothing to roll back: no step before this one has 'undo'",
            "11:17: there is nothing to roll back: no step before this one has 'undo'",
            "12:12: utility.log needs the parameter 'message'",
            "12:48: only steps in `steps` can be undone",
        ],
    ),
    "a reference for a key, and one in a default": (
        steps(
            step("a", "http.request", "parameters: {url: 'http://a', headers: {'{{ x }}': a}}"),
            before="parameters: [{name: x, type: string, default: '{{ y }}'}]",
        ),
        [
            "3:47: references in defaults are not replaced",
            "8:45: references in keys are not replaced",
        ],
    ),
    "a path out of the library": (
        steps(step("a", "playbook.run", "parameters: {playbook: ../secret.yaml}")),
        ["7:28: '../secret.yaml' is no path of a playbook: a path has no empty parts, '.' or '..'"],
    ),
}


@pytest.mark.parametrize("what", BROKEN)
def test_a_broken_file_is_told_all_that_is_wrong_with_it(what: str) -> None:
    text, expected = BROKEN[what]
    assert faults(text) == expected


def test_there_are_thirty_of_them_at_least() -> None:
    assert len(BROKEN) >= 30


SAMPLES: dict[str, tuple[str, str]] = {
    "code": (
        step("a", "utility.python", "parameters: {code: print(1)}"),
        "7:18: utility.python has no parameter 'code'; did you mean 'script'?",
    ),
    "path": (
        step("a", "browser.screenshot", "parameters: {path: a.png}"),
        "7:18: browser.screenshot has no parameter 'path'; did you mean 'name'?",
    ),
    "state": (
        step("a", "browser.verify", "parameters: {selector: a, state: hidden}"),
        "7:31: browser.verify has no parameter 'state'; did you mean 'exists'?",
    ),
    "wait_for": (
        step("a", "browser.navigate", "parameters: {url: 'http://a', wait_for: load}"),
        "7:35: browser.navigate has no parameter 'wait_for'; did you mean 'wait_until'?",
    ),
    "utility.wait": (
        step("a", "utility.wait", "parameters: {seconds: 1}"),
        "6:11: there is no type of step 'utility.wait'; did you mean 'utility.sleep'?",
    ),
    "gateway.wait_for_module": (
        step("a", "gateway.wait_for_module"),
        (
            "6:11: there is no type of step 'gateway.wait_for_module'; did you mean "
            "'gateway.wait_for_module_installation'?"
        ),
    ),
    "perspective.verify_element": (
        step("a", "perspective.verify_element"),
        (
            "6:11: there is no type of step 'perspective.verify_element'; did you mean "
            "'browser.verify'?"
        ),
    ),
    "perspective.verify_with_ai": (
        step("a", "perspective.verify_with_ai", "parameters: {prompt: is it well}"),
        (
            "6:11: 'perspective.verify_with_ai' is not available: it would send pages to somebody "
            "else's model"
        ),
    ),
    "skip": (
        step("a", "utility.sleep", "on_failure: skip"),
        (
            "7:17: 'on_failure' must be one of abort, continue, rollback, not 'skip'; did you mean "
            "'continue'?"
        ),
    ),
    "references in code": (
        step("a", "utility.python", "parameters: {script: 'print({{ parameter.x }})'}"),
        (
            "7:33: references in code are not replaced, or what they stand for would be run; hand "
            "it over in 'inputs'"
        ),
    ),
}


@pytest.mark.parametrize("spelling", SAMPLES)
def test_a_spelling_of_old_samples_is_told_the_right_word(spelling: str) -> None:
    written, expected = SAMPLES[spelling]
    assert faults(steps(written)) == [expected]


def test_a_category_is_a_domain() -> None:
    assert faults(steps(SLEEP, before="category: gateway")) == [
        "3:1: unknown key 'category' of a playbook; did you mean 'domain'?"
    ]


def test_a_file_beyond_a_mebibyte_is_not_even_read() -> None:
    text = "#" * (1024 * 1024 + 1)
    assert faults(text) == ["1:1: the file has 1048577 bytes; at most 1048576 are read"]


def test_a_file_with_very_many_values_is_read_no_further(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(document, "MAX_VALUES", 100)
    assert faults("a: [" + "1," * 101 + "]") == ["1:201: the file has more than 100 values"]


def test_a_billion_laughs_are_refused_where_they_begin() -> None:
    lines = ["a: &a [lol, lol]"]
    lines += [
        f"{new}: &{new} [*{old}, *{old}]" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
    ]
    told = faults("\n".join(lines))
    assert told[0] == "1:1: a playbook needs the key 'name'"
    assert "2:8: '*a' stands for another place; write the value out" in told


def test_a_text_of_nothing_but_references_is_read_to_an_end() -> None:
    told = faults(steps(log("'" + "{{ x }}" * 10_000 + "'")))
    assert told[0] == "8:17: there is no parameter 'x'"
    assert len(told) == 201
    assert told[-1] == "8:1417: more than 200 references in a text"


def test_code_that_is_full_of_braces_is_searched_in_no_time() -> None:
    # With a search that goes on to the end of the text from each of them, this takes minutes.
    script = "{{step." * 50_000
    assert not faults(steps(step("a", "utility.python", f"parameters: {{script: '{script}'}}")))
