"""Steps of many agents, computed together: as if each were alone."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from steward_server.inference.arena import Lease
from steward_server.inference.model import Model, load
from steward_server.inference.repository import Reference
from steward_server.inference.runner import Results, Step
from steward_server.inference.served import Served
from tests.unit.inference.models import adding, steering


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return load(adding(tmp_path_factory.mktemp("adding")), max_batch=64)


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as opened:
        yield opened


def served(
    model: Model, pool: ThreadPoolExecutor, capacity: int = 64, max_rows: int = 64
) -> Served:
    return Served(
        Reference("adding", 1), model, pool, capacity=capacity, max_rows=max_rows, loaded_at_us=0
    )


def begun(policy: Served, seed: int = 0) -> Lease:
    lease = policy.begin(seed)
    assert lease is not None
    return lease


def alone(sequence: list[NDArray[np.float32]]) -> list[float]:
    """What the value should be after each observation of one agent."""
    total, values = np.zeros(3, np.float32), []
    for each in sequence:
        total = 0.5 * total + each
        values.append(float(total.sum()))
    return values


@pytest.mark.parametrize("takes_s", [0.0, 1.0], ids=["in the loop", "in a thread"])
async def test_agents_that_step_at_random_are_served_as_if_alone(
    model: Model, pool: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch, takes_s: float
) -> None:
    monkeypatch.setattr(Model, "expected_s", lambda *_: takes_s)
    policy = served(model, pool, max_rows=16)
    chance = random.Random(7)
    leases = [begun(policy, seed) for seed in range(40)]
    seen: list[list[NDArray[np.float32]]] = [[] for _ in leases]
    given: list[list[asyncio.Future[Results] | asyncio.Future[Step]]] = [[] for _ in leases]
    for _ in range(600):
        number = chance.randrange(len(leases))
        observation = np.array([chance.uniform(-1, 1) for _ in range(3)], np.float32)
        seen[number].append(observation)
        lease, deterministic = leases[number], chance.random() < 0.5
        given[number].append(
            policy.runner.submit(observation[None], lease, deterministic=deterministic)
            if chance.random() < 0.5
            else policy.runner.submit_one(observation.tolist(), lease, deterministic=deterministic)
        )
        if chance.random() < 0.1:
            await asyncio.sleep(0)
    for sequence, futures in zip(seen, given, strict=True):
        results = [await each for each in futures]
        values = [each.value if isinstance(each, Step) else each.values[0] for each in results]
        assert values == pytest.approx(alone(sequence), abs=1e-5)
    assert policy.runner.counts.rows == 600
    assert policy.runner.counts.runs < 300
    assert policy.runner.is_idle


async def test_a_second_step_of_an_agent_goes_into_the_next_run(
    model: Model, pool: ThreadPoolExecutor
) -> None:
    policy = served(model, pool)
    lease, other = begun(policy), begun(policy)
    ones = np.ones((1, 3), np.float32)
    futures = [
        policy.runner.submit(ones, each, deterministic=True) for each in (lease, lease, other)
    ]
    first, second, third = [float((await each).values[0]) for each in futures]
    assert (first, second, third) == (3.0, 4.5, 3.0)
    assert policy.runner.counts.runs == 2


async def test_who_steps_alone_is_answered_at_once_until_others_come(
    model: Model, pool: ThreadPoolExecutor
) -> None:
    policy = served(model, pool)
    lease, other = begun(policy), begun(policy)
    for _ in range(8):
        await policy.runner.submit_one([1, 1, 1], lease, deterministic=True)
        await asyncio.sleep(0)
    alone = policy.runner.submit_one([1, 1, 1], lease, deterministic=True)
    assert alone.done()
    await asyncio.sleep(0)

    both = [
        policy.runner.submit_one([1, 1, 1], each, deterministic=True) for each in (lease, other)
    ]
    assert [each.done() for each in both] == [True, False]
    again = [
        policy.runner.submit_one([1, 1, 1], each, deterministic=True) for each in (lease, other)
    ]
    values = [(await each).value for each in (*both, *again)]
    assert values == pytest.approx([6 - 3 / 2**9, 3.0, 6 - 3 / 2**10, 4.5])
    assert policy.runner.counts.runs == 12  # nine alone, one of these, and two of them together


async def test_what_draws_at_random_is_repeated_by_its_seed_whoever_it_runs_with(
    model: Model, pool: ThreadPoolExecutor
) -> None:
    zeros = np.zeros((1, 3), np.float32)

    async def actions(company: int) -> list[int]:
        policy = served(model, pool)
        lease = begun(policy, seed=42)
        others = [begun(policy, seed) for seed in range(company)]
        drawn = []
        for _ in range(100):
            for each in others:
                policy.runner.submit(zeros, each, deterministic=False)
            result = await policy.runner.submit(zeros, lease, deterministic=False)
            drawn.append(int(result.actions[0]))
        return drawn

    drawn = await actions(0)
    assert drawn == await actions(7)
    assert {drawn.count(each) > 15 for each in range(3)} == {True}


async def test_the_likelihood_is_that_of_the_action_given(
    model: Model, pool: ThreadPoolExecutor, tmp_path: Path
) -> None:
    policy = served(model, pool)
    lease = begun(policy)
    seen = np.array([[0.0, 1.0, 2.0]], np.float32)
    result = await policy.runner.submit(seen, lease, deterministic=True)
    weights = np.exp([0.0, 1.0, 2.0])
    assert int(result.actions[0]) == 2
    assert result.log_probs[0] == pytest.approx(np.log(weights[2] / weights.sum()))

    steers = Served(
        Reference("steering", 1),
        load(steering(tmp_path), max_batch=8),
        pool,
        capacity=4,
        max_rows=8,
        loaded_at_us=0,
    )
    lease = begun(steers)
    mean = np.array([[0.25, -5.0]], np.float32)
    sure = await steers.runner.submit(mean, lease, deterministic=True)
    assert sure.actions.tolist() == [[0.25, -1.0]]  # within the bounds
    assert sure.log_probs[0] == pytest.approx(2 * -0.9189385)
    drawn = await steers.runner.submit(mean * 0, lease, deterministic=False)
    steps = drawn.actions[0].astype(float)
    if np.all(np.abs(steps) < 1):
        expected = (-0.5 * steps**2 - 0.9189385).sum()
        assert drawn.log_probs[0] == pytest.approx(expected, abs=1e-5)


async def test_numbers_that_are_none_reset_and_report_only_who_has_them(
    model: Model, pool: ThreadPoolExecutor
) -> None:
    policy = served(model, pool)
    good, bad = begun(policy), begun(policy)
    ones = np.ones((1, 3), np.float32)
    for each in (good, bad):
        await policy.runner.submit(ones, each, deterministic=True)
    huge = np.full((1, 3), 3e38, np.float32)
    futures = [
        policy.runner.submit(huge, bad, deterministic=True),
        policy.runner.submit(ones, good, deterministic=True),
    ]
    failed, fine = [await each for each in futures]
    assert (failed.failed.tolist(), fine.failed.tolist()) == ([True], [False])
    assert policy.runner.counts.failed_rows == 1
    assert float(fine.values[0]) == 4.5
    again = await policy.runner.submit(ones, bad, deterministic=True)
    assert float(again.values[0]) == 3.0  # from the beginning


async def test_a_slot_given_back_meanwhile_takes_nothing_of_what_comes_late(
    model: Model, pool: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Model, "expected_s", lambda *_: 1.0)  # in a thread
    policy = served(model, pool, capacity=1)
    lease = begun(policy)
    ones = np.ones((1, 3), np.float32)
    late = policy.runner.submit(ones, lease, deterministic=True)
    await asyncio.sleep(0)  # it is on its way
    policy.end(lease)
    policy.end(lease)
    again = begun(policy)
    await late
    assert policy.begin(0) is None
    result = await policy.runner.submit(ones, again, deterministic=True)
    assert float(result.values[0]) == 3.0


async def test_steps_from_a_fresh_state_keep_nothing(
    model: Model, pool: ThreadPoolExecutor
) -> None:
    policy = served(model, pool)
    lease = begun(policy)
    ones = np.ones((2, 3), np.float32)
    for _ in range(2):
        result = await policy.runner.submit(ones, policy.arena.nobody(2), deterministic=False)
        assert result.values.tolist() == [3.0, 3.0]
    mixed = [
        policy.runner.submit(ones, policy.arena.nobody(2), deterministic=True),
        policy.runner.submit(ones[:1], lease, deterministic=True),
    ]
    assert [(await each).values.tolist() for each in mixed] == [[3.0, 3.0], [3.0]]


async def test_who_has_gone_is_not_computed(model: Model, pool: ThreadPoolExecutor) -> None:
    policy = served(model, pool)
    lease = begun(policy)
    ones = np.ones((1, 3), np.float32)
    gone = policy.runner.submit(ones, lease, deterministic=True)
    gone.cancel()
    result = await policy.runner.submit(ones, lease, deterministic=True)
    assert float(result.values[0]) == 3.0
    assert (policy.runner.counts.rows, policy.runner.waiting_rows) == (1, 0)
