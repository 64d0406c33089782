"""The decision function: what a controller should do about a run, from what Postgres remembers and an executor observes.

Pure and total: no I/O, no clock, no randomness. Deciding again on the same view gives the same decision, and every effect is idempotent,
so a crash anywhere is healed by deciding again. One decision moves each stage by at most one step; the controller repeats until it is quiet.

Safety rests on three rules, which tests/simulation checks:
  - a new attempt is created only after the previous workload is known to have EXITED or to be GONE (UNKNOWN means wait);
  - an intent is committed before its workload is created, an outcome before the workload is removed;
  - epochs only grow.
"""

from __future__ import annotations

from collections.abc import Mapping

from abruzzi.contracts.gate import judge
from abruzzi.contracts.stage import attempt_id
from abruzzi.contracts.states import AttemptState, Cause, RunState, StageState
from abruzzi.engine.actions import (
    CollectArtifacts,
    CreateAttempt,
    CreateWorkload,
    Decision,
    DumpStacks,
    Effect,
    RemoveWorkload,
    SetAttempt,
    SetRun,
    SetStage,
    StopWorkload,
    Write,
)
from abruzzi.engine.classify import classify
from abruzzi.engine.hang import find_stall
from abruzzi.engine.policy import (
    BLIND_SECONDS,
    GRACE_SECONDS,
    MOST_EXCLUDED_NODES,
    OBSERVE_SECONDS,
    POISON_AFTER,
    RULES,
    RUNG_SECONDS,
    RUNG_SILENT_SECONDS,
    STACKS_SECONDS,
    STOP_PATIENCE_SECONDS,
    backoff_seconds,
)
from abruzzi.engine.view import AttemptView, Desired, Phase, RunView, Seen, StageView
from abruzzi.engine.width import find_resize, next_width

BLIND = "It is out of sight: "
_NOT_SEEN = Seen(Phase.UNKNOWN)


def decide(run: RunView, seen: Mapping[str, Seen], now: float) -> Decision:
    """See the module's docstring. `now` and all times are Unix seconds."""
    made = _Plan(run, seen, now)
    for stage in run.stages:
        made.forget_workloads(stage)
        if not stage.state.is_terminal:
            live = live_attempt(stage)
            if live is not None:
                made.tend(stage, live)
            else:
                made.advance(stage)
    made.conclude()
    return Decision(tuple(made.before), tuple(made.writes), tuple(made.after), made.wake_at)


def live_attempt(stage: StageView) -> AttemptView | None:
    """The attempt that has not ended; there is one at most."""
    return stage.attempts[-1] if stage.attempts and not stage.attempts[-1].state.is_terminal else None


class _Plan:
    """Collects one decision."""

    def __init__(self, run: RunView, seen: Mapping[str, Seen], now: float) -> None:
        self.run, self.seen, self.now = run, seen, now
        self.before: list[Effect] = []
        self.writes: list[Write] = []
        self.after: list[Effect] = []
        self.wake_at: float | None = None
        self.epoch = run.last_epoch
        self.by_id = {s.id: s for s in run.stages}

    # What is left of ended attempts

    def forget_workloads(self, stage: StageView) -> None:
        for attempt in stage.attempts:
            if attempt.state.is_terminal and not attempt.workload_removed:
                phase = self.seen.get(attempt.id, _NOT_SEEN).phase
                if phase is Phase.GONE:
                    # It may never have been created: the removal keeps a create that comes late from making it now.
                    self.before.append(RemoveWorkload(attempt.id))
                    self.writes.append(SetAttempt(attempt.id, attempt.state, workload_removed=True))
                elif phase is Phase.UNKNOWN:
                    self.wake(self.now + OBSERVE_SECONDS)
                else:
                    self.after.append(RemoveWorkload(attempt.id))

    # An attempt that has not ended

    def tend(self, stage: StageView, attempt: AttemptView) -> None:
        seen = self.seen.get(attempt.id, _NOT_SEEN)
        self.wake(self.now + look_seconds(stage, attempt, seen))
        match seen.phase:
            case Phase.UNKNOWN:
                self.blind(attempt, seen)
            case Phase.EXITED:
                self.end(attempt, seen)
            case Phase.GONE:
                self.missing(attempt, seen)
            case Phase.PENDING | Phase.RUNNING:
                self.alive(stage, attempt, seen)

    def blind(self, attempt: AttemptView, seen: Seen) -> None:
        """Nothing can be done but to say so, once: sentences of the same outage differ."""
        lasts = seen.unknown_since is not None and self.now - seen.unknown_since >= BLIND_SECONDS
        if lasts and seen.reason and not (attempt.reason or "").startswith(BLIND):
            self.writes.append(SetAttempt(attempt.id, attempt.state, reason=f"{BLIND}{seen.reason}"))

    def missing(self, attempt: AttemptView, seen: Seen) -> None:
        """No workload. It was never made (a crash came between), or it was removed under us."""
        if attempt.state is not AttemptState.CREATED or seen.node_lost:
            if attempt.started_at is None and attempt.stop_requested_at is not None:
                # Perhaps it was never made: whoever is late to do so must find it removed before its end is on record.
                self.before.append(RemoveWorkload(attempt.id))
            self.end(attempt, seen)
        elif self.run.desired is not Desired.RUN:
            # On record first: from here on nothing but its end is possible.
            self.stop(attempt, self.asked_cause(), None, GRACE_SECONDS)
        else:
            if seen.reason and seen.reason != attempt.reason:  # it can't be made
                self.writes.append(SetAttempt(attempt.id, attempt.state, reason=seen.reason))
            self.after.append(CreateWorkload(attempt.id))

    def asked_cause(self) -> Cause:
        """Of the end that people, or the platform that goes down, have asked for."""
        return Cause.CANCELLED if self.run.desired is Desired.CANCEL else Cause.PREEMPTION

    def end(self, attempt: AttemptView, seen: Seen) -> None:
        outcome = classify(attempt, seen)
        self.before.append(CollectArtifacts(attempt.id))
        self.writes.append(
            SetAttempt(
                attempt.id,
                outcome.state,
                cause=outcome.cause,
                exit_code=seen.exit_code,
                reason=outcome.reason,
                # Of a hang the rank that stood still, which the stop has told.
                failed_rank=seen.failed_rank
                if outcome.state is AttemptState.FAILED and outcome.cause is not Cause.HANG
                else None,
                started_at=self.now if attempt.started_at is None else None,
                ended_at=self.now,
                # The sick node stays the one that it is about, whichever of its nodes told the end.
                node=None if attempt.stop_cause is Cause.NODE and attempt.node else seen.node,
                held_at=_held(attempt, seen),
                waits_for="" if attempt.waits_for else None,
            )
        )

    def alive(self, stage: StageView, attempt: AttemptView, seen: Seen) -> None:
        if attempt.stop_requested_at is not None:
            self.insist(attempt)
        elif self.run.desired is not Desired.RUN:
            self.stop(attempt, self.asked_cause(), None, GRACE_SECONDS)
        elif seen.leave is not None:
            self.stop(attempt, seen.leave.cause, seen.leave.reason, GRACE_SECONDS, node=seen.leave.node)
        elif (change := find_resize(stage, attempt, seen, self.now)) is not None:
            self.stop(attempt, Cause.RESIZE, change.sentence, GRACE_SECONDS, resize_to=change.ranks)
        elif seen.phase is Phase.PENDING:
            self.pend(attempt, seen)
        elif seen.phase is Phase.RUNNING and attempt.state is not AttemptState.RUNNING:
            waited = "" if attempt.reason else None
            self.writes.append(
                SetAttempt(
                    attempt.id,
                    AttemptState.RUNNING,
                    reason=waited,
                    started_at=self.now,
                    node=seen.node,
                    held_at=_held(attempt, seen, since=self.now),
                    waits_for="" if attempt.waits_for else None,
                )
            )
        elif seen.phase is Phase.RUNNING and (attempt.reason or "").startswith(BLIND):
            self.writes.append(SetAttempt(attempt.id, attempt.state, reason=""))
        elif seen.phase is Phase.RUNNING:
            self.watch(stage, attempt, seen)

    def pend(self, attempt: AttemptView, seen: Seen) -> None:
        """It exists and does not run yet; people want to know what it waits for, as it changes."""
        told = (seen.reason or "") != (attempt.reason or "") or seen.waits_for is not attempt.waits_for
        held_at = _held(attempt, seen)
        changed = told or held_at is not None
        if attempt.state is AttemptState.CREATED or (attempt.state is AttemptState.STARTING and changed):
            reason, waits_for = (seen.reason or "", seen.waits_for or "") if told else (None, None)
            self.writes.append(
                SetAttempt(attempt.id, AttemptState.STARTING, reason=reason, held_at=held_at, waits_for=waits_for)
            )

    def watch(self, stage: StageView, attempt: AttemptView, seen: Seen) -> None:
        """A stalled rank: keep its stack, then stop the attempt."""
        stall = find_stall(stage, attempt, seen, self.now)
        if stall is None:
            return
        if attempt.stacks_requested_at is None:
            self.writes.append(SetAttempt(attempt.id, attempt.state, stacks_requested_at=self.now))
            self.after.append(DumpStacks(attempt.id, stall.rank))
        elif seen.stacks_ready or self.now - attempt.stacks_requested_at >= STACKS_SECONDS:
            self.stop(attempt, Cause.HANG, stall.sentence, STACKS_SECONDS, failed_rank=stall.rank)

    def stop(
        self,
        attempt: AttemptView,
        cause: Cause,
        reason: str | None,
        grace_seconds: float,
        *,
        node: str | None = None,
        resize_to: int | None = None,
        failed_rank: int | None = None,
    ) -> None:
        self.writes.append(
            SetAttempt(
                attempt.id,
                AttemptState.STOPPING,
                reason=reason,
                stop_requested_at=self.now,
                stop_cause=cause,
                node=node,
                resize_to=resize_to,
                failed_rank=failed_rank,
            )
        )
        self.after.append(StopWorkload(attempt.id, grace_seconds))

    def insist(self, attempt: AttemptView) -> None:
        """The stop was asked for, but the asking may have been lost to a crash, or the process may not listen."""
        assert attempt.stop_requested_at is not None
        waited = self.now - attempt.stop_requested_at
        if waited >= GRACE_SECONDS + STOP_PATIENCE_SECONDS:
            self.after.append(StopWorkload(attempt.id, 0.0))
        elif waited >= STOP_PATIENCE_SECONDS:
            self.after.append(StopWorkload(attempt.id, GRACE_SECONDS - STOP_PATIENCE_SECONDS))

    # A stage without a live attempt

    def advance(self, stage: StageView) -> None:
        last = stage.attempts[-1] if stage.attempts else None
        if last is not None and last.state is AttemptState.SUCCEEDED and stage.state is StageState.RUNNING:
            self.writes.append(SetStage(stage.id, StageState.SUCCEEDED))
        elif self.run.desired is Desired.CANCEL:
            self.writes.append(SetStage(stage.id, StageState.CANCELLED, "Cancelled."))
        elif stage.state is StageState.WAITING:
            self.admit(stage)
        elif stage.state is StageState.RUNNING and last is not None:
            self.after_failure(stage, last)
        elif self.run.desired is Desired.RUN:
            self.start(stage)

    def admit(self, stage: StageView) -> None:
        """Waiting, until all that it needs has succeeded and its gate holds."""
        needed = [self.by_id[n] for n in stage.needs]
        lost = next((n for n in needed if n.state.is_terminal and n.state is not StageState.SUCCEEDED), None)
        if lost is not None:
            self.writes.append(
                SetStage(stage.id, StageState.SKIPPED, f"Stage {lost.id!r}, which it needs, is {lost.state}.")
            )
        elif all(n.state is StageState.SUCCEEDED for n in needed):
            verdict = judge(stage.gate, {s.id: s.facts for s in self.run.stages}) if stage.gate else None
            if verdict is not None and not verdict.holds and stage.gate_override is not None:
                self.writes.append(SetStage(stage.id, StageState.PENDING, f"{stage.gate_override} {verdict.sentence}"))
            elif verdict is not None and not verdict.holds:
                self.writes.append(SetStage(stage.id, StageState.SKIPPED, verdict.sentence))
            else:
                self.writes.append(SetStage(stage.id, StageState.PENDING, verdict.sentence if verdict else None))

    def after_failure(self, stage: StageView, last: AttemptView) -> None:
        """The attempt ended otherwise than well: again, or never again."""
        cause = last.cause or Cause.UNKNOWN
        rule = RULES[cause]
        same = trailing(stage, cause)
        asked = was_asked(last)
        if last.state is AttemptState.CANCELLED:
            self.writes.append(SetStage(stage.id, StageState.CANCELLED, "Cancelled."))
        elif not rule.retried or (not rule.free and counted(stage) >= stage.max_attempts):
            self.writes.append(SetStage(stage.id, StageState.FAILED, last.reason))
        elif rule.free and not asked and same >= POISON_AFTER:
            reason = f"Quarantined: {same} attempts in a row ended without one new step, the last with {cause}: {last.reason}"
            self.writes.append(SetStage(stage.id, StageState.FAILED, reason))
        else:
            wait = 0.0 if asked else backoff_seconds(rule, same, last.id)
            not_before = (last.ended_at if last.ended_at is not None else self.now) + wait
            self.writes.append(SetStage(stage.id, StageState.PENDING, last.reason, not_before))
            self.wake(not_before)

    def start(self, stage: StageView) -> None:
        if stage.not_before is not None and self.now < stage.not_before:
            self.wake(stage.not_before)
            return
        number = (stage.attempts[-1].number if stage.attempts else stage.attempts_before) + 1
        self.epoch += 1
        self.writes.append(
            CreateAttempt(stage.id, number, self.epoch, setbacks(stage), excluded_nodes(stage), next_width(stage))
        )
        self.writes.append(SetStage(stage.id, StageState.RUNNING))
        self.after.append(CreateWorkload(attempt_id(self.run.id, stage.id, number)))

    # The run as a whole

    def conclude(self) -> None:
        """From the stages as they were loaded: what this decision changes is concluded by the next."""
        states = [s.state for s in self.run.stages]
        live = any(live_attempt(s) for s in self.run.stages)
        if self.run.state.is_terminal or any(isinstance(w, SetStage | CreateAttempt) for w in self.writes):
            if (
                not self.run.state.is_terminal
                and self.run.state is not RunState.RUNNING
                and any(isinstance(w, CreateAttempt) for w in self.writes)
            ):
                self.writes.append(SetRun(RunState.RUNNING))
            return
        if all(s.is_terminal for s in states) and not live:
            self.writes.append(self.ending())
        elif self.run.desired is Desired.INTERRUPT and not live and self.run.state is not RunState.INTERRUPTED:
            self.writes.append(
                SetRun(RunState.INTERRUPTED, "The platform was stopped; the run goes on when it is started again.")
            )

    def ending(self) -> SetRun:
        states = [s.state for s in self.run.stages]
        if all(s is StageState.SUCCEEDED for s in states):
            return SetRun(RunState.SUCCEEDED)
        if self.run.desired is Desired.CANCEL and StageState.CANCELLED in states:
            return SetRun(RunState.CANCELLED, "Cancelled.")
        failed = next((s for s in self.run.stages if s.state is StageState.FAILED), None)
        if failed is not None:
            last = failed.attempts[-1].reason if failed.attempts else None
            return SetRun(RunState.FAILED, f"Stage {failed.id!r} failed: {last or 'it gave no reason'}")
        closed = next((s for s in self.run.stages if s.state is StageState.SKIPPED), None)
        return SetRun(RunState.FAILED, f"Stage {closed.id!r} was not started." if closed else "A stage was cancelled.")

    def wake(self, at: float) -> None:
        self.wake_at = at if self.wake_at is None else min(self.wake_at, at)


def _held(attempt: AttemptView, seen: Seen, *, since: float | None = None) -> float | None:
    """Since when it holds what it asked for, where that is news. What runs holds it `since` now at the latest."""
    if attempt.held_at is not None:
        return None
    return seen.held_since if seen.held_since is not None else since


def look_seconds(stage: StageView, attempt: AttemptView, seen: Seen) -> float:
    """Until a live attempt is looked at again when nothing rings."""
    if not seen.rings or attempt.state is AttemptState.CREATED or attempt.stacks_requested_at is not None:
        return OBSERVE_SECONDS
    if attempt.stop_requested_at is not None:
        return RUNG_SECONDS
    if seen.phase is Phase.UNKNOWN and not (attempt.reason or "").startswith(BLIND):
        return BLIND_SECONDS
    may_stall = stage.elastic is not None or (
        seen.phase is Phase.RUNNING and (attempt.beats or stage.hang_seconds is not None)
    )
    return RUNG_SECONDS if may_stall else RUNG_SILENT_SECONDS


def excluded_nodes(stage: StageView) -> tuple[str, ...]:
    """Nodes that the stage's next attempt avoids, sorted."""
    found = [a.node for a in stage.attempts if a.node and a.cause is not None and RULES[a.cause].excludes_node]
    newest_first = dict.fromkeys(reversed(found))
    return tuple(sorted(list(newest_first)[:MOST_EXCLUDED_NODES]))


def setbacks(stage: StageView) -> int:
    """Divergences in a row that the next attempt goes back for; none unless the last attempt that began diverged.

    In a row are those that no later attempt has left behind: that went on past the point by as much as it had been set back.
    """
    began = [a for a in stage.attempts if _goes_back(a) or a.beats or a.resume_step is not None]
    if not began or not _goes_back(began[-1]):
        return 0
    last, count = began[-1], 1
    end = _reached(last)
    for attempt in filter(_goes_back, reversed(began[:-1])):
        point = _reached(attempt)
        if end - point > point - (last.resume_step or 0):
            break
        count += 1
    return count


def _goes_back(attempt: AttemptView) -> bool:
    return attempt.cause is not None and RULES[attempt.cause].steps_back


def _reached(attempt: AttemptView) -> int:
    return max((b.step for b in attempt.beats.values()), default=attempt.resume_step or 0)


def trailing(stage: StageView, cause: Cause) -> int:
    """Attempts at the end of the list that failed alike since one got further than all before it.

    Alike: of the same cause; and the free causes are all alike, for a stage that fails now by this one, now by that one makes no more
    progress. Attempts that the platform itself stopped are no failures and are left out.
    """
    count, furthest = 0, -1
    for attempt in stage.attempts:
        step = _reached(attempt)
        further, furthest = step > furthest, max(furthest, step)
        if was_asked(attempt):
            count = 0 if further else count
        elif attempt.cause is None or not _alike(attempt.cause, cause):
            count = 0
        else:
            count = 1 if further else count + 1
    return count


def was_asked(attempt: AttemptView) -> bool:
    """It ended because the platform asked it to make room, or to go on in another width. A process that says so by itself (exit code 143) was not asked."""
    return attempt.cause in (Cause.PREEMPTION, Cause.RESIZE) and attempt.stop_cause is attempt.cause


def _alike(one: Cause, other: Cause) -> bool:
    return one is other or (RULES[one].free and RULES[other].free)


def counted(stage: StageView) -> int:
    """Attempts that count against the budget."""
    return sum(
        a.state is AttemptState.FAILED and a.cause is not None and not RULES[a.cause].free for a in stage.attempts
    )
