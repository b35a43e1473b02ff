"""`steward policy import`: by options, and with somebody at the terminal to ask."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from steward_client.cli import policies_import, steward
from steward_server.inference.model import load
from steward_server.inference.tensor_names import renamed
from tests.integration.cli.conftest import Shell
from tests.live import ServerProcess
from tests.unit.inference.models import adding, steering


def exported(folder: Path, names: dict[str, str]) -> Path:
    """A policy's model as somebody else would have written it."""
    file = folder.parent / "policy.onnx"
    file.write_bytes(renamed((folder / "model.onnx").read_bytes(), names))
    return file


@pytest.fixture
def wheel(tmp_path: Path) -> Path:
    return exported(steering(tmp_path / "steering"), {"obs": "x", "mean": "mu"})


@pytest.fixture
def sums(tmp_path: Path) -> Path:
    names = {"obs": "a", "total": "b", "total_out": "c", "logits": "d", "value": "e"}
    return exported(adding(tmp_path / "adding"), names)


def run(*arguments: Any, typed: str = "") -> Result:
    return CliRunner().invoke(steward, ["policy", "import", *map(str, arguments)], input=typed)


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policies_import, "is_terminal", lambda: True)


def test_a_file_is_imported_by_options(wheel: Path, tmp_path: Path) -> None:
    given = ["--name", "wheel", "--to", tmp_path / "shelf", "--description", "Steers."]
    first = run(wheel, *given, "--low", "-1", "--high", "1,2", "--temperature", "0.5", "--json")
    second = run(wheel, *given, "-q")
    third = run(wheel, *given, "--version", 9)

    told = json.loads(first.stdout)
    assert (told["name"], told["version"]) == ("wheel", 1)
    assert told["renamed"] == {"x": "obs", "mu": "mean"}
    manifest = load(tmp_path / "shelf" / "wheel" / "1", max_batch=1).manifest
    assert (manifest.action.low, manifest.action.high) == ((-1, -1), (1, 2))
    assert (manifest.description, manifest.temperature) == ("Steers.", 0.5)
    assert second.stdout == "wheel@2\n"
    assert "wheel@9" in third.stdout
    assert "x is obs, mu is mean" in third.stdout
    assert 'description: "Steers."' in third.stdout
    assert "steward policy load wheel" in third.stdout


def test_what_must_be_said_is_told_where_nobody_can_be_asked(sums: Path, tmp_path: Path) -> None:
    given: list[Any] = ["--name", "sums", "--to", tmp_path / "shelf"]
    said = []
    for option in ("a=obs", "d=logits", "e=value", "c=b_out"):
        ended = run(sums, *given)
        said.append(ended.stderr.partition("Error: ")[2].strip())
        assert ended.exit_code == 2
        given += ["--tensor", option]
    assert said[0].endswith("'a', 'b' is obs; say so with: --tensor a=obs")
    assert said[1].endswith("is logits or mean; say so with: --tensor d=logits")
    assert said[2].endswith("is value; say so with: --tensor e=value")
    assert said[3].endswith("'c' is b_out; say so with: --tensor c=b_out")
    last = run(sums, *given)
    assert last.exit_code == 2
    assert "pass --pressure (it gives a figure called pressure), --description" in last.stderr
    assert not (tmp_path / "shelf").exists()
    done = run(sums, *given, "--pressure", "its mean", "--description", "Adds.", "-q")
    assert done.stdout == "sums@1\n"
    manifest = load(tmp_path / "shelf" / "sums" / "1", max_batch=1).manifest
    assert manifest.memory is not None
    assert [each.name for each in manifest.kept] == ["b", "memory"]


@pytest.mark.usefixtures("terminal")
def test_whoever_sits_at_the_terminal_is_asked(sums: Path, tmp_path: Path) -> None:
    answers = ["a", "discrete", "d", "e", "c", "The mean of it.", "Adds up."]
    ended = run(
        sums, "--name", "sums", "--to", tmp_path / "shelf", "-q", typed="\n".join(answers) + "\n"
    )
    assert ended.stdout == "sums@1\n", ended.stderr
    asked = ("Which tensor is obs", "discrete or continuous", "Which tensor is logits", "c_out")
    assert [each in ended.stderr for each in asked] == [True, True, True, False]
    manifest = load(tmp_path / "shelf" / "sums" / "1", max_batch=1).manifest
    assert (manifest.description, manifest.pressure) == ("Adds up.", "The mean of it.")


@pytest.mark.usefixtures("terminal")
def test_bounds_may_be_left_out_at_the_terminal(wheel: Path, tmp_path: Path) -> None:
    for typed, low in (("Steers.\n-2\n2\n", (-2.0, -2.0)), ("Steers.\n\n\n", ())):
        ended = run(wheel, "--name", "wheel", "--to", tmp_path / "shelf", "-q", typed=typed)
        version = ended.stdout.strip().partition("@")[2]
        assert load(tmp_path / "shelf" / "wheel" / version, max_batch=1).manifest.action.low == low


@pytest.mark.usefixtures("terminal")
def test_the_memory_is_asked_for_where_it_has_another_name(tmp_path: Path) -> None:
    file = exported(adding(tmp_path / "adding"), {"memory": "notes", "memory_out": "notes_out"})
    for typed, memory in (("notes", "notes"), ("", "")):
        ended = run(
            file, "--name", "sums", "--to", tmp_path / "shelf", "--pressure", "p",
            "--description", "d", "-q", typed=f"{typed}\n",
        )  # fmt: skip
        version = ended.stdout.strip().partition("@")[2]
        manifest = load(tmp_path / "shelf" / "sums" / version, max_batch=1).manifest
        assert (manifest.memory.name if manifest.memory else "") == memory


@pytest.mark.parametrize(
    ("more", "code", "text"),
    [
        (["--tensor", "obs"], 2, "write OLD=NEW"),
        (["--shape", "obs=0"], 2, "'0' is no size; write 4, or 32x64"),
        (["--shape", "obs"], 2, "write TENSOR=4"),
        (["--low", "little"], 2, "'little' is no bound"),
        (["--low", "1,2,3", "--high", "4"], 1, "it must be a list of 2 numbers"),
        (["--memory", "it"], 1, "'it' is no state"),
        (["--name", "A Wheel"], 1, "names no policy"),
    ],
)
def test_what_is_wrong_is_told_with_what_to_do(
    wheel: Path, tmp_path: Path, more: list[str], code: int, text: str
) -> None:
    given = ["--name", "wheel", "--to", tmp_path / "shelf", "--description", "Steers."]
    ended = run(wheel, *given, *more)
    assert (ended.exit_code, text in ended.stderr) == (code, True), ended.stderr
    assert not list(tmp_path.glob("shelf/*/*"))


def test_a_data_folder_that_is_not_there_is_not_made(wheel: Path, tmp_path: Path) -> None:
    away = tmp_path / "away"
    ended = run(wheel, "--name", "wheel", "--description", "Steers.", "--data-dir", away)
    assert ended.exit_code == 1
    assert "name the server's with --data-dir" in ended.stderr
    assert not away.exists()


async def test_a_running_server_serves_what_was_imported(
    shell: Shell, server: ServerProcess, wheel: Path
) -> None:
    data_dir = str(server.data_dir)
    given = ("--name", "wheel", "--description", "Steers.", "--data-dir", data_dir)
    imported = await shell("policy", "import", str(wheel), *given, "--quiet")
    loaded = await shell("policy", "load", "wheel", "--json")

    assert (imported.out, imported.err, imported.code) == ("wheel@1\n", "", 0)
    assert loaded.json["versions"][0]["description"] == "Steers."
