"""What agrees with the paper and what does not: each claim of a study against our intervals. Pure.

`agrees`: beyond chance in the claimed direction, in every comparison that the claim is about; `agrees in part`: in some, and against it in none;
`does not agree`: beyond chance against it in some; `cannot be told`: nothing is beyond chance either way.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

from abruzzi.contracts.errors import AbruzziError
from abruzzi.contracts.training import ModelConfig
from abruzzi.plan.flops import flops_per_token
from abruzzi_jobs.evals.comparison.arms import MEASURES
from abruzzi_jobs.evals.comparison.findings import Claim, Finding

AGREES, PARTLY, AGAINST, UNKNOWN = "agrees", "agrees in part", "does not agree", "cannot be told"
_CONTEXT = 131072
Told = tuple[str, Sequence[Mapping[str, Any]]]
"""(ours in words, intervals that are below 0 where the claim holds)."""


def judged(finding: Finding, comparison: Mapping[str, Any]) -> list[dict[str, str]]:
    """[{claim, ours, verdict}] for comparison.json. Raises AbruzziError bad_data where a claim is about an arm that is not there."""
    arms = comparison["arms"]
    for arm in (name for claim in finding.claims for name in (claim.of, claim.over) if name):
        if arm not in arms:
            raise AbruzziError(
                "bad_data",
                f"The study {finding.title!r} speaks of an arm {arm!r}; there are {', '.join(arms)}.",
                hint="Name the arms as its recipe in recipes/studies does, or leave --study out.",
            )
    return [_judge(claim, comparison) for claim in finding.claims]


def verdict(evidence: Sequence[Mapping[str, Any]]) -> str:
    """Of intervals that are below 0 where the claim holds."""
    known = [e for e in evidence if e["value"] is not None and e["low"] is not None]
    if any(e["low"] > 0 for e in known):
        return AGAINST
    holding = [e for e in known if e["high"] < 0]
    if not holding:
        return UNKNOWN
    return AGREES if len(holding) == len(evidence) else PARTLY


def _judge(claim: Claim, comparison: Mapping[str, Any]) -> dict[str, str]:
    if claim.kind == "inference":
        ours, found = _inference(claim)
    elif claim.kind == "same":
        ours, evidence = _lower(claim, comparison)
        found = AGAINST if any(e["low"] is not None and e["low"] * e["high"] > 0 for e in evidence) else AGREES
        found = UNKNOWN if any(e["low"] is None for e in evidence) else found
    else:
        ours, evidence = _TELL[claim.kind](claim, comparison)
        found = verdict(evidence)
    return {"claim": claim.says, "ours": ours, "verdict": found}


def _lower(claim: Claim, comparison: Mapping[str, Any]) -> Told:
    """At every budget."""
    found = [_difference(comparison, claim.of, claim.over, tokens) for tokens in comparison["budgets"]]
    told = ", ".join(f"{percent(e)} at {e['tokens']:,} tokens" for e in found)
    return f"{_label(comparison, claim.of)} against {_label(comparison, claim.over)}: {told}.", found


def _falls(_: Claim, comparison: Mapping[str, Any]) -> Told:
    """Each arm against the one before it, at the largest budget."""
    arms, tokens = list(comparison["arms"]), comparison["budgets"][-1]
    steps = [_difference(comparison, of, over, tokens) for over, of in pairwise(arms)]
    whole = _difference(comparison, arms[-1], arms[0], tokens)
    told = ", ".join(f"{_label(comparison, e['of'])} {percent(e)}" for e in steps)
    return (
        f"At {tokens:,} tokens, each against the one before it: {told}. "
        f"{_label(comparison, arms[-1])} against {_label(comparison, arms[0])}: {percent(whole)}."
    ), steps


def _saving(_: Claim, comparison: Mapping[str, Any]) -> Told:
    found = comparison["savings"]
    told = [f"{_label(comparison, e['over'])} {_factor(e)}" for e in found]
    of = _label(comparison, found[0]["of"])
    evidence = [
        {"value": e["value"], "low": None if e["low"] is None else 1 - e["high"], "high": None if e["low"] is None else 1 - e["low"]}
        for e in found
    ]  # fmt: skip
    return f"FLOPs for the loss that each ends with, over those of {of}: {', '.join(told)}.", evidence


def _factor(entry: Mapping[str, Any]) -> str:
    if entry["value"] is None:
        return "not among these budgets"
    if entry["low"] is None:
        return f"{entry['value']:.2f} times [one seed]"
    return f"{entry['value']:.2f} times [{entry['low']:.2f}, {entry['high']:.2f}]"


def _clipped(claim: Claim, comparison: Mapping[str, Any]) -> Told:
    """The clipped arm's largest logit stays below the other's lowest, at the largest budget."""
    of, over = (comparison["arms"][arm]["points"][-1]["max_logit"] for arm in (claim.of, claim.over))
    if of is None or over is None:
        return "Logits were not measured.", []
    known = len(of["seeds"]) > 1
    apart = {
        "value": of["value"] - over["value"],
        "low": min(of["seeds"]) - max(over["seeds"]) if known else None,
        "high": max(of["seeds"]) - min(over["seeds"]) if known else None,
    }
    told = ", ".join(
        f"{_label(comparison, arm)} {logit['value']:.1f} ({' '.join(f'{v:.0f}' for v in logit['seeds'])})"
        for arm, logit in ((claim.of, of), (claim.over, over))
    )
    return f"Largest logit on held-out text at the end, mean and each seed: {told}.", [apart]


def _higher(claim: Claim, comparison: Mapping[str, Any]) -> Told:
    """Of questions: by every measure; points of per cent."""
    found = [e for e in comparison["differences"] if (e["of"], e["over"]) == (claim.of, claim.over)]
    told = ", ".join(f"{MEASURES[e['measure']]} {points(e)}" for e in found)
    turned = [
        {"value": -e["value"], "low": None if e["low"] is None else -e["high"], "high": None if e["low"] is None else -e["low"]}
        for e in found
    ]  # fmt: skip
    return f"{_label(comparison, claim.of)} − {_label(comparison, claim.over)}: {told}.", turned


def _inference(claim: Claim) -> tuple[str, str]:
    """By the planner, whatever was trained: forward FLOPs of a token that attends to the whole context, and of one in the middle of it."""
    equal, double = (ModelConfig.model_validate({"preset": "k2", "num_heads": heads}) for heads in (64, 128))
    last, mean = (100 * (flops_per_token(double, c) / flops_per_token(equal, c) - 1) for c in (2 * _CONTEXT, _CONTEXT))
    told = f"The planner counts {mean:.0f} % more over a prompt of {_CONTEXT:,} tokens, and {last:.0f} % more for the token after it."
    return told, AGREES if claim.published is not None and mean <= claim.published <= last else AGAINST


_TELL: dict[str, Callable[[Claim, Mapping[str, Any]], Told]] = {
    "lower": _lower, "falls": _falls, "saving": _saving, "clipped": _clipped, "higher": _higher,
}  # fmt: skip


def percent(entry: Mapping[str, Any]) -> str:
    """A difference of losses."""
    if entry["low"] is None:
        return f"{entry['value']:+.2f} % [one seed]"
    return f"{entry['value']:+.2f} % [{entry['low']:+.2f}, {entry['high']:+.2f}]"


def points(entry: Mapping[str, Any]) -> str:
    """A difference of shares."""
    if entry["low"] is None:
        return f"{entry['value']:+.1f} [one seed]"
    return f"{entry['value']:+.1f} [{entry['low']:+.1f}, {entry['high']:+.1f}]"


def _label(comparison: Mapping[str, Any], arm: str) -> str:
    return str(comparison["arms"][arm]["label"])


def _difference(comparison: Mapping[str, Any], of: str, over: str, tokens: int) -> Mapping[str, Any]:
    return next(e for e in comparison["differences"] if (e["of"], e["over"], e["tokens"]) == (of, over, tokens))
