"""Rubrics of the stage's project. A stage asks once and keeps the answer: later attempts must compare by the same."""

from __future__ import annotations

from abruzzi.client.stage.connection import connected
from abruzzi.client.stage.context import StageContext
from abruzzi.contracts.errors import AbruzziError
from abruzzi.contracts.graph import nearest
from abruzzi.contracts.rubric import SHIPPED_RUBRICS, RubricSet, RubricSetOut


def read_rubrics(context: StageContext, name: str, *, retry_seconds: float = 120.0) -> RubricSet:
    """The newest version; of those that ship where no platform is named. Raises AbruzziError `not_found`, `unreachable`."""
    with connected(context, retry_seconds=retry_seconds) as platform:
        if platform is not None:
            found = platform.get(RubricSetOut, f"attempts/{context.spec.attempt_id}/rubrics/{name}")
            return RubricSet(name=found.name, version=found.version, rubrics=found.rubrics)
    if name not in SHIPPED_RUBRICS:
        raise AbruzziError(
            "not_found", f"There are no rubrics {name!r}.", status=404, hint=nearest(name, list(SHIPPED_RUBRICS))
        )
    return SHIPPED_RUBRICS[name]
