"""Every type of step there is: what it takes, gives and needs. The form is in forms.py. Pure."""

from __future__ import annotations

from steward_server.playbooks.catalogue import (
    browser,
    designer,
    gateway,
    own,
    perspective,
    utility,
)
from steward_server.playbooks.catalogue.forms import StepType

CATALOGUE: dict[str, StepType] = {
    each.name: each
    for each in (
        *gateway.STEPS,
        *browser.STEPS,
        *perspective.STEPS,
        *designer.STEPS,
        *utility.STEPS,
        *own.STEPS,
    )
}

MISSPELT_TYPES = {
    "utility.wait": "utility.sleep",
    "utility.print": "utility.log",
    "utility.set": "utility.set_variable",
    "utility.script": "utility.python",
    "python": "utility.python",
    "sleep": "utility.sleep",
    "log": "utility.log",
    "gateway.wait_for_module": "gateway.wait_for_module_installation",
    "gateway.wait_for_restart": "gateway.wait_for_ready",
    "perspective.navigate": "browser.navigate",
    "perspective.verify_element": "browser.verify",
    "playbook.execute": "playbook.run",
    "control.approve": "approval.wait",
}
"""What documents and other runners call them, and what they are called here."""

NOT_AVAILABLE = {
    "perspective.verify_with_ai": "it would send pages to somebody else's model",
    "perspective.analyze_with_ai": "it would send pages to somebody else's model",
    "ai.assist": "there are no steps that ask a model",
    "ai.validate": "there are no steps that ask a model",
    "ai.generate": "there are no steps that ask a model",
    "gateway.upload_project": "the gateway has no way to take a project",
}
"""Names that are known elsewhere, and why there is no such step."""
