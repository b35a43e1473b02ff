"""A failure of the core, told in each dialect."""

from __future__ import annotations

from typing import Any

import aiohttp
import pytest

Http = aiohttp.ClientSession

NOT_FOUND = {
    "code": 5,
    "message": "no playbook 'x.yaml'",
    "reason": "PLAYBOOK_NOT_FOUND",
    "facts": {"path": "x.yaml"},
}
DENIED = {"code": 16, "message": "Token has expired", "reason": "TOKEN_EXPIRED"}


async def fail(http: Http, dialect: str, body: dict[str, Any]) -> tuple[int, Any, Any]:
    async with http.post(f"/{dialect}/fail", json=body) as response:
        return response.status, response.headers, await response.json()


async def test_iron_tells_code_reason_and_facts(http: Http) -> None:
    status, headers, body = await fail(http, "v1", NOT_FOUND)
    assert status == 404
    assert "WWW-Authenticate" not in headers
    assert body == {
        "error": {
            "code": "NOT_FOUND",
            "message": "no playbook 'x.yaml'",
            "reason": "PLAYBOOK_NOT_FOUND",
            "details": {"path": "x.yaml"},
        }
    }


async def test_iron_tells_fields(http: Http) -> None:
    body = {"code": 3, "message": "bad request", "violations": {"limit": "must be below 10"}}
    assert (await fail(http, "v1", body))[2] == {
        "error": {
            "code": "VALIDATION_ERROR",
            "message": "bad request",
            "fields": {"limit": "must be below 10"},
        }
    }


async def test_ignition_names_the_thing(http: Http) -> None:
    status, _, body = await fail(http, "ignition", NOT_FOUND)
    assert status == 404
    assert body == {
        "detail": {
            "error": "playbook_not_found",
            "message": "no playbook 'x.yaml'",
            "details": {"path": "x.yaml"},
        }
    }


async def test_agentbox_tells_the_status_twice(http: Http) -> None:
    status, _, body = await fail(http, "agentbox", NOT_FOUND)
    assert status == 404
    assert body == {"error": "Not Found", "message": "no playbook 'x.yaml'", "code": 404}


async def test_cyborg_tells_a_sentence(http: Http) -> None:
    status, headers, body = await fail(http, "cyborg", DENIED)
    assert status == 403
    assert "WWW-Authenticate" not in headers
    assert body == {"detail": "Token has expired"}


@pytest.mark.parametrize("dialect", ["v1", "ignition", "agentbox"])
async def test_a_bad_credential_is_401_and_asks_for_a_bearer(http: Http, dialect: str) -> None:
    status, headers, _ = await fail(http, dialect, DENIED)
    assert status == 401
    assert headers["WWW-Authenticate"] == "Bearer"


@pytest.mark.parametrize(
    ("code", "reason", "iron", "ignition", "agentbox", "cyborg"),
    [
        (1, "", 499, 499, 499, 499),
        (3, "", 400, 400, 400, 400),
        (4, "", 504, 504, 504, 504),
        (5, "", 404, 404, 404, 400),
        (6, "", 409, 409, 409, 409),
        (7, "", 403, 403, 403, 403),
        (8, "", 429, 429, 429, 429),
        (8, "BUDGET_EXCEEDED", 402, 402, 402, 429),
        (9, "", 409, 409, 409, 400),
        (10, "", 409, 409, 409, 409),
        (11, "SEQUENCE_GAP", 409, 409, 409, 409),
        (12, "", 501, 501, 501, 501),
        (13, "", 500, 500, 500, 500),
        (14, "CIRCUIT_OPEN", 503, 503, 503, 503),
        (2, "", 500, 500, 500, 500),
        (15, "", 500, 500, 500, 500),
    ],
)
async def test_every_status_has_its_number_in_every_dialect(
    http: Http, code: int, reason: str, iron: int, ignition: int, agentbox: int, cyborg: int
) -> None:
    body = {"code": code, "message": "m", "reason": reason}
    got = [(await fail(http, name, body))[0] for name in ("v1", "ignition", "agentbox", "cyborg")]
    assert got == [iron, ignition, agentbox, cyborg]


@pytest.mark.parametrize(
    ("code", "reason", "iron", "ignition"),
    [
        (3, "INVALID_PATH", "VALIDATION_ERROR", "invalid_path"),
        (3, "", "VALIDATION_ERROR", "validation_error"),
        (4, "", "DEADLINE_EXCEEDED", "timeout_error"),
        (7, "NOT_OWNER", "FORBIDDEN", "permission_denied"),
        (8, "BUDGET_EXCEEDED", "BUDGET_EXCEEDED", "budget_exceeded"),
        (8, "TOO_MANY", "RATE_LIMITED", "rate_limited"),
        (9, "EXECUTION_FINISHED", "CONFLICT", "resource_conflict"),
        (14, "CIRCUIT_OPEN", "CIRCUIT_OPEN", "unavailable"),
        (14, "", "UNAVAILABLE", "unavailable"),
        (13, "SECRET_REASON", "INTERNAL_ERROR", "internal_error"),
        (16, "TOKEN_EXPIRED", "UNAUTHORIZED", "permission_denied"),
    ],
)
async def test_every_status_has_its_word(
    http: Http, code: int, reason: str, iron: str, ignition: str
) -> None:
    body = {"code": code, "message": "m", "reason": reason}
    assert (await fail(http, "v1", body))[2]["error"]["code"] == iron
    assert (await fail(http, "ignition", body))[2]["detail"]["error"] == ignition


@pytest.mark.parametrize("code", [2, 13, 15])
async def test_a_program_s_own_words_never_leave(http: Http, code: int) -> None:
    body = {"code": code, "message": "Traceback: SELECT secret", "reason": "X", "facts": {"a": "b"}}
    async with http.post("/v1/fail", json=body, headers={"X-Request-Id": "r-9"}) as response:
        assert await response.json() == {
            "error": {
                "code": "INTERNAL_ERROR",
                "message": "internal error; quote request id r-9",
            }
        }


async def test_when_to_try_again_is_rounded_up_to_seconds(http: Http) -> None:
    _, headers, _ = await fail(http, "v1", {"code": 8, "message": "slow", "retry_after_s": 1.25})
    assert headers["Retry-After"] == "2"


async def test_cyborg_tells_an_unreadable_request_from_a_refused_one(http: Http) -> None:
    status, _, body = await fail(http, "cyborg", {"code": "three"})
    assert status == 422
    assert body == {"detail": "code must be an integer from -2147483648 to 2147483647"}
    assert (await fail(http, "cyborg", {"code": 3, "message": "wrong length"}))[0] == 400


async def test_agentbox_puts_fields_into_the_sentence(http: Http) -> None:
    body = {"code": 3, "message": "bad request", "violations": {"cpu": "must be above 0"}}
    assert (await fail(http, "agentbox", body))[2]["message"] == "bad request; cpu must be above 0"
