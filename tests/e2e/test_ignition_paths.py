"""Every Ignition path by curl: what it answers when it is called well, and when it is not.

The rows stand in `ignition/`, in an order that tells a story: one lists what the one before has
saved. `$names` in them are made by the scene; a row with `$api` stands for two, `/api` and
`/api/v1`, and one without it for itself.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from steward.gateway.v1.options_pb2 import DIALECT_IGNITION
from tests.e2e.curl import differences
from tests.e2e.ignition import credentials, executions, playbooks
from tests.e2e.ignition.scene import IgnitionScene, ignition_scene
from tests.e2e.iron.shapes import Row
from tests.e2e.paths import uncalled

TABLES = (credentials, executions, playbooks)
PREFIXES = ("/api", "/api/v1")


def rows(prefix: str) -> list[Row]:
    return [
        (name, arguments.replace("$api", prefix), status, shape)
        for table in TABLES
        for name, arguments, status, shape in table.ROWS
        if "$api" in arguments or prefix == PREFIXES[0]
    ]


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[IgnitionScene]:
    data_dir = tmp_path_factory.mktemp("ignition") / "data"
    with ignition_scene(data_dir) as opened:
        yield opened


def test_the_guides_health_needs_no_credential(scene: IgnitionScene) -> None:
    answer = scene.run("$url/api/health")

    assert answer.status == 200
    told = json.loads(answer.text)
    assert told["status"] == "healthy"
    assert isinstance(told["version"], str)
    assert type(told["uptime_seconds"]) is int
    assert 0 <= told["uptime_seconds"] < 600


def test_the_calls_of_the_guide_answer_what_it_prints(scene: IgnitionScene) -> None:
    """Word for word: the same keys in the same order, and nothing else."""
    credential = {
        "name": "my-gateway",
        "username": "admin",
        "gateway_url": "http://localhost:8088",
        "description": "Local development gateway",
    }
    path = "$url/api/credentials"
    saved = scene.run(f"-X POST {path} $as_key $json -d '{credentials.BODY}'")
    listed = scene.run(f"{path} $as_key")
    deleted = scene.run(f"-X DELETE {path}/my-gateway $as_key")
    left = scene.run(f"{path} $as_key")

    assert [each.status for each in (saved, listed, deleted, left)] == [200] * 4
    assert saved.text == dumps({"message": "Credential saved successfully", "name": "my-gateway"})
    assert listed.text == dumps({"credentials": [credential]})
    assert deleted.text == dumps({"message": "Credential deleted successfully"})
    assert left.text == dumps({"credentials": []})


def test_the_playbooks_of_the_guide_are_what_it_prints(scene: IgnitionScene) -> None:
    """What it prints comes first in each answer, word for word and in its order."""
    path = "$url/api/playbooks"
    listed = scene.run(f"{path} -H 'X-API-Key: $itk_key'")
    (upgrade,) = (each for each in listed.body["playbooks"] if each["path"] == playbooks.UPGRADE)
    assert begins(upgrade, playbooks.GUIDE_SUMMARY)
    paths = [each["path"] for each in listed.body["playbooks"]]
    assert paths == sorted(paths)
    assert "gateway/health_check.yaml" in paths

    shown = scene.run(f"{path}/gateway%2Fmodule_upgrade.yaml -H 'X-API-Key: $itk_key'")
    names = ["name", "version", "description", "parameters", "steps"]
    assert [*shown.body][:5] == names
    assert [shown.body[name] for name in names[:3]] == [
        "Module Upgrade",
        "1.0",
        "Upgrade modules on a gateway",
    ]
    assert begins(shown.body["parameters"][0], playbooks.GUIDE_PARAMETER)
    assert begins(shown.body["steps"][0], playbooks.GUIDE_STEP)

    unknown = scene.run(f"{path}/test.yaml -H 'X-API-Key: $itk_key'")
    assert (unknown.status, unknown.text) == (404, dumps(playbooks.GUIDE_NOT_FOUND))
    original = playbooks.saving("gateway/original.yaml", playbooks.TEXT)
    assert scene.run(original.replace("$api", "/api")).status == 200
    body = '{"source_path": "gateway/original.yaml", "new_name": "My Custom Playbook"}'
    copied = scene.run(f"-X POST {path}/duplicate $as_key $json -d '{body}'")
    assert (copied.status, copied.text) == (200, dumps(playbooks.GUIDE_DUPLICATED))
    for each in ("original", "my-custom-playbook"):
        assert scene.run(f"-X DELETE {path}/gateway/{each}.yaml $as_key").status == 200


def test_a_playbook_of_ten_megabytes_is_refused(scene: IgnitionScene, tmp_path: Path) -> None:
    large = tmp_path / "large.json"
    put = f"-X PUT $url/api/playbooks/large.yaml $as_admin $json -d @{large}"
    large.write_text(json.dumps({"text": "#" * 10 * 1024 * 1024}))
    refused = scene.run(put)
    assert (refused.status, refused.body["detail"]["error"]) == (413, "payload_too_large")
    large.write_text(json.dumps({"text": "#" * 2 * 1024 * 1024}))
    refused = scene.run(put)
    assert (refused.status, refused.body["detail"]["error"]) == (400, "validation_error")
    (error,) = refused.body["detail"]["details"]["errors"]
    assert error == {
        "line": 1,
        "column": 1,
        "path": "large.yaml",
        "message": "the file has 2097152 bytes; at most 1048576 are read",
    }


def test_a_file_that_somebody_breaks_is_told_with_every_fault(scene: IgnitionScene) -> None:
    folder = scene.playbook_folder
    (folder / "mine").mkdir(parents=True)
    (folder / "mine" / "broken.yaml").write_text(playbooks.BROKEN)
    (folder / "mine" / "link.yaml").symlink_to("/etc/hostname")
    shown = scene.run("$url/api/playbooks/mine/broken.yaml $as_admin")
    linked = scene.run("$url/api/playbooks/mine/link.yaml $as_admin")
    listed = scene.run("'$url/api/playbooks?domain=mine' $as_admin").body["playbooks"]
    (folder / "mine" / "broken.yaml").write_text(playbooks.TEXT)
    mended = scene.run("$url/api/playbooks/mine/broken.yaml $as_admin")
    (folder / "mine" / "broken.yaml").unlink()
    (folder / "mine" / "link.yaml").unlink()

    assert shown.status == 400
    told = shown.body["detail"]
    assert (told["error"], told["details"]["path"]) == ("validation_error", "mine/broken.yaml")
    assert told["details"]["errors"] == [
        {
            "line": 1,
            "column": 7,
            "path": "mine/broken.yaml",
            "message": "'name' must be text; put it in quotes",
        },
        {
            "line": 3,
            "column": 8,
            "path": "mine/broken.yaml",
            "message": "a playbook has at least one step",
        },
    ]
    assert (linked.status, linked.body["detail"]["error"]) == (400, "invalid_path")
    assert {each["path"]: each["error_count"] for each in listed} == {
        "mine/broken.yaml": 2,
        "mine/link.yaml": 1,
    }
    assert (mended.status, mended.body["name"]) == (200, "Original")


def begins(found: dict[str, Any], wanted: dict[str, Any]) -> bool:
    """Whether an object begins with these keys and values."""
    return [*found.items()][: len(wanted)] == [*wanted.items()]


def dumps(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))


@pytest.mark.parametrize("prefix", PREFIXES)
def test_the_paths_answer(scene: IgnitionScene, prefix: str) -> None:
    wrong = []
    for name, arguments, status, shape in rows(prefix):
        answer = scene.run(arguments)
        found = list(differences(shape, answer.body)) if answer.text else ["nothing is answered"]
        if answer.status != status or found:
            wrong.append((name, answer.status, found, answer.text))
        assert answer.headers["content-type"] == "application/json", name
    assert wrong == []


def test_every_path_is_called_well_and_badly() -> None:
    called = [row for prefix in PREFIXES for row in rows(prefix)]
    assert uncalled(called, {DIALECT_IGNITION}) == set()
