"""The image `host`: the machine's own programs, read-only, under an /etc that knows no secrets.

It answers to `python:3.X` too, as far as a Python of that version is here: one in /usr, or the one
this server runs on. On disk there is only a frame of a few hundred small files; the programs are
bound into it.
"""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path, PurePosixPath

from steward_server.environments.images import etc
from steward_server.environments.images.image import HOST, Image
from steward_server.environments.images.tree import sync
from steward_server.environments.removal import remove_tree

_TOP = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")
"""Links into /usr on most machines, folders of their own on some."""
_SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_OWN_FOLDERS = {
    "dev": 0o755,
    "etc": 0o755,
    "home": 0o755,
    "opt": 0o755,
    "proc": 0o555,
    "root": 0o711,  # the server's Python may lie below it
    "run": 0o755,
    "run/lock": 0o1777,
    "sys": 0o555,
    "tmp": 0o1777,
    "usr": 0o755,
    "var": 0o755,
    "var/cache": 0o755,
    "var/lib": 0o755,
    "var/log": 0o755,
    "var/tmp": 0o1777,
}
_AGENTS_FOLDERS = (etc.HOME, etc.WORKSPACE)
_WHEELS = "/opt/wheels"
_VERSION_S = 10
"""How long a Python may take to say its version."""
_MOST_COPIED_BYTES = 4 * 1024 * 1024
"""Of one file of /etc; the bundle of all certificates has a quarter of a megabyte."""

_PYTHON = re.compile(
    r"python(?::(?:latest|(?P<version>3(?:\.\d+){0,2})?)(?P<slim>-?slim)?(?:-(?P<release>[a-z]+))?)?"
)


@dataclass(frozen=True, slots=True)
class Interpreter:
    """A Python of this machine."""

    version: tuple[int, int, int]
    executable: Path
    prefix: Path | None = None
    """What is to be bound beside /usr for it to work; None: nothing."""

    @property
    def text(self) -> str:
        return ".".join(map(str, self.version))

    @property
    def links(self) -> str:
        """The folder, inside, whose `python` is this one."""
        return f"/opt/python/{self.text}/bin"


@dataclass(frozen=True, slots=True)
class Frame:
    """What is laid down on disk: folders with their modes, files and links by their path."""

    folders: dict[str, int] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)

    def add(self, source: Path, path: str) -> None:
        """Take something of the host, as deep as it goes."""
        if source.is_symlink():
            self.links[path] = str(source.readlink())
        elif source.is_dir():
            self.folders[path] = 0o755
            for child in sorted(source.iterdir()):
                self.add(child, f"{path}/{child.name}")
        elif source.is_file() and _may_be_shown(source):
            self.files[path] = source.read_bytes()

    @property
    def digest(self) -> str:
        content = hashlib.sha256()
        for path, mode in sorted(self.folders.items()):
            content.update(f"d {mode:o} {path}\n".encode())
        for path, target in sorted(self.links.items()):
            content.update(f"l {path} {target}\n".encode())
        for path, data in sorted(self.files.items()):
            content.update(f"f {path} {len(data)}\n".encode() + data)
        return f"sha256:{content.hexdigest()}"

    def write(self, root: Path) -> None:
        """Lay it down in an empty folder."""
        wanted = dict(self.folders)
        for path in (*self.folders, *self.files, *self.links):
            for parent in PurePosixPath(path).parents:
                wanted.setdefault(str(parent), 0o755)
        del wanted["."]
        for path in sorted(wanted):
            (root / path).mkdir()
        for path, data in self.files.items():
            (root / path).write_bytes(data)
            (root / path).chmod(0o644)
        for path, target in self.links.items():
            (root / path).symlink_to(target)
        for path in sorted(wanted, reverse=True):
            (root / path).chmod(wanted[path])
        if os.geteuid() == 0:
            for path in _AGENTS_FOLDERS:
                os.chown(root / path.lstrip("/"), etc.AGENT_ID, etc.AGENT_ID)


@dataclass(frozen=True, slots=True)
class HostImage:
    """The built-in image, in all its names."""

    root: Path
    digest: str
    size_bytes: int
    made_at_us: int
    binds: tuple[tuple[Path, str], ...]
    interpreters: tuple[Interpreter, ...]
    """The server's own first, then the newest."""
    release: str
    """The code name of the machine's system, such as `bookworm`."""
    has_wheels: bool = False

    def names(self) -> list[str]:
        """What it answers to, the obvious variants left out."""
        return [HOST, *(f"python:{each.text}" for each in self.interpreters)]

    def find(self, name: str) -> Image | None:
        """It, under one of its names; None if that is not one."""
        short, _, digest = name.partition("@")
        if digest and digest != self.digest:
            return None
        if short == HOST:
            return self._image(name, self.interpreters[0] if self.interpreters else None)
        match = _PYTHON.fullmatch(short)
        if not match or match["release"] not in (None, self.release):
            return None
        wanted = tuple(map(int, match["version"].split("."))) if match["version"] else (3,)
        for each in self.interpreters:
            if each.version[: len(wanted)] == wanted:
                return self._image(name, each)
        return None

    def _image(self, name: str, python: Interpreter | None) -> Image:
        ahead = [f"{etc.HOME}/.local/bin"]
        binds = self.binds
        if python is not None:
            ahead.append(python.links)
            if python.prefix is not None:
                ahead.append(f"{python.prefix}/bin")
                binds = (*binds, (python.prefix, str(python.prefix)))
        return Image(
            name=name,
            digest=self.digest,
            root=self.root,
            env={
                "PATH": ":".join([*ahead, _SYSTEM_PATH]),
                "HOME": etc.HOME,
                "LANG": "C.UTF-8",
                # The distribution's Python keeps pip out of a system that is not writable anyway.
                "PIP_BREAK_SYSTEM_PACKAGES": "1",
                **({"PIP_FIND_LINKS": _WHEELS} if self.has_wheels else {}),
            },
            # Where nothing is reached, pip would try again for a long while.
            env_alone={"PIP_NO_INDEX": "1"} if self.has_wheels else {"PIP_RETRIES": "1"},
            command=("/bin/sh",) if python is None or name == HOST else ("python3",),
            working_dir=etc.WORKSPACE,
            user=f"{etc.AGENT_ID}:{etc.AGENT_ID}",
            size_bytes=self.size_bytes,
            created_at_us=self.made_at_us,
            is_host=True,
            binds=binds,
        )


def make(
    folder: Path,
    *,
    system: Path = Path("/"),
    interpreters: Sequence[Interpreter] | None = None,
    wheels: Path | None = None,
) -> HostImage | None:
    """The image of this machine, with its frame in a folder of `folder`; None if it cannot be.

    `wheels` is a folder of Python packages that pip finds inside. A machine without a shell in /bin
    or /usr/bin keeps its programs where they cannot be bound.
    Safe beside others that make the same.
    """
    if not (system / "bin/sh").exists() and not (system / "usr/bin/sh").exists():
        return None
    found = tuple(find_interpreters(folder) if interpreters is None else interpreters)
    frame, binds = _frame(system, found)
    if wheels is not None:
        frame.folders[_WHEELS.lstrip("/")] = 0o755
        binds = (*binds, (wheels.resolve(), _WHEELS))
    digest = frame.digest
    root = folder / digest.removeprefix("sha256:") / "rootfs"
    if not root.exists():
        folder.mkdir(parents=True, exist_ok=True)
        new = Path(tempfile.mkdtemp(dir=folder, prefix=".new-"))
        try:
            (new / "rootfs").mkdir()
            frame.write(new / "rootfs")
            (new / "rootfs").chmod(0o755)
            sync(new)  # a torn one would be used for ever
            new.rename(root.parent)
        except OSError:
            remove_tree(new, ignore_errors=True)
            if not root.exists():
                raise
    return HostImage(
        root=root,
        digest=digest,
        size_bytes=sum(map(len, frame.files.values())),
        made_at_us=int(root.stat().st_mtime * 1_000_000),
        binds=binds,
        interpreters=found,
        release=_release(system),
        has_wheels=wheels is not None,
    )


def _may_be_shown(file: Path) -> bool:
    """Whether everybody may read it here; what not everybody may is not shown there."""
    found = file.stat()
    return bool(found.st_mode & 0o004) and found.st_size <= _MOST_COPIED_BYTES


def find_interpreters(*keep_out: Path) -> list[Interpreter]:
    """The Pythons that can be shown: this server's own, then those of /usr, the newest first.

    None is shown whose folder holds one of `keep_out`.
    """
    found = {each.executable.resolve(): each for each in _own(keep_out)}
    others = []
    for folder in (Path("/usr/local/bin"), Path("/usr/bin")):
        for executable in sorted(folder.glob("python3.*")):
            real = executable.resolve()
            if not re.fullmatch(r"python3\.\d+", executable.name) or real in found:
                continue
            if (version := _version(executable)) and real.is_relative_to("/usr"):
                others.append(Interpreter(version, executable))
                found[real] = others[-1]
    own = [each for each in found.values() if each not in others]
    return own + sorted(others, key=lambda each: each.version, reverse=True)


def _own(keep_out: Sequence[Path]) -> Iterator[Interpreter]:
    prefix = Path(sys.base_prefix).resolve()
    executable = prefix / "bin" / f"python3.{sys.version_info.minor}"
    version = sys.version_info[:3]
    if not executable.exists():
        return
    if prefix.is_relative_to("/usr"):
        yield Interpreter(version, executable)
    elif not any(
        place.resolve().is_relative_to(prefix) for place in (*keep_out, Path.home(), Path("/etc"))
    ):
        yield Interpreter(version, executable, prefix)


@cache
def _version(executable: Path) -> tuple[int, int, int] | None:
    ask = "import sys; print(*sys.version_info[:3])"
    try:
        answer = subprocess.run(  # noqa: S603 - a Python of the system
            [executable, "-I", "-S", "-c", ask],
            capture_output=True,
            check=True,
            timeout=_VERSION_S,
        )
        major, minor, micro = map(int, answer.stdout.split())
    except (OSError, subprocess.SubprocessError, ValueError):
        return None
    return major, minor, micro


def _frame(
    system: Path, interpreters: Sequence[Interpreter]
) -> tuple[Frame, tuple[tuple[Path, str], ...]]:
    frame = Frame(folders=dict(_OWN_FOLDERS))
    binds = [(system / "usr", "/usr")]
    for name in _TOP:
        source = system / name
        if source.is_symlink():
            frame.links[name] = str(source.readlink())
        elif source.is_dir():
            frame.folders[name] = 0o755
            binds.append((source, f"/{name}"))
    for path in _AGENTS_FOLDERS:
        frame.folders[path.lstrip("/")] = 0o755
    for pattern in etc.COPIED:
        for source in sorted((system / "etc").glob(pattern)):
            frame.add(source, f"etc/{source.relative_to(system / 'etc')}")
    for name, text in etc.FILES.items():
        frame.files[f"etc/{name}"] = text.encode()
    frame.files["etc/hosts"] = etc.hosts().encode()
    frame.files["etc/resolv.conf"] = etc.resolv_conf().encode()
    for each in interpreters:
        if each.prefix is not None:
            frame.folders[str(each.prefix).lstrip("/")] = 0o755
        _link_commands(frame, each)
    return frame, tuple(binds)


def _link_commands(frame: Frame, python: Interpreter) -> None:
    """Let `python`, `python3` and `pip` mean this one: many systems have no plain `python`."""
    at = python.links.lstrip("/")
    minor = f"3.{python.version[1]}"
    for name in ("python", "python3", f"python{minor}"):
        frame.links[f"{at}/{name}"] = str(python.executable)
    pip = python.executable.parent / f"pip{minor}"
    if pip.exists():
        for name in ("pip", "pip3"):
            frame.links[f"{at}/{name}"] = str(pip)


def _release(system: Path) -> str:
    try:
        lines = (system / "etc/os-release").read_text().splitlines()
    except OSError:
        return ""
    told = (line.partition("=") for line in lines)
    return next((value.strip("\"'") for key, _, value in told if key == "VERSION_CODENAME"), "")
