"""A driver, whichever, and machines of it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

from steward_server.environments.driver import Driver
from steward_server.environments.environment import SecurityContext, Spec
from steward_server.environments.images.image import HOST
from steward_server.environments.sandbox import SandboxDriver
from tests.integration.environments.sandbox import machines as sandbox


class Machines(sandbox.Machines):
    """The same as there, with the image that this driver has in the place of `host`."""

    def __init__(
        self, driver: Driver, image: str, absent_image: str, runtime_class: str = ""
    ) -> None:
        super().__init__(cast("SandboxDriver", driver))  # nothing but the protocol is used of it
        self.image = image
        self.absent_image = absent_image
        self.runtime_class = runtime_class

    def spec(self, *command: str, **more: Any) -> Spec:
        return replace(sandbox.spec(*command, **more), image=self.image)

    def secured(self, **context: Any) -> Spec:
        return replace(self.spec(), security=SecurityContext(**context))

    async def make(self, wanted: Spec | None = None, name: str = "") -> str:
        wanted = wanted or self.spec()
        if wanted.image == HOST:
            wanted = replace(wanted, image=self.image)
        if not wanted.runtime_class:
            wanted = replace(wanted, runtime_class=self.runtime_class)
        return await super().make(wanted, name)
