"""Signing in and out."""

from __future__ import annotations

from tests.e2e.curl import error, invalid
from tests.e2e.iron.shapes import (
    BAD_CREDENTIAL,
    LOGIN,
    MALFORMED,
    NO_BODY,
    NO_CREDENTIAL,
    NO_METHOD,
    NOT_ALLOWED,
    PAIR,
    Row,
)

ROWS: list[Row] = [
    (
        "login",
        """-X POST $url/api/auth/login $json -d '{"username":"admin","password":"$password"}'""",
        200,
        LOGIN,
    ),
    (
        "login with a wrong password",
        """-X POST $url/api/auth/login $json -d '{"username":"admin","password":"wrong"}'""",
        401,
        error("UNAUTHORIZED", "INVALID_CREDENTIALS"),
    ),
    (
        "login of nobody",
        """-X POST $url/api/auth/login $json -d '{"email":"no@body","password":"$password"}'""",
        401,
        error("UNAUTHORIZED", "INVALID_CREDENTIALS"),
    ),
    (
        "login without a password",
        """-X POST $url/api/auth/login $json -d '{"username":"admin"}'""",
        400,
        invalid("password"),
    ),
    ("login without a body", "-X POST $url/api/auth/login", 400, invalid("username", "password")),
    (
        "login by name and address",
        """-X POST $url/api/auth/login $json -d '{"username":"a","email":"b","password":"c"}'""",
        400,
        invalid("email"),
    ),
    (
        "malformed JSON",
        """-X POST $url/api/auth/login $json -d '{"username":'""",
        400,
        MALFORMED,
    ),
    ("a list for an object", "-X POST $url/api/auth/login $json -d '[]'", 400, MALFORMED),
    (
        "a number for a text",
        """-X POST $url/api/auth/login $json -d '{"username":5,"password":"x"}'""",
        400,
        invalid("username"),
    ),
    (
        "an unknown field",
        """-X POST $url/api/auth/login $json -d '{"username":"a","password":"b","stay":true}'""",
        400,
        invalid("stay"),
    ),
    (
        "a form",
        "-X POST $url/api/auth/login -d 'username=admin&password=x'",
        415,
        error("UNSUPPORTED_MEDIA_TYPE"),
    ),
    (
        "another charset",
        "-X POST $url/api/auth/login -H 'Content-Type: application/json; charset=latin-1' -d '{}'",
        415,
        error("UNSUPPORTED_MEDIA_TYPE"),
    ),
    ("login by GET", "$url/api/auth/login", 405, NO_METHOD),
    (
        "refresh",
        """-X POST $url$api/auth/refresh $json -d '{"refresh_token":"$new_refresh_token"}'""",
        200,
        PAIR,
    ),
    (
        "refresh with a spent token",
        """-X POST $url/api/auth/refresh $json -d '{"refresh_token":"$spent_refresh_token"}'""",
        401,
        error("UNAUTHORIZED", "REFRESH_TOKEN_REUSED"),
    ),
    (
        "refresh with a made-up token",
        """-X POST $url$api/auth/refresh $json -d '{"refresh_token":"rt_nonsense"}'""",
        401,
        BAD_CREDENTIAL,
    ),
    (
        "refresh with nothing",
        "-X POST $url/api/auth/refresh $json -d '{}'",
        400,
        invalid("refresh_token"),
    ),
    (
        "logout",
        "-X POST $url$api/auth/logout -H 'Authorization: Bearer $new_access_token'",
        204,
        NO_BODY,
    ),
    ("logout of nobody", "-X POST $url$api/auth/logout", 401, NO_CREDENTIAL),
    (
        "logout twice",
        "-X POST $url/api/auth/logout $as_signed_out_admin",
        401,
        error("UNAUTHORIZED", "TOKEN_REVOKED"),
    ),
    ("logout of a runtime", "-X POST $url/api/auth/logout $as_runtime", 403, NOT_ALLOWED),
    (
        "change one's password",
        """-X POST $url/api/v1/auth/password $as_new_person $json \
           -d '{"current_password":"new person","new_password":"older person"}'""",
        204,
        NO_BODY,
    ),
    (
        "change one's password without knowing it",
        """-X POST $url/api/v1/auth/password $as_admin $json \
           -d '{"current_password":"a guess","new_password":"older person"}'""",
        400,
        error("VALIDATION_ERROR", "WRONG_PASSWORD", fields={"current_password": str}),
    ),
    (
        "change one's password to a short one",
        """-X POST $url/api/v1/auth/password $as_admin $json -d '{"new_password":"short"}'""",
        400,
        invalid("current_password", "new_password"),
    ),
]
