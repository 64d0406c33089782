"""From how a process ended to why: the cause decides about the retry."""

from __future__ import annotations

from dataclasses import dataclass

from abruzzi.contracts.states import AttemptState, Cause, ExitCode
from abruzzi.engine.view import AttemptView, Phase, Seen

_BY_CODE: dict[int, tuple[Cause, str]] = {
    ExitCode.USER_ERROR: (Cause.USER_ERROR, "The stage's code or configuration is wrong; its log says where."),
    ExitCode.BAD_DATA: (Cause.BAD_DATA, "The input cannot be used; the log names it."),
    ExitCode.TRY_AGAIN: (Cause.INFRASTRUCTURE, "The stage asked to be tried again."),
    ExitCode.DIVERGENCE: (Cause.DIVERGENCE, "The loss became NaN or spiked."),
    ExitCode.PREEMPTED: (Cause.PREEMPTION, "It was asked to stop, saved, and stopped."),
    ExitCode.KILLED: (Cause.INFRASTRUCTURE, "A rank was killed from outside (SIGKILL)."),
}
_OWN_FAULTS = (ExitCode.USER_ERROR, ExitCode.BAD_DATA, ExitCode.DIVERGENCE)
"""Of the stage itself, whatever else was asked of it."""


@dataclass(frozen=True, slots=True)
class Outcome:
    state: AttemptState
    cause: Cause | None
    reason: str | None


def classify(attempt: AttemptView, seen: Seen) -> Outcome:
    """Of an attempt whose workload is EXITED or GONE."""
    if seen.phase is Phase.EXITED and seen.exit_code == ExitCode.OK:
        return Outcome(AttemptState.SUCCEEDED, None, None)
    never_began = seen.phase is Phase.GONE and attempt.started_at is None
    if attempt.stop_cause is Cause.CANCELLED:
        sentence = "Stopped before it started." if never_began else "Cancelled."
        return Outcome(AttemptState.CANCELLED, Cause.CANCELLED, sentence)
    if attempt.stop_cause is Cause.HANG:
        return Outcome(AttemptState.FAILED, Cause.HANG, attempt.reason or "A rank made no progress.")
    if seen.out_of_memory:
        return Outcome(AttemptState.FAILED, Cause.OUT_OF_MEMORY, seen.reason or "Killed for memory.")
    if seen.node_lost:
        where = f"Node {seen.node or attempt.node}" if seen.node or attempt.node else "The node"
        return Outcome(AttemptState.FAILED, Cause.NODE, seen.reason or f"{where} is gone.")
    if attempt.stop_cause is Cause.NODE and seen.exit_code not in _OWN_FAULTS:
        state = AttemptState.INTERRUPTED if seen.exit_code == ExitCode.PREEMPTED else AttemptState.FAILED
        return Outcome(state, Cause.NODE, attempt.reason or "Its node had a fault.")
    if attempt.stop_cause is Cause.PREEMPTION and seen.exit_code not in _OWN_FAULTS:
        sentence = "Interrupted by the platform; it goes on from its checkpoint."
        return Outcome(
            AttemptState.INTERRUPTED, Cause.PREEMPTION, "Stopped before it started." if never_began else sentence
        )
    if attempt.stop_cause is Cause.RESIZE and seen.exit_code not in _OWN_FAULTS:
        return Outcome(AttemptState.INTERRUPTED, Cause.RESIZE, attempt.reason)
    if seen.phase is Phase.GONE:
        return Outcome(
            AttemptState.FAILED,
            Cause.INFRASTRUCTURE,
            seen.reason or "Its workload disappeared before its outcome was recorded.",
        )
    if seen.exit_code is None:
        return Outcome(AttemptState.FAILED, Cause.INFRASTRUCTURE, seen.reason or "Its exit code was lost.")
    known = _BY_CODE.get(seen.exit_code)
    if known is None:
        return Outcome(
            AttemptState.FAILED,
            Cause.UNKNOWN,
            seen.reason or f"Exit code {seen.exit_code}, which the stage contract does not know.",
        )
    cause, sentence = known
    state = AttemptState.INTERRUPTED if cause is Cause.PREEMPTION else AttemptState.FAILED
    return Outcome(state, cause, seen.reason or sentence)
