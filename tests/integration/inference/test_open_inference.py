"""A client made for Triton, as its package index has it, against our service of the protocol."""

from __future__ import annotations

import asyncio
import json
import sys

from tests.integration.inference import triton_program
from tests.integration.inference.conftest import STATIC_TOKEN, Site


async def test_a_client_of_triton_steps_policies(site: Site) -> None:
    program = await asyncio.create_subprocess_exec(
        *(sys.executable, triton_program.__file__, site.live.running.grpc_address, STATIC_TOKEN),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await asyncio.wait_for(program.communicate(), 30)
    assert program.returncode == 0, err.decode()
    told = json.loads(out)
    assert (told["live"], told["ready"], told["model_ready"]) == (True, True, True)
    assert told["no_model"] is False
    assert told["inputs"] == [{"name": "obs", "datatype": "FP32", "shape": ["-1", "3"]}]
    assert told["outputs"] == ["action", "value", "log_prob", "pressure"]
    assert (told["actions"], told["values"]) == ([0, 1], [1.0, 2.0])
    assert told["sequence"] == [1.0, 1.5, 1.75]
    assert "sequence 7 was not begun" in told["ended"]
    assert told["stream"] == [1.0, 1.5, 1.75]
    assert "sequence arm was not begun" in told["stream_error"]
