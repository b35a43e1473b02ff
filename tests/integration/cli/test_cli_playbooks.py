"""`steward playbook check` and `plan`, on files and without a server."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from steward_client.cli import steward
from steward_server.playbooks.folders import SHIPPED
from tests.unit.playbooks.writing import SLEEP, log, step, steps


def run(*arguments: Any) -> Result:
    return CliRunner().invoke(
        steward, ["playbook", *map(str, arguments)], standalone_mode=False, catch_exceptions=False
    )


@pytest.fixture
def library(tmp_path: Path) -> Path:
    """A library with a good playbook, a broken one, and one that runs another."""
    folder = tmp_path / "library" / "mine"
    folder.mkdir(parents=True)
    nap = step("nap", "utility.sleep", "parameters: {seconds: '{{ s }}'}")
    (folder / "good.yaml").write_text(steps(nap, before="parameters: [{name: s, type: float}]"))
    (folder / "bad.yaml").write_text(steps(SLEEP, log("'{{ oh }}'"), before="paramters: []"))
    run_good = step("run", "playbook.run", "parameters: {playbook: mine/good.yaml, s: 2}")
    shipped = step("health", "playbook.run", "parameters: {playbook: gateway/health_check.yaml}")
    (folder / "outer.yaml").write_text(steps(run_good, shipped))
    return folder.parent


def test_all_faults_of_all_files_are_told_with_their_places(library: Path) -> None:
    good, bad = library / "mine" / "good.yaml", library / "mine" / "bad.yaml"
    result = run("check", good, bad)
    assert result.return_value == 1
    assert result.stdout.splitlines() == [
        f"{good}: well",
        f"{bad}:3:1: unknown key 'paramters' of a playbook; did you mean 'parameters'?",
        f"{bad}:12:17: there is no parameter 'oh'",
    ]


def test_files_that_are_well_end_with_zero(library: Path) -> None:
    result = run("check", "-q", *SHIPPED.rglob("*.yaml"), library / "mine" / "outer.yaml")
    assert (result.return_value, result.stdout) == (0, "")


def test_faults_can_be_read_by_programs(library: Path) -> None:
    bad = library / "mine" / "bad.yaml"
    result = run("check", "--json", bad, library / "mine" / "good.yaml")
    first, second = json.loads(result.stdout)
    assert result.return_value == 1
    assert first == {
        "file": str(bad),
        "line": 3,
        "column": 1,
        "message": "unknown key 'paramters' of a playbook",
        "hint": "parameters",
    }
    assert (second["line"], second["column"]) == (12, 17)


def test_other_playbooks_are_looked_for_in_the_library_that_is_named(
    library: Path, tmp_path: Path
) -> None:
    outer = tmp_path / "elsewhere" / "deep" / "outer.yaml"
    outer.parent.mkdir(parents=True)
    outer.write_bytes((library / "mine" / "outer.yaml").read_bytes())
    assert "there is no playbook 'mine/good.yaml'" in run("check", outer).stdout
    assert run("check", "--library", library, outer).return_value == 0


def test_a_plan_shows_each_step_with_what_it_is_given(library: Path) -> None:
    result = run("plan", library / "mine" / "good.yaml", "--parameter", "s=1.5")
    assert result.return_value == 0
    assert "seconds=1.5" in result.stdout
    told = json.loads(
        run("plan", library / "mine" / "outer.yaml", "--json").stdout,
    )
    nested, health = told["steps"]
    assert nested["child"]["steps"][0]["parameters"] == {"seconds": 2}
    assert health["child"]["name"] == "Gateway Health Check"
    assert health["child"]["finally_"][0]["will"] == "depend"


def test_text_stays_text_and_lists_are_lists(library: Path) -> None:
    file = SHIPPED / "sandbox" / "run_tests.yaml"
    result = run("plan", file, "-p", "image=3", "-p", "command=[ls, -l]", "--json")
    told = json.loads(result.stdout)
    assert told["parameters"]["image"] == "3"
    assert told["steps"][2]["parameters"]["command"] == ["ls", "-l"]


def test_a_plan_that_cannot_be_is_refused_with_all_that_is_wrong(library: Path) -> None:
    good, bad = library / "mine" / "good.yaml", library / "mine" / "bad.yaml"
    without = run("plan", good, "-p", "z=1")
    assert without.return_value == 1
    assert without.stderr.splitlines() == [
        f"{good}: 'Test' has no parameter 'z'; there are s",
        f"{good}: parameter 's' needs a value",
    ]
    broken = run("plan", bad)
    assert broken.return_value == 1
    assert broken.stderr.splitlines()[0].startswith(f"{bad}:3:1: unknown key 'paramters'")


def test_the_program_ends_with_one_where_a_file_is_broken(
    library: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from steward_client.cli import main

    bad = library / "mine" / "bad.yaml"
    monkeypatch.setattr("sys.argv", ["steward", "playbook", "check", str(bad)])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 1
    assert f"{bad}:3:1:" in capsys.readouterr().out
