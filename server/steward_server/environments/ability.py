"""What the driver of a server can do, and refusals of what it cannot."""

from __future__ import annotations

from dataclasses import replace

from steward_server.environments.driver import Away, Capabilities, Driver, Feature, Unusable
from steward_server.errors import (
    FailedPrecondition,
    ResourceExhausted,
    StewardError,
    Unavailable,
)


class Ability:
    """Asks the driver."""

    def __init__(self, driver: Driver) -> None:
        self.driver = driver
        self.fault = ""
        """Why nothing can be done, if the driver could not even say that."""

    def capabilities(self) -> Capabilities:
        """What it can do here; unusable too if it could not say what it has."""
        told = self.driver.capabilities()
        return replace(told, unusable=self.fault or told.unusable)

    def must_be_usable(self) -> None:
        """Refuse to make machines where that cannot be done.

        Raises:
            FailedPrecondition: ENVIRONMENTS_UNUSABLE, with the reason and what to do.
        """
        told = self.capabilities()
        if told.unusable:
            raise FailedPrecondition(
                f"environments cannot be used on this server: {told.unusable}",
                reason="ENVIRONMENTS_UNUSABLE",
                facts={"driver": told.driver},
            )

    def must_have(self, feature: Feature) -> None:
        """Refuse what the driver cannot do.

        Raises:
            FailedPrecondition: NOT_SUPPORTED.
        """
        told = self.capabilities()
        if feature not in told.features:
            raise FailedPrecondition(
                f"the driver {told.driver!r} of this server does not support {feature.value}",
                reason="NOT_SUPPORTED",
                facts={"driver": told.driver, "feature": feature.value},
            )


def refusal(error: Unusable, environment_id: str) -> StewardError:
    """What a driver refuses, as callers are told."""
    facts = {"environment_id": environment_id}
    if isinstance(error, Away):
        return Unavailable(str(error), reason=error.reason, facts=facts)
    if error.reason == "DISK_FULL":
        return ResourceExhausted(str(error), reason=error.reason, facts=facts)
    return FailedPrecondition(str(error), reason=error.reason, facts=facts)
