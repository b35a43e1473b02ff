"""Steps of the run itself: waiting, logging, variables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from steward_server.executions.work import Job, Work


def work() -> Mapping[str, Work]:
    """The work of these steps, by type."""
    return {
        "utility.sleep": _sleep,
        "utility.log": _log,
        "utility.set_variable": _set_variable,
    }


async def _sleep(job: Job) -> Mapping[str, Any]:
    seconds = job.values["seconds"]
    await job.sleep(seconds)
    return {"slept": seconds}


async def _log(job: Job) -> Mapping[str, Any]:
    message, level = job.values["message"], job.values["level"]
    await job.log(message, level)
    return {"logged": message, "level": level}


async def _set_variable(job: Job) -> Mapping[str, Any]:
    name, value = job.values["name"], job.values["value"]
    job.set_variable(name, value)
    return {"variable": name, "value": value}
