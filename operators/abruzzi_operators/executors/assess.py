"""What an attempt's workload and pods add up to: one `Seen` for the engine. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from abruzzi.contracts.states import ExitCode
from abruzzi.engine.view import Phase, Seen
from abruzzi_operators.executors.node_words import NodeWords, nothing_known
from abruzzi_operators.executors.pending import queue_of, waits_for
from abruzzi_operators.executors.pod_ends import (
    PodEnd,
    combine,
    is_helper,
    is_running,
    is_unfinished,
    lost_word,
    node_of,
    pod_index,
    scheduled_at,
)
from abruzzi_operators.executors.ray_job import has_started, idle_ranks, is_ray, ray_verdict
from abruzzi_operators.renderers.names import ANNOTATION_NODES

Object = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Facts:
    """Of one attempt, from the caches."""

    workload: Object | None
    living: Sequence[Object]
    ends: Mapping[int, PodEnd]
    """By index of the node."""
    was_stopped: bool = False
    """By us: the deletion is no accident."""
    words: NodeWords = nothing_known
    queue_message: str | None = None
    reserved_at: float | None = None
    """When Kueue reserved quota for it; Unix seconds."""
    refusal: str | None = None
    """Why pods of it can't be made, where somebody has said so."""
    room: int | None = None
    """Of an elastic stage (room.py)."""
    pending_seconds: float = 0.0
    now: float = 0.0


@dataclass(frozen=True, slots=True)
class Assessment:
    seen: Seen | None
    """None: only the apiserver can tell."""
    halt: bool = False
    """Some pods have failed, the rest can do nothing in common any more."""
    is_blind: bool = False
    """Ray's head has ended and nobody has said how the stage did: a newer state of its RayJob may."""


def assess(facts: Facts) -> Assessment:
    found = _assess(facts)
    if found.seen is None:
        return found
    return replace(found, seen=replace(found.seen, held_since=held_since(facts), room=facts.room))


def held_since(facts: Facts) -> float | None:
    """Since when quota is reserved for it; without a queue, since its first pod has a node."""
    if facts.workload is not None and queue_of(facts.workload):
        return facts.reserved_at
    return min((at for pod in facts.living if (at := scheduled_at(pod)) is not None), default=None)


def _assess(facts: Facts) -> Assessment:
    for pod in facts.living:
        sentence = None if is_helper(pod) else lost_word(pod, facts.words, facts.now)
        if sentence is not None:
            node = node_of(pod)
            return Assessment(Seen(Phase.EXITED, node_lost=True, node=node, reason=sentence, observed_at=facts.now))
    if (told := _told_by_ray(facts)) is not None:
        return Assessment(told)
    if facts.living:
        return _alive(facts)
    if facts.ends:
        return _ended(facts)
    return _without_pods(facts)


def _is_blind(facts: Facts) -> bool:
    """Ray's head has ended, and has not said how the stage did."""
    return is_ray(facts.workload) and bool(facts.ends) and combine(list(facts.ends.values())).exit_code is None


def _told_by_ray(facts: Facts) -> Seen | None:
    """Where the program failed before the launcher in it could speak, KubeRay ends the head and says why in the RayJob."""
    told = ray_verdict(facts.workload) if _is_blind(facts) else None
    if told is None or told.code is None or combine(list(facts.ends.values())).node_lost:
        return None
    return Seen(
        Phase.EXITED,
        told.code,
        reason=told.reason,
        node=facts.ends[0].node if 0 in facts.ends else None,
        observed_at=facts.now,
    )


def is_terminating(workload: Object | None) -> bool:
    return workload is not None and "deletionTimestamp" in workload["metadata"]


def verdict(workload: Object | None) -> tuple[bool, str] | None:
    """(succeeded, message) of the workload's own conditions: Job and TrainJob say Complete, PyTorchJob says Succeeded."""
    for condition in ((workload or {}).get("status") or {}).get("conditions") or ():
        if condition.get("status") == "True" and condition.get("type") in ("Complete", "Succeeded", "Failed"):
            said = str(condition.get("message") or condition.get("reason") or "")
            return condition["type"] != "Failed", said
    return None


def expected_ends(workload: Object | None) -> int:
    """Pods whose ends are the attempt's."""
    return 1 if is_ray(workload) else expected_pods(workload)


def expected_pods(workload: Object | None) -> int:
    return int(((workload or {}).get("metadata", {}).get("annotations") or {}).get(ANNOTATION_NODES, 1))


def _alive(facts: Facts) -> Assessment:
    expected = max(expected_pods(facts.workload), len(facts.living))
    is_broken = any(not end.exits or any(e.code != ExitCode.OK for e in end.exits) for end in facts.ends.values())
    first = min(facts.living, key=pod_index)
    nodes = dict.fromkeys(node for pod in facts.living if (node := node_of(pod)) is not None)
    leave = next((word.leave for word in map(facts.words, nodes) if word.leave is not None), None)
    running = [pod for pod in facts.living if is_running(pod)]
    unfinished = [pod for pod in facts.living if is_unfinished(pod)]
    is_broken = is_broken and bool(unfinished)
    is_complete = len(running) + len(facts.ends) >= expected
    if is_ray(facts.workload):
        is_complete = has_started(facts.workload)
    if is_complete and (running or not unfinished):
        ended = idle_ranks(facts.workload) | {one.rank for end in facts.ends.values() for one in end.exits}
        seen = Seen(Phase.RUNNING, node=node_of(first), ended_ranks=ended, leave=leave, observed_at=facts.now)
        return Assessment(seen, halt=is_broken, is_blind=_is_blind(facts))
    wait = None
    if facts.workload is not None:
        wait = waits_for(
            facts.workload,
            facts.living,
            expected=expected,
            queue_message=None,
            pending_seconds=facts.pending_seconds,
            refusal=facts.refusal,
        )
    if wait is not None and wait.hopeless:
        return Assessment(
            Seen(Phase.EXITED, int(ExitCode.USER_ERROR), reason=wait.reason, node=node_of(first), observed_at=facts.now)
        )
    return Assessment(
        Seen(
            Phase.PENDING,
            reason=wait.reason if wait is not None else None,
            waits_for=wait.code if wait is not None else None,
            node=node_of(first),
            leave=leave,
            observed_at=facts.now,
        ),
        halt=is_broken,
        is_blind=_is_blind(facts),
    )


def _ended(facts: Facts) -> Assessment:
    ends = list(facts.ends.values())
    over = combine(ends)
    went_well = over.exit_code == ExitCode.OK
    if went_well and len(ends) < expected_ends(facts.workload) and not is_terminating(facts.workload):
        return Assessment(Seen(Phase.RUNNING, node=over.node, observed_at=facts.now))
    if facts.was_stopped and not any(end.has_run for end in ends):
        return _stopped(facts)
    return Assessment(
        Seen(
            Phase.EXITED,
            over.exit_code,
            out_of_memory=over.out_of_memory,
            node_lost=over.node_lost,
            reason=over.reason,
            failed_rank=over.failed_rank,
            node=over.node,
            observed_at=facts.now,
        ),
        is_blind=_is_blind(facts),
    )


def _without_pods(facts: Facts) -> Assessment:
    if facts.was_stopped and (facts.workload is None or is_terminating(facts.workload)):
        return _stopped(facts)
    if facts.workload is None:
        return Assessment(None)
    ended = ray_verdict(facts.workload)
    if ended is not None:
        return Assessment(Seen(Phase.EXITED, ended.code, reason=ended.reason, observed_at=facts.now))
    said = verdict(facts.workload)
    if said is not None:
        succeeded, message = said
        # Its pods are gone, but it ended well only if every one of them did.
        code = int(ExitCode.OK) if succeeded else None
        reason = None if succeeded else f"Its workload failed and left no pod: {message.rstrip('.')}."
        return Assessment(Seen(Phase.EXITED, code, reason=reason, observed_at=facts.now))
    if is_terminating(facts.workload):
        return Assessment(
            Seen(Phase.EXITED, None, reason="Its workload was deleted by somebody else.", observed_at=facts.now)
        )
    is_let_go = facts.reserved_at is not None or not queue_of(facts.workload)
    wait = waits_for(
        facts.workload,
        (),
        expected=expected_pods(facts.workload),
        queue_message=facts.queue_message,
        pending_seconds=facts.pending_seconds,
        refusal=facts.refusal if is_let_go else None,
    )
    reason, code = (wait.reason, wait.code) if wait is not None else (None, None)
    return Assessment(Seen(Phase.PENDING, reason=reason, waits_for=code, observed_at=facts.now))


def _stopped(facts: Facts) -> Assessment:
    return Assessment(
        Seen(Phase.EXITED, int(ExitCode.PREEMPTED), reason="Stopped before it started.", observed_at=facts.now)
    )
