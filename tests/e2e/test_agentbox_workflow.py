"""What the guide prints is run as it stands: its script by bash, its examples by curl and by node.

Only the address of the server, the credential and the ids are filled in.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.agentbox.scene import AgentboxScene, agentbox_scene, image_of
from tests.e2e.agentbox.shapes import (
    API_KEY,
    ENVIRONMENT_DETAILS,
    HEALTH,
    LOG,
    NEW_API_KEY,
    NEW_ENVIRONMENT,
    RESULT,
    RUNNING_ENVIRONMENT,
    refused,
)
from tests.e2e.agentbox.signing_in import ME
from tests.e2e.agentbox.wheels import NUMPY, write_wheel
from tests.e2e.curl import differences
from tests.e2e.iron.shapes import LOGIN
from tests.live import ADMIN_PASSWORD
from tests.missing import missing

GUIDE = Path(__file__).with_name("agentbox")
PAGE = {"environments": [RUNNING_ENVIRONMENT], "total": int, "limit": int, "offset": int}
PRINTED: dict[str, list[tuple[int, Any]]] = {
    "login": [(200, LOGIN)],
    "use a token": [(200, PAGE)],
    "use a key": [(200, PAGE)],
    "who am I": [(200, ME)],
    "create": [(201, NEW_ENVIRONMENT | {"name": "my-python-env"})],
    "list": [(200, PAGE | {"limit": 10, "offset": 0})],
    "get": [(200, ENVIRONMENT_DETAILS)],
    "exec": [(200, RESULT | {"stdout": "Hello, World!\n", "stderr": "", "exit_code": 0})],
    "exec a shell": [(200, RESULT | {"stdout": re.compile(r"(?s)/.*\ntotal.*"), "exit_code": 0})],
    "exec an installation": [(200, RESULT | {"exit_code": 0})],
    "exec what was written": [
        (200, RESULT | {"exit_code": 0}),
        (200, RESULT | {"stdout": re.compile(r"(?s)Python 3\..*"), "exit_code": 0}),
    ],
    "logs": [(200, {"logs": [LOG], "last_sequence": int})],
    "list keys": [(200, {"api_keys": [API_KEY]})],
    "create a key": [(201, NEW_API_KEY | {"description": "CI/CD Pipeline Key"})],
    "revoke a key": [(204, None)],
    "health": [(200, HEALTH)],
    "delete": [(204, None)],
}
"""The answers of each example, in the order they are run in."""


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AgentboxScene]:
    folder = tmp_path_factory.mktemp("workflow")
    write_wheel(folder / "wheels", "numpy", NUMPY)
    write_wheel(folder / "wheels", "requests", '__version__ = "0.1"\n')
    wheels = str(folder / "wheels")
    with agentbox_scene(folder / "data", STEWARD_ENVIRONMENTS_WHEELS_DIR=wheels) as scene:
        yield scene


def must_have_pip(scene: AgentboxScene) -> None:
    path = f"$url/api/v1/environments/{scene['environment_id']}/exec"
    if (
        scene.run(f"""-X POST {path} $as_admin $json -d '{{"command":["pip","-V"]}}'""").status
        != 200
    ):
        pytest.skip("the Python of this machine came without pip")


def run(*command: str, patience_s: float = 60) -> str:
    """What a program prints that ends well."""
    ran = subprocess.run(
        command,
        capture_output=True,
        check=False,
        text=True,
        timeout=patience_s,
        env=os.environ | {"no_proxy": "*"},
    )
    assert ran.returncode == 0, (ran.stdout, ran.stderr)
    return ran.stdout


def must_have(program: str) -> None:
    if shutil.which(program) is None:
        missing(f"{program} is not installed")


def bash(text: str) -> str:
    return run("bash", "-c", text)


def test_the_script_at_the_end_of_the_guide_runs_as_it_stands(scene: AgentboxScene) -> None:
    must_have("jq")
    must_have_pip(scene)
    text = (GUIDE / "workflow.sh").read_text(encoding="utf-8")
    text = text.replace("https://your-server", scene.url()).replace("your-jwt-token", scene.token)
    text = text.replace("python:3.11-slim", image_of(scene, "python:3.11-slim"))
    said = bash(text)

    beginning, rest = said.split("Installing dependencies...\n")
    installed, rest = rest.split("Running Python code...\n")
    ran, rest = rest.split("Fetching logs...\n")
    logs, end = rest.split("Cleaning up...\n")
    made = re.fullmatch(
        r"Creating environment\.\.\.\nCreated environment: (env-[0-9a-f]{32})\n"
        r"Waiting for environment to be ready\.\.\.\n"
        r"(?:Status: pending, waiting\.\.\.\n)*Environment is running!\n",
        beginning,
    )
    assert made, beginning
    assert list(differences(RESULT | {"exit_code": 0}, json.loads(installed))) == [], installed
    numbers = re.compile(r"NumPy version: \S+\nArray mean: 3\.0\n")
    wanted = RESULT | {"stdout": numbers, "stderr": "", "exit_code": 0}
    assert list(differences(wanted, json.loads(ran))) == []
    told = json.loads(logs)
    assert list(differences({"logs": [LOG], "last_sequence": int}, told)) == []
    assert "Array mean: 3.0" in [each["message"] for each in told["logs"]]
    assert end == "Done!\n"
    gone = scene.run(f"$url/api/v1/environments/{made[1]} $as_admin")
    assert list(differences(refused(404, made[1]), gone.body)) == []


def test_what_is_in_no_folder_is_not_installed_and_that_is_soon_known(scene: AgentboxScene) -> None:
    must_have_pip(scene)
    path = f"$url/api/v1/environments/{scene['environment_id']}/exec"
    command = '{"command":["pip","install","a-package-that-nobody-has"],"timeout":20}'
    answer = scene.run(f"-X POST {path} $as_admin $json -d '{command}'").body
    assert answer["exit_code"] == 1
    assert "No matching distribution found for a-package-that-nobody-has" in answer["stderr"]
    assert answer["duration_ms"] < 5_000


def examples() -> dict[str, str]:
    """Those of the guide, as it prints them, by name."""
    text = (GUIDE / "examples.txt").read_text(encoding="utf-8")
    found = re.split(r"^=== (.*)\n", text, flags=re.MULTILINE)[1:]
    return dict(zip(found[::2], found[1::2], strict=True))


@pytest.fixture(scope="module")
def filled(scene: AgentboxScene) -> dict[str, str]:
    """What stands in the examples for what a reader has."""
    environment = {
        "name": "guide",
        "image": image_of(scene, "python:3.11-slim"),
        "resources": {"cpu": "1", "memory": "128Mi", "storage": "64Mi"},
    }
    return {
        "https://your-server": scene.url(),
        "your-username": "admin",
        "your-password": ADMIN_PASSWORD,
        "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9...": scene.token,
        "agentbox_1234567890abcdef...": scene["api_key"],
        "<token>": scene.token,
        "env-abc123": scene.made(environment),
        "key-abc123": scene["new_api_key_id"],
        "python:3.11-slim": image_of(scene, "python:3.11-slim"),
    }


def as_filled(text: str, filled: dict[str, str]) -> str:
    for written, meant in filled.items():
        text = text.replace(written, meant)
    return text


COUNTED = 'curl() { command curl -sS "$@" -w "\\n%{http_code}\\n"; }\n'
"""Curl as it is, and the status beneath each answer."""


def test_the_example_that_follows_logs_prints_them(filled: dict[str, str]) -> None:
    wait = 'curl() { command curl -sS --max-time 1 "$@" || test $? = 28; }\n'
    written = as_filled(examples()["exec"], filled)
    said = bash(wait + written + as_filled(examples()["follow logs"], filled))
    data = re.findall(r"^data: (.*)\n\n", said, re.MULTILINE)
    assert [list(differences(LOG, json.loads(each))) for each in data] == [[]] * len(data)
    assert json.loads(data[-1]) | {"timestamp": ""} == {
        "timestamp": "",
        "stream": "stdout",
        "message": "Hello, World!",
    }


@pytest.mark.parametrize("name", PRINTED)
def test_an_example_of_the_guide_answers_as_the_guide_prints(
    scene: AgentboxScene, filled: dict[str, str], name: str
) -> None:
    if "pip " in examples()[name]:
        must_have_pip(scene)
    said = bash(COUNTED + as_filled(examples()[name], filled)).splitlines()
    answers = [(int(status), body) for body, status in zip(said[::2], said[1::2], strict=True)]
    assert [status for status, _ in answers] == [status for status, _ in PRINTED[name]], said
    for (_, body), (_, shape) in zip(answers, PRINTED[name], strict=True):
        if shape is None:
            assert body == ""
        else:
            assert list(differences(shape, json.loads(body))) == [], body


def test_every_example_of_the_guide_is_run() -> None:
    assert examples().keys() == PRINTED.keys() | {"follow logs"}


LEAVE = """
ws.addEventListener('open', () => ws.send(JSON.stringify({type: 'stdin', data: 'exit 4\\n'})));
"""
"""What the guide's page does not do."""


def test_the_page_of_the_guide_opens_a_terminal(
    scene: AgentboxScene, filled: dict[str, str]
) -> None:
    must_have("node")
    text = (GUIDE / "attach.js").read_text(encoding="utf-8")
    # A browser refuses a subprotocol with a space in it, whatever the guide says.
    text = text.replace("Bearer <token>", "<token>")
    text = text.replace("wss://your-server", scene.url().replace("http", "ws"))
    text = as_filled(text, filled | {"env-abc123": scene["environment_id"]})
    said = run("node", "--experimental-websocket", "--eval", text + LEAVE)
    assert said.startswith("Connected to environment\n")
    assert "ls -la" in said
    assert "Process exited with code: 4\n" in said
