"""One version of a policy as ONNX Runtime runs it: checked against its manifest, and warmed up."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from steward_server.errors import StewardError
from steward_server.inference.manifest import (
    ActionType,
    BadManifest,
    Manifest,
    ModelServer,
    read_manifest,
)
from steward_server.inference.remote import RemoteNetwork

Floats = NDArray[np.float32]

MODEL_FILE = "model.onnx"
MANIFEST_FILE = "policy.yaml"
MAX_MODEL_BYTES = 512 * 1024 * 1024
INLINE_S = 0.001
"""A run that is quicker than this is made in the event loop: a thread would cost more."""

_WARM_UPS = 3
_BATCHES = (1, 8, 32, 64, 128, 256)


class BadPolicy(ValueError):
    """A policy cannot be served; the message says why, and of what file."""


class OutOfReach(BadPolicy):
    """The server that has the model does not answer; it may later."""


@dataclass(frozen=True, slots=True)
class Outputs:
    """What a run gives: rows are agents, in the order of the observations.

    Attributes:
        action: `logits`, or `mean` and `log_std`; rows by the action's size.
        values: one each.
        states: what is kept of them now, one array for each tensor.
        pressures: one each; None if the policy has no such figure.
    """

    action: tuple[Floats, ...]
    values: Floats
    states: list[Floats]
    pressures: Floats | None


class Network(Protocol):
    """Computes a model: ONNX Runtime's session does, and a connection to another server."""

    def run(self, outputs: Sequence[str], given: Mapping[str, Floats], /) -> list[Any]: ...


class Model:
    """A policy that runs. Make it with `load`."""

    def __init__(self, manifest: Manifest, network: Network) -> None:
        self.manifest = manifest
        self._network = network
        self._inputs = ["obs", *(each.name for each in manifest.kept)]
        self._outputs = list(manifest.outputs)
        self._heads = 1 if manifest.action.type is ActionType.DISCRETE else 2
        self.best_batch = 1
        """The number of rows that costs least for each."""
        self._row_s = 0.0
        self._call_s = 0.0

    def run(self, observations: Floats, states: Sequence[Floats]) -> Outputs:
        """Compute some agents' next step; nothing is kept here."""
        given = dict(zip(self._inputs, (observations, *states), strict=True))
        made: list[Any] = self._network.run(self._outputs, given)
        heads, rest = tuple(made[: self._heads]), made[self._heads :]
        kept = len(self.manifest.kept)
        values = rest[0].reshape(-1)
        pressures = rest[1 + kept].reshape(-1) if self.manifest.pressure else None
        return Outputs(heads, values, rest[1 : 1 + kept], pressures)

    def run_in_parts(self, observations: Floats, states: Sequence[Floats]) -> Outputs:
        """As `run`, in batches of the size that costs least."""
        count, batch = len(observations), self.best_batch
        if count <= batch:
            return self.run(observations, states)
        parts = [
            self.run(observations[at : at + batch], [state[at : at + batch] for state in states])
            for at in range(0, count, batch)
        ]
        pressures = [each.pressures for each in parts if each.pressures is not None]
        return Outputs(
            tuple(map(np.concatenate, zip(*(each.action for each in parts), strict=True))),
            np.concatenate([each.values for each in parts]),
            [np.concatenate(each) for each in zip(*(each.states for each in parts), strict=True)],
            np.concatenate(pressures) if pressures else None,
        )

    def expected_s(self, count: int) -> float:
        """How long a run of so many rows takes about, in seconds; no end, on another server."""
        if self.manifest.server is not None:
            return math.inf
        return self._call_s + count * self._row_s

    def close(self) -> None:
        """Let go of another server."""
        if isinstance(self._network, RemoteNetwork):
            self._network.close()

    def fresh(self, count: int) -> list[Floats]:
        """States of agents whose sequence begins."""
        return [np.zeros((count, *each.shape), np.float32) for each in self.manifest.kept]

    def warm_up(self, max_batch: int) -> None:
        """Run batches of several sizes, and see which costs least for a row.

        Raises:
            BadPolicy: it does not run, or gives something else than its manifest says.
        """
        best_s = math.inf
        for count in (each for each in _BATCHES if each <= max_batch):
            observations = np.zeros((count, self.manifest.obs_dim), np.float32)
            took_s = math.inf
            for _ in range(_WARM_UPS):
                begun_s = time.perf_counter()
                outputs = self._probed(observations)
                took_s = min(took_s, time.perf_counter() - begun_s)
            self._check(outputs, count)
            if count == 1:
                self._call_s = took_s
            # A smaller batch that costs about as much for each row keeps callers waiting less.
            if took_s / count < 0.9 * best_s:
                best_s, self.best_batch = took_s / count, count
        self._row_s = best_s

    def _probed(self, observations: Floats) -> Outputs:
        try:
            return self.run(observations, self.fresh(len(observations)))
        except StewardError:
            raise
        except Exception as error:  # noqa: BLE001 - of whatever kind the runtime's are
            raise BadPolicy(f"the model does not run: {_in_one_line(error)}") from None

    def _check(self, outputs: Outputs, count: int) -> None:
        manifest = self.manifest
        size = manifest.action.size
        wanted: dict[str, tuple[int, ...]] = {}
        found: dict[str, Floats] = {}
        for name, head in zip(manifest.outputs, outputs.action, strict=False):
            wanted[name], found[name] = (count, size), head
        wanted["value"], found["value"] = (count,), outputs.values
        for tensor, state in zip(manifest.kept, outputs.states, strict=True):
            wanted[tensor.output], found[tensor.output] = (count, *tensor.shape), state
        if outputs.pressures is not None:
            wanted["pressure"], found["pressure"] = (count,), outputs.pressures
        for name, shape in wanted.items():
            array = found[name]
            if array.shape != shape or array.dtype != np.float32:
                raise BadPolicy(
                    f"the model: output {name!r} is {array.dtype} of {list(array.shape)} for "
                    f"{count} agents; the manifest wants float32 of {list(shape)}"
                )
            if not np.isfinite(array).all():
                raise BadPolicy(
                    f"the model: output {name!r} is not finite for an observation of zeros"
                )


def load(folder: Path, *, max_batch: int) -> Model:
    """Read, check and warm up the policy in a folder.

    Raises:
        BadPolicy: a file is missing or too large, the digest is another, the model cannot be read,
            or it is not what the manifest says.
    """
    manifest = manifest_of(folder)
    if manifest.server is not None:
        return _connected(manifest, manifest.server, max_batch)
    content = _read(folder / MODEL_FILE, MAX_MODEL_BYTES)
    digest = hashlib.sha256(content).hexdigest()
    if digest != manifest.model_sha256:
        raise BadPolicy(
            f"{MODEL_FILE} has the digest {digest}, and {MANIFEST_FILE} names "
            f"{manifest.model_sha256}: it is another file, or is still being written"
        )
    import onnxruntime  # 20 MB, which a server without policies need not have

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.enable_cpu_mem_arena = False  # it keeps 10 MB a model, and saves no time
    options.log_severity_level = 4  # what it has to say comes as an exception
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        session = onnxruntime.InferenceSession(content, options, ["CPUExecutionProvider"])
    except Exception as error:  # noqa: BLE001
        raise BadPolicy(f"{MODEL_FILE} cannot be loaded: {_in_one_line(error)}") from None
    inputs, outputs = session.get_inputs(), session.get_outputs()
    _must_fit(manifest, {each.name for each in inputs}, {each.name for each in outputs})
    model = Model(manifest, session)
    model.warm_up(max_batch)
    return model


def _connected(manifest: Manifest, server: ModelServer, max_batch: int) -> Model:
    network = RemoteNetwork(server)
    try:
        _must_fit(manifest, *network.names())
        model = Model(manifest, network)
        model.warm_up(max_batch)
    except StewardError as error:
        network.close()
        raise OutOfReach(error.message) from None
    except BadPolicy:
        network.close()
        raise
    return model


def manifest_of(folder: Path) -> Manifest:
    """The manifest of the policy in a folder.

    Raises:
        BadPolicy: it is missing, or cannot be used.
    """
    try:
        text = _read(folder / MANIFEST_FILE, 1024 * 1024).decode()
        return read_manifest(text)
    except UnicodeDecodeError:
        raise BadPolicy(f"{MANIFEST_FILE} is not UTF-8") from None
    except BadManifest as error:
        raise BadPolicy(f"{MANIFEST_FILE}: {error}") from None


def _must_fit(manifest: Manifest, inputs: set[str], outputs: set[str]) -> None:
    wanted = {"obs", *(each.name for each in manifest.kept)}
    if inputs != wanted:
        raise BadPolicy(
            f"the model takes {_listed(inputs)}, and the manifest says {_listed(wanted)}"
        )
    if missing := set(manifest.outputs) - outputs:
        raise BadPolicy(
            f"the model gives {_listed(outputs)}; the manifest wants {_listed(missing)} as well"
        )


def _read(path: Path, most_bytes: int) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(most_bytes + 1)
    except OSError as error:
        raise BadPolicy(f"{path.name} cannot be read: {error.strerror}") from None
    if len(content) > most_bytes:
        raise BadPolicy(f"{path.name} has more than {most_bytes} bytes")
    return content


def _listed(names: set[str]) -> str:
    return ", ".join(sorted(names)) or "nothing"


def _in_one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
