"""Files of an environment, and images."""

from __future__ import annotations

from tests.e2e.agentbox.environments import ALL, ONE
from tests.e2e.agentbox.shapes import FILE, IMAGE, refused
from tests.e2e.iron.shapes import NO_BODY, Row

FILES = f"{ONE}/files"
OVER = f"{ALL}/$over_environment_id/files"

ROWS: list[Row] = [
    (
        "make a directory",
        f"""-X POST {FILES}/directories $as_admin $json -d '{{"path":"/tmp/made/deep"}}'""",
        201,
        FILE | {"path": "/tmp/made/deep", "kind": "directory"},
    ),
    (
        "make a directory that may not be there",
        f"""-X POST {FILES}/directories $as_admin $json -d '{{"path":"/etc/made"}}'""",
        403,
        refused(403, "/etc/made"),
    ),
    (
        "make a directory nowhere",
        f"""-X POST {FILES}/directories $as_admin $json -d '{{"path":"made"}}'""",
        400,
        refused(400, "path", "must be absolute"),
    ),
    (
        "write a file",
        f"-X PUT '{FILES}/content?path=/tmp/a.txt&mode=0600' $as_admin --data-binary 'hello'",
        200,
        FILE | {"path": "/tmp/a.txt", "size_bytes": 5, "mode": "0600"},
    ),
    (
        "write over a directory",
        f"-X PUT '{FILES}/content?path=/tmp/made' $as_admin --data-binary 'hello'",
        409,
        refused(409, "/tmp/made"),
    ),
    (
        "write a file in somebody else's",
        f"-X PUT '{FILES}/content?path=/tmp/a.txt' $as_user --data-binary 'hello'",
        404,
        refused(404, "no environment"),
    ),
    (
        "write into what is over",
        f"-X PUT '{OVER}/content?path=/tmp/a' $as_admin --data-binary 'hello'",
        409,
        refused(409, "is terminated"),
    ),
    (
        "see a file",
        f"'{FILES}/stat?path=/tmp/a.txt' $as_admin",
        200,
        FILE | {"kind": "file", "size_bytes": 5},
    ),
    (
        "see where a link leads",
        f"'{FILES}/stat?path=/proc/self/cwd' $as_admin",
        200,
        FILE | {"kind": "directory"},
    ),
    ("see no file", f"'{FILES}/stat?path=/tmp/none' $as_admin", 404, refused(404, "/tmp/none")),
    ("see a file without a path", f"'{FILES}/stat' $as_admin", 400, refused(400, "path")),
    ("list files", f"'{FILES}?path=/tmp' $as_admin", 200, {"files": [FILE]}),
    ("list a file", f"'{FILES}?path=/tmp/a.txt' $as_admin", 404, refused(404, "Not a directory")),
    (
        "move a file",
        f"""-X POST {FILES}/move $as_admin $json -d '{{"path":"/tmp/b.txt","to":"/tmp/c.txt"}}'""",
        204,
        NO_BODY,
    ),
    (
        "move no file",
        f"""-X POST {FILES}/move $as_admin $json -d '{{"path":"/tmp/none","to":"/tmp/b.txt"}}'""",
        404,
        refused(404, "/tmp/none"),
    ),
    ("remove a file", f"-X DELETE '{FILES}?path=/tmp/old.txt' $as_admin", 204, NO_BODY),
    (
        "remove a directory that is not empty",
        f"-X DELETE '{FILES}?path=/tmp/kept' $as_admin",
        409,
        refused(409, "not empty"),
    ),
    (
        "remove it with everything in it",
        f"-X DELETE '{FILES}?path=/tmp/old&recursive=true' $as_admin",
        204,
        NO_BODY,
    ),
    ("list images", "$url/api/v1/images $as_admin", 200, {"images": [IMAGE]}),
    ("list images as nobody", "$url/api/v1/images", 401, refused(401)),
    (
        "see an image",
        "$url/api/v1/images/$image $as_admin",
        200,
        IMAGE | {"is_host": False},
    ),
    ("see no image", "$url/api/v1/images/no/such $as_admin", 404, refused(404, "no/such")),
    ("remove an image", "-X DELETE $url/api/v1/images/$new_image $as_admin", 204, NO_BODY),
    (
        "remove the machine's own",
        "-X DELETE $url/api/v1/images/host $as_admin",
        409,
        refused(409, "built in"),
    ),
    (
        "remove an image as a user",
        "-X DELETE $url/api/v1/images/$image $as_user",
        403,
        refused(403, "admin"),
    ),
]
