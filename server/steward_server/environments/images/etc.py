"""The /etc of a machine made from the host's own programs: nothing in it is the host's secret."""

from __future__ import annotations

from collections.abc import Sequence

AGENT_ID = 1000
"""User and group of whoever works in a machine, where the image names nobody."""
AGENT = "agent"
HOME = "/home/agent"
WORKSPACE = "/workspace"

FILES = {
    "passwd": (
        "root:x:0:0:root:/root:/bin/sh\n"
        "daemon:x:1:1:daemon:/usr/sbin:/usr/sbin/nologin\n"
        f"{AGENT}:x:{AGENT_ID}:{AGENT_ID}:{AGENT}:{HOME}:/bin/sh\n"
        "nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n"
    ),
    "group": (
        f"root:x:0:\ndaemon:x:1:\ntty:x:5:\nusers:x:100:\n{AGENT}:x:{AGENT_ID}:\nnogroup:x:65534:\n"
    ),
    "nsswitch.conf": (
        "passwd: files\ngroup: files\nshadow: files\nhosts: files dns\nnetworks: files\n"
        "protocols: files\nservices: files\n"
    ),
    "shells": "/bin/sh\n/bin/bash\n",
    "host.conf": "multi on\n",
    "mtab": "",
    "fstab": "",
}
"""Written as they stand."""

COPIED = (
    "alternatives",
    "bash.bashrc",
    "debian_version",
    "inputrc",
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d",
    "localtime",
    "magic",
    "mime.types",
    "os-release",
    "pki/ca-trust/extracted",
    "pki/tls/certs",
    "profile",
    "protocols",
    "python3*",
    "rpc",
    "services",
    "ssl/cert.pem",
    "ssl/certs",
    "ssl/openssl.cnf",
    "terminfo",
)
"""Patterns of what is taken from the host: programs in /usr look there, and all may read it.

Named one by one: whatever else stands in an /etc is nobody's business.
"""


def hosts(hostname: str = "") -> str:
    """The content of /etc/hosts."""
    own = f"127.0.1.1\t{hostname}\n" if hostname else ""
    return f"127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n{own}"


def resolv_conf(nameservers: Sequence[str] = ()) -> str:
    """The content of /etc/resolv.conf; without servers names fail at once, not after a while."""
    lines = [f"nameserver {server}" for server in nameservers]
    options = "options timeout:2 attempts:2" if lines else "options timeout:1 attempts:1"
    return "\n".join([*lines, options, ""])
