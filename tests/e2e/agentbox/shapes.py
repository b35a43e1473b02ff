"""The shapes of what AgentBox paths answer: exact keys, exact types."""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import Any

from tests.e2e.curl import TIME

API_KEY = {
    "id": str,
    "description": str,
    "created_at": TIME,
    "expires_at": (TIME, None),
    "last_used_at": (TIME, None),
    "permissions": [{"environment_id": str, "permission": str}],
    "kind": str,
    "role": str,
    "prefix": str,
    "user_id": str,
}
NEW_API_KEY = API_KEY | {"key": re.compile(r"(agentbox|itk)_[0-9a-f]{16}_[A-Za-z0-9_-]{43}")}


def refused(status: int, *words: str) -> dict[str, Any]:
    """The shape of a refusal whose message has these words, in their order."""
    told = ".*".join(re.escape(word) for word in words)
    return {
        "error": HTTPStatus(status).phrase,
        "message": re.compile(rf".*{told}.*"),
        "code": status,
    }


ENVIRONMENT_ID = re.compile(r"env-[0-9a-f]{32}")
SNAPSHOT = {
    "id": re.compile(r"snap-[0-9a-f]{32}"),
    "name": str,
    "image": re.compile(r"snapshot/snap-[0-9a-f]{32}"),
    "environment_id": ENVIRONMENT_ID,
    "base_image": str,
    "size_bytes": int,
    "created_at": TIME,
    "owner_id": str,
}
RESOURCES = {"cpu": str, "memory": str, "storage": str}
NEW_ENVIRONMENT = {
    "id": ENVIRONMENT_ID,
    "name": str,
    "status": "pending",
    "image": str,
    "created_at": TIME,
    "resources": RESOURCES,
    "endpoint": re.compile(r"env-[0-9a-f]{32}\.agentbox\.svc\.cluster\.local"),
    "namespace": re.compile(r"agentbox-env-[0-9a-f]{32}"),
}
RUNNING_ENVIRONMENT = NEW_ENVIRONMENT | {"status": "running", "started_at": TIME}
ENVIRONMENT_DETAILS = RUNNING_ENVIRONMENT | {
    "metrics": {
        "cpu_usage": re.compile(r"\d+m"),
        "memory_usage": re.compile(r"\d+Mi"),
        "storage_usage": re.compile(r"\d+Mi"),
        "process_count": int,
    },
    "env": dict,
    "labels": dict,
    "timeout": int,
    "expires_at": TIME,
    "idle_timeout": (int, None),
    "command": [str],
    "owner_id": str,
    "permission": str,
    "isolation": dict,
    "node_selector": dict,
    "tolerations": [dict],
}
RESULT = {"stdout": str, "stderr": str, "exit_code": int, "duration_ms": int}
LOG = {"timestamp": TIME, "stream": str, "message": str}
FILE = {
    "path": str,
    "kind": str,
    "size_bytes": int,
    "mode": re.compile("[0-7]{4}"),
    "user": int,
    "group": int,
    "modified_at": TIME,
}
PROCESS = {
    "pid": int,
    "parent_pid": int,
    "user": int,
    "command": str,
    "started_at": TIME,
    "memory_bytes": int,
}
SHARE = {"user_id": str, "username": "known", "permission": str, "created_at": TIME}
IMAGE = {
    "name": str,
    "digest": re.compile(r"sha256:[0-9a-f]{64}"),
    "size_bytes": int,
    "created_at": TIME,
    "command": [str],
    "working_dir": str,
    "user": str,
    "is_host": bool,
}
HEALTH = {
    "status": "healthy",
    "version": str,
    "kubernetes": {"connected": False, "version": ""},
    "capacity": {
        "total_nodes": 1,
        "available_cpu": re.compile(r"\d+m?"),
        "available_memory": re.compile(r"\d+[GM]i"),
    },
    "environments": dict,
}
