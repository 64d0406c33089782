"""Does the simulation find faults? A dozen are planted, one at a time; each must be found, and the seed that finds it must find it again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from simulation.simulate import simulate

from abruzzi.contracts.states import Cause
from abruzzi.engine import decide as decide_module
from abruzzi.engine.actions import CollectArtifacts, CreateAttempt, CreateWorkload, Decision, RemoveWorkload, SetAttempt
from abruzzi.engine.decide import _Plan
from abruzzi.engine.policy import RULES
from abruzzi.engine.view import Desired, Phase, RunView, Seen
from abruzzi_operators.controller import controller as controller_module

WITHIN_SEEDS = 2_000
Plant = Callable[[pytest.MonkeyPatch], Callable[[Seen], Seen] | None]
honest = decide_module.decide


def _changed(monkeypatch: pytest.MonkeyPatch, change: Callable[[Decision], Decision]) -> None:
    monkeypatch.setattr(controller_module, "decide", lambda run, seen, now: change(honest(run, seen, now)))


def user_errors_are_retried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(RULES, Cause.USER_ERROR, replace(RULES[Cause.USER_ERROR], retried=True))


def unknown_is_taken_for_gone(monkeypatch: pytest.MonkeyPatch) -> Callable[[Seen], Seen]:
    return lambda seen: replace(seen, phase=Phase.GONE) if seen.phase is Phase.UNKNOWN else seen


def the_workload_is_made_before_its_intent(monkeypatch: pytest.MonkeyPatch) -> None:
    def change(decision: Decision) -> Decision:
        made = tuple(e for e in decision.after if isinstance(e, CreateWorkload))
        return replace(
            decision, before=(*decision.before, *made), after=tuple(e for e in decision.after if e not in made)
        )

    _changed(monkeypatch, change)


def the_workload_is_removed_before_its_outcome(monkeypatch: pytest.MonkeyPatch) -> None:
    def change(decision: Decision) -> Decision:
        ended = tuple(
            RemoveWorkload(w.attempt_id) for w in decision.writes if isinstance(w, SetAttempt) and w.state.is_terminal
        )
        return replace(decision, before=(*decision.before, *ended))

    _changed(monkeypatch, change)


def artifacts_are_not_collected(monkeypatch: pytest.MonkeyPatch) -> None:
    _changed(
        monkeypatch, lambda d: replace(d, before=tuple(e for e in d.before if not isinstance(e, CollectArtifacts)))
    )


def epochs_repeat(monkeypatch: pytest.MonkeyPatch) -> None:
    def change(decision: Decision) -> Decision:
        return replace(
            decision, writes=tuple(replace(w, epoch=1) if isinstance(w, CreateAttempt) else w for w in decision.writes)
        )

    _changed(monkeypatch, change)


def hangs_are_not_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decide_module, "find_stall", lambda *_: None)


def a_lost_stop_is_never_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_Plan, "insist", lambda self, attempt: None)


def the_budget_is_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decide_module, "counted", lambda stage: 0)


def a_cancel_does_not_hold_new_attempts_back(monkeypatch: pytest.MonkeyPatch) -> None:
    def blind(run: RunView, seen: dict[str, Seen], now: float) -> Decision:
        return honest(replace(run, desired=Desired.RUN), seen, now)

    monkeypatch.setattr(controller_module, "decide", blind)


def a_rival_waits_for_no_exit(monkeypatch: pytest.MonkeyPatch) -> None:
    """The attempt is given up at the first sign of trouble, while its process may live."""

    def hasty(self: _Plan, attempt, seen: Seen) -> None:  # type: ignore[no-untyped-def]
        self.end(attempt, replace(seen, phase=Phase.GONE))

    monkeypatch.setattr(_Plan, "insist", lambda self, attempt: hasty(self, attempt, Seen(Phase.RUNNING)))


def a_process_that_claims_preemption_is_retried_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decide_module, "was_asked", lambda attempt: attempt.cause is Cause.PREEMPTION)


def nothing_is_quarantined(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decide_module, "POISON_AFTER", 10**9)


def what_is_held_is_dated_anew_at_each_look(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decide_module, "_held", lambda attempt, seen, *, since=None: (attempt.held_at or 0.0) + 1.0)


BUGS: tuple[Plant, ...] = (
    user_errors_are_retried,
    unknown_is_taken_for_gone,
    the_workload_is_made_before_its_intent,
    the_workload_is_removed_before_its_outcome,
    artifacts_are_not_collected,
    epochs_repeat,
    hangs_are_not_seen,
    a_lost_stop_is_never_repeated,
    the_budget_is_not_counted,
    a_cancel_does_not_hold_new_attempts_back,
    a_rival_waits_for_no_exit,
    a_process_that_claims_preemption_is_retried_for_ever,
    nothing_is_quarantined,
    what_is_held_is_dated_anew_at_each_look,
)


@pytest.mark.parametrize("plant", BUGS, ids=lambda plant: plant.__name__)
def test_a_planted_bug_is_found_and_its_seed_replays(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    lie = plant(monkeypatch)
    found = next((seed for seed in range(WITHIN_SEEDS) if _breaks(seed, lie)), None)
    assert found is not None, f"{WITHIN_SEEDS} seeds do not find it"
    assert all(_breaks(found, lie) for _ in range(10))


def test_the_same_seeds_hold_without_a_bug() -> None:
    assert not [seed for seed in range(300) if _breaks(seed, None)]


def _breaks(seed: int, lie: Callable[[Seen], Seen] | None) -> bool:
    try:
        simulate(seed, lie=lie)
    except AssertionError:
        return True
    return False
