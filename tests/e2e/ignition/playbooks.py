"""Playbooks: the calls of the guide word for word, paths that lead elsewhere, and the rest."""

from __future__ import annotations

import json
import re
from typing import Any

from tests.e2e.curl import TIME
from tests.e2e.ignition.shapes import NO_CREDENTIAL, NOT_ALLOWED, invalid, refused
from tests.e2e.iron.shapes import Row

PLAYBOOKS = "$url$api/playbooks"
UPGRADE = "gateway/module_upgrade.yaml"

GUIDE_SUMMARY = {
    "name": "Module Upgrade",
    "path": UPGRADE,
    "domain": "gateway",
    "description": "Upgrade modules on a gateway",
    "version": "1.0",
}
GUIDE_PARAMETER = {
    "name": "gateway_url",
    "type": "string",
    "required": True,
    "description": "Gateway base URL",
}
GUIDE_STEP = {"id": "login", "name": "Login to Gateway", "type": "gateway.login"}
GUIDE_DUPLICATED = {
    "message": "Playbook duplicated successfully",
    "new_path": "gateway/my-custom-playbook.yaml",
}
GUIDE_NOT_FOUND = {
    "detail": {
        "error": "playbook_not_found",
        "message": "Playbook 'test.yaml' not found",
        "details": {"path": "test.yaml"},
    }
}

TEXT = """name: Original
version: "1.0"
steps:
  - {id: nap, name: Nap, type: utility.sleep, parameters: {seconds: 1}}
"""
BROKEN = "name: 5\nversion: 1\nsteps: []\n"
LAUGHS = "name: &a [x, x]\n" + "".join(f"b{n}: &b{n} [*a, *a]\n" for n in range(9))
DIGEST = re.compile("[0-9a-f]{64}")
ORIGIN = re.compile("built_in|user")

SUMMARY = {
    "name": str,
    "path": str,
    "domain": str,
    "description": str,
    "version": str,
    "group": str,
    "origin": ORIGIN,
    "verified": bool,
    "parameter_count": int,
    "step_count": int,
    "error_count": int,
    "error": str,
    "pending": bool,
    "last_modified": TIME,
}
STEP: dict[str, Any] = {
    "id": str,
    "name": str,
    "type": str,
    "timeout_s": (float, int, None),
    "attempts": int,
    "on_failure": re.compile("abort|continue|rollback"),
    "when": str,
    "needs": [str],
    "is_read_only": bool,
    "line": int,
    "undo": list,
}
DETAILS = {
    "name": str,
    "version": str,
    "description": str,
    "parameters": [
        {"name": str, "type": str, "required": bool, "description": str, "default": (bool, None)}
    ],
    "steps": [STEP],
    "finally_steps": [STEP],
    "path": str,
    "domain": str,
    "group": str,
    "origin": ORIGIN,
    "verified": bool,
    "timeout_s": (float, int),
    "needs": [str],
    "metadata": dict,
    "digest": DIGEST,
    "last_modified": TIME,
}
SOURCE = {
    "path": str,
    "text": str,
    "digest": DIGEST,
    "origin": ORIGIN,
    "last_modified": TIME,
}
SAVED = {
    "message": "Playbook saved successfully",
    "path": str,
    "digest": DIGEST,
    "created": bool,
}
DELETED = {"message": "Playbook deleted successfully"}
TOLD = {"line": int, "column": int, "path": str, "message": str}
PLANNED = {
    "id": str,
    "name": str,
    "type": str,
    "will": re.compile("run|skip|depend"),
    "parameters": dict,
    "unknown": [str],
    "is_read_only": bool,
    "is_repeatable": bool,
    "needs": [str],
    "timeout_s": (float, int),
    "attempts": int,
    "on_failure": str,
    "when": str,
    "undo": list,
    "child": None.__class__,
}
PLAN = {
    "plan": {
        "name": str,
        "version": str,
        "parameters": dict,
        "steps": [PLANNED],
        "finally_steps": [PLANNED],
    },
    "needs": [str],
}


def quoted(body: object) -> str:
    """A body as a shell and the scene's `$names` leave it alone."""
    return "'" + json.dumps(body).replace("$", "$$").replace("'", "'\\''") + "'"


def posting(path: str, body: object, who: str = "$as_admin") -> str:
    return f"-X POST {PLAYBOOKS}/{path} {who} $json -d {quoted(body)}"


def duplicating(source: str, name: object, who: str = "$as_admin") -> str:
    return posting("duplicate", {"source_path": source, "new_name": name}, who)


def saving(path: str, text: object, who: str = "$as_admin", more: str = "") -> str:
    return f"-X PUT {PLAYBOOKS}/{path} {who} $json {more} -d {quoted({'text': text})}"


def getting(path: str, who: str = "$as_admin") -> str:
    return f"--path-as-is '{PLAYBOOKS}/{path}' {who}"


def deleting(path: str, who: str = "$as_admin", more: str = "") -> str:
    return f"--path-as-is -X DELETE '{PLAYBOOKS}/{path}' {who} {more}"


def faulty(path: str, count: int) -> dict[str, Any]:
    """The shape of a refusal of a playbook with faults."""
    return refused(
        "validation_error", "cannot be used", path=path, error_count=str(count), errors=[TOLD]
    )


LEADS_OUT = refused("invalid_path", "cannot be the path of a playbook", path=str)
TRAVERSALS = {
    "dots": "../secret.yaml",
    "dots further in": "gateway/../../secret.yaml",
    "escaped dots": "%2e%2e/secret.yaml",
    "half escaped dots": ".%2E/secret.yaml",
    "an escaped slash after dots": "..%2fsecret.yaml",
    "all escaped": "%2e%2e%2f%2e%2e%2fetc%2fsecret.yaml",
    "backslashes": "..%5csecret.yaml",
    "a path from the root": "%2fetc%2fsecret.yaml",
    "a home": "~/secret.yaml",
    "a drive": "C:/secret.yaml",
    "a newline": "a%0a.yaml",
    "a slash at the end": "gateway/module_upgrade.yaml/",
    "another suffix": "gateway/module_upgrade.txt",
    "no suffix": "etc/passwd",
    "500 characters and more": "x" * 500 + ".yaml",
}

ROWS: list[Row] = [
    ("list playbooks", f"{PLAYBOOKS} $as_admin", 200, {"playbooks": [SUMMARY]}),
    ("list them as a viewer", f"{PLAYBOOKS} $as_viewer", 200, {"playbooks": [SUMMARY]}),
    ("list them by an executor's key", f"{PLAYBOOKS} $as_executor", 200, {"playbooks": [SUMMARY]}),
    ("list those of a domain", f"'{PLAYBOOKS}?domain=none' $as_admin", 200, {"playbooks": []}),
    ("list them without a credential", PLAYBOOKS, 401, NO_CREDENTIAL),
    ("list them as a runtime", f"{PLAYBOOKS} $as_runtime", 403, NOT_ALLOWED),
    ("list them by colour", f"'{PLAYBOOKS}?colour=red' $as_admin", 400, invalid("colour")),
    ("show one as the guide does", getting(UPGRADE), 200, DETAILS),
    ("show one with its slash escaped", getting("gateway%2Fmodule_upgrade.yaml"), 200, DETAILS),
    ("show one with it in lower case", getting("gateway%2fmodule_upgrade.yaml"), 200, DETAILS),
    ("show one as a viewer", getting(UPGRADE, "$as_viewer"), 200, DETAILS),
    ("show one that is not there", getting("test.yaml"), 404, GUIDE_NOT_FOUND),
    ("show a folder", getting("gateway.yaml"), 404, refused("playbook_not_found", path=str)),
    ("show one without a credential", getting(UPGRADE, ""), 401, NO_CREDENTIAL),
    ("show one as a runtime", getting(UPGRADE, "$as_runtime"), 403, NOT_ALLOWED),
    *(
        (f"show what is at {what}", getting(path), 400, LEADS_OUT)
        for what, path in TRAVERSALS.items()
    ),
    ("show two slashes", getting("/etc/secret.yaml"), 404, refused("not_found")),
    ("show what has a NUL in it", getting("a%00.yaml"), 400, invalid("path")),
    (
        "show what is called duplicate",
        getting("duplicate"),
        400,
        refused("invalid_path", path="duplicate"),
    ),
    ("read the text of one", getting(f"{UPGRADE}?source=true", "$as_user"), 200, SOURCE),
    ("read it as a viewer", getting(f"{UPGRADE}?source=true", "$as_viewer"), 403, NOT_ALLOWED),
    ("save one", saving("gateway/original.yaml", TEXT, "$as_user"), 200, SAVED),
    (
        "save it where there must be none",
        saving("gateway/original.yaml", TEXT, more="""-H 'If-Match: ""'"""),
        412,
        refused(
            "precondition_failed",
            "read it again",
            path="gateway/original.yaml",
            digest=DIGEST,
            reason="VERSION_PASSED",
        ),
    ),
    ("save it again", saving("gateway%2Foriginal.yaml", TEXT), 200, SAVED | {"created": False}),
    ("save one as a viewer", saving("a.yaml", TEXT, "$as_viewer"), 403, NOT_ALLOWED),
    ("save one by an executor's key", saving("a.yaml", TEXT, "$as_executor"), 403, NOT_ALLOWED),
    ("save one without a credential", saving("a.yaml", TEXT, ""), 401, NO_CREDENTIAL),
    ("save one as a runtime", saving("a.yaml", TEXT, "$as_runtime"), 403, NOT_ALLOWED),
    ("save one with faults", saving("a.yaml", BROKEN), 400, faulty("a.yaml", 2)),
    ("save what laughs", saving("a.yaml", LAUGHS), 400, faulty("a.yaml", 30)),
    (
        "save what has no path",
        f"-X PUT {PLAYBOOKS} $as_admin $json -d '{{}}'",
        405,
        refused("method_not_allowed"),
    ),
    ("save no text", saving("a.yaml", ""), 400, invalid("text")),
    ("save a number", saving("a.yaml", 5), 400, invalid("text")),
    ("save over what leads out", saving("..%2fa.yaml", TEXT), 400, LEADS_OUT),
    ("save a hidden one", saving(".a.yaml", TEXT), 400, LEADS_OUT),
    (
        "duplicate one as the guide does",
        duplicating("gateway/original.yaml", "My Custom Playbook"),
        200,
        GUIDE_DUPLICATED,
    ),
    (
        "duplicate it again",
        duplicating("gateway/original.yaml", "My Custom Playbook", "$as_user"),
        200,
        GUIDE_DUPLICATED | {"new_path": "gateway/my-custom-playbook-1.yaml"},
    ),
    (
        "duplicate it once more",
        duplicating("gateway/original.yaml", "My Custom Playbook"),
        200,
        GUIDE_DUPLICATED | {"new_path": "gateway/my-custom-playbook-2.yaml"},
    ),
    (
        "duplicate one that is not there",
        duplicating("test.yaml", "Copy"),
        404,
        GUIDE_NOT_FOUND,
    ),
    ("duplicate what leads out", duplicating("../secret.yaml", "Copy"), 400, LEADS_OUT),
    ("duplicate to a path", duplicating(UPGRADE, "../secret"), 400, invalid("new_name")),
    ("duplicate to nothing", duplicating(UPGRADE, "!?"), 400, invalid("new_name")),
    ("duplicate without a name", duplicating(UPGRADE, ""), 400, invalid("new_name")),
    ("duplicate nothing", posting("duplicate", {}), 400, invalid("source_path", "new_name")),
    ("duplicate one as a viewer", duplicating(UPGRADE, "C", "$as_viewer"), 403, NOT_ALLOWED),
    (
        "duplicate one by a read-only key",
        duplicating(UPGRADE, "C", "$as_readonly"),
        403,
        NOT_ALLOWED,
    ),
    (
        "duplicate one by an executor's key",
        duplicating(UPGRADE, "C", "$as_executor"),
        403,
        NOT_ALLOWED,
    ),
    ("duplicate one without a credential", duplicating(UPGRADE, "C", ""), 401, NO_CREDENTIAL),
    ("check a text", posting("check", {"text": TEXT}), 200, {"valid": True, "errors": []}),
    (
        "check one with faults",
        posting("check", {"text": BROKEN, "path": "a.yaml"}, "$as_viewer"),
        200,
        {"valid": False, "errors": [TOLD]},
    ),
    (
        "check one of the library",
        posting("check", {"path": UPGRADE}),
        200,
        {"valid": True, "errors": []},
    ),
    ("check nothing", posting("check", {}), 400, invalid("path")),
    ("check one that is not there", posting("check", {"path": "test.yaml"}), 404, GUIDE_NOT_FOUND),
    (
        "plan one",
        posting("plan", {"path": "gateway/health_check.yaml", "parameters": {}}, "$as_viewer"),
        200,
        PLAN,
    ),
    (
        "plan it with what it does not take",
        posting("plan", {"path": "gateway/health_check.yaml", "parameters": {"colour": "red"}}),
        400,
        refused("validation_error", "colour", fields={"parameters.colour": str}),
    ),
    ("plan one with faults", posting("plan", {"text": BROKEN}), 400, faulty("", 2)),
    ("plan without a credential", posting("plan", {"text": TEXT}, ""), 401, NO_CREDENTIAL),
    (
        "list the types of steps",
        "$url$api/step-types $as_viewer",
        200,
        {
            "step_types": [
                {
                    "name": str,
                    "description": str,
                    "parameters": list,
                    "outputs": list,
                    "alternatives": [{"names": [str]}],
                    "must_choose": bool,
                    "takes_more": bool,
                    "is_read_only": bool,
                    "is_repeatable": bool,
                    "needs": [str],
                }
            ]
        },
    ),
    ("list them without a credential", "$url$api/step-types", 401, NO_CREDENTIAL),
    (
        "delete what ships",
        deleting(UPGRADE),
        409,
        refused("resource_conflict", "comes with", path=UPGRADE, reason="PLAYBOOK_BUILT_IN"),
    ),
    ("delete one as a viewer", deleting("gateway/original.yaml", "$as_viewer"), 403, NOT_ALLOWED),
    (
        "delete one by an executor's key",
        deleting("gateway/original.yaml", "$as_executor"),
        403,
        NOT_ALLOWED,
    ),
    ("delete what leads out", deleting("%2e%2e/secret.yaml"), 400, LEADS_OUT),
    (
        "delete another than was read",
        deleting("gateway/original.yaml", more="""-H 'If-Match: "old"'"""),
        412,
        refused(
            "precondition_failed",
            "read it again",
            path="gateway/original.yaml",
            digest=DIGEST,
            reason="VERSION_PASSED",
        ),
    ),
    *(
        (
            f"delete copy {number}",
            deleting(f"gateway/my-custom-playbook{number}.yaml"),
            200,
            DELETED,
        )
        for number in ("", "-1", "-2")
    ),
    ("delete one", deleting("gateway%2Foriginal.yaml", "$as_user"), 200, DELETED),
    (
        "delete it again",
        deleting("gateway/original.yaml"),
        404,
        refused("playbook_not_found", path="gateway/original.yaml"),
    ),
]
