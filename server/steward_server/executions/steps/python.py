"""The step that runs Python: in an environment of its own, never in the server."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import orjson

from steward.environments.v1 import environments_pb2 as pb
from steward_server.config import variable_name
from steward_server.executions.steps import environment
from steward_server.executions.steps.values import MOST_DEPTH, is_deep
from steward_server.executions.work import Job, StepFailed, Work

RESOURCES = {"cpu": "1", "memory": "512Mi", "storage": "256Mi"}
MOST_PRINTED = 100_000
"""Bytes of what a script prints that are kept."""
MOST_REPORTED = 500_000
"""Bytes of all that comes of it."""
MOST_OUTPUTS = 1_000
_MOST_NAME = 255
_MADE_S = 120.0
_IDLE_S = 60
"""What this server leaves behind, because it was stopped in the middle, ends after so long."""
_NO_REPORT = "the script ended without a report of what came of it"


@dataclass(frozen=True, slots=True)
class Machines:
    """In what scripts run.

    Attributes:
        image: which has a `python3`, 3.8 or later.
        longest_s: how long one may run where its step ends no sooner; environments must be allowed
            to live, and commands to run, for as long.
    """

    image: str
    longest_s: int


def work(machines: Machines | None) -> Mapping[str, Work]:
    """The work of this step; with None it is refused."""

    async def python(job: Job) -> Mapping[str, Any]:
        if machines is None:
            name = variable_name("executions", "python")
            raise StepFailed(f"this server runs no Python of playbooks; {name}=true lets it")
        return await _python(job, machines)

    return {"utility.python": python}


async def _python(job: Job, machines: Machines) -> Mapping[str, Any]:
    steward = job.session.steward
    given = _given(job)
    wanted = pb.CreateEnvironmentRequest(
        name=environment.name_of(job),
        image=machines.image,
        resources=pb.Resources(**RESOURCES),
        timeout_s=machines.longest_s,
        idle_timeout_s=min(_IDLE_S, machines.longest_s),
    )
    async with environment.temporary(job, wanted, wait_s=_MADE_S) as environment_id:
        ended = await environment.run(
            steward,
            pb.ExecRequest(
                environment_id=environment_id,
                command=["python3", "-I", "-X", "utf8", "-c", _runner()],
                timeout_s=machines.longest_s,
                stdin=given,
            ),
        )
    if ended.exit_code != 0:
        how = environment.how_it_ended(ended, machines.longest_s)
        raise StepFailed(f"the script {how}", exit_code=ended.exit_code, stderr=_end(ended.stderr))
    return _outputs(job, ended)


def _given(job: Job) -> str:
    given = {
        "script": job.values["script"],
        "inputs": job.values["inputs"],
        "variables": job.variables,
        "most_printed": MOST_PRINTED,
        "most_reported": MOST_REPORTED,
    }
    try:
        return orjson.dumps(given, default=dict).decode()
    except TypeError as error:
        raise StepFailed(f"the script cannot be given its inputs and variables: {error}") from None


def _outputs(job: Job, ended: pb.ExecResponse) -> dict[str, Any]:
    """What came of a script, which may have written anything."""
    report = _read(ended)
    printed, outputs, variables = (report.get(key) for key in ("printed", "outputs", "variables"))
    if error := report.get("error"):
        raise _failure(error, printed, ended.stderr)
    if not (isinstance(printed, str) and isinstance(outputs, dict) and isinstance(variables, dict)):
        raise StepFailed(_NO_REPORT, stderr=_end(ended.stderr))
    if report.get("was_cut"):
        raise StepFailed(f"the script printed more than {MOST_PRINTED} bytes", output=_end(printed))
    found = {**_lines(printed), **outputs}
    names = {*found, *variables}
    if any(not 1 <= len(name) <= _MOST_NAME for name in names):
        raise StepFailed(f"the names of outputs and variables have 1 to {_MOST_NAME} characters")
    if len(names) > MOST_OUTPUTS:
        raise StepFailed(f"the script gave {len(names)} outputs; at most {MOST_OUTPUTS} are taken")
    for name, value in variables.items():
        job.set_variable(name, value)
    return {**found, "_output": printed}


def _read(ended: pb.ExecResponse) -> dict[str, Any]:
    try:
        report = orjson.loads(ended.stdout)
    except orjson.JSONDecodeError:
        report = None
    if not isinstance(report, dict):
        raise StepFailed(_NO_REPORT, stderr=_end(ended.stderr))
    if is_deep(report):
        raise StepFailed(f"what the script gave is nested deeper than {MOST_DEPTH - 2} levels")
    return report


def _failure(error: Any, printed: Any, complained: str) -> StepFailed:
    told = error if isinstance(error, dict) else {}
    message, line = str(told.get("message", ""))[: environment.SHOWN_END], told.get("line")
    where = f"line {line}" if isinstance(line, int) else "the script"
    output = _end(printed) if isinstance(printed, str) else ""
    return StepFailed(f"{where}: {message}", output=output, stderr=_end(complained))


def _lines(printed: str) -> dict[str, str]:
    """What was printed as `name=value`; of those with the same name the last."""
    pairs = (line.partition("=") for line in printed.splitlines() if "=" in line)
    return {name.strip(): value.strip() for name, _, value in pairs if name.strip()}


def _end(text: str) -> str:
    return text[-environment.SHOWN_END :]


@cache
def _runner() -> str:
    return Path(__file__).with_name("script_runner.py").read_text()
