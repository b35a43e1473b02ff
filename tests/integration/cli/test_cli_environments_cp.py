"""`steward env cp`: both ways, files and directories, and what is refused."""

from __future__ import annotations

import asyncio
import os
import stat
import subprocess
from pathlib import Path

import pytest

from tests.integration.cli.conftest import COMMAND, Shell
from tests.integration.environments.conftest import Site

LARGE = bytes(range(256)) * 8_192
"""Two mebibytes: several pieces."""


def inside(site: Site, environment_id: str) -> Path:
    """The root of an environment, as the driver of the tests keeps it."""
    return site.driver.host.machines[environment_id].folder


async def test_a_file_goes_in_and_comes_out_as_it_is(
    operator: Shell, site: Site, tmp_path: Path
) -> None:
    environment_id = await site.running(name="mine")
    script = tmp_path / "script"
    script.write_bytes(LARGE)
    script.chmod(0o750)
    (inside(site, environment_id) / "work").mkdir()
    into = await operator("env", "cp", str(script), "mine:/work")
    named = await operator("env", "cp", str(script), "mine:/work/other")
    made = await operator("env", "cp", str(script), "mine:/new/dir/", "--json")
    out = await operator("env", "cp", "mine:/work/script", str(tmp_path / "back"))
    below = await operator("env", "cp", "mine:/work/other", str(tmp_path))

    assert [each.code for each in (into, named, made, out, below)] == [0] * 5
    assert "copied 1 file, 2.0 MiB" in into.err
    assert made.json == {"files": 1, "bytes": len(LARGE), "left_out": []}
    root = inside(site, environment_id)
    for copy in (root / "work/script", root / "work/other", root / "new/dir/script"):
        assert copy.read_bytes() == LARGE
        assert stat.S_IMODE(copy.stat().st_mode) == 0o750
    for copy in (tmp_path / "back", tmp_path / "other"):
        assert copy.read_bytes() == LARGE
        assert stat.S_IMODE(copy.stat().st_mode) == 0o750


async def test_a_directory_goes_in_and_comes_out_whole(
    operator: Shell, site: Site, tmp_path: Path
) -> None:
    environment_id = await site.running(name="mine")
    tree = tmp_path / "tree"
    (tree / "empty").mkdir(parents=True)
    (tree / "deep" / "er").mkdir(parents=True)
    (tree / "deep" / "er" / "caf\u00e9 au lait").write_bytes(LARGE)
    (tree / "nothing").write_bytes(b"")
    (tree / "link").symlink_to("/etc/passwd")
    os.mkfifo(tree / "pipe")
    into = await operator("env", "cp", str(tree), "mine:/a")
    again = await operator("env", "cp", str(tree), "mine:/a")
    (inside(site, environment_id) / "a" / "leads-away").symlink_to("/etc")
    out = await operator("env", "cp", "mine:/a", str(tmp_path / "back"))
    placed = await operator("env", "cp", "mine:/a", str(tmp_path))

    assert [each.code for each in (into, again, out, placed)] == [0] * 4
    assert "copied 2 files" in into.err
    assert "left out" in into.err
    assert "tree/link" in into.err
    assert "tree/pipe" in into.err
    assert "leads-away" in out.err
    back = tmp_path / "back"
    assert (back / "deep/er/caf\u00e9 au lait").read_bytes() == LARGE
    assert (back / "nothing").read_bytes() == b""
    assert (back / "empty").is_dir()
    assert (back / "tree/deep/er/caf\u00e9 au lait").read_bytes() == LARGE
    assert not (back / "leads-away").exists()
    assert (tmp_path / "a" / "nothing").exists()


async def test_a_dash_is_standard_input_and_output(operator: Shell, site: Site) -> None:
    await site.running(name="mine")
    copy = f"{COMMAND} env cp - mine:/it && {COMMAND} env cp mine:/it -"
    ended = await asyncio.to_thread(
        subprocess.run,
        ["bash", "-c", copy],
        env=operator.environment,
        input=LARGE,
        capture_output=True,
        timeout=30,
        check=False,
    )

    assert (ended.returncode, ended.stderr) == (0, b"")
    assert ended.stdout == LARGE


@pytest.mark.parametrize(
    ("source", "target", "code", "told"),
    [
        ("mine:/none", ".", 5, "there is no '/none' in the environment"),
        ("mine:relative", ".", 2, "begins with '/'"),
        ("mine:/a", "mine:/b", 2, "exactly one"),
        ("./a", "./b", 2, "exactly one"),
        ("./none", "mine:/a", 2, "there is no './none' here"),
        ("nobody:/a", ".", 5, "no environment is named 'nobody'"),
        ("mine:/", "-", 2, "not a file"),
        ("/etc/hostname", "mine:/none/below", 5, "/none/below"),
    ],
)
async def test_what_cannot_be_copied_is_said(
    operator: Shell, site: Site, source: str, target: str, code: int, told: str
) -> None:
    await site.running(name="mine")
    ended = await operator("env", "cp", source, target)

    assert (ended.code, ended.out) == (code, "")
    assert told in ended.err
    assert "Traceback" not in ended.err


async def test_what_this_machine_refuses_is_said(
    operator: Shell, site: Site, tmp_path: Path
) -> None:
    environment_id = await site.running(name="mine")
    (inside(site, environment_id) / "file").write_text("text")
    (inside(site, environment_id) / "dir").mkdir()
    nowhere = await operator("env", "cp", "mine:/file", str(tmp_path / "none" / "file"))
    (tmp_path / "taken").write_text("kept")
    taken = await operator("env", "cp", "mine:/dir", str(tmp_path / "taken"))

    assert (nowhere.code, taken.code) == (1, 1)
    assert "No such file or directory" in nowhere.err
    assert "File exists" in taken.err
    assert "Traceback" not in nowhere.err + taken.err


async def test_what_could_not_be_read_whole_leaves_what_was_there(
    operator: Shell, site: Site, tmp_path: Path
) -> None:
    await site.running(name="mine")
    (tmp_path / "kept").write_text("kept")
    ended = await operator("env", "cp", "mine:/none", str(tmp_path / "kept"))

    assert ended.code == 5
    assert (tmp_path / "kept").read_text() == "kept"
    assert sorted(each.name for each in tmp_path.iterdir()) == ["home", "kept", "site"]
