"""What others publish that we must fit: clients of Connect and gRPC-Web, the AsyncAPI schema.

The packages of package-lock.json are installed once, into pytest's cache.
"""

from __future__ import annotations

import fcntl
import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

import grpc_tools  # type: ignore[import-untyped]
import pytest

from tests.missing import missing

HERE = Path(__file__).parent
PROTO = HERE.parents[2] / "proto"


@pytest.fixture(scope="session")
def published(pytestconfig: pytest.Config) -> Path:
    """A folder with the packages of package-lock.json; CI fails where npm is missing."""
    if shutil.which("npm") is None or shutil.which("node") is None:
        text = "there is no Node.js with npm here: clients that others publish are not tried"
        missing(text)
    lock = (HERE / "package-lock.json").read_bytes()
    assert pytestconfig.cache is not None
    folder = pytestconfig.cache.mkdir(f"published-{hashlib.sha256(lock).hexdigest()[:12]}")
    with (folder / "lock").open("w") as guard:
        fcntl.flock(guard, fcntl.LOCK_EX)  # other workers want it too
        if not (folder / "installed").exists():
            for name in ("package.json", "package-lock.json"):
                shutil.copy(HERE / name, folder)
            command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
            subprocess.run(command, cwd=folder, check=True, timeout=300)
            (folder / "installed").touch()
    return folder


@pytest.fixture(scope="session")
def clients(published: Path) -> Path:
    """The same folder, with the code for our contracts in `gen`."""
    with (published / "lock").open("w") as guard:
        fcntl.flock(guard, fcntl.LOCK_EX)
        _generate(published)
    return published


def _generate(folder: Path) -> None:
    out = folder / "gen"
    out.mkdir(exist_ok=True)
    bundled = Path(grpc_tools.__file__).parent / "_proto"
    roots = [PROTO, PROTO / "third_party"]
    sources = [
        str(path.relative_to(root))
        for root, below in zip(roots, ("steward", "google"), strict=True)
        for path in sorted((root / below).rglob("*.proto"))
    ]
    subprocess.run(
        [
            *(sys.executable, "-m", "grpc_tools.protoc"),
            *(f"-I{root}" for root in (*roots, bundled)),
            f"--plugin=protoc-gen-es={folder / 'node_modules/.bin/protoc-gen-es'}",
            f"--es_out={out}",
            "--es_opt=target=js,import_extension=js",
            *sources,
        ],
        check=True,
        timeout=60,
    )
