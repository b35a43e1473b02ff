"""Whatever a copy is called, it lies in the library and is read with that name."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from steward_server.playbooks.checking import load
from steward_server.playbooks.copying import Unrenamable, renamed
from steward_server.playbooks.paths import copy_path, is_hidden, slug, unescaped, why_unsafe
from tests.unit.playbooks.writing import SLEEP, steps

NAMES = st.text(min_size=1, max_size=255)
ORIGINAL = load(steps(SLEEP + "\nparameters: {seconds: 1}"))


@given(NAMES, st.integers(0, 1_000))
def test_a_copys_path_is_safe_and_listed(name: str, number: int) -> None:
    stem = slug(name)
    if not stem:
        return
    path = copy_path("gateway/original.yaml", stem, number)
    assert why_unsafe(path) == ""
    assert not is_hidden(path)
    assert unescaped(path) == path
    assert path.isprintable()
    assert len(path.rpartition("/")[2].encode()) <= 255
    assert slug(stem) == stem


@given(NAMES)
def test_a_copy_has_its_name_or_is_refused(name: str) -> None:
    try:
        copy = renamed(ORIGINAL, name)
    except Unrenamable:
        assert not name.isprintable()
        return
    read = load(copy) if name.strip() else None
    assert read is None or read.name == name
