"""Why a workload does not run yet, in one sentence for people. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from abruzzi.contracts.reason import Reason
from abruzzi_operators.executors.pod_ends import containers, is_over, is_running
from abruzzi_operators.renderers.names import LABEL_QUEUE

NEVER = ("InvalidImageName", "ErrImageNeverPull")
PULLING = ("ErrImagePull", "ImagePullBackOff", "RegistryUnavailable", "ImageInspectError")
STUCK = ("CreateContainerConfigError", "CreateContainerError", "RunContainerError")
IMAGE_PATIENCE_SECONDS = 300.0
"""A registry that is away comes back; an image that is not there after this is the recipe's mistake."""
ABSENT = ("not found", "manifest unknown", "does not exist", "no such image", "repository name")


@dataclass(frozen=True, slots=True)
class Wait:
    reason: str
    code: Reason
    hopeless: bool = False
    """No waiting will help: somebody must change the recipe."""


def waits_for(
    workload: Mapping[str, Any],
    pods: Sequence[Mapping[str, Any]],
    *,
    expected: int,
    queue_message: str | None,
    pending_seconds: float,
    refusal: str | None = None,
) -> Wait | None:
    """None when there is nothing to say but that it is being started. `queue_message`: Kueue's word about its Workload; `refusal`: the word of
    whoever can't make its pods."""
    waiting = [pod for pod in pods if not is_over(pod) and not is_running(pod)]
    for find in (_image, _stuck, _unscheduled):
        found = next((wait for pod in waiting if (wait := find(pod, pending_seconds)) is not None), None)
        if found is not None:
            return found
    if refusal is not None and len(pods) < expected:
        return Wait(f"The cluster refuses its pods: {refusal}.", Reason.WAITS_FOR_PODS)
    queue = queue_of(workload)
    if not pods and queue:
        return Wait(
            f"It waits in queue {queue!r}{f': {queue_message.rstrip(chr(46))}' if queue_message else ''}.",
            queue_code(queue_message or ""),
        )
    if waiting and len(waiting) < expected:
        return Wait(
            f"{expected - len(waiting)} of its {expected} pods run; the others are being started.", Reason.STARTING
        )
    return None


def queue_of(workload: Mapping[str, Any]) -> str | None:
    """Of Kueue's queues the one that it goes through, if any."""
    return (workload["metadata"].get("labels") or {}).get(LABEL_QUEUE)


def queue_code(message: str) -> Reason:
    """From Kueue's word on why it has not reserved quota. What it has not looked at yet has others ahead of it."""
    said = message.lower()
    if "topology" in said:
        return Reason.WAITS_FOR_TOPOLOGY
    if "untolerated taint" in said:
        return Reason.WAITS_FOR_TAINT
    return Reason.WAITS_FOR_QUOTA if "insufficient" in said else Reason.WAITS_IN_QUEUE


def scheduler_code(message: str) -> Reason:
    """From the scheduler's list of what each node lacks: a node that is only full can become free, a taint stays."""
    said = message.lower()
    if "untolerated taint" in said and "insufficient" not in said:
        return Reason.WAITS_FOR_TAINT
    return Reason.WAITS_FOR_NODES


def _image(pod: Mapping[str, Any], pending_seconds: float) -> Wait | None:
    for status in [*((pod.get("status") or {}).get("initContainerStatuses") or ()), *containers(pod)]:
        waiting = (status.get("state") or {}).get("waiting") or {}
        reason, message = waiting.get("reason"), str(waiting.get("message") or "").strip()
        if reason in NEVER:
            return Wait(f"The image can't be used ({reason}): {message[:300]}", Reason.WAITS_FOR_IMAGE, hopeless=True)
        if reason in PULLING:
            absent = any(sign in message.lower() for sign in ABSENT)
            hopeless = absent and pending_seconds > IMAGE_PATIENCE_SECONDS
            return Wait(
                f"The image can't be pulled ({reason}): {message[:300]}", Reason.WAITS_FOR_IMAGE, hopeless=hopeless
            )
    return None


def _stuck(pod: Mapping[str, Any], pending_seconds: float) -> Wait | None:
    for status in containers(pod):
        waiting = (status.get("state") or {}).get("waiting") or {}
        if waiting.get("reason") in STUCK:
            said = f"The container can't be made ({waiting['reason']}): {str(waiting.get('message') or '')[:300]}"
            return Wait(said, Reason.WAITS_FOR_CONTAINER)
    return None


def _unscheduled(pod: Mapping[str, Any], pending_seconds: float) -> Wait | None:
    for condition in (pod.get("status") or {}).get("conditions") or ():
        if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
            message = str(condition.get("message") or "")
            return Wait(f"No node takes pod {pod['metadata']['name']}: {message[:300]}", scheduler_code(message))
    return None
