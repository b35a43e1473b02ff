"""What a script takes along: what is packed here is there, and can be imported."""

from __future__ import annotations

import json
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from steward_client.luggage import PACKAGES, UNPACK, installed, must_fit, pack


def unpacked(archive: bytes, folder: Path) -> Path:
    """Where the Python of an environment puts it."""
    ended = subprocess.run(
        [sys.executable, "-I", "-S", "-c", UNPACK],
        input=archive,
        cwd=folder,
        capture_output=True,
        check=True,
    )
    told = json.loads(ended.stdout)
    assert told["python"] == list(sys.version_info[:2])
    return Path(told["folder"])


def test_a_script_and_what_goes_with_it_are_beside_each_other(tmp_path: Path) -> None:
    home, there = tmp_path / "home", tmp_path / "there"
    (home / "data" / "inner").mkdir(parents=True)
    there.mkdir()
    (home / "agent.py").write_text("print('here')")
    (home / "note.txt").write_text("note")
    (home / "data" / "inner" / "deep.txt").write_text("deep")
    (home / "data" / "link").symlink_to("inner/deep.txt")

    with pack(home / "agent.py", [home / "note.txt", home / "data"], []) as archive:
        folder = unpacked(archive.read(), there)

    found = {str(each.relative_to(folder)) for each in folder.rglob("*") if each.is_file()}
    assert found == {"agent.py", "note.txt", "data/inner/deep.txt", "data/link"}
    assert (folder / "data/link").read_text() == "deep"
    assert folder.parent == there


def test_what_a_link_leads_to_is_taken_along_by_the_name_of_the_link(tmp_path: Path) -> None:
    home, there = tmp_path / "home", tmp_path / "there"
    for folder in (home / "common", home / "mine", there):
        folder.mkdir(parents=True)
    (home / "common" / "agent-1.py").write_text("print('here')")
    (home / "common" / "v1.csv").write_text("1")
    script, data = home / "mine" / "agent.py", home / "mine" / "data.csv"
    script.symlink_to("../common/agent-1.py")
    data.symlink_to("../common/v1.csv")

    with pack(script, [data], []) as archive:
        folder = unpacked(archive.read(), there)

    assert (folder / "agent.py").read_text() == "print('here')"
    assert (folder / "data.csv").read_text() == "1"


def test_a_package_is_taken_with_what_it_needs_and_can_be_imported(tmp_path: Path) -> None:
    script = tmp_path / "agent.py"
    script.write_text("import pydantic; print(pydantic.BaseModel.__name__, pydantic.__file__)")
    with pack(script, [], ["pydantic"]) as archive:
        folder = unpacked(archive.read(), tmp_path)

    ran = subprocess.run(
        [sys.executable, "-S", folder / "agent.py"],
        env={"PYTHONPATH": str(folder / PACKAGES)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert ran.stdout.split() == ["BaseModel", f"{folder / PACKAGES}/pydantic/__init__.py"]


def test_what_only_an_extra_needs_stays_here() -> None:
    names = {name.partition("/")[0] for _, name in installed(["openai"])}
    assert {"openai", "pydantic", "pydantic_core", "typing_extensions.py"} <= names
    assert not names & {"aiohttp", "numpy", "pip", ".."}


def test_nobody_learns_whose_the_files_are(tmp_path: Path) -> None:
    (tmp_path / "agent.py").write_text("")
    with pack(tmp_path / "agent.py", [], []) as packed, tarfile.open(fileobj=packed) as archive:
        (member,) = archive.getmembers()
    assert (member.uid, member.gid, member.uname, member.gname) == (0, 0, "", "")


def test_what_is_not_here_is_refused(tmp_path: Path) -> None:
    script = tmp_path / "agent.py"
    with pytest.raises(FileNotFoundError, match=r"there is no script .*agent\.py"):
        pack(script, [], [])
    script.write_text("")
    with pytest.raises(FileNotFoundError, match="there is nothing at"):
        pack(script, [tmp_path / "absent"], [])
    with pytest.raises(ValueError, match="no package 'no-such' is installed here"):
        pack(script, [], ["no-such"])
    with pytest.raises(ValueError, match="from a folder of its own here"):
        pack(script, [], ["steward-agents"])


def test_packages_of_another_python_are_refused() -> None:
    must_fit([3, 99], [])
    must_fit(list(sys.version_info[:2]), ["openai"])
    with pytest.raises(ValueError, match=r"the environment has Python 3\.99"):
        must_fit([3, 99], ["openai"])
