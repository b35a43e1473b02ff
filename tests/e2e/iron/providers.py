"""Providers."""

from __future__ import annotations

from tests.e2e.curl import conflict, error, invalid
from tests.e2e.iron.shapes import NO_BODY, NO_METHOD, NOT_ALLOWED, PROVIDER, Row

ROWS: list[Row] = [
    (
        "create a provider",
        """-X POST $url/api/v1/providers $as_admin $json \
           -d '{"name":"$new_name","kind":"anthropic","api_key":"sk-ant-api-0123456789"}'""",
        201,
        PROVIDER | {"kind": "anthropic", "masked_key": "sk-a...789", "last_used_at": None},
    ),
    (
        "create a provider twice",
        """-X POST $url/api/v1/providers $as_admin $json \
           -d '{"name":"$provider","api_key":"sk-0123456789"}'""",
        409,
        error("CONFLICT", "PROVIDER_EXISTS", details={"provider": "openai"}),
    ),
    (
        "create a provider of no kind",
        """-X POST $url/api/v1/providers $as_admin $json \
           -d '{"name":"No Name","kind":"abacus","base_url":"ftp://x","api_key":""}'""",
        400,
        invalid("kind"),
    ),
    (
        "create a provider with a bad name, address and key",
        """-X POST $url/api/v1/providers $as_admin $json \
           -d '{"name":"No Name","kind":"openai","base_url":"ftp://x","api_key":""}'""",
        400,
        invalid("name", "base_url", "api_key"),
    ),
    (
        "create a provider as a user",
        "-X POST $url/api/v1/providers $as_user $json -d '{}'",
        403,
        NOT_ALLOWED,
    ),
    (
        "list providers",
        "$url/api/v1/providers $as_admin",
        200,
        {"providers": [PROVIDER], "next_page_token": ""},
    ),
    ("list providers as a runtime", "$url/api/v1/providers $as_runtime", 403, NOT_ALLOWED),
    (
        "allow a provider's key in clear",
        """-X PATCH $url/api/v1/providers/$new_provider_id $as_admin $json \
           -d '{"allow_plaintext_key":true}'""",
        200,
        PROVIDER | {"allow_plaintext_key": True},
    ),
    (
        "change nothing of a provider",
        "-X PATCH $url/api/v1/providers/$new_provider_id $as_admin $json -d '{}'",
        400,
        error("VALIDATION_ERROR", "NO_FIELDS_PROVIDED"),
    ),
    (
        "delete a provider",
        "-X DELETE $url/api/v1/providers/$new_provider_id $as_admin",
        204,
        NO_BODY,
    ),
    (
        "delete no provider",
        "-X DELETE $url/api/v1/providers/none $as_admin",
        404,
        error("NOT_FOUND", "PROVIDER_NOT_FOUND", details={"provider": "none"}),
    ),
    (
        "delete a provider in use",
        "-X DELETE $url/api/v1/providers/$used_provider_id $as_admin",
        409,
        conflict("PROVIDER_IN_USE", "provider", "agent_count"),
    ),
    (
        "get a provider",
        "$url/api/v1/providers/$new_provider_id $as_admin",
        200,
        PROVIDER | {"version": 1},
    ),
    (
        "get no provider",
        "$url/api/v1/providers/none $as_admin",
        404,
        error("NOT_FOUND", "PROVIDER_NOT_FOUND", details={"provider": "none"}),
    ),
    ("get a provider as a user", "$url/api/v1/providers/none $as_user", 403, NOT_ALLOWED),
    ("put a provider", "-X PUT $url/api/v1/providers/none $as_admin", 405, NO_METHOD),
]
