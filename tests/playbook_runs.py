"""Playbooks in the data folders of servers, for tests that run them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from steward_server.executions.steps import all_work
from steward_server.executions.work import ArtifactKind, Job, Work
from tests.unit.playbooks.writing import log, step, steps

COUNT = """
parameters:
  - {name: count, type: integer, required: false, default: 1}
  - {name: flags, type: list, required: false, default: []}
  - {name: text, type: string, required: false, default: ""}
"""
PNG = b"\x89PNG\r\n\x1a\nnot much"


def nap(seconds: float, step_id: str = "nap") -> str:
    return step(step_id, "utility.sleep", f"parameters: {{seconds: {seconds}}}")


def ask(*, not_by_starter: bool = False) -> str:
    given = f'{{message: "Go on?", timeout: 60, not_by_starter: {str(not_by_starter).lower()}}}'
    return step("ask", "approval.wait", f"parameters: {given}")


FAILS = step("http", "http.request", "parameters: {url: 'http://127.0.0.1:9/'}")
PLAYBOOKS = {
    "say": steps(log('"{{ parameter.text }} {{ parameter.count }}"'), before=COUNT),
    "short": steps(log("one"), nap(0.3), log("two", "last")),
    "long": steps(log("one"), nap(600), log("two", "last")),
    "asks": steps(ask(), log("done")),
    "asks_others": steps(ask(not_by_starter=True)),
    "fails": steps(log("one"), FAILS, log("two", "last")),
    "rude": steps(log('"\\e[31mred\\r\\a"')),
    "keeps": steps(nap(0.2), log("kept.txt", "keep"), nap(0.2, "after")),
}


def write_playbooks(data_dir: Path) -> None:
    """Write them as t/….yaml of the library."""
    folder = data_dir / "playbooks" / "t"
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in PLAYBOOKS.items():
        (folder / f"{name}.yaml").write_text(text)


@pytest.fixture
def keeping(monkeypatch: pytest.MonkeyPatch) -> None:
    """Servers of this process keep a file wherever a step logs, and show a picture."""

    async def keep(job: Job) -> Mapping[str, Any]:
        content = b"line\n" * 40_000
        job.session.show(PNG)
        await job.keep(
            job.values["message"], content, kind=ArtifactKind.REPORT, content_type="text/plain"
        )
        return {}

    def work(*parts: Any) -> Mapping[str, Work]:
        return {**all_work(*parts), "utility.log": keep}

    monkeypatch.setattr("steward_server.app.all_work", work)
