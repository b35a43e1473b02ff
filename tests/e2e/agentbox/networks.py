"""Networks of environments, changed while they run, and links to their ports."""

from __future__ import annotations

import re

from tests.e2e.agentbox.environments import ALL, ONE
from tests.e2e.agentbox.shapes import ENVIRONMENT_DETAILS, refused
from tests.e2e.curl import TIME
from tests.e2e.iron.shapes import Row

TOKEN = re.compile(r"pv_[A-Za-z0-9_-]{32}")

ROWS: list[Row] = [
    (
        "let a port be reached",
        f"""-X PATCH {ALL}/$new_environment_id $as_admin $json \
            -d '{{"network":{{"allowed_ingress_ports":[8080]}}}}'""",
        200,
        ENVIRONMENT_DETAILS,
    ),
    (
        "let no network be reached",
        f"""-X PATCH {ONE} $as_admin $json \
            -d '{{"network":{{"allowed_egress_cidrs":["everywhere"]}}}}'""",
        400,
        refused(400, "network.allowed_egress_cidrs[0]", "everywhere"),
    ),
    (
        "change the network of what is over",
        f"""-X PATCH {ALL}/$over_environment_id $as_admin $json -d '{{"network":{{}}}}'""",
        409,
        refused(409, "is terminated"),
    ),
    (
        "give a link to a port",
        f"""-X POST {ALL}/$open_environment_id/previews $as_admin $json \
            -d '{{"port":8080,"ttl_seconds":60}}'""",
        201,
        {"token": TOKEN, "path": re.compile(rf"/preview/{TOKEN.pattern}/"), "expires_at": TIME},
    ),
    (
        "give a link to a port that is closed",
        f"""-X POST {ONE}/previews $as_admin $json -d '{{"port":8080}}'""",
        409,
        refused(409, "may not be reached", "allowed_ingress_ports"),
    ),
    (
        "give a link for a day",
        f"""-X POST {ONE}/previews $as_admin $json -d '{{"port":8080,"ttl_seconds":86400}}'""",
        400,
        refused(400, "ttl_seconds"),
    ),
    (
        "follow a link that nobody gave",
        "$url/preview/pv_none/",
        401,
        refused(401, "the link is not known"),
    ),
    (
        "follow a link to a port where nobody listens",
        "$url$preview_path",
        502,
        refused(502, "8080"),
    ),
]
