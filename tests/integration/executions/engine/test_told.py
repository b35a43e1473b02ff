"""What a run that is over leaves for whoever looks: figures, and answers that are not too large."""

from __future__ import annotations

from steward_server.executions import projection
from steward_server.executions.work import Job
from tests.integration.executions.engine.conftest import World, playbook, step


async def test_runs_and_steps_are_counted_as_they_end(world: World) -> None:
    await world.run(playbook(step("a", "give"), step("b", type="utility.sleep", when="false")))
    told = world.registry.get_sample_value
    assert told("steward_executions_ended_total", {"status": "completed"}) == 1
    given = {"type": "utility.python", "status": "completed"}
    assert told("steward_execution_steps_ended_total", given) == 1
    skipped = {"type": "utility.sleep", "status": "skipped"}
    assert told("steward_execution_steps_ended_total", skipped) == 1
    assert told("steward_execution_step_seconds_count", {"type": "utility.python"}) == 1
    assert told("steward_executions", {"status": "running"}) == 0

    await world.restart()
    assert world.registry.get_sample_value("steward_executions_ended_total") is None


async def test_more_outputs_than_one_answer_holds_are_left_out_and_said(world: World) -> None:
    async def much(_: Job) -> dict[str, str]:
        return {"text": "x" * 900_000}

    world.does["much"] = much
    steps = [step(f"s{number}", "much") for number in range(4)]
    shown = projection.in_full(await world.run(playbook(*steps)))

    assert [each.output_omitted for each in shown.step_results] == [False, False, True, True]
    assert shown.ByteSize() < 4 << 20
