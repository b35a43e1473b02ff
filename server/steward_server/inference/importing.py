"""Makes a policy of an ONNX file: which tensor is which, a manifest, and a folder of its own.

What a file does not tell, whoever imports it is asked; `steward policy import` does the asking.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import onnxruntime

from steward_server.inference.manifest import (
    Action,
    ActionType,
    Manifest,
    StateTensor,
    read_manifest,
)
from steward_server.inference.model import MANIFEST_FILE, MAX_MODEL_BYTES, MODEL_FILE, load
from steward_server.inference.repository import Reference, look
from steward_server.inference.tensor_names import renamed

MAX_BATCH = 256
"""Rows that a policy is tried with, as many as a server computes together."""

_ALIASES = {
    "obs": ("observation", "observations"),
    "logits": ("action_logits",),
    "mean": ("action_mean", "actor_mean", "mu"),
    "log_std": ("action_log_std", "actor_logstd", "logstd"),
    "value": ("values", "critic", "state_value"),
}
_PAIRS = ("{}_out", "{}_next", "{}_new", "next_{}", "new_{}")
"""How exporters call what a state becomes."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """An input or output.

    Attributes:
        name: as the server wants it, once that is known.
        shape: without the batch; 0 is a size that the file does not tell.
    """

    name: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Unclear:
    """A tensor that the server needs, and that may be any of some in the file."""

    wanted: str
    """`obs`, `logits or mean`, `log_std`, `value`, or what a state becomes, as `hidden_out`."""
    candidates: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Facts:
    """What a file says of the policy in it.

    Attributes:
        names: of the file, and what each stands for; of those that differ.
        unclear: what must be said before the rest is known.
        action_type: empty if it is unclear.
        states: what is kept of each agent, the memory as well.
        has_pressure: whether it tells how full its memory is.
    """

    names: Mapping[str, str]
    unclear: tuple[Unclear, ...]
    obs: Tensor | None
    action_type: str
    action_size: int
    states: tuple[Tensor, ...]
    has_pressure: bool


@dataclass(frozen=True, slots=True)
class Imported:
    """A policy that can be served now."""

    name: str
    version: int
    folder: Path
    manifest: str


def inspect_file(file: Path, names: Mapping[str, str]) -> Facts:
    """See what is in an ONNX file, `names` being what its tensors stand for where that is known.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no policy that can be served, whatever is said about it.
    """
    inputs, outputs = _tensors(_content(file))
    if len(set(names.values())) < len(names):
        raise ValueError(f"two tensors cannot stand for the same: {dict(names)}")
    if unknown := names.keys() - inputs.keys() - outputs.keys():
        raise ValueError(
            f"{file.name} has no tensor {min(unknown)!r}; it takes {_listed(inputs)} and gives "
            f"{_listed(outputs)}"
        )
    return _Reading(inputs, outputs, dict(names)).facts()


def import_file(
    folder: Path,
    file: Path,
    name: str,
    *,
    description: str,
    names: Mapping[str, str],
    shapes: Mapping[str, Sequence[int]],
    memory: str = "",
    pressure: str = "",
    low: Sequence[float] = (),
    high: Sequence[float] = (),
    temperature: float = 1.0,
    version: int = 0,
) -> Imported:
    """Put an ONNX file into a folder of policies, tried and with its manifest.

    `folder` is one of policies, and is made if it is not there; the version is the one after the
    newest if none is said. `names` are what tensors stand for, as in `Facts`, without what can be
    guessed; `shapes` those of `obs`, `action` and states where the file does not tell; `memory` is
    the state that is the external one.

    Raises:
        OSError: a file cannot be read or written.
        ValueError: it cannot be served; the message says why, and of what tensor.
    """
    if Reference.parse(name) != Reference(name):
        raise ValueError(f"{name!r} names a version; say which with --version")
    facts = inspect_file(file, names)
    if facts.unclear:
        raise ValueError(f"it is unclear what {facts.unclear[0].wanted} is in {file.name}")
    content = renamed(_content(file), facts.names)
    sizes = {each.name: tuple(shapes.get(each.name, each.shape)) for each in _sized(facts)}
    for tensor, shape in sizes.items():
        if not shape or 0 in shape:
            raise ValueError(f"{file.name} does not tell the size of {tensor!r}")
    manifest = Manifest(
        description=description,
        model_sha256=hashlib.sha256(content).hexdigest(),
        obs_dim=sizes["obs"][0],
        action=Action(
            ActionType(facts.action_type),
            facts.action_size or sizes["action"][0],
            tuple(low),
            tuple(high),
        ),
        states=tuple(
            StateTensor(each.name, sizes[each.name]) for each in facts.states if each.name != memory
        ),
        memory=StateTensor(memory, sizes[memory]) if memory in sizes else None,
        pressure=pressure,
        temperature=temperature,
    )
    if memory and manifest.memory is None:
        raise ValueError(f"{memory!r} is no state of {file.name}, so it can be no memory")
    text = f"# Written by `steward policy import` of {file.name!r}.\n{manifest_text(manifest)}"
    read_manifest(text)
    return _shelved(folder, name, version, content, text)


def manifest_text(manifest: Manifest) -> str:
    """A `policy.yaml` that says this."""
    action = manifest.action
    acts: dict[str, object] = {"type": str(action.type), "size": action.size}
    if action.low:
        acts |= {"low": list(action.low), "high": list(action.high)}
    told: dict[str, object] = {
        "description": manifest.description,
        "model_sha256": manifest.model_sha256,
        "obs_dim": manifest.obs_dim,
        "action": acts,
    }
    if manifest.states:
        told["state"] = [_told(each) for each in manifest.states]
    if manifest.memory is not None:
        told["memory"] = _told(manifest.memory)
    if manifest.pressure:
        told["pressure"] = manifest.pressure
    told["sampling"] = {"temperature": manifest.temperature}
    # What is JSON is YAML.
    return "".join(f"{key}: {json.dumps(value)}\n" for key, value in told.items())


class _Reading:
    """Finds out what each tensor of a file stands for."""

    def __init__(
        self,
        inputs: Mapping[str, tuple[int, ...]],
        outputs: Mapping[str, tuple[int, ...]],
        names: dict[str, str],
    ) -> None:
        self._inputs = inputs
        self._outputs = outputs
        self._names = names
        """Of the file, and what they stand for; grows."""
        self._unclear: list[Unclear] = []

    def facts(self) -> Facts:
        states = [each for each in self._inputs if self._stands_for(each) != "obs"]
        if self._find("obs", self._inputs) is None:
            alone = [each for each in states if self._partner(each) is None]
            if len(alone) == 1 and alone[0] not in self._names:
                self._names[alone[0]] = "obs"
            else:
                self._ask("obs", alone or states)
        states = [each for each in self._inputs if self._stands_for(each) != "obs"]
        action_type = self._action_type()
        if action_type == ActionType.CONTINUOUS and self._find("log_std", self._outputs) is None:
            self._ask("log_std", self._free(states))
        if self._find("value", self._outputs) is None:
            self._ask("value", self._free(states))
        kept = []
        for each in states:
            name = self._stands_for(each)
            if (partner := self._partner(each)) is not None:
                self._names[partner] = f"{name}_out"
            elif not self._unclear:  # with the rest known, there is less to choose from
                self._ask(f"{name}_out", self._free(states))
            kept.append(Tensor(name, self._inputs[each]))
        obs = self._find("obs", self._inputs)
        head = self._find("logits" if action_type == ActionType.DISCRETE else "mean", self._outputs)
        return Facts(
            {old: new for old, new in self._names.items() if old != new},
            tuple(self._unclear),
            None if obs is None else Tensor("obs", self._inputs[obs]),
            action_type,
            self._outputs[head][-1] if head and self._outputs[head] else 0,
            tuple(kept),
            self._find("pressure", self._outputs) is not None,
        )

    def _action_type(self) -> str:
        found = [
            kind
            for kind, head in ((ActionType.DISCRETE, "logits"), (ActionType.CONTINUOUS, "mean"))
            if self._find(head, self._outputs) is not None
        ]
        if len(found) == 2:
            raise ValueError(
                "the file gives logits and a mean, and an action is discrete or continuous: call "
                "one of them by another name"
            )
        if found:
            return found[0]
        states = [each for each in self._inputs if self._stands_for(each) != "obs"]
        self._ask("logits or mean", self._free(states))
        return ""

    def _stands_for(self, name: str) -> str:
        return self._names.get(name, name)

    def _find(self, wanted: str, among: Mapping[str, tuple[int, ...]]) -> str | None:
        """The tensor that stands for this, by what was said of it or by its name."""
        for each in among:
            if self._stands_for(each) == wanted:
                return each
        for alias in _ALIASES.get(wanted, ()):
            if alias in among and alias not in self._names:
                self._names[alias] = wanted
                return alias
        return None

    def _partner(self, state: str) -> str | None:
        """The output that a state becomes."""
        name = self._stands_for(state)
        for each in self._outputs:
            if self._stands_for(each) == f"{name}_out":
                return each
        for pattern in _PAIRS:
            for each in (pattern.format(state), pattern.format(name)):
                if each in self._outputs and each not in self._names:
                    return each
        return None

    def _free(self, states: Sequence[str]) -> list[str]:
        """Outputs of which nothing is known yet."""
        partners = {self._partner(each) for each in states}
        known = {*_ALIASES, "pressure"}
        return [
            each
            for each in self._outputs
            if each not in partners and each not in self._names and each not in known
        ]

    def _ask(self, wanted: str, candidates: Sequence[str]) -> None:
        if not candidates:
            raise ValueError(
                f"the file has nothing that can be {wanted}: it takes {_listed(self._inputs)} and "
                f"gives {_listed(self._outputs)}, and a policy takes 'obs' and what it keeps, and "
                "gives 'logits', or 'mean' and 'log_std', then 'value' and what it keeps next"
            )
        self._unclear.append(Unclear(wanted, tuple(candidates)))


def _sized(facts: Facts) -> list[Tensor]:
    """Tensors whose sizes stand in the manifest."""
    obs = [] if facts.obs is None else [facts.obs]
    action = [] if facts.action_size else [Tensor("action", (0,))]
    return [*obs, *facts.states, *action]


def _content(file: Path) -> bytes:
    with file.open("rb") as opened:
        content = opened.read(MAX_MODEL_BYTES + 1)
    if len(content) > MAX_MODEL_BYTES:
        raise ValueError(f"{file.name} has more than {MAX_MODEL_BYTES} bytes")
    return content


def _tensors(content: bytes) -> tuple[dict[str, tuple[int, ...]], dict[str, tuple[int, ...]]]:
    """Inputs and outputs, with their shapes without the batch."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # what it has to say comes as an exception
    try:
        session = onnxruntime.InferenceSession(content, options, ["CPUExecutionProvider"])
    except Exception as error:  # noqa: BLE001 - of whatever kind the runtime's are
        why = str(error).partition("\n")[0][:300]
        raise ValueError(f"it is no ONNX model that can be run: {why}") from None
    sides = session.get_inputs(), session.get_outputs()
    for side in sides:
        for each in side:
            if each.type != "tensor(float)":
                raise ValueError(
                    f"{each.name!r} is a {each.type}; all that goes in and out must be float32: "
                    "give logits, or a mean and a log_std, and let the server draw the action"
                )
            if side is sides[0] and each.shape and isinstance(each.shape[0], int):
                raise ValueError(
                    f"{each.name!r} has the shape {each.shape}, for so many agents and no others; "
                    "export it with a first dimension that is free, such as "
                    f"dynamic_axes={{{each.name!r}: {{0: 'n'}}}}"
                )
    inputs, outputs = (
        {
            each.name: tuple(size if isinstance(size, int) else 0 for size in each.shape[1:])
            for each in side
        }
        for side in sides
    )
    return inputs, outputs


def _shelved(folder: Path, name: str, version: int, content: bytes, text: str) -> Imported:
    """Try it where nobody looks, and put it where the server does."""
    version = version or look([folder]).newest(name) + 1
    place = folder / name / str(version)
    if place.exists():
        raise ValueError(f"there is a version {version} of {name!r} in {str(folder)!r} already")
    place.parent.mkdir(parents=True, exist_ok=True)
    tried = Path(tempfile.mkdtemp(prefix=".new-", dir=place.parent))
    try:
        (tried / MODEL_FILE).write_bytes(content)
        (tried / MANIFEST_FILE).write_text(text, encoding="utf-8")
        load(tried, max_batch=MAX_BATCH)
        tried.chmod(0o755)
        tried.rename(place)
    except BaseException:
        shutil.rmtree(tried, ignore_errors=True)
        raise
    return Imported(name, version, place, text)


def _told(tensor: StateTensor) -> dict[str, object]:
    return {"name": tensor.name, "shape": list(tensor.shape)}


def _listed(names: Mapping[str, tuple[int, ...]]) -> str:
    return ", ".join(map(repr, names)) or "nothing"
