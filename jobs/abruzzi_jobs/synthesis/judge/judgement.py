"""What becomes of a trajectory. Checks decide first; a judge can only take away what they would have kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from abruzzi.contracts.agent import Task, Verdict

KEPT = "kept"
RUBRIC_FAILED, JUDGE_FAILED, JUDGE_UNSURE = "rubric_failed", "judge_failed", "judge_unsure"


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """`score`: 0 where a mandatory clause did not pass, otherwise the passed share of the rubric by weight (up to 1). `reasons`: a clause each, in words."""

    fate: str
    score: float
    reasons: tuple[str, ...]


def judged(task: Task, verdicts: Sequence[Verdict]) -> Judgement:
    """By the verdicts of `checks`, and of `read_judgement` where a judge was asked; clauses of the judge that it was not asked about do not count."""
    found = {verdict.clause: verdict for verdict in verdicts}
    counted = [clause for clause in task.rubric if clause.kind != "judge" or clause.id in found]
    failed = [clause for clause in counted if clause.id not in found or found[clause.id].passed is not True]
    reasons = tuple(
        f"{clause.text}: {found[clause.id].why if clause.id in found else 'nobody looked'}" for clause in failed
    )
    mandatory = [clause for clause in failed if clause.mandatory]
    if any(clause.kind != "judge" for clause in mandatory):
        return Judgement(fate=RUBRIC_FAILED, score=0.0, reasons=reasons)
    if any(found[clause.id].passed is False for clause in mandatory):
        return Judgement(fate=JUDGE_FAILED, score=0.0, reasons=reasons)
    if mandatory:
        return Judgement(fate=JUDGE_UNSURE, score=0.0, reasons=reasons)
    lost = sum(clause.weight for clause in failed)
    return Judgement(fate=KEPT, score=1 - lost / sum(clause.weight for clause in counted), reasons=reasons)
