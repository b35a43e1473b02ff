"""The embedded driver: machines on this very host. Start reading at driver.py."""

from steward_server.environments.sandbox.driver import SandboxDriver

__all__ = ["SandboxDriver"]
