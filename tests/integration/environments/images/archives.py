"""Make images as others write them, good ones and evil ones."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from steward_server.environments.images.oci import machine


def entry(
    name: str,
    content: bytes = b"",
    *,
    kind: bytes = tarfile.REGTYPE,
    link: str = "",
    mode: int = 0o644,
    owner: int = 0,
    **more: Any,
) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.mode, info.size = kind, link, mode, len(content)
    info.uid = info.gid = owner
    info.mtime = 1_700_000_000
    for key, value in more.items():
        setattr(info, key, value)
    return info, content


def folder(name: str, mode: int = 0o755) -> tuple[tarfile.TarInfo, bytes]:
    return entry(name, kind=tarfile.DIRTYPE, mode=mode)


def link(name: str, target: str) -> tuple[tarfile.TarInfo, bytes]:
    return entry(name, kind=tarfile.SYMTYPE, link=target, mode=0o777)


def hard_link(name: str, target: str) -> tuple[tarfile.TarInfo, bytes]:
    return entry(name, kind=tarfile.LNKTYPE, link=target)


def layer(*entries: tuple[tarfile.TarInfo, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for info, content in entries:
            archive.addfile(info, io.BytesIO(content))
    return out.getvalue()


def sha256(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def config_of(layers: Sequence[bytes], **wishes: Any) -> dict[str, Any]:
    return {
        "os": "linux",
        "architecture": machine(),
        "config": wishes,
        "rootfs": {"type": "layers", "diff_ids": [sha256(each) for each in layers]},
    }


def save(
    path: Path,
    layers: Sequence[bytes],
    *,
    names: Sequence[str] = ("thing:1",),
    config: dict[str, Any] | None = None,
) -> Path:
    """What `docker save` writes."""
    text = json.dumps(config or config_of(layers)).encode()
    at = f"{sha256(text)[7:]}.json"
    files = {f"{number}/layer.tar": each for number, each in enumerate(layers)}
    manifest = [{"Config": at, "RepoTags": list(names), "Layers": list(files)}]
    files |= {at: text, "manifest.json": json.dumps(manifest).encode()}
    path.write_bytes(layer(*(entry(name, data) for name, data in files.items())))
    return path


def layout(
    path: Path,
    layers: Sequence[bytes],
    *,
    name: str = "thing:1",
    config: dict[str, Any] | None = None,
    packed: bool = True,
) -> Path:
    """An OCI layout in a folder."""
    blobs = path / "blobs" / "sha256"
    blobs.mkdir(parents=True)

    def put(data: bytes) -> dict[str, Any]:
        (blobs / sha256(data)[7:]).write_bytes(data)
        return {"digest": sha256(data), "size": len(data)}

    kept = [put(gzip.compress(each) if packed else each) for each in layers]
    manifest = {
        "schemaVersion": 2,
        "config": put(json.dumps(config or config_of(layers)).encode()),
        "layers": kept,
    }
    told = put(json.dumps(manifest).encode())
    told["annotations"] = {"io.containerd.image.name": f"docker.io/library/{name}"}
    index = {"schemaVersion": 2, "manifests": [told]}
    (path / "index.json").write_text(json.dumps(index))
    (path / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    return path


def packed(folder_path: Path, path: Path) -> Path:
    """An archive of a layout."""
    with tarfile.open(path, "w") as archive:
        for each in sorted(folder_path.rglob("*")):
            archive.add(each, str(each.relative_to(folder_path)), recursive=False)
    return path
