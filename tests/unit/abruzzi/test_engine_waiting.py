"""What an attempt waits for is recorded as it changes, and taken away when it no longer holds."""

from __future__ import annotations

import pytest

from abruzzi.contracts.reason import Reason
from abruzzi.contracts.states import AttemptState, RunState, StageState
from abruzzi.engine.actions import SetAttempt
from abruzzi.engine.decide import decide
from abruzzi.engine.view import AttemptView, Desired, Phase, RunView, Seen, StageView

ID = "run0000000-work-1"
CREATED, STARTING, RUNNING = AttemptState.CREATED, AttemptState.STARTING, AttemptState.RUNNING


@pytest.mark.parametrize(
    ("state", "known", "phase", "said", "written"),
    [
        (CREATED, None, Phase.PENDING, None, (STARTING, None)),
        (CREATED, None, Phase.PENDING, "No node takes it.", (STARTING, "No node takes it.")),
        (CREATED, "The cluster refused.", Phase.PENDING, None, (STARTING, "")),
        (STARTING, "No node takes it.", Phase.PENDING, "No node takes it.", None),
        (STARTING, "No node takes it.", Phase.PENDING, "The image can't be pulled.", (STARTING, "The image can't be pulled.")),
        (STARTING, "No node takes it.", Phase.PENDING, None, (STARTING, "")),
        (STARTING, "No node takes it.", Phase.RUNNING, None, (RUNNING, "")),
        (STARTING, None, Phase.RUNNING, None, (RUNNING, None)),
        (RUNNING, None, Phase.PENDING, "It waits.", None),
        (STARTING, "No node takes it.", Phase.UNKNOWN, "The apiserver is away.", None),
    ],
)  # fmt: skip
def test_the_reason_follows_what_is_seen(
    state: AttemptState,
    known: str | None,
    phase: Phase,
    said: str | None,
    written: tuple[AttemptState, str | None] | None,
) -> None:
    attempt = AttemptView(ID, 1, 1, state, created_at=90.0, reason=known)
    stage = StageView("work", StageState.RUNNING, attempts=(attempt,))
    view = RunView("run0000000", RunState.RUNNING, Desired.RUN, 3, (stage,), last_epoch=1)
    writes = [w for w in decide(view, {ID: Seen(phase, reason=said)}, 100.0).writes if isinstance(w, SetAttempt)]
    assert [(w.state, w.reason) for w in writes] == ([written] if written else [])


@pytest.mark.parametrize(
    ("state", "held", "phase", "since", "written"),
    [
        (CREATED, None, Phase.PENDING, None, None),
        (STARTING, None, Phase.PENDING, 95.0, 95.0),
        (STARTING, 95.0, Phase.PENDING, 95.0, None),
        (STARTING, None, Phase.RUNNING, 95.0, 95.0),
        (STARTING, None, Phase.RUNNING, None, 100.0),  # nobody gives: it holds what it has from now on
        (STARTING, 95.0, Phase.RUNNING, 99.0, None),
        (STARTING, None, Phase.EXITED, 95.0, 95.0),
        (STARTING, None, Phase.EXITED, None, None),  # it never held anything
    ],
)
def test_since_when_it_holds_something_is_recorded_once(
    state: AttemptState, held: float | None, phase: Phase, since: float | None, written: float | None
) -> None:
    attempt = AttemptView(ID, 1, 1, state, created_at=90.0, held_at=held)
    stage = StageView("work", StageState.RUNNING, attempts=(attempt,))
    view = RunView("run0000000", RunState.RUNNING, Desired.RUN, 3, (stage,), last_epoch=1)
    writes = [w for w in decide(view, {ID: Seen(phase, held_since=since)}, 100.0).writes if isinstance(w, SetAttempt)]
    assert [w.held_at for w in writes if w.held_at is not None] == ([written] if written is not None else [])


def test_what_it_waits_for_is_recorded_as_it_changes_and_goes_when_it_runs() -> None:
    attempt = AttemptView(ID, 1, 1, STARTING, created_at=90.0, reason="No room.", waits_for=Reason.WAITS_FOR_QUOTA)
    stage = StageView("work", StageState.RUNNING, attempts=(attempt,))
    view = RunView("run0000000", RunState.RUNNING, Desired.RUN, 3, (stage,), last_epoch=1)

    def written(seen: Seen) -> list[object]:
        return [w.waits_for for w in decide(view, {ID: seen}, 100.0).writes if isinstance(w, SetAttempt)]

    assert written(Seen(Phase.PENDING, reason="No room.", waits_for=Reason.WAITS_FOR_QUOTA)) == []
    assert written(Seen(Phase.PENDING, reason="No room.", waits_for=Reason.WAITS_FOR_NODES)) == [Reason.WAITS_FOR_NODES]
    assert written(Seen(Phase.RUNNING)) == [""]
    assert written(Seen(Phase.EXITED, exit_code=1)) == [""]
