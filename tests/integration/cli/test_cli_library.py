"""`steward playbook` against a server: its library is listed, shown, added to and taken from."""

from __future__ import annotations

from pathlib import Path

from steward_server.playbooks.folders import SHIPPED
from tests.integration.cli.conftest import Shell
from tests.unit.playbooks.writing import SLEEP, log, steps

UPGRADE = "gateway/module_upgrade.yaml"


async def test_the_library_is_listed(shell: Shell) -> None:
    listed = await shell("playbook", "list", "--json")
    table = await shell("playbook", "list", "--domain", "gateway")

    paths = {each["path"]: each for each in listed.json}
    assert {file.relative_to(SHIPPED).as_posix() for file in SHIPPED.rglob("*.yaml")} <= {*paths}
    assert (paths[UPGRADE]["name"], paths[UPGRADE]["origin"]) == ("Module Upgrade", "built_in")
    (row,) = (line for line in table.out.splitlines() if UPGRADE in line)
    assert "built-in" in row
    assert "well" in row
    assert "Upgrade modules on a gateway" in row
    assert "inference/smoke.yaml" not in table.out


async def test_a_playbook_is_shown_with_what_it_takes_and_does(shell: Shell) -> None:
    shown = await shell("playbook", "show", UPGRADE)
    told = await shell("playbook", "show", UPGRADE, "--json")
    text = await shell("playbook", "show", UPGRADE, "--source")
    unknown = await shell("playbook", "show", "none.yaml")
    unsafe = await shell("playbook", "show", "../none.yaml")

    assert "Module Upgrade 1.0" in shown.out
    assert "The module to install" in shown.out
    assert "gateway.login" in shown.out
    assert told.json["parameters"][2]["default"] is False
    assert told.json["steps"][0]["id"] == "login"
    assert text.out == (SHIPPED / UPGRADE).read_text()
    assert (unknown.code, unknown.out) == (5, "")
    assert "Playbook 'none.yaml' not found" in unknown.err
    assert unsafe.code == 2


async def test_playbooks_are_saved_copied_and_deleted(shell: Shell, tmp_path: Path) -> None:
    file = tmp_path / "nap.yaml"
    file.write_text(steps(SLEEP.replace("nap", "rest") + "\nparameters: {seconds: 1}"))
    saved = await shell("playbook", "save", str(file), "cli/nap.yaml")
    again = await shell("playbook", "save", str(file), "cli/nap.yaml", "--new")
    copied = await shell("playbook", "duplicate", "cli/nap.yaml", "Another Nap")
    shown = await shell("playbook", "show", "cli/another-nap.yaml", "--json")
    deleted = await shell("playbook", "delete", "cli/another-nap.yaml")
    await shell("playbook", "delete", "cli/nap.yaml")
    gone = await shell("playbook", "delete", "cli/nap.yaml")
    shipped = await shell("playbook", "delete", UPGRADE)

    assert (saved.code, saved.out, saved.err) == (0, "", "saved cli/nap.yaml\n")
    assert again.code == 6
    assert copied.out == "cli/another-nap.yaml\n"
    assert shown.json["name"] == "Another Nap"
    assert deleted.err == "deleted cli/another-nap.yaml\n"
    assert (gone.code, shipped.code) == (5, 6)


async def test_what_is_wrong_with_a_playbook_is_told_line_by_line(
    shell: Shell, tmp_path: Path
) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text(steps(SLEEP, log("'{{ oh }}'"), before="paramters: []"))
    refused = await shell("playbook", "save", str(file), "cli/bad.yaml")

    assert (refused.code, refused.out) == (2, "")
    first, second, *_, last = refused.err.splitlines()
    assert first.startswith("cli/bad.yaml:3:1: unknown key 'paramters'")
    assert second.startswith("cli/bad.yaml:")
    assert last.startswith("Error: playbook 'cli/bad.yaml' cannot be used")
