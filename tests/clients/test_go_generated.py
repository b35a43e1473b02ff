"""The Go code of the contracts, which is committed."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.clients.harness import ROOT, run

pytestmark = [pytest.mark.clients, pytest.mark.timeout(600)]

BUF = Path(sys.executable).with_name("buf")
GEN = Path("clients", "go", "gen")
GENERATE_TIMEOUT_S = 500.0
"""With plugins that are downloaded and compiled first."""


async def test_what_is_committed_is_what_the_contracts_make(tmp_path: Path) -> None:
    template = ("--template", "clients/go/buf.gen.yaml", "--path", "proto/steward")
    command = (BUF, "generate", *template, "--output", tmp_path)
    ended = await run(command, GENERATE_TIMEOUT_S)
    assert ended.code == 0, ended.text
    made, committed = sources(tmp_path / GEN), sources(ROOT / GEN)
    assert made
    stale = [name for name in made | committed if made.get(name) != committed.get(name)]
    assert not stale, "`make clients` writes them anew"


def sources(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*.go")}
