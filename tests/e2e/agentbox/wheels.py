"""Python packages as pip takes them from a folder."""

from __future__ import annotations

import zipfile
from pathlib import Path

NUMPY = """
__version__ = "0.1"


class array(list):
    def mean(self):
        return sum(self) / len(self)
"""
"""As much of it as the guide's script asks for; the real one stands behind a network."""


def write_wheel(folder: Path, name: str, source: str = "", *, version: str = "0.1") -> Path:
    """A package of one module."""
    info = f"{name}-{version}.dist-info"
    files = {
        f"{name}.py": source,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{path},,\n" for path in [*files, f"{info}/RECORD"])
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for at, text in {**files, f"{info}/RECORD": record}.items():
            archive.writestr(at, text)
    return path
