"""People."""

from __future__ import annotations

from tests.e2e.curl import TIME, conflict, error, invalid
from tests.e2e.iron.shapes import NO_BODY, NO_CREDENTIAL, NO_USER, NOT_ALLOWED, USER, Row

ROWS: list[Row] = [
    (
        "create a user",
        """-X POST $url/api/v1/users $as_admin $json \
           -d '{"username":"$new_name","password":"a long enough one","role":"viewer"}'""",
        201,
        USER | {"role": "viewer", "email": "", "must_change_password": False},
    ),
    (
        "create a user twice",
        """-X POST $url/api/v1/users $as_admin $json \
           -d '{"username":"$known_person","password":"a long enough one","role":"user"}'""",
        409,
        conflict("DUPLICATE_USERNAME", "username"),
    ),
    (
        "create a user with an address that is taken",
        """-X POST $url/api/v1/users $as_admin $json \
           -d '{"username":"$new_name","password":"a long enough one","role":"user", \
                "email":"$known_person@Example.com"}'""",
        409,
        conflict("DUPLICATE_EMAIL", "email"),
    ),
    (
        "create a user with everything wrong",
        """-X POST $url/api/v1/users $as_admin $json \
           -d '{"username":"a@b","password":"short","email":"nobody"}'""",
        400,
        invalid("username", "password", "email", "role"),
    ),
    (
        "create a user with a role that is none",
        """-X POST $url/api/v1/users $as_admin $json -d '{"role":"king"}'""",
        400,
        invalid("role"),
    ),
    (
        "create an administrator with a well-known password",
        """-X POST $url/api/v1/users $as_admin $json \
           -d '{"username":"$new_name","password":"password123","role":"admin"}'""",
        400,
        invalid("password"),
    ),
    (
        "create a user as a user",
        "-X POST $url/api/v1/users $as_user $json -d '{}'",
        403,
        NOT_ALLOWED,
    ),
    (
        "list users",
        "$url/api/v1/users?role=user&state=active&search=${known_person}@ $as_admin",
        200,
        {"users": [USER | {"email": "known@example.com"}], "next_page_token": ""},
    ),
    (
        "list users by wrong filters",
        "'$url/api/v1/users?page_size=1001&page_token=x' $as_admin",
        400,
        invalid("page_size", "page_token"),
    ),
    ("list users as a viewer", "$url/api/v1/users $as_viewer", 403, NOT_ALLOWED),
    ("get a user", "$url/api/v1/users/$new_user_id $as_admin", 200, USER),
    ("get no user", "$url/api/v1/users/none $as_admin", 404, NO_USER),
    ("get a user without a credential", "$url/api/v1/users/none", 401, NO_CREDENTIAL),
    (
        "suspend a user",
        """-X PUT $url/api/v1/users/$new_user_id/suspend $as_admin $json -d '{"reason":"left"}'""",
        200,
        USER | {"state": "suspended", "suspended_at": TIME, "suspend_reason": "left"},
    ),
    (
        "suspend a suspended user",
        "-X PUT $url/api/v1/users/$new_suspended_id/suspend $as_admin $json -d '{}'",
        409,
        error("CONFLICT", "USER_SUSPENDED"),
    ),
    (
        "suspend the last administrator",
        "-X PUT $url/api/v1/users/$admin_id/suspend $as_admin $json -d '{}'",
        409,
        error("CONFLICT", "LAST_ADMIN_PROTECTED"),
    ),
    (
        "activate a user",
        "-X PUT $url/api/v1/users/$new_suspended_id/activate $as_admin $json -d '{}'",
        200,
        USER,
    ),
    (
        "activate an active user",
        "-X PUT $url/api/v1/users/$new_user_id/activate $as_admin $json -d '{}'",
        409,
        error("CONFLICT", "USER_ACTIVE"),
    ),
    (
        "give a user a role",
        """-X PUT $url/api/v1/users/$new_user_id/role $as_admin $json -d '{"role":"viewer"}'""",
        200,
        USER | {"role": "viewer"},
    ),
    (
        "give a user no role",
        "-X PUT $url/api/v1/users/$new_user_id/role $as_admin $json -d '{}'",
        400,
        invalid("role"),
    ),
    (
        "reset a password",
        """-X POST $url/api/v1/users/$new_user_id/reset-password $as_admin $json \
           -d '{"new_password":"another long one"}'""",
        200,
        USER | {"must_change_password": True},
    ),
    (
        "reset one's own password",
        """-X POST $url/api/v1/users/$admin_id/reset-password $as_admin $json \
           -d '{"new_password":"another long one"}'""",
        403,
        error("FORBIDDEN", "SELF_MODIFICATION_FORBIDDEN"),
    ),
    ("delete a user", "-X DELETE $url/api/v1/users/$new_user_id $as_admin", 204, NO_BODY),
    ("delete no user", "-X DELETE $url/api/v1/users/none $as_admin", 404, NO_USER),
]
