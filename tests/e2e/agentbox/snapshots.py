"""Snapshots: made, listed, used and removed."""

from __future__ import annotations

from tests.e2e.agentbox.environments import ALL, ONE
from tests.e2e.agentbox.shapes import ENVIRONMENT_DETAILS, SNAPSHOT, refused
from tests.e2e.iron.shapes import NO_BODY, Row

KEPT = "$url/api/v1/snapshots"
NEW = f"{ALL}/$new_environment_id"
OVER = f"{ALL}/$over_environment_id"

ROWS: list[Row] = [
    (
        "keep an environment",
        f"""-X POST {ONE}/snapshots $as_admin $json -d '{{"name":"after-install"}}'""",
        201,
        SNAPSHOT | {"name": "after-install"},
    ),
    (
        "keep one under no name",
        f"-X POST {ONE}/snapshots $as_admin $json -d '{{}}'",
        400,
        refused(400, "name"),
    ),
    (
        "keep what is over",
        f"""-X POST {OVER}/snapshots $as_admin $json -d '{{"name":"late"}}'""",
        409,
        refused(409, "is terminated"),
    ),
    (
        "keep somebody else's",
        f"""-X POST {ONE}/snapshots $as_user $json -d '{{"name":"mine"}}'""",
        404,
        refused(404),
    ),
    (
        "list snapshots",
        f"'{KEPT}?environment_id=$environment_id&limit=10' $as_admin",
        200,
        {"snapshots": [SNAPSHOT], "total": int, "limit": 10, "offset": 0},
    ),
    (
        "list snapshots of nobody",
        f"{KEPT} $as_user",
        200,
        {"snapshots": [], "total": 0, "limit": 100, "offset": 0},
    ),
    ("list too many snapshots", f"'{KEPT}?limit=0' $as_admin", 400, refused(400, "limit")),
    ("look at a snapshot", f"{KEPT}/$snapshot_id $as_admin", 200, SNAPSHOT),
    ("look at somebody else's snapshot", f"{KEPT}/$snapshot_id $as_user", 404, refused(404)),
    (
        "create from a snapshot that is somebody else's",
        f"""-X POST {ALL} $as_user $json -d '{{"name":"a","image":"snapshot/$snapshot_id",
            "resources":{{"cpu":"1","memory":"64Mi","storage":"16Mi"}}}}'""",
        400,
        refused(400, "no snapshot"),
    ),
    (
        "put an environment back",
        f"""-X POST {NEW}/restore $as_admin $json -d '{{"snapshot":"$snapshot_id"}}'""",
        200,
        {key: shape for key, shape in ENVIRONMENT_DETAILS.items() if key != "metrics"}
        | {"status": "pending"},
    ),
    (
        "put one back to what is not there",
        f"""-X POST {NEW}/restore $as_admin $json -d '{{"snapshot":"snap-none"}}'""",
        404,
        refused(404, "snap-none"),
    ),
    (
        "put back what is over",
        f"""-X POST {OVER}/restore $as_admin $json -d '{{"snapshot":"$snapshot_id"}}'""",
        409,
        refused(409, "is terminated"),
    ),
    ("remove a snapshot", f"-X DELETE {KEPT}/$new_snapshot_id $as_admin", 204, NO_BODY),
    (
        "remove a snapshot that is in use",
        f"-X DELETE {KEPT}/$snapshot_in_use $as_admin",
        409,
        refused(409, "is in use", "stand on it"),
    ),
    ("remove no snapshot", f"-X DELETE {KEPT}/snap-none $as_admin", 404, refused(404)),
]
