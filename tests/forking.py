"""The process that others are forked off: it has the modules loaded, so that they need not."""

from __future__ import annotations

import multiprocessing

context = multiprocessing.get_context("forkserver")
# There is one for all that a process of tests starts, and the first to use it settles what it has.
context.set_forkserver_preload(
    ["steward_client.cli", "steward_client.price_snapshot", "steward_server.__main__"]
)
