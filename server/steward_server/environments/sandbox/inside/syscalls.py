"""Numbers of the system calls that commands are refused, by architecture. Pure.

From Linux' `asm/unistd_64.h` and `asm-generic/unistd.h`. A number is missing where the
architecture has no such call.
"""

from __future__ import annotations

X86_64 = 0xC000003E
AARCH64 = 0xC00000B7
"""AUDIT_ARCH of `linux/audit.h`."""

AUDIT_ARCH = {"x86_64": X86_64, "aarch64": AARCH64}

HIGHEST_KNOWN = 466
"""Of Linux 6.15; what came later was never looked at and does not exist for commands."""

_X86_64_ONLY = {
    "_sysctl": 156,
    "create_module": 174,
    "get_kernel_syms": 177,
    "query_module": 178,
    "uselib": 134,
    "ustat": 136,
    "sysfs": 139,
    "modify_ldt": 154,
    "iopl": 172,
    "ioperm": 173,
    "mknod": 133,
}

_TABLE = {
    # name: (x86-64, aarch64)
    "socket": (41, 198),
    "socketpair": (53, 199),
    "clone": (56, 220),
    "clone3": (435, 435),
    "mknodat": (259, 33),
    "ioctl": (16, 29),
    "personality": (135, 92),
    "setrlimit": (160, 164),
    "prlimit64": (302, 261),
    "unshare": (272, 97),
    "setns": (308, 268),
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "mount_setattr": (442, 442),
    "statmount": (457, 457),
    "listmount": (458, 458),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "reboot": (169, 142),
    "syslog": (103, 116),
    "swapon": (167, 224),
    "swapoff": (168, 225),
    "acct": (163, 89),
    "quotactl": (179, 60),
    "quotactl_fd": (443, 443),
    "settimeofday": (164, 170),
    "clock_settime": (227, 112),
    "clock_adjtime": (305, 266),
    "adjtimex": (159, 171),
    "sethostname": (170, 161),
    "setdomainname": (171, 162),
    "open_by_handle_at": (304, 265),
    "name_to_handle_at": (303, 264),
    "lookup_dcookie": (212, 18),
    "nfsservctl": (180, 42),
    "vhangup": (153, 58),
    "kcmp": (312, 272),
    "pidfd_getfd": (438, 438),
    "mbind": (237, 235),
    "set_mempolicy": (238, 237),
    "set_mempolicy_home_node": (450, 450),
    "migrate_pages": (256, 238),
    "move_pages": (279, 239),
    "fanotify_init": (300, 262),
    "fanotify_mark": (301, 263),
    "lsm_set_self_attr": (460, 460),
}


def numbers(machine: str) -> dict[str, int]:
    """The calls of an architecture by name.

    Raises:
        KeyError: an architecture that nobody has looked at.
    """
    column = {"x86_64": 0, "aarch64": 1}[machine]
    calls = {name: pair[column] for name, pair in _TABLE.items()}
    return calls | _X86_64_ONLY if machine == "x86_64" else calls
