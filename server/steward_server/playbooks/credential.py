"""What a playbook may use of a credential. Pure."""

from __future__ import annotations

from dataclasses import dataclass

FIELDS = ("name", "username", "password", "gateway_url", "description")


@dataclass(frozen=True, slots=True)
class Credential:
    """Who signs in, and where; its text never has the password."""

    name: str
    username: str
    password: str
    gateway_url: str = ""
    description: str = ""

    def __repr__(self) -> str:
        return f"<credential {self.name!r}>"
