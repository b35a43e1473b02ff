"""Actions are drawn as the policy says, whether for one agent or for many at once."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from steward_server.inference.manifest import Action, ActionType
from steward_server.inference.sampling import Noise, decide, decide_one

CHOICES = Action(ActionType.DISCRETE, 3)
NUMBERS = Action(ActionType.CONTINUOUS, 2, low=(-1.0, -2.0), high=(1.0, 2.0))
numbers = st.floats(-30, 30, width=32)
noises = st.floats(-5, 5)
temperatures = st.floats(0.1, 10)


def _rows(values: st.SearchStrategy[float], size: int) -> st.SearchStrategy[list[list[float]]]:
    return st.lists(st.lists(values, min_size=size, max_size=size), min_size=4, max_size=4)


@given(_rows(numbers, 3), _rows(noises, 3), temperatures)
def test_a_choice_for_one_is_that_for_many(
    logits: list[list[float]], noise: list[list[float]], temperature: float
) -> None:
    made = decide(CHOICES, (np.array(logits, np.float32),), np.array(noise), temperature)
    for at, row in enumerate(logits):
        action, log_prob = decide_one(CHOICES, [row], noise[at], temperature)
        assert action == made.actions[at]
        assert log_prob == pytest.approx(made.log_probs[at], rel=1e-9, abs=1e-9)


@given(_rows(numbers, 2), _rows(numbers, 2), _rows(noises, 2), temperatures)
def test_numbers_for_one_are_those_for_many(
    mean: list[list[float]],
    log_std: list[list[float]],
    noise: list[list[float]],
    temperature: float,
) -> None:
    outputs = (np.array(mean, np.float32), np.array(log_std, np.float32))
    made = decide(NUMBERS, outputs, np.array(noise), temperature)
    for at in range(len(mean)):
        heads = [mean[at], log_std[at]]
        actions, log_prob = decide_one(NUMBERS, heads, noise[at], temperature)
        assert actions == pytest.approx(made.actions[at].tolist(), rel=1e-6)
        assert log_prob == pytest.approx(made.log_probs[at], rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_choices_are_drawn_as_often_as_softmax_says(temperature: float) -> None:
    logits = [0.0, 1.0, 2.0]
    count = 20_000
    noise = Noise(1, CHOICES)
    noise.seed(0, 7)
    slots = np.zeros(1, np.intp)
    rows = np.concatenate([noise.draw(slots, None) for _ in range(count)])
    made = decide(CHOICES, (np.array([logits] * count, np.float32),), rows, temperature)
    weights = np.exp(np.array(logits) / temperature)
    for choice, share in enumerate(weights / weights.sum()):
        deviation = math.sqrt(share * (1 - share) / count)
        assert np.mean(made.actions == choice) == pytest.approx(share, abs=5 * deviation)


def test_a_slot_draws_the_same_one_by_one_and_together() -> None:
    drawn = []
    for together in (True, False):
        noise = Noise(2, NUMBERS)
        noise.seed(0, 7)
        noise.seed(1, 8)
        slots = np.arange(2)
        drawn.append(
            [
                noise.draw(slots, None).tolist()
                if together
                else [noise.draw_one(slot) for slot in (0, 1)]
                for _ in range(3 * Noise.AHEAD)
            ]
        )
    assert drawn[0] == drawn[1]
    assert len({tuple(row) for rows in drawn[0] for row in rows}) == 6 * Noise.AHEAD
