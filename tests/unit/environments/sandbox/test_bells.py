from __future__ import annotations

import asyncio
from pathlib import Path

from steward_server.environments.sandbox.logs import Bells


async def test_a_reader_that_is_cancelled_as_the_bell_rings_ends(tmp_path: Path) -> None:
    bells = Bells()
    bell = bells.listen(tmp_path)
    waiting = asyncio.create_task(bells.wait(bell, bells.rings(bell)))
    await asyncio.sleep(0)
    bells._ring(bell)
    waiting.cancel()
    await asyncio.wait({waiting}, timeout=5)
    bells.leave(bell)
    bells.close()

    assert waiting.cancelled()
