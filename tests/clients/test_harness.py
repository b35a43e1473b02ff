"""A runner that fails a step, or leaves one out, is noticed."""

from __future__ import annotations

import sys

import pytest

from tests.clients.harness import Ended, assert_passed, run, said


def test_the_steps_say_different_things() -> None:
    assert len(set(said())) == len(said())


@pytest.mark.parametrize(
    "ended",
    [
        pytest.param(Ended(1, "1..2\nok 1 - one\nnot ok 2 - two\n"), id="a failed step"),
        pytest.param(Ended(0, "1..2\nok 1 - one\nnot ok 2 - two\n"), id="a failed step, hidden"),
        pytest.param(Ended(0, "1..2\nok 1 - one\n"), id="a step left out"),
        pytest.param(Ended(0, "1..1\nok 1 - two\n"), id="a step left out of the plan"),
        pytest.param(Ended(0, "1..2\nok 1 - two\nok 2 - one\n"), id="another order"),
        pytest.param(Ended(0, "1..2\nok 1 - one\nok 2 - one\n"), id="another step"),
        pytest.param(Ended(0, "1..2\nok 1 - one\nok 2 - two\nok 3 - three\n"), id="a step more"),
        pytest.param(Ended(0, "ok 1 - one\nok 2 - two\n"), id="no plan"),
        pytest.param(Ended(3, "1..2\nok 1 - one\nok 2 - two\n"), id="a crash at the end"),
        pytest.param(Ended(0, ""), id="nothing"),
    ],
)
def test_a_runner_that_does_not_make_every_step_is_noticed(ended: Ended) -> None:
    with pytest.raises(AssertionError):
        assert_passed(ended, ["one", "two"])


def test_a_runner_that_makes_every_step_is_believed() -> None:
    assert_passed(Ended(0, "building\n1..2\nok 1 - one\nok 2 - two\n"), ["one", "two"])


async def test_a_runner_that_does_not_end_is_ended() -> None:
    endless = [sys.executable, "-c", "import time; print('begun', flush=True); time.sleep(60)"]
    with pytest.raises(AssertionError, match="begun"):
        await run(endless, 1.0)
