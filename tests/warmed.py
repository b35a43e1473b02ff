"""Imported by the process that servers are forked off: what each would otherwise work out anew.

It comes of the code alone, and takes longer than the rest of a start. Nothing here may start a
thread or open a channel, which would not survive the fork.
"""

from __future__ import annotations

import asyncio
import gc
from datetime import UTC, datetime

from steward_client.price_snapshot import shipped_prices
from steward_gateway.app import build_app
from steward_server.auth import passwords
from steward_server.dispatch import Dispatcher
from steward_server.in_process import InProcess
from tests import cheap_passwords


async def _compile() -> None:
    build_app(InProcess(Dispatcher(lambda _: ())))


shipped_prices(datetime.now(UTC))
asyncio.run(_compile())

# As in servers within the process of a test; those that are started anew hash as they ship.
passwords._hasher = cheap_passwords.cheap
cheap_passwords.cheap()

# A collector that looked through what is shared would copy all of it.
gc.collect()
gc.freeze()
