"""Every type of step that playbooks may name can be done."""

from __future__ import annotations

from steward_server.executions.steps import all_work
from steward_server.executions.steps.ignition_link import IgnitionConfig
from steward_server.executions.steps.pages.chromium import Browsers
from steward_server.executions.steps.pages.config import BrowserConfig
from steward_server.playbooks.catalogue import CATALOGUE

OF_THE_ENGINE = {"playbook.run", "approval.wait"}


def test_there_is_work_for_every_type_of_step_and_for_no_other() -> None:
    work = all_work(IgnitionConfig(), Browsers(BrowserConfig()), None)

    assert work.keys() == CATALOGUE.keys() - OF_THE_ENGINE
