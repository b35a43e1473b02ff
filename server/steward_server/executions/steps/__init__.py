"""The work of every type of step, a module for each family. The form of it is in work.py."""

from __future__ import annotations

from collections.abc import Mapping

from steward_server.executions.steps import (
    browser,
    budget,
    designer,
    environment,
    fat,
    gateway,
    http,
    inference,
    perspective,
    python,
    utility,
)
from steward_server.executions.steps.ignition_link import IgnitionConfig
from steward_server.executions.steps.pages.chromium import Browsers
from steward_server.executions.work import Work


def all_work(
    ignition: IgnitionConfig, browsers: Browsers, machines: python.Machines | None
) -> Mapping[str, Work]:
    """The work of all steps but those that the engine itself does.

    `machines` is in what Python runs, if it may.

    Raises:
        BadSetting: the certificates of gateways cannot be read.
    """
    return {
        **utility.work(),
        **environment.work(),
        **inference.work(),
        **budget.work(),
        **http.work(),
        **gateway.work(ignition),
        **browser.work(browsers),
        **perspective.work(browsers),
        **fat.work(browsers),
        **designer.work(),
        **python.work(machines),
    }
