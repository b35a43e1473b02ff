"""The manifests that are shipped for clusters, and what their rules let an account do."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

FOLDER = Path(__file__).parents[4] / "deploy" / "kubernetes"


@dataclass(frozen=True, order=True)
class Right:
    """One thing to be allowed: `get`, ``, `pods/log`."""

    verb: str
    group: str
    resource: str


def objects(name: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((FOLDER / name).read_text(encoding="utf-8")))


@cache
def rights() -> frozenset[Right]:
    """What the role of the driver's account may do."""
    roles = [each for each in objects("rbac.yaml") if each["kind"] == "ClusterRole"]
    return frozenset(
        Right(verb, group, resource)
        for role in roles
        for rule in role["rules"]
        for verb in rule["verbs"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
    )


def asked(method: str, path: str, *, watch: bool = False) -> Right | None:
    """What a request needs; None for what everybody may, such as the version and own rights."""
    parts = path.strip("/").split("/")
    if parts[0] == "api":
        group, rest = "", parts[2:]
    elif parts[0] == "apis":
        group, rest = parts[1], parts[3:]
    else:
        return None
    if rest[:1] == ["namespaces"] and len(rest) > 2:
        rest = rest[2:]
    if not rest or group == "authorization.k8s.io":
        return None
    resource, name, sub = [*rest, "", ""][:3]
    if method == "GET":
        verb = "get" if name else "watch" if watch else "list"
    else:
        verb = {"POST": "create", "DELETE": "delete"}[method]
    return Right(verb, group, f"{resource}/{sub}" if sub else resource)
