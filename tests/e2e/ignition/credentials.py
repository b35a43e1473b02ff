"""Credentials: the calls of the guide word for word, and what else may come."""

from __future__ import annotations

from tests.e2e.ignition.shapes import NO_CREDENTIAL, NOT_ALLOWED, invalid, refused
from tests.e2e.iron.shapes import Row

CREDENTIALS = "$url$api/credentials"
GUIDE = {
    "name": "my-gateway",
    "username": "admin",
    "gateway_url": "http://localhost:8088",
    "description": "Local development gateway",
}
BODY = """{"name": "my-gateway", "username": "admin", "password": "secret",
    "gateway_url": "http://localhost:8088", "description": "Local development gateway"}"""
SAVED = {"message": "Credential saved successfully", "name": "my-gateway"}
DELETED = {"message": "Credential deleted successfully"}


def saving(body: str, who: str = "$as_admin") -> str:
    return f"-X POST {CREDENTIALS} {who} $json -d '{body}'"


def saving_one(field: str, who: str = "$as_admin") -> str:
    """A body that is right but for this."""
    given = {"name": '"n"', "username": '"u"', "password": '"p"'}
    name, _, value = field.partition(":")
    pairs = (given | {name: value}).items()
    return saving("{" + ", ".join(f'"{key}": {text}' for key, text in pairs) + "}", who)


ROWS: list[Row] = [
    ("save a credential as the guide does", saving(BODY), 200, SAVED),
    (
        "list credentials as the guide does",
        f"{CREDENTIALS} $as_admin",
        200,
        {"credentials": [GUIDE]},
    ),
    ("save it again", saving(BODY), 200, SAVED),
    (
        "list credentials with an itk_ key",
        f"{CREDENTIALS} -H 'X-API-Key: $itk_key'",
        200,
        {"credentials": [GUIDE]},
    ),
    (
        "list nobody's credentials",
        f"{CREDENTIALS} $as_viewer",
        200,
        {"credentials": []},
    ),
    ("list -1 credentials", f"'{CREDENTIALS}?page_size=-1' $as_admin", 400, invalid("page_size")),
    ("list credentials without a credential", CREDENTIALS, 401, NO_CREDENTIAL),
    ("list credentials as a runtime", f"{CREDENTIALS} $as_runtime", 403, NOT_ALLOWED),
    (
        "list credentials of somebody else",
        f"'{CREDENTIALS}?user_id=$admin_id' $as_user",
        403,
        NOT_ALLOWED,
    ),
    (
        "save a credential without what may be left out",
        saving('{"name": "plain", "username": "u", "password": "p"}', "$as_user"),
        200,
        {"message": "Credential saved successfully", "name": "plain"},
    ),
    (
        "list a credential that leaves much out",
        f"{CREDENTIALS} $as_user",
        200,
        {"credentials": [{"name": "plain", "username": "u", "gateway_url": "", "description": ""}]},
    ),
    ("save a credential without a credential", saving(BODY, ""), 401, NO_CREDENTIAL),
    ("save a credential as a viewer", saving(BODY, "$as_viewer"), 403, NOT_ALLOWED),
    ("save a credential by an executor's key", saving(BODY, "$as_executor"), 403, NOT_ALLOWED),
    ("save a credential as a runtime", saving(BODY, "$as_runtime"), 403, NOT_ALLOWED),
    ("save nothing", saving("{}"), 400, invalid("name", "username", "password")),
    (
        "save a credential without a name",
        saving('{"username": "u", "password": "p"}'),
        400,
        invalid("name"),
    ),
    ("save a credential with an empty name", saving_one('name:""'), 400, invalid("name")),
    ("save a name with a space", saving_one('name:"my gateway"'), 400, invalid("name")),
    ("save a name with a dot", saving_one('name:"my.gateway"'), 400, invalid("name")),
    ("save a name that climbs", saving_one('name:"../etc"'), 400, invalid("name")),
    ("save a name of a bell", saving_one(r'name:"\u0007"'), 400, invalid("name")),
    ("save a name of an umlaut", saving_one(r'name:"\u00fc"'), 400, invalid("name")),
    ("save a name of 101", saving_one(f'name:"{"n" * 101}"'), 400, invalid("name")),
    ("save a name that is a number", saving_one("name:5"), 400, invalid("name")),
    ("save no password", saving_one('password:""'), 400, invalid("password")),
    ("save a password that is none", saving_one("password:null"), 400, invalid("password")),
    ("save passwords", saving_one('password:["a", "b"]'), 400, invalid("password")),
    ("save a password of 1001", saving_one(f'password:"{"p" * 1001}"'), 400, invalid("password")),
    ("save a user name of 256", saving_one(f'username:"{"u" * 256}"'), 400, invalid("username")),
    ("save an address of ftp", saving_one('gateway_url:"ftp://g"'), 400, invalid("gateway_url")),
    ("save half an address", saving_one('gateway_url:"localhost:1"'), 400, invalid("gateway_url")),
    (
        "save an address with a password",
        saving_one('gateway_url:"http://a:b@g"'),
        400,
        invalid("gateway_url"),
    ),
    (
        "save an address of 501",
        saving_one(f'gateway_url:"http://{"g" * 494}"'),
        400,
        invalid("gateway_url"),
    ),
    (
        "save a description of 501",
        saving_one(f'description:"{"d" * 501}"'),
        400,
        invalid("description"),
    ),
    ("save a credential with a colour", saving_one('colour:"red"'), 400, invalid("colour")),
    ("save what is not JSON", saving("name=my-gateway"), 400, refused("validation_error", "JSON")),
    ("save a list", saving("[]"), 400, refused("validation_error")),
    (
        "save a form",
        f"-X POST {CREDENTIALS} $as_admin -d 'name=my-gateway'",
        415,
        refused("unsupported_media_type"),
    ),
    (
        "put credentials",
        f"-X PUT {CREDENTIALS} $as_admin $json -d '{{}}'",
        405,
        refused("method_not_allowed"),
    ),
    (
        "delete somebody else's credential",
        f"-X DELETE {CREDENTIALS}/my-gateway $as_user",
        404,
        refused("credential_not_found", "Credential 'my-gateway' not found", name="my-gateway"),
    ),
    (
        "delete a credential as a viewer",
        f"-X DELETE {CREDENTIALS}/my-gateway $as_viewer",
        403,
        NOT_ALLOWED,
    ),
    (
        "delete a credential by an executor's key",
        f"-X DELETE {CREDENTIALS}/my-gateway $as_executor",
        403,
        NOT_ALLOWED,
    ),
    (
        "delete a credential as a runtime",
        f"-X DELETE {CREDENTIALS}/my-gateway $as_runtime",
        403,
        NOT_ALLOWED,
    ),
    (
        "delete a credential without a credential",
        f"-X DELETE {CREDENTIALS}/my-gateway",
        401,
        NO_CREDENTIAL,
    ),
    (
        "delete a credential as the guide does",
        f"-X DELETE {CREDENTIALS}/my-gateway $as_admin",
        200,
        DELETED,
    ),
    (
        "delete it again",
        f"-X DELETE {CREDENTIALS}/my-gateway $as_admin",
        404,
        refused("credential_not_found", "Credential 'my-gateway' not found", name="my-gateway"),
    ),
    (
        "delete a name that nobody can have",
        f"-X DELETE {CREDENTIALS}/..%2Fmy%20gateway $as_admin",
        404,
        refused("credential_not_found", name="../my gateway"),
    ),
    (
        "delete a name of 101",
        f"-X DELETE {CREDENTIALS}/{'n' * 101} $as_admin",
        400,
        invalid("name"),
    ),
    (
        "delete the user's credential by its owner's id",
        f"-X DELETE '{CREDENTIALS}/plain?user_id=$user_id' $as_admin",
        200,
        DELETED,
    ),
]
