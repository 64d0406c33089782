"""What an attempt waits for is recorded as it changes, and taken away when it no longer holds."""

from __future__ import annotations

import pytest

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
