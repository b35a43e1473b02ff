"""What the client imports, and when."""

from __future__ import annotations

import ast
from pathlib import Path

import steward_client

HEAVY = {"gymnasium", "numpy", "onnx", "onnxruntime"}


def test_heavy_packages_are_imported_only_where_they_are_used() -> None:
    """A command that shows a list does not wait for them; who plays nothing has no gymnasium."""
    found = [
        (file.name, imported)
        for file in Path(steward_client.__file__).parent.rglob("*.py")
        for node in ast.parse(file.read_text("utf-8")).body
        for imported in _imported(node)
        if imported.partition(".")[0] in HEAVY
    ]
    assert found == []


def _imported(node: ast.stmt) -> list[str]:
    if isinstance(node, ast.Import):
        return [each.name for each in node.names]
    return [node.module or ""] if isinstance(node, ast.ImportFrom) else []
