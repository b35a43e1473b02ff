"""A server as the document of CyborgMind has it, in both its modes of authentication."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jwt

from tests.e2e.process import forked, steward
from tests.e2e.scene import Scene

TOKEN = "cyborg-secret-v2"
"""The document's static token, which only the development profile takes."""
SECRET = "your-production-secret-key-min-32-chars"
DUAL_MODE = {
    "STEWARD_PROFILE": "development",
    "STEWARD_STATIC_TOKEN": TOKEN,
    "STEWARD_AUTH_LOGINS_PER_MINUTE": "0",
    "STEWARD_INFERENCE_JWT_ENABLED": "true",
    "STEWARD_INFERENCE_JWT_SECRET": SECRET,
    "STEWARD_INFERENCE_JWT_ALGORITHM": "HS256",
    "STEWARD_INFERENCE_JWT_ISSUER": "cyborg-api",
    "STEWARD_INFERENCE_JWT_AUDIENCE": "cyborg-clients",
    "STEWARD_INFERENCE_JWT_EXPIRY_MINUTES": "60",
}
"""The document's settings, by our names."""


def signed(secret: str = SECRET, algorithm: str = "HS256", **claims: Any) -> str:
    """A token made by somebody who has the secret; a claim that is None is left out."""
    right = {
        "sub": "user123",
        "exp": time.time() + 60,
        "iss": "cyborg-api",
        "aud": "cyborg-clients",
    }
    return jwt.encode(
        {k: v for k, v in (right | claims).items() if v is not None}, secret, algorithm
    )


class CyborgScene(Scene):
    """What the table of CyborgMind names beside what every scene has."""

    def as_client(self) -> str:
        return bearing(TOKEN)

    def as_wrong_client(self) -> str:
        return bearing("cyborg-secret-v1")

    def as_named_client(self) -> str:
        """By a token that the server made."""
        return bearing(self.post("/auth/token", {"subject": "me"}, "X: y")["access_token"])

    def as_expired_client(self) -> str:
        return bearing(signed(exp=time.time() - 1))

    def as_client_of_another_issuer(self) -> str:
        return bearing(signed(iss="another"))

    def as_client_of_another_audience(self) -> str:
        return bearing(signed(aud="another"))

    def as_forged_client(self) -> str:
        return bearing(signed("another-secret-of-more-than-32-characters"))

    def as_unsigned_client(self) -> str:
        return bearing(signed("", "none"))

    def as_client_for_ever(self) -> str:
        return bearing(signed(exp=None))

    def as_narrow_runtime(self) -> str:
        """An agent whose token is for budgets alone."""
        body = {"agent_id": self.new_agent(), "scopes": ["budget"]}
        return f"-H 'X-IC-Key: {self.post('/api/tokens', body, self._admin)['token']}'"

    def new_id(self) -> str:
        """Of the client's agent, which was reset and made no step."""
        return self._reset("cartpole")

    def new_pendulum(self) -> str:
        """As `new_id`, with actions that are lists."""
        return self._reset("pendulum")

    def _reset(self, policy: str) -> str:
        agent_id = self.new_name()
        reset = {"agent_id": agent_id, "policy": policy}
        self.post("/reset", reset, f"Authorization: Bearer {TOKEN}")
        return agent_id


def bearing(token: str) -> str:
    """The arguments of curl for a token."""
    return f"-H 'Authorization: Bearer {token}'"


@contextmanager
def cyborg_scene(data_dir: Path, **settings: str) -> Iterator[CyborgScene]:
    """A scene with a server of these settings; nothing failed in it at the end."""
    with steward(data_dir, forked, **(DUAL_MODE | settings)) as server:
        yield CyborgScene(server, data_dir)
        assert "Traceback" not in server.log
