"""A server with playbooks, and runs of them in every state there is."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.e2e.curl import curl
from tests.e2e.process import steward
from tests.e2e.scene import Scene

PATIENCE_S = 10
PLAYBOOKS = {
    "short": """name: Short
version: "1"
steps:
  - {id: hello, name: Say hello, type: utility.log, parameters: {message: Hello}}
  - {id: set, name: Set, type: utility.set_variable, parameters: {name: a, value: [1, 2]}}
""",
    "long": """name: Long
version: "1"
steps:
  - {id: nap, name: Nap, type: utility.sleep, parameters: {seconds: 600}}
  - {id: bye, name: Say goodbye, type: utility.log, parameters: {message: Goodbye}}
""",
    "asking": """name: Asking
version: "1"
steps:
  - id: ask
    name: Ask
    type: approval.wait
    parameters: {message: May I?, not_by_starter: false}
""",
    "strict": """name: Strict
version: "1"
steps:
  - {id: ask, name: Ask, type: approval.wait, parameters: {message: May I?}}
""",
    "failing": """name: Failing
version: "1"
steps:
  - {id: hello, name: Say hello, type: utility.log, parameters: {message: Hello}}
  - {id: get, name: Get, type: http.request, parameters: {url: "http://127.0.0.1:9/"}}
""",
    "typed": """name: Typed
version: "1"
parameters:
  - {name: text, type: string}
  - {name: count, type: integer, default: 1}
  - {name: share, type: float, default: 0.5}
  - {name: is_on, type: boolean, default: true}
  - {name: items, type: list, default: []}
  - {name: facts, type: dict, default: {}}
  - {name: account, type: credential, required: false}
steps:
  - {id: say, name: Say, type: utility.log, parameters: {message: "{{ text }}"}}
""",
    "signed": """name: Signed
version: "1"
steps:
  - id: say
    name: Say
    type: utility.log
    parameters: {message: "{{ credential.my-gateway.username }}"}
""",
    "broken": """name: Broken
steps: []
""",
}


class IgnitionScene(Scene):
    """What the table of Ignition names beside what every scene has."""

    def over_run(self) -> str:
        """Of the administrator's; completed."""
        return self.started("short", over)

    def new_over_run(self) -> str:
        return self.started("short", over)

    def new_failed_run(self) -> str:
        return self.started("failing", over)

    def running_run(self) -> str:
        return self.started("long", in_step)

    def new_running_run(self) -> str:
        return self.started("long", in_step)

    def new_paused_run(self) -> str:
        execution_id = self.new_running_run()
        self.post(f"/api/executions/{execution_id}/pause", {}, self._admin)
        self.awaited(execution_id, lambda seen: seen["status"] == "paused")
        return execution_id

    def new_asking_run(self) -> str:
        return self.started("asking", asks)

    def strict_run(self) -> str:
        """It asks for somebody else's word."""
        return self.started("strict", asks)

    def started(self, playbook: str, until: Callable[[Any], bool], **fields: Any) -> str:
        """A run of the administrator's, when it has come so far; its id."""
        body = {"playbook_path": f"runs/{playbook}.yaml"} | fields
        execution_id = str(self.post("/api/executions", body, self._admin)["execution_id"])
        self.awaited(execution_id, until)
        return execution_id

    def seen(self, execution_id: str) -> Any:
        path = f"{self.url()}/api/executions/{execution_id}"
        return curl(path, "-H", self._admin).body

    def awaited(self, execution_id: str, until: Callable[[Any], bool]) -> Any:
        """A run in full, when it has come so far."""
        ends_at_s = time.monotonic() + PATIENCE_S
        while not until(seen := self.seen(execution_id)):
            assert time.monotonic() < ends_at_s, seen
            time.sleep(0.01)
        return seen


def over(seen: Any) -> bool:
    return seen["status"] in ("completed", "failed", "cancelled")


def in_step(seen: Any) -> bool:
    return any(each["status"] == "running" for each in seen["step_results"])


def asks(seen: Any) -> bool:
    return "question" in seen


def save_playbooks(data_dir: Path) -> None:
    """Have the playbooks above in a server's library, in the folder `runs`."""
    folder = data_dir / "playbooks" / "runs"
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in PLAYBOOKS.items():
        (folder / f"{name}.yaml").write_text(text)


@contextmanager
def ignition_scene(data_dir: Path) -> Iterator[IgnitionScene]:
    save_playbooks(data_dir)
    with steward(data_dir, STEWARD_AUTH_LOGINS_PER_MINUTE="0") as server:
        yield IgnitionScene(server, data_dir)
        assert "Traceback" not in server.log
