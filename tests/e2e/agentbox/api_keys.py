"""API keys."""

from __future__ import annotations

from tests.e2e.agentbox.shapes import API_KEY, NEW_API_KEY, refused
from tests.e2e.curl import TIME
from tests.e2e.iron.shapes import NO_BODY, Row

KEYS = "$url/api/v1/api-keys"

ROWS: list[Row] = [
    ("list keys", f"{KEYS} $as_admin", 200, {"api_keys": [API_KEY]}),
    ("list keys by a key", f"{KEYS} $as_key", 200, {"api_keys": [API_KEY]}),
    ("list keys by X-API-Key", f"{KEYS} -H 'X-API-Key: $api_key'", 200, {"api_keys": [API_KEY]}),
    ("list keys as a viewer", f"{KEYS} $as_viewer", 200, {"api_keys": [API_KEY]}),
    (
        "list a page of keys",
        f"'{KEYS}?page_size=1' $as_busy_admin",
        200,
        {"api_keys": [API_KEY], "next_page_token": str},
    ),
    ("list keys without a credential", KEYS, 401, refused(401, "authorization: Bearer")),
    (
        "list keys by a key cut short",
        f"{KEYS} -H 'Authorization: Bearer agentbox_1234567890abcdef'",
        401,
        refused(401, "malformed"),
    ),
    (
        "list keys by a key that nobody has",
        f"{KEYS} -H 'X-API-Key: $unknown_api_key'",
        401,
        refused(401, "not known"),
    ),
    ("list keys by a revoked key", f"{KEYS} $as_revoked_key", 401, refused(401, "was revoked at")),
    ("list keys by an expired key", f"{KEYS} $as_expired_key", 401, refused(401, "expired at")),
    (
        "list keys by a key in the query",
        f"{KEYS}?api_key=$api_key",
        400,
        refused(400, "api_key", "unknown"),
    ),
    ("list keys as a runtime", f"{KEYS} $as_runtime", 403, refused(403, "is for people")),
    (
        "list keys of somebody else as a user",
        f"'{KEYS}?user_id=somebody' $as_user",
        403,
        refused(403, "only administrators"),
    ),
    ("list -1 keys", f"'{KEYS}?page_size=-1' $as_admin", 400, refused(400, "page_size", "-1")),
    (
        "create a key as the guide does",
        f"""-X POST {KEYS} $as_admin $json -d '{{"description": "CI/CD Pipeline Key",
            "expires_in": 90,
            "permissions": [{{"environment_id": "env-abc123", "permission": "write"}}]}}'""",
        201,
        NEW_API_KEY
        | {
            "description": "CI/CD Pipeline Key",
            "expires_at": TIME,
            "last_used_at": None,
            "permissions": [{"environment_id": "env-abc123", "permission": "write"}],
            "kind": "agentbox",
            "role": "user",
        },
    ),
    (
        "create a key that never expires",
        f"""-X POST {KEYS} $as_admin $json \
            -d '{{"expires_in":null,"kind":"itk","role":"executor"}}'""",
        201,
        NEW_API_KEY | {"expires_at": None, "kind": "itk", "role": "executor", "permissions": []},
    ),
    (
        "create a key out of nothing",
        f"-X POST {KEYS} $as_viewer $json -d '{{}}'",
        201,
        NEW_API_KEY | {"description": "", "role": "readonly"},
    ),
    (
        "create a key that may do more than its maker",
        f"""-X POST {KEYS} $as_user $json -d '{{"role":"admin"}}'""",
        403,
        refused(403, "admin", "the most you can give is user"),
    ),
    (
        "create a key by a key",
        f"-X POST {KEYS} $as_key $json -d '{{}}'",
        403,
        refused(403, "not their API keys"),
    ),
    (
        "create a key with everything wrong",
        f"""-X POST {KEYS} $as_admin $json -d '{{"expires_in":0,
            "permissions":[{{"environment_id":"","permission":"read"}}]}}'""",
        400,
        refused(400, "expires_in", "0", "permissions[0].environment_id", "missing"),
    ),
    (
        "create a key with words nobody knows",
        f"""-X POST {KEYS} $as_admin $json -d '{{"role":"owner","kind":"ak_live",
            "permissions":[{{"environment_id":"e","permission":"root"}}]}}'""",
        400,
        refused(400, "role"),
    ),
    (
        "create a key of a colour",
        f"""-X POST {KEYS} $as_admin $json -d '{{"colour":"red"}}'""",
        400,
        refused(400, "colour", "unknown"),
    ),
    ("create a key without a credential", f"-X POST {KEYS} $json -d '{{}}'", 401, refused(401)),
    ("put keys", f"-X PUT {KEYS} $as_admin $json -d '{{}}'", 405, refused(405, "PUT")),
    ("revoke a key", f"-X DELETE {KEYS}/$new_api_key_id $as_admin", 204, NO_BODY),
    ("revoke no key", f"-X DELETE {KEYS}/nothing $as_admin", 404, refused(404, "nothing")),
    (
        "revoke a key of somebody else",
        f"-X DELETE {KEYS}/$new_api_key_id $as_user",
        404,
        refused(404, "no api key"),
    ),
    (
        "revoke a key by a key",
        f"-X DELETE {KEYS}/$new_api_key_id $as_key",
        403,
        refused(403, "not their API keys"),
    ),
]
