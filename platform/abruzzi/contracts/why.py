"""Why a run is where it is: the sentence, and the facts of each stage that it is made of."""

from __future__ import annotations

from datetime import datetime

from abruzzi.contracts.queue import WaitOut
from abruzzi.contracts.reason import Reason
from abruzzi.contracts.resources import Resource
from abruzzi.contracts.states import AttemptState, Cause, StageState


class AttemptFact(Resource):
    number: int
    state: AttemptState
    cause: Cause | None
    exit_code: int | None


class StageFact(Resource):
    stage: str
    code: Reason
    """The public name of its reason."""
    state: StageState
    reason: str | None
    attempts: list[AttemptFact]
    not_before: datetime | None
    """It backs off until then."""
    progress: float | None
    eta_seconds: float | None
    waits_for: WaitOut | None
    """Numbers, where something in the cluster holds it."""


class WhyOut(Resource):
    state: str
    sentence: str
    """Why the run is where it is and what happens next."""
    facts: list[StageFact]
    """One for each stage."""
