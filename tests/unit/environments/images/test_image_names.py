"""Names of images."""

from __future__ import annotations

import pytest

from steward_server.environments.images import etc
from steward_server.environments.images.image import canonical


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("python", "python"),
        ("python:latest", "python"),
        ("docker.io/library/python:3.11-slim", "python:3.11-slim"),
        ("docker.io/team/app:1", "team/app:1"),
        ("localhost/mine:latest", "mine"),
        (" mine ", "mine"),
        ("registry.example:5000/a/b", "registry.example:5000/a/b"),
        (f"a:latest@sha256:{'0' * 64}", f"a@sha256:{'0' * 64}"),
    ],
)
def test_an_image_has_one_name_however_it_is_written(written: str, meant: str) -> None:
    assert canonical(written) == meant
    assert canonical(meant) == meant


def test_names_are_looked_up_nowhere_where_there_is_no_server_for_them() -> None:
    assert "nameserver" not in etc.resolv_conf()
    assert etc.resolv_conf(["192.0.2.1"]).startswith("nameserver 192.0.2.1\n")


def test_a_machine_knows_its_own_name() -> None:
    assert "127.0.1.1\tenv-1\n" in etc.hosts("env-1")
