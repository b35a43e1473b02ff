"""Copies: what they are called, and that nothing but the name changes in them."""

from __future__ import annotations

import difflib

import pytest

from steward_server.playbooks.checking import load
from steward_server.playbooks.copying import Unrenamable, renamed
from steward_server.playbooks.folders import SHIPPED
from steward_server.playbooks.paths import copy_path, is_hidden, slug, unescaped, why_unsafe
from tests.unit.playbooks.writing import SLEEP, steps

STEPS = steps(SLEEP).partition("\n")[2]
"""All but the name."""


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("My Custom Playbook", "my-custom-playbook"),
        ("  --Restart  (prod)!! ", "restart-prod"),
        ("snake_case_name", "snake-case-name"),
        ("v1.2.3", "v1-2-3"),
        ("Überprüfung", "überprüfung"),
        ("U\u0308ber", "über"),
        ("日本 語", "日本-語"),
        ("..", ""),
        ("!?", ""),
        ("con", "con"),
    ],
)
def test_a_name_becomes_words_with_hyphens(name: str, expected: str) -> None:
    assert slug(name) == expected


def test_a_long_name_is_cut_to_what_a_file_can_be_called() -> None:
    made = copy_path("gateway/original.yaml", slug("日" * 255), 999)
    assert len(made.rpartition("/")[2].encode()) <= 255
    assert why_unsafe(made) == ""
    assert slug("a" * 199 + " b") == "a" * 199


def test_a_copy_lies_beside_its_source_with_a_number_where_that_is_taken() -> None:
    assert copy_path("gateway/original.yml", "copy", 0) == "gateway/copy.yaml"
    assert copy_path("gateway/deep/original.yaml", "copy", 2) == "gateway/deep/copy-2.yaml"
    assert copy_path("original.yaml", "copy", 0) == "copy.yaml"


def test_hidden_files_and_backups_are_left_out() -> None:
    hidden = (".git/a.yaml", "a/.b.yaml", "..data/a.yaml", "a.backup.yaml", "a.backup.1.yaml")
    assert all(map(is_hidden, hidden))
    assert not any(map(is_hidden, ("a/b.yaml", "backup.yaml", "a..b.yaml")))


def test_slashes_may_be_escaped_in_either_case() -> None:
    assert unescaped("a%2Fb%2fc.yaml") == "a/b/c.yaml"
    assert unescaped("a%2e.yaml") == "a%2e.yaml"


NAMES = [
    "name: Test # what it is called",
    'name: "Test"',
    "name: 'It''s a Test'",
    "name: |\n  Test\n\n# after a block",
    "name: >-\n  Folded\n  Test\n# after a block",
    "name:\n  Plain\n  Test",
    "name: !!str Test",
    "? name\n: Test",
    '"name": Test\r',
]
NEW_NAMES = ["My Custom Playbook", 'a "b" \\ c', "日本 😀", "- [x]: #", "line\u2028break", "true"]


@pytest.mark.parametrize("written", NAMES)
@pytest.mark.parametrize("name", NEW_NAMES)
def test_however_a_name_is_written_it_is_replaced(written: str, name: str) -> None:
    copy = renamed(load(f"# first\nverified: true # yes\n{written}\n{STEPS}"), name)
    read = load(copy)
    assert (read.name, read.verified) == (name, False)
    assert copy.startswith("# first\nverified: false # yes\n")
    assert copy.endswith(STEPS)
    assert ("# after a block" in copy) == ("# after a block" in written)
    assert ("# what it is called" in copy) == ("# what it is called" in written)


def test_a_name_in_a_map_on_one_line_is_replaced_too() -> None:
    step = "{id: n, name: n, type: utility.log, parameters: {message: m}}"
    text = f'{{name: a b, version: "1", steps: [{step}]}}'
    assert load(renamed(load(text), "x, y: z")).name == "x, y: z"


def test_of_a_shipped_playbook_one_line_changes() -> None:
    for file in sorted(SHIPPED.rglob("*.yaml")):
        before = file.read_text()
        after = renamed(load(before), "Another")
        changed = [
            each
            for each in difflib.ndiff(before.splitlines(), after.splitlines())
            if each[:2] in ("+ ", "- ")
        ]
        assert [each[2:].partition(":")[0] for each in changed] == ["name", "name"]


def test_a_name_that_cannot_stand_is_refused() -> None:
    with pytest.raises(Unrenamable):
        renamed(load(steps(SLEEP)), "a\ud800b")
