"""Environments paused and resumed, their processes and tickets, and with whom they are shared."""

from __future__ import annotations

from tests.e2e.agentbox.environments import ALL, ONE
from tests.e2e.agentbox.shapes import ENVIRONMENT_DETAILS, PROCESS, SHARE, refused
from tests.e2e.iron.shapes import NO_BODY, Row

NONE = f"{ALL}/env-abc123"
OVER = f"{ALL}/$over_environment_id"
SHARED = f"{ALL}/$shared_environment_id"

ROWS: list[Row] = [
    (
        "pause",
        f"-X POST {ALL}/$new_environment_id/pause $as_admin $json -d '{{}}'",
        200,
        ENVIRONMENT_DETAILS | {"paused": True},
    ),
    ("pause none", f"-X POST {NONE}/pause $as_admin $json -d '{{}}'", 404, refused(404)),
    (
        "pause what is over",
        f"-X POST {OVER}/pause $as_admin $json -d '{{}}'",
        409,
        refused(409, "is terminated"),
    ),
    (
        "run in what is paused",
        f"""-X POST {ALL}/$new_paused_environment_id/exec $as_admin $json \
            -d '{{"command":["true"]}}'""",
        409,
        refused(409, "is paused; resume it first"),
    ),
    (
        "resume",
        f"-X POST {ALL}/$new_paused_environment_id/resume $as_admin $json -d '{{}}'",
        200,
        ENVIRONMENT_DETAILS,
    ),
    ("resume none", f"-X POST {NONE}/resume $as_admin $json -d '{{}}'", 404, refused(404)),
    (
        "give no time to live",
        f"""-X PATCH {ONE} $as_admin $json -d '{{"timeout":0}}'""",
        400,
        refused(400, "timeout"),
    ),
    (
        "change what is over",
        f"""-X PATCH {OVER} $as_admin $json -d '{{"timeout":7200}}'""",
        409,
        refused(409, "is terminated", "cannot be changed"),
    ),
    ("list processes", f"{ONE}/processes $as_admin", 200, {"processes": [PROCESS]}),
    ("list processes of none", f"{NONE}/processes $as_admin", 404, refused(404)),
    (
        "signal a process",
        f"""-X POST {ONE}/processes/$pid/signal $as_admin $json -d '{{"signal":"CONT"}}'""",
        204,
        NO_BODY,
    ),
    (
        "signal no process",
        f"-X POST {ONE}/processes/999999/signal $as_admin $json -d '{{}}'",
        404,
        refused(404, "no process 999999"),
    ),
    (
        "send no signal",
        f"""-X POST {ONE}/processes/$pid/signal $as_admin $json -d '{{"signal":"WAVE"}}'""",
        400,
        refused(400, "signal", "WAVE"),
    ),
    (
        "signal a process that has no number",
        f"-X POST {ONE}/processes/init/signal $as_admin $json -d '{{}}'",
        400,
        refused(400, "pid"),
    ),
    (
        "ask for a ticket to do something else",
        f"""-X POST {ONE}/tickets $as_admin $json -d '{{"purpose":"dance"}}'""",
        400,
        refused(400, "purpose"),
    ),
    (
        "ask for a ticket to somebody else's",
        f"-X POST {ONE}/tickets $as_user $json -d '{{}}'",
        404,
        refused(404, "no environment"),
    ),
    (
        "share",
        f"""-X PUT {ALL}/$new_environment_id/shares/$known_person $as_admin $json \
            -d '{{"permission":"write"}}'""",
        200,
        SHARE | {"permission": "write"},
    ),
    (
        "share with the owner",
        f"""-X PUT {ONE}/shares/admin $as_admin $json -d '{{"permission":"read"}}'""",
        400,
        refused(400, "owns the environment"),
    ),
    (
        "share with nobody",
        f"""-X PUT {ONE}/shares/nobody $as_admin $json -d '{{"permission":"read"}}'""",
        404,
        refused(404, "nobody"),
    ),
    (
        "share for everything",
        f"""-X PUT {ONE}/shares/$known_person $as_admin $json -d '{{"permission":"owner"}}'""",
        400,
        refused(400, "permission"),
    ),
    ("list shares", f"{SHARED}/shares $as_admin", 200, {"shares": [SHARE]}),
    ("list shares of none", f"{NONE}/shares $as_admin", 404, refused(404)),
    (
        "share no more",
        f"-X DELETE {SHARED}/shares/$known_person $as_admin",
        204,
        NO_BODY,
    ),
    (
        "share no more what is not shared",
        f"-X DELETE {ONE}/shares/$known_person $as_admin",
        404,
        refused(404, "known"),
    ),
    (
        "see the health of something",
        "'$url/api/v1/health?deep=true' $as_admin",
        400,
        refused(400, "deep", "unknown"),
    ),
    ("see the health by POST", "-X POST $url/api/v1/health", 405, refused(405, "POST")),
]
