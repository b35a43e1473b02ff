"""The driver of a container engine: Docker or Podman. Start reading at driver.py."""

from steward_server.environments.container.driver import ContainerDriver
from steward_server.environments.container.images import EngineImages

__all__ = ["ContainerDriver", "EngineImages"]
