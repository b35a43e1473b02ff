"""Compiles the message type that has every kind of field."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import grpc_tools  # type: ignore[import-untyped]
import pytest
from grpc_tools import protoc

PROTOS = Path(__file__).parent / "protos"


@pytest.fixture(scope="session")
def every_kind(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The generated module of `everykind/v1/every_kind.proto`."""
    out = tmp_path_factory.mktemp("everykind")
    bundled = Path(grpc_tools.__file__).parent / "_proto"
    source = "everykind/v1/every_kind.proto"
    assert protoc.main(["", f"-I{PROTOS}", f"-I{bundled}", f"--python_out={out}", source]) == 0
    sys.path.insert(0, str(out))
    try:
        return importlib.import_module("everykind.v1.every_kind_pb2")
    finally:
        sys.path.remove(str(out))
