"""The root file system of a machine, put together in a mount namespace of its own.

An image is data of strangers: whatever is placed in it is found through descriptors that are
resolved inside the new root, so that a link in the image cannot lead a mount out of it.
"""

# pathlib would be a megabyte in every machine's pid 1.
# ruff: noqa: PTH101, PTH102, PTH115
from __future__ import annotations

import errno
import fcntl
import os
import stat
import struct
from collections.abc import Sequence
from typing import Any

from steward_server.environments.sandbox.inside import linux, packets

_HARMLESS = linux.MS_NOSUID | linux.MS_NODEV
_OVERLAY = "lowerdir=lower,upperdir=box/upper,workdir=box/work,volatile"
"""Volatile: none of it outlives the host, so nothing needs to be written through."""
_PLAIN, _PLAIN_ALONE = "redirect_dir=off,metacopy=off", "userxattr"
"""What is in the upper layer then explains itself, and can be made an image. Without root the
second says as much, and would not be said together with the first."""
_DEVICES = (
    ("null", 1, 3),
    ("zero", 1, 5),
    ("full", 1, 7),
    ("random", 1, 8),
    ("urandom", 1, 9),
    ("tty", 5, 0),
)
_DEVICE_LINKS = (
    ("ptmx", "pts/ptmx"),
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
)
_OWN_WAY = (errno.EROFS, errno.ELOOP, errno.ENOENT, errno.EISDIR, errno.ENOTDIR, errno.ENXIO)
"""How it is told that an image has something else in the place of a file; at last: a pipe."""
TTY_GROUP = 5
_SCAFFOLD = "size=256k,nr_inodes=64,mode=0755"
_MOST_TERMINALS = 64
_HIDDEN_FILES = [
    "cmdline",
    "config.gz",
    "diskstats",
    "interrupts",
    "iomem",
    "ioports",
    "kallsyms",
    "kcore",
    "keys",
    "key-users",
    "kmsg",
    "kpagecgroup",
    "kpagecount",
    "kpageflags",
    "latency_stats",
    "locks",
    "mdstat",
    "modules",
    "pagetypeinfo",
    "partitions",
    "sched_debug",
    "schedstat",
    "slabinfo",
    "softirqs",
    "swaps",
    "sysrq-trigger",
    "timer_list",
    "timer_stats",
    "vmallocinfo",
    "zoneinfo",
]
"""Of /proc: secrets of the kernel, switches of it, and facts about the host."""
_HIDDEN_DIRECTORIES = ("acpi", "asound", "driver", "dynamic_debug", "pressure", "scsi")
_READ_ONLY_DIRECTORIES = ("bus", "fs", "irq", "sys", "tty")


class Root:
    """Builds one. The present directory becomes its scaffold, and is gone in the end."""

    def __init__(self, plan: dict[str, Any], userns_fd: int) -> None:
        self._plan = plan
        self._base: int = plan["uid_base"]
        self._is_alone: bool = plan["is_alone"]
        """Whether there is one user only, who then owns all."""
        self._userns_fd = userns_fd
        self._root_fd = -1

    def build(self, storage_fd: int) -> int:
        """Mount everything and step into it; a descriptor of what the machine writes."""
        upper_fd = self._assemble(storage_fd)
        self._mount_proc()
        self._mount_dev()
        self._lock()
        os.fchdir(self._root_fd)
        linux.pivot_root(".", ".")
        linux.detach(".")
        os.chdir("/")
        return upper_fd

    def build_beside(
        self, storage_fd: int, beside: Sequence[str]
    ) -> tuple[int, int, dict[str, str]]:
        """Mount all that a kernel in user space has not of its own, and stay outside.

        `beside` are folders to be made in its /dev. What the machine writes, its root, and where
        the folders lie that are always its own.
        """
        upper_fd = self._assemble(storage_fd)
        for path in ("/proc", "/dev"):  # where that kernel, or who prepares it, puts things
            target = self._directory(path)
            options = "size=16k,nr_inodes=32,mode=0755"
            linux.mount("steward", f"/proc/self/fd/{target}", "tmpfs", _HARMLESS, options)
            os.close(target)
        for path in beside:
            os.close(self._directory(path))
        self._lock()
        places = {}
        for path in ("/tmp", "/workspace") if self._plan["read_only"] else ("/tmp",):  # noqa: S108
            target = self._directory(path)
            places[path] = os.readlink(f"/proc/self/fd/{target}")
            os.close(target)
        return upper_fd, self._root_fd, places

    def _lock(self) -> None:
        if self._plan["read_only"]:
            linux.set_mount(self._root_fd, linux.ATTR_RDONLY)

    def _assemble(self, storage_fd: int) -> int:
        """Mount the image, what is written over it, and what every machine has of its own."""
        # Opened before anything is mounted over the paths that lead there.
        image_fd, *bind_fds = [
            os.open(source, os.O_PATH | os.O_CLOEXEC)
            for source in (self._plan["image"], *(source for source, _ in self._plan["binds"]))
        ]
        linux.mount("steward", ".", "tmpfs", _HARMLESS, _SCAFFOLD)
        os.chdir(self._plan["scaffold"])  # the new file system, no longer what lies below it
        for name in ("lower", "box", "root", "empty"):
            os.mkdir(name)
        self._mount_box(storage_fd)
        self._mount_root(image_fd)
        flags = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
        self._root_fd = os.open("root", flags)
        for fd, (_, target) in zip(bind_fds, self._plan["binds"], strict=True):
            self._bind(fd, target)
        packets.close_all([image_fd, *bind_fds])
        self._own_places()
        self._own_files()
        return os.open("box/upper", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def _mount_box(self, storage_fd: int) -> None:
        storage = self._plan["storage"]
        if storage_fd >= 0:
            device, loop_fd = _attach_loop(storage_fd)
            # Nothing waits for the host's disk: the file goes with the machine.
            flags = _HARMLESS | linux.MS_NOATIME
            linux.mount(device, "box", "ext4", flags, "noinit_itable,nobarrier")
            os.close(loop_fd)
        else:
            options = f"size={storage['bytes']},nr_inodes={storage['inodes']},mode=0755"
            linux.mount("steward", "box", "tmpfs", _HARMLESS, options)
        for name in ("upper", "work", "tmp", "workspace"):
            os.mkdir(f"box/{name}")
        os.chmod("box/upper", 0o755)  # noqa: S103 - it is what the root directory looks like
        os.chown("box/upper", *self._ids(0, 0))

    def _mount_root(self, image_fd: int) -> None:
        self._attach(image_fd, os.open("lower", os.O_PATH | os.O_CLOEXEC))
        plain = _PLAIN_ALONE if self._is_alone else _PLAIN
        linux.mount("steward", "root", "overlay", _HARMLESS, f"{_OVERLAY},{plain}")

    def _ids(self, owner: int, group: int) -> tuple[int, int]:
        """Who owns on disk what is to belong to somebody inside."""
        if self._is_alone:
            return self._plan["user"], self._plan["group"]
        return self._base + owner, self._base + group

    def _attach(self, fd: int, target_fd: int, *, is_mapped: bool = True) -> None:
        """Mount what a descriptor shows, read-only and with its owners moved to our range.

        Unmapped, it is all nobody's, and what not everybody may read cannot be read.
        """
        # What is mounted below comes along where it is not for this namespace to take it away.
        tree = linux.open_tree(fd, recursive=self._is_alone)
        harmless = linux.ATTR_RDONLY | linux.ATTR_NOSUID | linux.ATTR_NODEV
        try:
            userns_fd = self._userns_fd if is_mapped else -1
            linux.set_mount(tree, harmless, userns_fd=userns_fd, recursive=self._is_alone)
        except OSError as error:
            # A file system without id maps: its files belong to nobody, and stay readable.
            if error.errno not in (errno.EINVAL, errno.EPERM):
                raise
            linux.set_mount(tree, harmless)
        linux.move_mount(tree, target_fd)
        os.close(tree)
        os.close(target_fd)

    def _bind(self, fd: int, target: str) -> None:
        """Mount something of the host's own: our users are not its owners."""
        is_directory = stat.S_ISDIR(os.fstat(fd).st_mode)
        where = self._directory(target) if is_directory else self._file(target)
        self._attach(fd, where, is_mapped=False)

    def _open(self, path: str, flags: int, mode: int = 0) -> int:
        return linux.openat2(
            self._root_fd,
            path.lstrip("/") or ".",
            flags,
            mode,
            resolve=linux.RESOLVE_IN_ROOT | linux.RESOLVE_NO_MAGICLINKS,
        )

    def _directory(self, path: str, mode: int = 0o755, owner: int = 0, group: int = 0) -> int:
        """A directory of the new root, made with its parents if it is not there."""
        made = ""
        if not path.strip("/"):
            return os.dup(self._root_fd)
        for part in path.strip("/").split("/"):
            parent = self._open(made, os.O_PATH | os.O_DIRECTORY)
            try:
                os.mkdir(part, mode, dir_fd=parent)
                os.chown(part, *self._ids(owner, group), dir_fd=parent)
            except FileExistsError:
                pass
            finally:
                os.close(parent)
            made = f"{made}/{part}"
        return self._open(path, os.O_PATH | os.O_DIRECTORY)

    def _file(self, path: str) -> int:
        parent = path.rstrip("/").rpartition("/")[0]
        if parent:
            os.close(self._directory(parent))
        os.close(self._open(path, os.O_CREAT | os.O_WRONLY, 0o644))
        return self._open(path, os.O_PATH)

    def _own_places(self) -> None:
        """Where its commands may write whatever the image says."""
        user, group = self._plan["user"], self._plan["group"]
        for path, mode, owner, owner_group in (
            ("/tmp", 0o1777, 0, 0),  # noqa: S108 - of the machine
            ("/workspace", 0o755, user, group),
        ):
            target = self._directory(path, mode, owner, owner_group)
            ids = self._ids(owner, owner_group)
            if os.fstat(target).st_uid != ids[0]:  # the image has it as another's
                os.chown(f"/proc/self/fd/{target}", *ids)
            if self._plan["read_only"]:
                source = f"box{path}"
                os.chown(source, *ids)
                os.chmod(source, mode)
                linux.mount(source, f"/proc/self/fd/{target}", "", linux.MS_BIND)
            os.close(target)

    def _own_files(self) -> None:
        for path, content in self._plan["files"].items():
            try:
                os.close(self._directory(path.rpartition("/")[0] or "/"))
                flags = os.O_CREAT | os.O_WRONLY | os.O_TRUNC | os.O_NONBLOCK  # a named pipe waits
                fd = self._open(path, flags, 0o644)
            except OSError as error:
                if error.errno not in _OWN_WAY:
                    raise
                continue  # the image has its own way with it
            os.write(fd, content.encode())
            os.fchown(fd, *self._ids(0, 0))
            os.close(fd)

    def _mount_proc(self) -> None:
        target = self._directory("/proc")
        linux.mount("proc", f"/proc/self/fd/{target}", "proc", _HARMLESS | linux.MS_NOEXEC)
        os.close(target)
        flags = linux.MS_BIND
        for name in _HIDDEN_FILES:
            self._over("/dev/null", f"/proc/{name}", flags)
        for name in _HIDDEN_DIRECTORIES:
            self._over("empty", f"/proc/{name}", flags, read_only=True)
        for name in _READ_ONLY_DIRECTORIES:
            self._over("", f"/proc/{name}", flags, read_only=True)

    def _over(self, source: str, path: str, flags: int, *, read_only: bool = False) -> None:
        """Mount over an entry of /proc, if this kernel has it; without a source: itself."""
        try:
            target = self._open(path, os.O_PATH)
        except OSError:
            return
        name = f"/proc/self/fd/{target}"
        linux.mount(source or name, name, "", flags)
        os.close(target)
        if read_only:
            target = self._open(path, os.O_PATH)
            linux.set_mount(target, linux.ATTR_RDONLY | linux.ATTR_NOSUID | linux.ATTR_NODEV)
            os.close(target)

    def _mount_dev(self) -> None:
        target = self._directory("/dev")
        flags = linux.MS_NOSUID | linux.MS_NOEXEC
        options = "size=64k,nr_inodes=64,mode=0755"
        linux.mount("steward", f"/proc/self/fd/{target}", "tmpfs", flags, options)
        os.close(target)
        target = self._directory("/dev")
        for name, major, minor in _DEVICES:
            if self._is_alone:  # devices are not for it to make: it shows the host's
                os.close(os.open(name, os.O_CREAT | os.O_WRONLY | os.O_EXCL, dir_fd=target))
                self._over(f"/dev/{name}", f"/dev/{name}", linux.MS_BIND)
                continue
            os.mknod(name, stat.S_IFCHR | 0o666, os.makedev(major, minor), dir_fd=target)
        for name, content in _DEVICE_LINKS:
            os.symlink(content, name, dir_fd=target)
        pts = self._directory("/dev/pts")
        group = self._ids(0, TTY_GROUP)[1]
        linux.mount(
            "devpts",
            f"/proc/self/fd/{pts}",
            "devpts",
            linux.MS_NOSUID | linux.MS_NOEXEC,
            f"newinstance,ptmxmode=0666,mode=0620,gid={group},max={_MOST_TERMINALS}",
        )
        shm = self._directory("/dev/shm")  # noqa: S108
        memory_bytes = self._plan["shared_memory_bytes"]
        linux.mount(
            "steward",
            f"/proc/self/fd/{shm}",
            "tmpfs",
            _HARMLESS | linux.MS_NOEXEC,
            f"size={memory_bytes},nr_inodes=4096,mode=1777",
        )
        os.close(pts)
        os.close(shm)
        linux.set_mount(target, linux.ATTR_RDONLY)
        os.close(target)


_LOOP_CTL_GET_FREE, _LOOP_CONFIGURE = 0x4C82, 0x4C0A
_LO_FLAGS_AUTOCLEAR = 4
_LOOP_CONFIG_BYTES, _LOOP_FLAGS_OFFSET = 304, 8 + 5 * 8 + 3 * 4
_LOOP_ATTEMPTS = 64


def _attach_loop(fd: int) -> tuple[str, int]:
    """A block device over a file, and a descriptor of it.

    It goes by itself when it is neither open nor mounted.
    """
    config = bytearray(_LOOP_CONFIG_BYTES)  # struct loop_config
    struct.pack_into("=II", config, 0, fd, 4096)
    struct.pack_into("=I", config, _LOOP_FLAGS_OFFSET, _LO_FLAGS_AUTOCLEAR)
    control = os.open("/dev/loop-control", os.O_RDWR | os.O_CLOEXEC)
    try:
        for _ in range(_LOOP_ATTEMPTS):
            device = f"/dev/loop{fcntl.ioctl(control, _LOOP_CTL_GET_FREE)}"
            loop = os.open(device, os.O_RDWR | os.O_CLOEXEC)
            try:
                fcntl.ioctl(loop, _LOOP_CONFIGURE, bytes(config))
            except OSError as error:
                os.close(loop)
                if error.errno != errno.EBUSY:
                    raise
                continue  # another took it in between
            return device, loop
    finally:
        os.close(control)
    raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), "/dev/loop-control")
