"""The driver of clusters: each environment is a pod in a namespace of its own.

Start reading at objects.py and policies.py for what is made, at making.py for how it comes and
goes, and at scripts.py for what runs inside.
"""

from __future__ import annotations

from steward_server.environments.kubernetes.cluster import Cluster
from steward_server.environments.kubernetes.driver import KubernetesDriver

__all__ = ["Cluster", "KubernetesDriver"]
