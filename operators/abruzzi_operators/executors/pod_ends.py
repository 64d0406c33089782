"""How pods end, and how an attempt ended by its pods. Pure: objects of the apiserver in (as a reflector keeps them), words of the engine out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from abruzzi.contracts.states import ExitCode
from abruzzi_operators.executors.node_words import UNKNOWN, NodeWords
from abruzzi_operators.launcher.outcome import RankExit, exit_code, failed_rank, from_message, reason

Pod = Mapping[str, Any]

LOST_SIGHT = "ContainerStatusUnknown"
"""The kubelet's word for a container that it deleted before it ran, or does not find again; its exit code 137 is made up."""
CANNOT_START = ("StartError", "ContainerCannotRun")
"""The runtime's word for a command that is not in the image."""
NODE_GONE = ("DeletionByTaintManager", "DeletionByPodGC")
"""Reasons of the condition DisruptionTarget that speak of a node, not of a decision about the pod."""


RAY_NODE = "ray.io/node-type"
"""KubeRay's label: `head`, where the stage's launcher runs, or `worker`."""

OVERDUE_SECONDS = 100.0
"""After the end of its grace, at which a living kubelet kills. A kubelet (1.34) that has begun to wait for the end of one grace does not hear
of a shorter one, so this is longer than the longest grace (65 s), and wide enough for clocks that differ."""
STUCK_SECONDS = 900.0
"""The same on a node that is known to answer: its kubelet is slow, or the process can't be killed (state D). That is no lost node, but there is
an end to waiting: whoever comes next writes under another epoch."""


@dataclass(frozen=True, slots=True)
class PodEnd:
    index: int
    """Of its node in the attempt: 0 has rank 0."""
    exits: tuple[RankExit, ...]
    """Empty: nobody knows how its ranks ended."""
    node: str | None = None
    reason: str | None = None
    """The cluster's sentence, where it has one that the ranks have not."""
    node_lost: bool = False
    has_run: bool = True


@dataclass(frozen=True, slots=True)
class Ended:
    """Of a whole attempt."""

    exit_code: int | None
    out_of_memory: bool
    node_lost: bool
    reason: str | None
    node: str | None
    failed_rank: int | None = None
    """Whose log says why."""


def is_helper(pod: Pod) -> bool:
    """A worker of Ray: when it goes, KubeRay makes another and Ray does its tasks again; its end says nothing about the stage's."""
    return _ray_node(pod) == "worker"


def pod_index(pod: Pod) -> int:
    """Which node of the attempt the pod is, by its operator's labels. Helpers come after the first."""
    labels = pod["metadata"].get("labels") or {}
    if is_helper(pod):
        return 1
    if labels.get("training.kubeflow.org/replica-type") == "worker":
        return int(labels.get("training.kubeflow.org/replica-index", 0)) + 1
    return int(labels.get("batch.kubernetes.io/job-completion-index", 0))


def is_over(pod: Pod) -> bool:
    """No container of it runs or will run."""
    return (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed")


def is_running(pod: Pod) -> bool:
    return any("running" in (status.get("state") or {}) for status in containers(pod)) and not is_over(pod)


def is_unfinished(pod: Pod) -> bool:
    """A container of it runs or will run. Where the last one has ended, the kubelet takes a moment until it says so of the pod: such a pod is not
    to be stopped, for its object alone tells how it was."""
    return not is_over(pod) and (pod_end(pod) is None or is_running(pod))


def lost_word(pod: Pod, words: NodeWords, now: float) -> str | None:
    """A sentence when a pod that has not ended is given up: its node is lost, or its kubelet should have ended it long ago."""
    node = node_of(pod)
    word = words(node) if node is not None else UNKNOWN
    if word.lost is not None:
        return word.lost
    ends = pod["metadata"].get("deletionTimestamp")
    overdue = now - datetime.fromisoformat(ends).timestamp() if ends is not None else 0.0
    if overdue <= (STUCK_SECONDS if word.is_well else OVERDUE_SECONDS):
        return None
    return f"Node {node} has not ended pod {pod['metadata']['name']} {overdue:.0f} s after its time."


def scheduled_at(pod: Pod) -> float | None:
    """Unix seconds; None while it has no node."""
    for condition in (pod.get("status") or {}).get("conditions") or ():
        if condition.get("type") == "PodScheduled" and condition.get("status") == "True":
            at = condition.get("lastTransitionTime")
            return datetime.fromisoformat(at).timestamp() if at else None
    return None


def node_of(pod: Pod) -> str | None:
    return (pod.get("spec") or {}).get("nodeName")


def containers(pod: Pod) -> Sequence[Mapping[str, Any]]:
    return (pod.get("status") or {}).get("containerStatuses") or ()


def pod_end(pod: Pod, *, deleted: bool = False) -> PodEnd | None:
    """None while it lives. `deleted`: the object is gone, and this was its last state."""
    status = pod.get("status") or {}
    index, node = pod_index(pod), node_of(pod)
    terminated = next(
        (s["state"]["terminated"] for s in containers(pod) if "terminated" in (s.get("state") or {})), None
    )
    if terminated is not None and terminated.get("reason") == LOST_SIGHT:
        sentence = f"Pod {pod['metadata']['name']} ended unseen: {str(terminated.get('message') or '').strip()[:200]}"
        ran = bool(terminated.get("startedAt"))
        return PodEnd(index, (), node, sentence, _is_node_lost(pod), has_run=ran)
    if terminated is not None and _ray_node(pod) == "head" and not _tells(terminated):
        # What ended there is Ray, not the stage.
        sentence = f"Ray's head, pod {pod['metadata']['name']}, ended before the stage's outcome was known (code {terminated.get('exitCode')})."
        return PodEnd(index, (), node, sentence, _is_node_lost(pod))
    if terminated is not None:
        return PodEnd(index, _exits(terminated, index), node, _container_reason(terminated), _is_node_lost(pod))
    if is_over(pod):
        words = ": ".join(word for word in (status.get("reason"), status.get("message")) if word)
        sentence = f"Pod {pod['metadata']['name']} failed before its outcome was known{f' ({words})' if words else ''}."
        return PodEnd(index, (), node, sentence, _is_node_lost(pod), has_run=False)
    if deleted:
        why = _disruption(pod)
        sentence = f"Pod {pod['metadata']['name']} was deleted{f' ({why})' if why else ''}."
        return PodEnd(index, (), node, sentence, _is_node_lost(pod), has_run=is_running(pod))
    return None


def combine(ends: Sequence[PodEnd]) -> Ended:
    """As the launcher does for the ranks of one machine; a pod whose end nobody knows makes success impossible."""
    exits = [one for end in ends for one in end.exits]
    blind = next((end for end in ends if not end.exits), None)
    node_lost = any(end.node_lost or any(e.node_lost for e in end.exits) for end in ends)
    first = min(ends, key=lambda end: end.index)
    code = exit_code(exits) if exits else None
    if blind is not None and code == ExitCode.OK:
        code = None
    if code is None:
        assert blind is not None
        return Ended(None, False, node_lost, blind.reason, blind.node)
    culprit = first
    if code != ExitCode.OK:
        guilty = [e.rank for e in exits if e.code == code and not e.by_launcher] or [
            e.rank for e in exits if e.code == code
        ]
        culprit = next(end for end in ends if any(e.rank == guilty[0] for e in end.exits))
    sentence = reason(exits, code)
    out_of_memory = any(e.out_of_memory for e in exits)
    if sentence is not None and culprit.reason is not None and not out_of_memory:
        sentence = culprit.reason
    return Ended(
        code, out_of_memory, node_lost and code != ExitCode.OK, sentence, culprit.node, failed_rank(exits, code)
    )


def _exits(terminated: Mapping[str, Any], index: int) -> tuple[RankExit, ...]:
    told = from_message(terminated.get("message") or "")
    if told:
        return tuple(told)
    code = int(terminated.get("exitCode", 1))
    if terminated.get("reason") in CANNOT_START:
        code = int(ExitCode.USER_ERROR)
    return (
        RankExit(
            rank=index,
            code=code,
            signal=int(terminated.get("signal") or (code - 128 if code > 128 else 0)),
            out_of_memory=terminated.get("reason") == "OOMKilled",
        ),
    )


def _tells(terminated: Mapping[str, Any]) -> bool:
    """Whether it says how the ranks ended, or at least that they had too little memory."""
    return bool(from_message(terminated.get("message") or "")) or terminated.get("reason") == "OOMKilled"


def _ray_node(pod: Pod) -> str | None:
    return (pod["metadata"].get("labels") or {}).get(RAY_NODE)


def _container_reason(terminated: Mapping[str, Any]) -> str | None:
    if terminated.get("reason") in CANNOT_START:
        return f"The command cannot be started in this image: {str(terminated.get('message') or '').strip()[:300]}"
    return None


def _is_node_lost(pod: Pod) -> bool:
    return (pod.get("status") or {}).get("reason") == "NodeLost" or _disruption_reason(pod) in NODE_GONE


def _disruption_reason(pod: Pod) -> str | None:
    return next((c.get("reason") for c in _conditions(pod) if _is_disruption(c)), None)


def _disruption(pod: Pod) -> str | None:
    found = next((c for c in _conditions(pod) if _is_disruption(c)), None)
    return None if found is None else (found.get("message") or found.get("reason"))


def _is_disruption(condition: Mapping[str, Any]) -> bool:
    return condition.get("type") == "DisruptionTarget" and condition.get("status") == "True"


def _conditions(pod: Pod) -> Sequence[Mapping[str, Any]]:
    return (pod.get("status") or {}).get("conditions") or ()
