"""Signing in at the path of this guide, and who is signed in."""

from __future__ import annotations

from tests.e2e.agentbox.shapes import refused
from tests.e2e.curl import TIME
from tests.e2e.iron.shapes import LOGIN, Row

AT = "-X POST $url/api/v1/auth/login $json -d"
ME = {
    "id": str,
    "username": "admin",
    "email": "",
    "role": "admin",
    "must_change_password": False,
    "created_at": TIME,
    "last_login_at": TIME,
}

ROWS: list[Row] = [
    ("login", f"""{AT} '{{"username":"admin","password":"$password"}}'""", 200, LOGIN),
    (
        "login with a wrong password",
        f"""{AT} '{{"username":"admin","password":"wrong"}}'""",
        401,
        refused(401, "no user has this name and this password"),
    ),
    (
        "login of nobody",
        f"""{AT} '{{"username":"nobody","password":"$password"}}'""",
        401,
        refused(401, "no user has this name and this password"),
    ),
    ("login without a password", f"""{AT} '{{"username":"admin"}}'""", 400, refused(400)),
    ("login with half a body", f"""{AT} '{{"username":'""", 400, refused(400, "JSON")),
    ("login by GET", "$url/api/v1/auth/login", 405, refused(405, "GET")),
    ("who is signed in", "$url/api/v1/auth/me $as_admin", 200, ME),
    ("who is signed in, by a key", "$url/api/v1/auth/me $as_key", 200, ME),
    ("who is nobody", "$url/api/v1/auth/me", 401, refused(401, "authorization: Bearer")),
    (
        "who is somebody else",
        "$url/api/v1/auth/me -H 'Authorization: Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.e30.x'",
        401,
        refused(401),
    ),
    ("who is a runtime", "$url/api/v1/auth/me $as_runtime", 403, refused(403)),
]
