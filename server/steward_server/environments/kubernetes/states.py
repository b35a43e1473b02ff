"""What the status of a pod says. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from steward_server.environments.driver import Exit, Unusable
from steward_server.environments.kubernetes.marks import CONTAINER

Object = Mapping[str, Any]

_KILLED = Exit(137, 9)
_MAX_SIGNAL = 31
_UNKNOWN_IMAGE = re.compile(
    "not found|manifest unknown|does not exist|pull access denied|repository .* denied",
    re.IGNORECASE,
)
_NOT_STARTED = {
    "CreateContainerConfigError",
    "CreateContainerError",
    "RunContainerError",
    "PreCreateHookError",
    "StartError",
    "ContainerCannotRun",
}


@dataclass(frozen=True, slots=True)
class Condition:
    """How a pod is."""

    is_running: bool = False
    exit: Exit | None = None
    """How its main command ended, once it has."""
    fault: Unusable | None = None
    """Why it will not run."""
    waits_for: str = ""
    """What holds it up, in the cluster's words."""
    remark: str = ""
    """What there is to say of its end."""


def condition(pod: Object) -> Condition:
    """How a pod is."""
    status: Object = pod.get("status") or {}
    phase = status.get("phase", "Pending")
    container = _container(status)
    state: Object = container.get("state") or {}
    if (ended := state.get("terminated")) is not None:
        return _ended(ended, status)
    if phase in ("Failed", "Succeeded"):
        # Put out before or while it ran: evicted, past its deadline, or refused by its node.
        reason = _join(status.get("reason", ""), status.get("message", ""))
        if not pod.get("metadata", {}).get("deletionTimestamp") and not status.get("startTime"):
            return Condition(fault=Unusable("REFUSED_BY_NODE", f"its node refused it: {reason}"))
        return Condition(exit=Exit(0) if phase == "Succeeded" else _KILLED, remark=reason)
    if state.get("running") is not None:
        return Condition(is_running=True)
    if (waiting := state.get("waiting")) is not None:
        return _waiting(waiting, pod)
    return Condition(waits_for=_scheduling(status.get("conditions") or ()))


def _container(status: Object) -> Object:
    for each in status.get("containerStatuses") or ():
        if each.get("name") == CONTAINER:
            return dict(each)
    return {}


def _ended(ended: Object, status: Object) -> Condition:
    reason, message = ended.get("reason", ""), ended.get("message", "")
    if reason in _NOT_STARTED:
        return Condition(fault=_cannot_run(_join(reason, message)))
    code = int(ended.get("exitCode", 0))
    signal = ended.get("signal") or None
    remark = ""
    if reason == "OOMKilled":
        remark = "its main command was killed: it used more memory than the environment has"
    elif status.get("reason"):
        remark = _join(status["reason"], status.get("message", ""))
    return Condition(exit=exit_of(code, signal), remark=remark)


def exit_of(code: int, signal: int | None = None) -> Exit:
    """An exit by its code alone: a runtime says 128 and the signal's number, and no more.

    What a shell passes on of a child that was killed looks the same, and means the same.
    """
    if signal is None and 128 < code <= 128 + _MAX_SIGNAL:
        signal = code - 128
    return Exit(code, signal)


def _waiting(waiting: Object, pod: Object) -> Condition:
    reason, message = waiting.get("reason", ""), waiting.get("message", "")
    text = _join(reason, message)
    image = pod["spec"]["containers"][0]["image"]
    if reason == "InvalidImageName":
        return Condition(fault=Unusable("BAD_IMAGE_NAME", f"{image!r} is no name of an image"))
    if reason in ("ErrImagePull", "ImagePullBackOff", "ErrImageNeverPull"):
        if reason == "ErrImageNeverPull" or _UNKNOWN_IMAGE.search(message):
            return Condition(
                fault=Unusable(
                    "UNKNOWN_IMAGE",
                    f"there is no image {image!r} that the cluster may pull: {message}",
                )
            )
        if reason == "ImagePullBackOff":
            return Condition(
                fault=Unusable("IMAGE_PULL", f"the cluster cannot pull {image!r}: {message}")
            )
    if reason in _NOT_STARTED:
        return Condition(fault=_cannot_run(text))
    return Condition(waits_for=text)


def _cannot_run(text: str) -> Unusable:
    reason = "CANNOT_START"
    if "executable file not found" in text or "no such file or directory" in text:
        reason = "NOT_EXECUTABLE"
    return Unusable(reason, f"the cluster cannot run its main command: {text}")


def _scheduling(conditions: Sequence[Object]) -> str:
    for each in conditions:
        if each.get("type") == "PodScheduled" and each.get("status") == "False":
            return _join(each.get("reason", ""), each.get("message", ""))
    return ""


def _join(*texts: str) -> str:
    return ": ".join(filter(None, texts))
