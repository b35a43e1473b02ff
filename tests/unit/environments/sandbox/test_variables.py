"""The variables that every command of a machine has."""

from __future__ import annotations

from pathlib import Path

from steward_server.environments.environment import NetworkPolicy, Resources, Spec
from steward_server.environments.images.image import Image
from steward_server.environments.sandbox.making import environment_of

IMAGE = Image(
    "image",
    "",
    Path("/"),
    env={"PATH": "/image/bin", "INDEX": "https://index.invalid"},
    env_alone={"INDEX": "none", "RETRIES": "1"},
)


def variables(network: NetworkPolicy, **env: str) -> dict[str, str]:
    spec = Spec("image", Resources(1, 1, 1), env=env, network=network)
    return environment_of(IMAGE, spec, 1000, "env-1")


def test_those_of_the_environment_win_over_the_images_and_those_over_the_machines() -> None:
    found = variables(NetworkPolicy(allow_internet=True), PATH="/own/bin")
    assert (found["PATH"], found["INDEX"]) == ("/own/bin", "https://index.invalid")
    assert (found["HOSTNAME"], found["LANG"]) == ("env-1", "C.UTF-8")
    assert "RETRIES" not in found


def test_a_machine_that_reaches_nothing_is_told_so_by_its_image() -> None:
    found = variables(NetworkPolicy())
    assert (found["INDEX"], found["RETRIES"]) == ("none", "1")
    assert variables(NetworkPolicy(), RETRIES="5")["RETRIES"] == "5"
