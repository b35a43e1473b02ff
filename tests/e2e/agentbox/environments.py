"""Environments, commands in them and logs, on the driver of this machine."""

from __future__ import annotations

from tests.e2e.agentbox.shapes import (
    ENVIRONMENT_DETAILS,
    HEALTH,
    LOG,
    NEW_ENVIRONMENT,
    RESULT,
    RUNNING_ENVIRONMENT,
    refused,
)
from tests.e2e.curl import TIME
from tests.e2e.iron.shapes import NO_BODY, Row

ALL = "$url/api/v1/environments"
ONE = f"{ALL}/$environment_id"
RESOURCES = '"resources":{"cpu":"500m","memory":"64Mi","storage":"16Mi"}'
TIMED_OUT = RESULT | {"exit_code": 137, "timed_out": True, "signal": "SIGKILL"}

ROWS: list[Row] = [
    ("see the health", "$url/api/v1/health", 200, HEALTH),
    (
        "create as the guide does",
        f"""-X POST {ALL} $as_admin $json -d '{{"name":"my-python-env","image":"host",
            {RESOURCES},"timeout":3600,"env":{{"MY_VAR":"my-value"}},
            "labels":{{"project":"my-project"}}}}'""",
        201,
        NEW_ENVIRONMENT,
    ),
    ("create without a credential", f"-X POST {ALL} $json -d '{{}}'", 401, refused(401)),
    (
        "create as a viewer",
        f"""-X POST {ALL} $as_viewer $json -d '{{"name":"a","image":"host",{RESOURCES}}}'""",
        403,
        refused(403, "admin or user"),
    ),
    ("create nothing", f"-X POST {ALL} $as_admin $json -d '{{}}'", 400, refused(400, "name")),
    ("create by half a body", f"-X POST {ALL} $as_admin $json -d '{{'", 400, refused(400, "JSON")),
    (
        "create by a form",
        f"-X POST {ALL} $as_admin -d 'name=a'",
        415,
        refused(415, "application/json"),
    ),
    (
        "create of a colour",
        f"""-X POST {ALL} $as_admin $json -d '{{"colour":"red"}}'""",
        400,
        refused(400, "colour", "unknown"),
    ),
    ("put environments", f"-X PUT {ALL} $as_admin $json -d '{{}}'", 405, refused(405, "PUT")),
    ("see nothing of one", f"{ONE}/nothing $as_admin", 404, refused(404, "nothing is served")),
    (
        "create of an image there is not",
        f"""-X POST {ALL} $as_admin $json -d '{{"name":"a","image":"python:2.4",{RESOURCES}}}'""",
        400,
        refused(400, "there is no image 'python:2.4'", "host"),
    ),
    (
        "create of a runtime class there is not",
        f"""-X POST {ALL} $as_admin $json -d '{{"name":"a","image":"host",{RESOURCES},
            "isolation":{{"runtime_class":"kata"}}}}'""",
        400,
        refused(400, "'kata'", "native"),
    ),
    (
        "list as the guide does",
        f"'{ALL}?status=running&limit=10&offset=0' $with_environment",
        200,
        {"environments": [RUNNING_ENVIRONMENT], "total": int, "limit": 10, "offset": 0},
    ),
    ("list a state there is not", f"'{ALL}?status=asleep' $as_admin", 400, refused(400, "status")),
    ("list 0", f"'{ALL}?limit=0' $as_admin", 400, refused(400, "limit")),
    ("list a broken selector", f"'{ALL}?label=a%20in' $as_admin", 400, refused(400, "label")),
    ("list shares as a runtime", f"{ONE}/shares $as_runtime", 403, refused(403, "is for people")),
    (
        "see one as the guide does",
        f"{ONE} $as_admin",
        200,
        ENVIRONMENT_DETAILS | {"env": {"MY_VAR": "my-value"}, "labels": {"project": "my-project"}},
    ),
    ("see none", f"{ALL}/env-abc123 $as_admin", 404, refused(404, "no environment 'env-abc123'")),
    ("see somebody else's", f"{ONE} $as_user", 404, refused(404, "no environment")),
    (
        "let it live longer",
        f"""-X PATCH {ONE} $as_admin $json -d '{{"timeout":7200}}'""",
        200,
        ENVIRONMENT_DETAILS | {"timeout": 7200},
    ),
    (
        "change the image of one",
        f"""-X PATCH {ONE} $as_admin $json -d '{{"image":"host"}}'""",
        400,
        refused(400, "image", "unknown"),
    ),
    (
        "run as the guide does",
        f"""-X POST {ONE}/exec $as_admin $json \
            -d '{{"command":["python3","-c","print(\\"Hello, World!\\")"],"timeout":30}}'""",
        200,
        RESULT | {"stdout": "Hello, World!\n", "stderr": "", "exit_code": 0},
    ),
    (
        "run a shell",
        f"""-X POST {ONE}/exec $as_admin $json \
            -d '{{"command":["sh","-c","echo $$PATH && ls -la /tmp"]}}'""",
        200,
        RESULT | {"exit_code": 0},
    ),
    (
        "run what fails",
        f"""-X POST {ONE}/exec $as_admin $json \
            -d '{{"command":["sh","-c","echo e >&2; exit 3"]}}'""",
        200,
        RESULT | {"stderr": "e\n", "exit_code": 3},
    ),
    (
        "run what takes too long",
        f"""-X POST {ONE}/exec $as_admin $json \
            -d '{{"command":["sh","-c","setsid sleep 99 & sleep 99"],"timeout":1}}'""",
        200,
        TIMED_OUT,
    ),
    (
        "run what is not there",
        f"""-X POST {ONE}/exec $as_admin $json -d '{{"command":["nothing"]}}'""",
        409,
        refused(409, "'nothing'"),
    ),
    (
        "run nothing",
        f"""-X POST {ONE}/exec $as_admin $json -d '{{"command":[]}}'""",
        400,
        refused(400, "command"),
    ),
    (
        "run in somebody else's",
        f"""-X POST {ONE}/exec $as_user $json -d '{{"command":["true"]}}'""",
        404,
        refused(404, "no environment"),
    ),
    (
        "read logs as the guide does",
        f"'{ONE}/logs?tail=100&timestamps=true' $as_admin",
        200,
        {"logs": [LOG], "last_sequence": int},
    ),
    ("read a tail of -1", f"'{ONE}/logs?tail=-1' $as_admin", 400, refused(400, "tail")),
    (
        "ask for a ticket",
        f"""-X POST {ONE}/tickets $as_admin $json -d '{{"purpose":"logs"}}'""",
        201,
        {"ticket": str, "expires_at": TIME},
    ),
    ("delete", f"-X DELETE '{ALL}/$new_environment_id?force=false' $as_admin", 204, NO_BODY),
    (
        "delete by force",
        f"-X DELETE '{ALL}/$new_environment_id?force=true' $as_admin",
        204,
        NO_BODY,
    ),
    ("delete none", f"-X DELETE {ALL}/env-abc123 $as_admin", 404, refused(404, "env-abc123")),
    ("delete somebody else's", f"-X DELETE {ONE} $as_user", 404, refused(404)),
    ("delete with 'maybe'", f"-X DELETE '{ONE}?force=maybe' $as_admin", 400, refused(400, "force")),
]
