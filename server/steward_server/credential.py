"""A credential in clear, for the run that uses it: how somebody signs in to a gateway. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field

FIELDS = ("name", "username", "password", "gateway_url", "description")
"""What a reference in a playbook may ask a credential for."""


@dataclass(frozen=True, slots=True)
class Credential:
    """Who signs in, and where; its text never has the password."""

    name: str
    username: str
    password: str = field(repr=False)
    gateway_url: str = ""
    description: str = ""
