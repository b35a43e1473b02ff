"""What inference is held against: FastAPI and PyTorch, as servers of policies are mostly written.

A network with memory (a GRU, and a table that it reads and writes), REST and WebSocket, the state
of each agent in a dictionary, one worker. It is run by a Python that has torch, and needs nothing
of this project. Prints its port of HTTP, and 0, having none of gRPC.

With `--export FOLDER` it writes the same network there: `network.onnx`, and `checks.npz`, what
PyTorch makes of some observations, several steps long.
"""

# What it imports is not here to be checked against.
# mypy: ignore-errors

import argparse
import hmac
import os
import socket
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import uvicorn
from fastapi import Depends, FastAPI, HTTPException, WebSocket, WebSocketDisconnect
from fastapi.responses import JSONResponse
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import BaseModel
from torch import Tensor, nn
from torch.nn import functional

OBSERVATION, ACTIONS, WIDTH, LATENT, LAYERS, HEAD = 4, 2, 256, 128, 2, 256
ROWS, COLUMNS, READS = 128, 64, 4
SHARPNESS = 10.0
FULL = 0.5
"""The length of a row of the memory from which on it counts as used."""
CHECKED_ROWS, CHECKED_STEPS = 5, 8

BEARER = Depends(HTTPBearer())

State = tuple[Tensor, Tensor]


def has_quick_algebra() -> bool:
    """Whether matrices are multiplied by a tuned library: Debian's torch takes the system's."""
    is_system = "BLAS_INFO=generic" in torch.__config__.show()
    return not is_system or "openblas" in Path("/proc/self/maps").read_text(encoding="utf-8")


class Memory(nn.Module):
    """A table that is read by likeness to some keys, and written by likeness to one."""

    def __init__(self) -> None:
        super().__init__()
        self.read_keys = nn.Linear(LATENT, READS * COLUMNS)
        self.write_key, self.erase, self.add = (nn.Linear(LATENT, COLUMNS) for _ in range(3))
        self.merge = nn.Linear(LATENT + READS * COLUMNS, LATENT)
        self.norm = nn.LayerNorm(LATENT)

    def forward(self, latent: Tensor, memory: Tensor) -> State:
        """The latent with what was read, and the memory as it is written after that."""
        lengths = memory.norm(dim=2, keepdim=True).clamp_min(1e-6)
        read_keys = self.read_keys(latent).view(-1, READS, COLUMNS)
        reads = _likeness(memory, lengths, read_keys).transpose(1, 2) @ memory
        seen = self.merge(torch.cat([latent, reads.flatten(1)], 1))
        write = _likeness(memory, lengths, self.write_key(latent).unsqueeze(1))
        erase, add = self.erase(latent).sigmoid().unsqueeze(1), self.add(latent).unsqueeze(1)
        return self.norm(latent + seen), memory + write * (add - erase * memory)


def _likeness(memory: Tensor, lengths: Tensor, keys: Tensor) -> Tensor:
    """How much each row is meant by each key: by the angle between them, 1 over all rows."""
    keys = SHARPNESS * functional.normalize(keys, dim=2).transpose(1, 2)
    return (memory @ keys / lengths).softmax(1)


class Network(nn.Module):
    """What an agent sees and what is kept of it in, its action and what is kept next out."""

    def __init__(self) -> None:
        super().__init__()
        self.encode = nn.Sequential(nn.Linear(OBSERVATION, WIDTH), nn.LayerNorm(WIDTH), nn.ReLU())
        self.cells = nn.ModuleList(nn.GRUCell(WIDTH, WIDTH) for _ in range(LAYERS))
        self.latent = nn.Sequential(nn.Linear(WIDTH, LATENT), nn.LayerNorm(LATENT))
        self.memory = Memory()
        self.actor, self.critic = (
            nn.Sequential(
                *(nn.Linear(LATENT, HEAD), nn.ReLU(), nn.Linear(HEAD, HEAD), nn.ReLU()),
                nn.Linear(HEAD, size),
            )
            for size in (ACTIONS, 1)
        )

    def forward(self, obs: Tensor, hidden: Tensor, memory: Tensor) -> tuple[Tensor, ...]:
        given, states = self.encode(obs), []
        for layer, cell in enumerate(self.cells):
            given = cell(given, hidden[:, layer])
            states.append(given)
        latent, memory = self.memory(self.latent(given), memory)
        pressure = (memory.norm(dim=2) > FULL).float().mean(1)
        values = self.critic(latent).squeeze(1)
        return self.actor(latent), values, torch.stack(states, 1), memory, pressure


def fresh(count: int = 1) -> State:
    """States of agents that have seen nothing."""
    return torch.zeros(count, LAYERS, WIDTH), torch.zeros(count, ROWS, COLUMNS)


def export(network: Network, folder: Path) -> None:
    """Write the network, and what it makes of observations."""
    inputs = ["obs", "hidden", "memory"]
    outputs = ["logits", "value", "hidden_out", "memory_out", "pressure"]
    state, seen = fresh(CHECKED_ROWS), torch.randn(CHECKED_STEPS, CHECKED_ROWS, OBSERVATION)
    torch.onnx.export(
        network,
        (seen[0], *state),
        str(folder / "network.onnx"),
        input_names=inputs,
        output_names=outputs,
        dynamic_axes={name: {0: "n"} for name in (*inputs, *outputs)},
        opset_version=17,
    )
    made = []
    for obs in seen:
        made.append(network(obs, *state))
        state = made[-1][2:4]
    steps = dict(zip(outputs, map(np.stack, zip(*made, strict=True)), strict=True))
    np.savez(folder / "checks.npz", obs=seen.numpy(), **steps)


class Reset(BaseModel):
    agent_id: str = "default"


class Step(BaseModel):
    observation: list[float]
    agent_id: str = "default"
    deterministic: bool = False


class Batch(BaseModel):
    observations: list[list[float]]
    agent_ids: list[str]
    deterministic: bool = False


def server_of(network: Network, token: str) -> FastAPI:
    """REST and WebSocket around a network."""
    app = FastAPI()
    agents: dict[str, State] = {"default": fresh()}

    async def allowed(given: HTTPAuthorizationCredentials = BEARER) -> None:
        if not hmac.compare_digest(given.credentials, token):
            raise HTTPException(403, "Invalid authentication token")

    def step_of(observations: list[list[float]], states: list[State], *, greedy: bool) -> Any:
        """Actions, values, logarithms of their probabilities, pressures; and what is kept."""
        if wrong := [each for each in observations if len(each) != OBSERVATION]:
            raise HTTPException(
                400, f"Expected observation of length {OBSERVATION}, got {len(wrong[0])}"
            )
        hidden, memory = map(torch.cat, zip(*states, strict=True))
        with torch.inference_mode():
            logits, values, hidden, memory, pressures = network(
                torch.tensor(observations), hidden, memory
            )
            log_probs = logits.log_softmax(1)
            drawn = logits.argmax(1, True) if greedy else torch.multinomial(log_probs.exp(), 1)
            rows = (drawn[:, 0], values, log_probs.gather(1, drawn)[:, 0], pressures)
            kept = list(zip(hidden.split(1), memory.split(1), strict=True))
        return *(row.tolist() for row in rows), kept

    def state_of(agent_id: str) -> State:
        if agent_id not in agents:
            raise HTTPException(400, f"Agent '{agent_id}' not initialized. Call /reset first.")
        return agents[agent_id]

    @app.post("/reset", dependencies=[Depends(allowed)])
    async def reset(body: Reset) -> Any:
        agents[body.agent_id] = fresh()
        return JSONResponse({"message": "Agent state reset", "agent_id": body.agent_id})

    @app.post("/step", dependencies=[Depends(allowed)])
    async def step(body: Step) -> Any:
        actions, values, log_probs, _, kept = step_of(
            [body.observation], [state_of(body.agent_id)], greedy=body.deterministic
        )
        agents[body.agent_id] = kept[0]
        return JSONResponse(
            {
                "action": actions[0],
                "value": values[0],
                "log_prob": log_probs[0],
                "agent_id": body.agent_id,
            }
        )

    @app.post("/step_batch", dependencies=[Depends(allowed)])
    async def step_batch(body: Batch) -> Any:
        states = [state_of(each) for each in body.agent_ids]
        if len(states) != len(body.observations):
            raise HTTPException(400, "agent_ids must be as many as observations")
        actions, values, log_probs, _, kept = step_of(
            body.observations, states, greedy=body.deterministic
        )
        agents.update(zip(body.agent_ids, kept, strict=True))
        return JSONResponse(
            {
                "actions": actions,
                "values": values,
                "log_probs": log_probs,
                "agent_ids": body.agent_ids,
            }
        )

    @app.websocket("/stream")
    async def stream(socket: WebSocket) -> None:
        await socket.accept()
        state = fresh()
        try:
            while True:
                told: Mapping[str, Any] = await socket.receive_json()
                if not hmac.compare_digest(told.get("token", ""), token):
                    await socket.send_json({"error": "Authentication failed"})
                    continue
                actions, values, _, pressures, (state,) = step_of(
                    [told["observation"]], [state], greedy=told.get("deterministic", True)
                )
                answer = {"action": actions[0], "value": values[0], "pressure": pressures[0]}
                await socket.send_json(answer | {"error": None})
        except WebSocketDisconnect:
            pass

    return app


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--export", type=Path, metavar="FOLDER")
    folder = parser.parse_args().export
    if not has_quick_algebra():
        sys.exit("this torch multiplies matrices by the plain BLAS, a fifth as fast as it can be")
    torch.set_num_threads(1)
    torch.manual_seed(5)
    network = Network().eval().requires_grad_(False)
    if folder is not None:
        export(network, folder)
        return
    door = socket.create_server(("127.0.0.1", 0), backlog=1_024)
    print(door.getsockname()[1], 0, flush=True)
    app = server_of(network, os.environ["PEER_TOKEN"])
    # Its protocols are the quickest there are here: uvloop, httptools and websockets.
    config = uvicorn.Config(app, log_level="warning", access_log=False, timeout_keep_alive=600)
    uvicorn.Server(config).run([door])


if __name__ == "__main__":
    main()
