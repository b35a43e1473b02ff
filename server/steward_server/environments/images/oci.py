"""Read images as others write them: OCI layouts, and what `docker save` and `podman save` make.

Either is a folder or a tar archive of it. Both are read alike: a configuration and layers, each
named by its digest, which is checked. Nothing here writes but `Unpacker`.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import platform
import re
import tarfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from io import BufferedReader
from itertools import islice
from pathlib import Path
from typing import Any, Protocol, cast

from steward_server.environments.driver import Unusable
from steward_server.environments.images.image import canonical
from steward_server.environments.images.layers import Entry, Stream, Unpacker
from steward_server.environments.images.room import Room
from steward_server.environments.images.tree import MOST_PATH_BYTES, Tree, bad

_MOST_JSON_BYTES = 4 * 1024 * 1024
"""Of a manifest or a configuration; registries take no larger one."""
_CHUNK_BYTES = 1024 * 1024
_MOST_FILLING_BYTES = 64 * 1024 * 1024
_MOST_LAYERS = 500
_MOST_IMAGES = 200
_MOST_MEMBERS = 50_000
"""Of an archive: each is held in memory while it is read."""
_MOST_NESTED = 3
"""Of an index within an index."""
_GZIP = b"\x1f\x8b"
_ZSTD = b"\x28\xb5\x2f\xfd"
_DIGEST = re.compile(r"sha256:([0-9a-f]{64})")
_MACHINES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "i686": "386"}
_NAMED = ("io.containerd.image.name", "org.opencontainers.image.ref.name")
"""Annotations of an OCI index that tell an image's name, the fullest first."""


class Source(Protocol):
    """The files an image was written as."""

    def names(self) -> frozenset[str]: ...

    def open(self, name: str) -> BufferedReader:
        """One of them; whoever opens it closes it."""
        ...


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer as it lies in the archive."""

    file: str
    digest: str = ""
    """Of the file; empty if the archive names it by nothing that could be checked."""
    content_digest: str = ""
    """Of what is in it once it is decompressed."""


@dataclass(frozen=True, slots=True)
class Found:
    """An image in an archive."""

    names: tuple[str, ...]
    tags: tuple[str, ...]
    """What it is called where the archive leaves the rest of the name to the reader."""
    digest: str
    layers: tuple[Layer, ...]
    env: Mapping[str, str]
    command: tuple[str, ...]
    working_dir: str
    user: str


@contextmanager
def opened(path: Path) -> Iterator[Source]:
    """The files of a layout, a folder or an archive.

    Raises:
        Unusable: reason BAD_IMAGE; it is neither.
    """
    if path.is_dir():
        yield _Folder(path)
        return
    if not path.is_file():
        raise bad(f"there is no file or folder {str(path)!r}")
    with ExitStack() as stack:
        try:
            archive = stack.enter_context(tarfile.open(path, "r:", tarinfo=Entry))
            source = _Archive(archive)
        except (tarfile.TarError, ValueError, RecursionError) as error:
            raise bad(
                f"{path.name!r} is no tar archive; give what `docker save`, `podman save` or "
                f"`skopeo copy … oci-archive:…` writes, decompressed: {error}"
            ) from error
        yield source


def find(source: Source, name: str = "") -> Found:
    """The image of a name, or the only one.

    Raises:
        Unusable: reason BAD_IMAGE; the archive is broken, of another machine, or holds none or
            several.
    """
    try:
        images = list(islice(_images(source), _MOST_IMAGES + 1))
    except (AttributeError, TypeError) as error:
        raise bad(
            f"the image's description has something of another kind in it: {error}"
        ) from error
    if len(images) > _MOST_IMAGES:
        raise bad(f"the archive holds more than {_MOST_IMAGES} images; save fewer")
    tag = name.rpartition(":")[2] if ":" in name.rpartition("/")[2] else "latest"
    fitting = (
        [each for each in images if name in each.names]
        or [each for each in images if tag in each.tags or name in each.tags]
        if name
        else images
    )
    if len(images) == 1 or (fitting and len({each.digest for each in fitting}) == 1):
        return (fitting or images)[0]
    told = [each for image in images for each in (*image.names, *image.tags)]
    raise bad(
        f"the archive holds {len(images)} images ({', '.join(told) or 'without names'}); say which "
        "with its name"
    )


def _images(source: Source) -> Iterator[Found]:
    names = source.names()
    if "index.json" in names and "oci-layout" in names:
        return _of_layout(source)
    if "manifest.json" in names:
        return _of_save(source)
    raise bad(
        "this is neither an OCI layout (oci-layout, index.json) nor what `docker save` or "
        "`podman save` writes (manifest.json)"
    )


def unpack(
    source: Source, image: Found, root: Path, room: Room, *, halted: Callable[[], bool]
) -> dict[str, int]:
    """Lay an image's layers down in an empty folder; how many of what was left out.

    Raises:
        Unusable: reason BAD_IMAGE.
    """
    with Tree(root) as tree:
        unpacker = Unpacker(tree, room, keep_owners=os.geteuid() == 0, halted=halted)
        for number, layer in enumerate(image.layers, 1):
            _check_file(source, layer, number)
            with source.open(layer.file) as file:
                content = _Hashed(_decompressed(file, number))
                try:
                    unpacker.lay(content)
                    # What follows the archive's end counts too; it is there to fill a block.
                    for _ in range(_MOST_FILLING_BYTES // _CHUNK_BYTES):
                        if not content.read(_CHUNK_BYTES):
                            break
                    else:
                        raise bad(f"layer {number} goes on without end after its last file")
                except (EOFError, zlib.error, gzip.BadGzipFile) as error:
                    raise bad(f"layer {number} cannot be decompressed: {error}") from error
            if layer.content_digest and content.digest != layer.content_digest:
                raise bad(
                    f"layer {number} has the digest {content.digest} and should have "
                    f"{layer.content_digest}; it was damaged or changed"
                )
        return unpacker.left_out


def _check_file(source: Source, layer: Layer, number: int) -> None:
    # Before a byte of it is unpacked: what is unpacked must be what was signed.
    if not layer.digest:
        return
    with source.open(layer.file) as file:
        found = f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
    if found != layer.digest:
        raise bad(
            f"layer {number} has the digest {found} and should have {layer.digest}; it was "
            "damaged or changed"
        )


def _decompressed(file: BufferedReader, number: int) -> Stream:
    start = file.read(4)
    file.seek(0)
    if start.startswith(_GZIP):
        return gzip.GzipFile(fileobj=file)
    if start == _ZSTD:
        raise bad(
            f"layer {number} is compressed with zstd, which is not read here; write it anew with: "
            "skopeo copy --dest-compress-format gzip …, or podman save"
        )
    return file


class _Hashed:
    """A stream that hashes what is read through it."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._hash = hashlib.sha256()

    def read(self, size: int = -1, /) -> bytes:
        data = self._stream.read(size)
        self._hash.update(data)
        return data

    @property
    def digest(self) -> str:
        return f"sha256:{self._hash.hexdigest()}"


def _of_layout(source: Source) -> Iterator[Found]:
    for descriptor in _descriptors(source, _json(source, "index.json"), _MOST_NESTED):
        manifest = _json(source, _blob(descriptor), descriptor["digest"])
        config_at = _field(manifest, "config", dict)
        config = _json(source, _blob(config_at), config_at["digest"])
        layers = _field(manifest, "layers", list)
        contents = _contents(config, len(layers))
        yield _found(
            [descriptor.get("annotations", {}).get(key, "") for key in _NAMED],
            descriptor["digest"],
            [
                Layer(_blob(layer), layer["digest"], content)
                for layer, content in zip(layers, contents, strict=True)
            ],
            config,
        )


def _descriptors(source: Source, index: Any, depth: int) -> Iterator[dict[str, Any]]:
    """The manifests for this machine, those of nested indexes too."""
    if depth == 0:
        raise bad("the index of the layout is nested without end")
    for descriptor in _field(index, "manifests", list):
        _blob(descriptor)
        wanted = descriptor.get("platform") or {}
        if wanted and (wanted.get("os"), wanted.get("architecture")) != ("linux", machine()):
            continue
        if "index" in descriptor.get("mediaType", "") or "manifest.list" in descriptor.get(
            "mediaType", ""
        ):
            nested = _json(source, _blob(descriptor), descriptor["digest"])
            for inner in _descriptors(source, nested, depth - 1):
                # The tag stands on the outer one.
                named = inner.get("annotations") or {}
                yield {**inner, "annotations": {**named, **descriptor.get("annotations", {})}}
        else:
            yield descriptor


def _of_save(source: Source) -> Iterator[Found]:
    manifests = _json(source, "manifest.json")
    if not isinstance(manifests, list):
        raise bad("manifest.json is no list of images")
    for manifest in manifests:
        file = _field(manifest, "Config", str)
        named = re.search(r"([0-9a-f]{64})(?:\.json)?$", file)
        config = _json(source, file, f"sha256:{named[1]}" if named else "")
        layers = _field(manifest, "Layers", list)
        contents = _contents(config, len(layers))
        with source.open(file) as opened_file:
            digest = hashlib.file_digest(opened_file, "sha256").hexdigest()
        yield _found(
            manifest.get("RepoTags") or [],
            f"sha256:{digest}",
            [
                Layer(str(layer), content_digest=content)
                for layer, content in zip(layers, contents, strict=True)
            ],
            config,
        )


def _found(names: Sequence[str], digest: str, layers: Sequence[Layer], config: Any) -> Found:
    made_for = (config.get("os", "linux"), config.get("architecture", machine()))
    if made_for != ("linux", machine()):
        raise bad(
            f"the image is for {'/'.join(map(str, made_for))} and this machine is "
            f"linux/{machine()}; save the one for this machine"
        )
    if len(layers) > _MOST_LAYERS:
        raise bad(f"the image has {len(layers)} layers; at most {_MOST_LAYERS} are read")
    wishes = config.get("config") or {}
    env = dict(
        each.partition("=")[::2] for each in wishes.get("Env") or () if isinstance(each, str)
    )
    command = [*(wishes.get("Entrypoint") or ()), *(wishes.get("Cmd") or ())]
    whole = [name for name in names if re.search(r"[:/]", name)]
    return Found(
        tuple(dict.fromkeys(_canonical(whole))),
        tuple(dict.fromkeys(name for name in names if name and name not in whole)),
        digest,
        tuple(layers),
        env,
        tuple(map(str, command)),
        str(wishes.get("WorkingDir") or ""),
        str(wishes.get("User") or ""),
    )


def _canonical(names: Iterable[str]) -> Iterator[str]:
    for name in names:
        with suppress(Unusable):  # one that we could not keep it under
            yield canonical(name)


def machine() -> str:
    """This machine's architecture, as images call it."""
    return _MACHINES.get(platform.machine(), platform.machine())


def _contents(config: Any, count: int) -> list[str]:
    digests: list[str] = _field(_field(config, "rootfs", dict), "diff_ids", list)
    if len(digests) != count:
        raise bad(f"the image has {count} layers and digests for {len(digests)}")
    for each in digests:
        if not isinstance(each, str) or not _DIGEST.fullmatch(each):
            raise bad(f"{each!r} is no digest: sha256: and 64 digits")
    return digests


def _blob(descriptor: Any) -> str:
    digest = _field(descriptor, "digest", str)
    match = _DIGEST.fullmatch(digest)
    if not match:
        raise bad(f"{digest!r} is no digest that can be checked: sha256: and 64 digits")
    return f"blobs/sha256/{match[1]}"


def _field(value: Any, name: str, kind: type) -> Any:
    found = value.get(name) if isinstance(value, dict) else None
    if not isinstance(found, kind):
        raise bad(f"the image's description has no {name!r}, or it is no {kind.__name__}")
    return found


def _json(source: Source, name: str, digest: str = "") -> Any:
    with source.open(name) as file:
        text = file.read(_MOST_JSON_BYTES + 1)
    if len(text) > _MOST_JSON_BYTES:
        raise bad(f"{name!r} is larger than {_MOST_JSON_BYTES} bytes")
    if digest and f"sha256:{hashlib.sha256(text).hexdigest()}" != digest:
        raise bad(f"{name!r} should have the digest {digest}; it was damaged or changed")
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise bad(f"{name!r} is no JSON: {error}") from error


class _Folder:
    """A layout in a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def names(self) -> frozenset[str]:
        return frozenset(each.name for each in self._folder.iterdir())

    def open(self, name: str) -> BufferedReader:
        path = self._folder / name
        # Links within the layout are older archives' way to share layers; others lead astray.
        if not path.resolve().is_relative_to(self._folder.resolve()) or not path.is_file():
            raise bad(f"the layout has no file {name!r} of its own")
        return path.open("rb")


class _Archive:
    """A layout in a tar archive, of which nothing is unpacked."""

    def __init__(self, archive: tarfile.TarFile) -> None:
        self._archive = archive
        self._members: dict[str, tarfile.TarInfo] = {}
        for number, member in enumerate(archive, 1):
            if number > _MOST_MEMBERS:
                raise bad(f"the archive has more than {_MOST_MEMBERS} files; save fewer images")
            if len(member.name) + len(member.linkname) > 2 * MOST_PATH_BYTES:
                raise bad(f"the path {member.name[:200]!r} is too long")
            member.pax_headers = {}  # a megabyte of whatever its writer liked
            self._members[member.name.removeprefix("./")] = member

    def names(self) -> frozenset[str]:
        return frozenset(self._members)

    def open(self, name: str) -> BufferedReader:
        member = self._members.get(name)
        try:
            file = self._archive.extractfile(member) if member else None
        except KeyError:  # a link to what is not in it
            file = None
        except RecursionError:  # a ring of links
            file = None
        if file is None:
            raise bad(f"the archive has no file {name!r}")
        return cast("BufferedReader", file)
