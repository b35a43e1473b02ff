"""Compiles the contracts on every build: stubs beside each proto, and one descriptor set."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

PROTO = Path(__file__).resolve().parent


def compile_contracts(root: Path = PROTO) -> None:
    """Write `*_pb2.py`, `*_pb2_grpc.py`, their type stubs and `steward/descriptors.binpb`.

    Raises:
        subprocess.CalledProcessError: a proto does not compile; protoc has said where.
    """
    import grpc_tools  # type: ignore[import-untyped]

    sources = sorted(str(path) for path in (root / "steward").rglob("*.proto"))
    bundled = Path(grpc_tools.__file__).parent / "_proto"
    scripts = Path(sys.executable).parent
    plugins = [
        f"--plugin=protoc-gen-{name}={scripts / f'protoc-gen-{name}'}"
        for name in ("mypy", "mypy_grpc")
        if (scripts / f"protoc-gen-{name}").exists()
    ]
    subprocess.run(  # noqa: S603 - every argument is made here
        [
            *(sys.executable, "-m", "grpc_tools.protoc"),
            *(f"-I{root}", f"-I{root / 'third_party'}", f"-I{bundled}"),
            *plugins,
            f"--python_out={root}",
            f"--grpc_python_out={root}",
            f"--mypy_out=quiet:{root}",
            f"--mypy_grpc_out=quiet:{root}",
            f"--descriptor_set_out={root / 'steward' / 'descriptors.binpb'}",
            *("--include_imports", "--include_source_info"),
            *sources,
        ],
        check=True,
    )


class ContractsHook(BuildHookInterface[Any]):
    """Runs before the files of the wheel are collected."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        del version, build_data
        compile_contracts()


if __name__ == "__main__":
    compile_contracts()
