"""What `policy.yaml` says of a policy: sizes, state, action, sampling, digest. Pure.

A policy is a function of an observation and of what it keeps of an agent. Everything it keeps is
zeros when a sequence begins.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from io import StringIO
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError

MAX_CHARACTERS = 64 * 1024
MAX_OBS_DIM = 65_536
MAX_ACTION_SIZE = 4_096
MAX_STATES = 16
MAX_STATE_FLOATS = 4 * 1024 * 1024
"""Of one agent, in all tensors: 16 MiB."""

_SHA256 = re.compile(r"[0-9a-f]{64}")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.]{0,63}")
_SERVER = re.compile(r"grpc(?P<tls>s?)://(?P<address>[A-Za-z0-9.\[\]:_-]+:[0-9]{1,5})/?")
_TAKEN = frozenset({"obs", "logits", "mean", "log_std", "value", "pressure"})


class BadManifest(ValueError):
    """A `policy.yaml` cannot be used.

    Attributes:
        faults: what is wrong, each with where it stands; at least one.
    """

    def __init__(self, faults: Sequence[str]) -> None:
        super().__init__("; ".join(faults))
        self.faults = tuple(faults)


class ActionType(StrEnum):
    """What the policy decides on."""

    DISCRETE = "discrete"
    """One of `size` numbers, from 0 on; of the model: `logits`, before any softmax."""
    CONTINUOUS = "continuous"
    """`size` real numbers; of the model: `mean` and `log_std` of independent normals."""


@dataclass(frozen=True, slots=True)
class Action:
    """What comes out.

    Attributes:
        low: the least each number may be, for continuous ones with bounds; else empty.
        high: the most.
    """

    type: ActionType
    size: int
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class StateTensor:
    """What is kept of each agent: the model's input `name`, which becomes its `name_out`.

    Attributes:
        shape: of one agent, without the dimension of the batch.
    """

    name: str
    shape: tuple[int, ...]

    @property
    def output(self) -> str:
        return f"{self.name}_out"


@dataclass(frozen=True, slots=True)
class ModelServer:
    """Another server that computes the model, by the Open Inference Protocol.

    Attributes:
        address: host and port.
        model: its name there.
        version: empty for that server's own choice.
    """

    address: str
    model: str
    version: str = ""
    is_tls: bool = False


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a policy takes, keeps and gives.

    Attributes:
        description: one sentence for people.
        model_sha256: of `model.onnx`, in hex; empty if another server has the model.
        server: that server.
        obs_dim: how many numbers an observation has.
        states: what is kept of an agent, without the memory.
        memory: the external memory: rows by columns; None without one.
        pressure: what the model's `pressure` means, in words; empty if it has none.
        temperature: what logits are divided by before an action is drawn; above 0.
    """

    description: str
    model_sha256: str
    obs_dim: int
    action: Action
    states: tuple[StateTensor, ...] = ()
    memory: StateTensor | None = None
    pressure: str = ""
    temperature: float = 1.0
    server: ModelServer | None = None

    @property
    def kept(self) -> tuple[StateTensor, ...]:
        """Everything that is kept, in the order of the model's inputs after `obs`."""
        return self.states if self.memory is None else (*self.states, self.memory)

    @property
    def outputs(self) -> tuple[str, ...]:
        """What the model gives: the action's, the value, what is kept, and pressure."""
        discrete = self.action.type is ActionType.DISCRETE
        return (
            *(("logits",) if discrete else ("mean", "log_std")),
            "value",
            *(each.output for each in self.kept),
            *(("pressure",) if self.pressure else ()),
        )


def read_manifest(text: str) -> Manifest:
    """Read a `policy.yaml`.

    Raises:
        BadManifest: it is not YAML, or something in it cannot be used; all of it is told.
    """
    if len(text) > MAX_CHARACTERS:
        raise BadManifest([f"it has {len(text)} characters; at most {MAX_CHARACTERS} are read"])
    try:
        told = YAML(typ="safe", pure=True).load(StringIO(text))
    except MarkedYAMLError as error:
        mark = error.problem_mark
        where = f" in line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise BadManifest([f"it is no YAML{where}: {error.problem or error.context}"]) from None
    except YAMLError as error:
        raise BadManifest([f"it is no YAML: {error}"]) from None
    if not isinstance(told, Mapping):
        raise BadManifest(["it must be a mapping, beginning with `description: …`"])
    return _Reading().manifest(told)


class _Reading:
    """Reads what it can, so that everything that is wrong is told at once."""

    def __init__(self) -> None:
        self._faults: list[str] = []

    def manifest(self, told: Mapping[Any, Any]) -> Manifest:
        self._known(
            "",
            told,
            "description",
            "model_sha256",
            "obs_dim",
            "action",
            "state",
            "memory",
            "pressure",
            "sampling",
            "server",
        )
        server = told.get("server")
        digest = self._text(told, "model_sha256", required=server is None)
        if digest and server is not None:
            self._faults.append("server: a model is there or in `model.onnx`, not both")
        if digest and _SHA256.fullmatch(digest) is None:
            self._fault("model_sha256", digest, "64 hexadecimal digits in lower case")
        memory = told.get("memory")
        read = Manifest(
            description=self._text(told, "description", required=True),
            model_sha256=digest,
            obs_dim=self._whole("obs_dim", told.get("obs_dim"), MAX_OBS_DIM),
            action=self._action(told.get("action")),
            states=self._states(told.get("state", [])),
            memory=None if memory is None else self._tensor("memory", memory),
            pressure=self._text(told, "pressure"),
            temperature=self._temperature(told.get("sampling", {})),
            server=None if server is None else self._server(server),
        )
        if read.memory is not None and len(read.memory.shape) != 2:
            self._fault("memory.shape", list(read.memory.shape), "two sizes, rows and columns")
        names = [each.name for each in read.kept]
        for name in sorted({name for name in names if names.count(name) > 1}):
            self._faults.append(f"state: {name!r} is there more than once")
        if sum(math.prod(each.shape) for each in read.kept) > MAX_STATE_FLOATS:
            self._faults.append(
                f"state: an agent would have more than {MAX_STATE_FLOATS} numbers to keep"
            )
        if self._faults:
            raise BadManifest(self._faults)
        return read

    def _action(self, told: Any) -> Action:
        if not isinstance(told, Mapping):
            self._fault("action", told, "a mapping such as {type: discrete, size: 2}")
            return Action(ActionType.DISCRETE, 1)
        self._known("action.", told, "type", "size", "low", "high")
        kind = told.get("type")
        if not isinstance(kind, str) or kind not in [*ActionType]:
            self._fault("action.type", kind, f"one of {', '.join(ActionType)}")
            kind = ActionType.DISCRETE
        size = self._whole("action.size", told.get("size"), MAX_ACTION_SIZE)
        low, high = (self._bounds(f"action.{end}", told.get(end), size) for end in ("low", "high"))
        if (low or high) and kind == ActionType.DISCRETE:
            self._faults.append("action: a discrete one has no `low` and `high`")
        elif len(low) != len(high):
            self._faults.append("action: `low` and `high` stand together")
        elif not all(least < most for least, most in zip(low, high, strict=True)):
            self._faults.append("action: each `low` must be below its `high`")
        return Action(ActionType(kind), size, low, high)

    def _states(self, told: Any) -> tuple[StateTensor, ...]:
        if not isinstance(told, list) or len(told) > MAX_STATES:
            self._fault("state", told, f"a list of at most {MAX_STATES} tensors")
            return ()
        return tuple(self._tensor(f"state[{index}]", each) for index, each in enumerate(told))

    def _tensor(self, where: str, told: Any) -> StateTensor:
        if not isinstance(told, Mapping):
            self._fault(where, told, "a mapping such as {name: hidden, shape: [64]}")
            return StateTensor("", ())
        self._known(f"{where}.", told, "name", "shape")
        name, shape = told.get("name"), told.get("shape")
        if not isinstance(name, str) or _NAME.fullmatch(name) is None or name in _TAKEN:
            self._fault(f"{where}.name", name, "the name of the model's input, such as 'hidden'")
            name = ""
        if not isinstance(shape, list) or not 1 <= len(shape) <= 4:
            self._fault(f"{where}.shape", shape, "a list of 1 to 4 sizes, without the batch's")
            return StateTensor(name, ())
        sizes = (self._whole(f"{where}.shape", each, MAX_STATE_FLOATS) for each in shape)
        return StateTensor(name, tuple(sizes))

    def _temperature(self, told: Any) -> float:
        if not isinstance(told, Mapping):
            self._fault("sampling", told, "a mapping such as {temperature: 1.0}")
            return 1.0
        self._known("sampling.", told, "temperature")
        wanted = told.get("temperature", 1.0)
        if not _is_number(wanted) or not 0.001 <= wanted <= 1_000:
            self._fault("sampling.temperature", wanted, "a number from 0.001 to 1000")
            return 1.0
        return float(wanted)

    def _server(self, told: Any) -> ModelServer:
        if not isinstance(told, Mapping):
            self._fault("server", told, "a mapping such as {url: 'grpc://host:8001', model: name}")
            return ModelServer("", "")
        self._known("server.", told, "url", "model", "version")
        url = told.get("url")
        found = _SERVER.fullmatch(url) if isinstance(url, str) else None
        if found is None:
            self._fault("server.url", url, "such as 'grpc://host:8001', or 'grpcs://' with TLS")
        model, version = told.get("model"), told.get("version", "")
        if not isinstance(model, str) or not model.strip():
            self._fault("server.model", model, "the model's name on that server")
        if type(version) not in (str, int):
            self._fault("server.version", version, "a version of it, or left out")
        address, is_tls = (found["address"], found["tls"] == "s") if found else ("", False)
        return ModelServer(address, str(model), str(version), is_tls)

    def _bounds(self, where: str, told: Any, size: int) -> tuple[float, ...]:
        if told is None:
            return ()
        if not isinstance(told, list) or len(told) != size or not all(map(_is_number, told)):
            self._fault(where, told, f"a list of {size} numbers")
            return ()
        return tuple(map(float, told))

    def _text(self, told: Mapping[Any, Any], key: str, *, required: bool = False) -> str:
        found = told.get(key, "")
        if isinstance(found, str) and (found.strip() or not required):
            return found.strip()
        self._fault(key, found, "a text")
        return ""

    def _whole(self, where: str, told: Any, most: int) -> int:
        if type(told) is not int or not 1 <= told <= most:
            self._fault(where, told, f"a whole number from 1 to {most}")
            return 1
        return told

    def _known(self, where: str, told: Mapping[Any, Any], *names: str) -> None:
        self._faults += [
            f"{where}{name!s:.40}: there is no such key; there are {', '.join(names)}"
            for name in told
            if name not in names
        ]

    def _fault(self, where: str, told: Any, wanted: str) -> None:
        found = "missing" if told is None else f"{told!r:.60}"
        self._faults.append(f"{where} is {found}; it must be {wanted}")


def _is_number(told: Any) -> bool:
    return type(told) in (int, float) and math.isfinite(told)
