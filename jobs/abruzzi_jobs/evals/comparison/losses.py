"""Arms compared by their held-out loss at equal budgets: what comparison.json says of a study whose inputs are checkpoints. Pure.

Trainings of one seed read the same text in the same order, so differences are taken seed by seed, and their mean has Student's 95 % interval.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import combinations, pairwise
from typing import Any

from abruzzi.contracts.errors import AbruzziError
from abruzzi_jobs.evals.comparison.trainings import Training
from abruzzi_jobs.evals.intervals import student

Curves = Mapping[str, Mapping[int, Mapping[str, Training]]]
"""{arm: {tokens: {seed: …}}}, tokens ascending."""


def compare_losses(labels: Mapping[str, str], trainings: Sequence[Training]) -> dict[str, Any]:
    """`labels`: {arm: what table and picture call it}, in their order. Differences are in per cent of the second arm's loss, savings a factor of FLOPs.

    Raises AbruzziError bad_data where arms were not trained on the same budgets with the same seeds.
    """
    curves = _curves(labels, trainings)
    budgets = list(next(iter(curves.values())))
    last, others = list(labels)[-1], list(labels)[:-1]
    return {
        "version": 1,
        "measure": "loss",
        "budgets": budgets,
        "seeds": len(next(iter(next(iter(curves.values())).values()))),
        "arms": {arm: _arm(label, curves[arm]) for arm, label in labels.items()},
        "differences": [
            {"of": of, "over": over, "tokens": tokens, **asdict(student(_differences(curves, of, over, tokens)))}
            for tokens in budgets
            for over, of in combinations(labels, 2)
        ],
        "savings": [{"of": last, "over": over, **_saving(curves, last, over)} for over in others],
    }


def _curves(labels: Mapping[str, str], trainings: Sequence[Training]) -> Curves:
    found: dict[str, dict[int, dict[str, Training]]] = {arm: {} for arm in labels}
    for training in sorted(trainings, key=lambda t: (t.tokens, t.seed)):
        seeds = found[training.arm].setdefault(training.tokens, {})
        if training.seed in seeds:
            raise AbruzziError(
                "bad_data",
                f"The arm {training.arm!r} has two trainings of {training.tokens:,} tokens with seed {training.seed}.",
                hint="Give each training of an arm a budget or a seed of its own.",
            )
        seeds[training.seed] = training
    made = {arm: {tokens: sorted(seeds) for tokens, seeds in budgets.items()} for arm, budgets in found.items()}
    first, *rest = made.items()
    for arm, budgets in (first, *rest):
        if budgets != first[1] or not budgets:
            raise AbruzziError(
                "bad_data",
                f"The arms {first[0]!r} and {arm!r} were not trained alike: {_told(first[1])} against {_told(budgets)}.",
                hint="Give all arms the same schedule.tokens, batch and seeds: losses at other budgets say nothing about each other.",
            )
    return found


def _told(budgets: Mapping[int, Sequence[str]]) -> str:
    return (
        ", ".join(f"{tokens:,} tokens with seeds {' '.join(seeds)}" for tokens, seeds in budgets.items()) or "nothing"
    )


def _arm(label: str, budgets: Mapping[int, Mapping[str, Training]]) -> dict[str, Any]:
    points = []
    for tokens, seeds in budgets.items():
        any_ = next(iter(seeds.values()))
        logits = [t.max_logit for t in seeds.values() if t.max_logit is not None]
        points.append(
            {
                "tokens": tokens,
                "flops": any_.flops,
                "optimizer_flops": any_.optimizer_flops,
                "seeds": {seed: t.loss for seed, t in seeds.items()},
                **asdict(student([t.loss for t in seeds.values()])),
                "max_logit": {"seeds": logits, **asdict(student(logits))} if logits else None,
            }
        )
    one = next(iter(next(iter(budgets.values())).values()))
    return {"label": label, "parameters": one.parameters, "active_parameters": one.active_parameters, "points": points}


def _differences(curves: Curves, of: str, over: str, tokens: int) -> list[float]:
    """Per cent, a seed each; below 0 where `of` has the lower loss."""
    return [100 * (curves[of][tokens][seed].loss / other.loss - 1) for seed, other in curves[over][tokens].items()]


def _saving(curves: Curves, of: str, over: str) -> dict[str, Any]:
    """How many times the FLOPs `over` needs for the loss that it ends with, seed by seed; none where `of` has not passed that loss between its budgets."""
    largest = max(curves[over])
    factors = []
    for seed, other in curves[over][largest].items():
        flops = _flops_at([budget[seed] for budget in curves[of].values()], other.loss)
        if flops is None:
            return {"value": None, "low": None, "high": None, "seeds": []}
        factors.append(other.flops / flops)
    return {**asdict(student(factors)), "seeds": factors}


def _flops_at(curve: Sequence[Training], loss: float) -> float | None:
    """Where the curve crosses `loss`, straight between its points on logarithmic axes."""
    for before, after in pairwise(curve):
        if before.loss >= loss >= after.loss and before.loss > after.loss:
            share = math.log(before.loss / loss) / math.log(before.loss / after.loss)
            return before.flops * (after.flops / before.flops) ** share
    return None
