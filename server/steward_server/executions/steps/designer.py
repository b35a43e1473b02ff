"""The work of `designer.*`: there is nothing here that could drive a designer, and it says so."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from steward_server.executions.work import Job, StepFailed, Work
from steward_server.playbooks.catalogue import designer


async def _no_driver(job: Job) -> Mapping[str, Any]:
    raise StepFailed(
        f"{job.type} cannot be done: there is no designer driver on this host. The Ignition "
        "designer is a program for a desktop; do by gateway.* and browser.* what they can do"
    )


def work() -> Mapping[str, Work]:
    """The work of each type: it fails."""
    return dict.fromkeys((each.name for each in designer.STEPS), _no_driver)
