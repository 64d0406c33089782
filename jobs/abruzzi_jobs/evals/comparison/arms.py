"""What is compared: evaluation reports by arm and seed, and what each arm was trained on. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import combinations
from typing import Any

from abruzzi.contracts.errors import AbruzziError
from abruzzi_jobs.evals.intervals import student, welch

MEASURES = {
    "chosen": "chosen among four",
    "answered": "answered in its own words",
}
"""{key in the comparison: what table and picture call it}"""


@dataclass(frozen=True, kw_only=True)
class Arm:
    key: str
    """As the stage's inputs name it."""
    label: str
    reference: float | None = None
    """The figure that somebody has published for this arm, in per cent."""
    reports: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """{seed: report.json of an evaluate stage}"""
    train_tokens: int | None = None
    """Of the dataset, one epoch."""
    rephrase: Mapping[str, Any] | None = None
    """What became of the rewrites: the corpus artifact's facts; None where nothing was rewritten."""


def compare(arms: Sequence[Arm]) -> dict[str, Any]:
    """What comparison.json says; shares in per cent.

    Raises AbruzziError bad_data where an arm has no report, or where arms were not trained on equally many tokens or asked the same questions:
    their figures would say nothing about each other.
    """
    _refuse_unlike(arms)
    entries = {arm.key: _entry(arm) for arm in arms}
    tokens = next(iter(entries.values()))["tokens"]
    return {
        "version": 1,
        "tokens": tokens,
        "seeds": max(len(arm.reports) for arm in arms),
        "items": {measure: _items(arms[0], measure) for measure in _measures(arms)},
        "chance": next(iter(arms[0].reports.values()))["cloze"]["chance"] * 100,
        "arms": entries,
        "differences": [
            {
                "measure": measure,
                "of": second.key,
                "over": first.key,
                **asdict(welch(entries[second.key][measure]["seeds"], entries[first.key][measure]["seeds"])),
            }
            for measure in _measures(arms)
            for first, second in combinations(arms, 2)
        ],
    }


def _entry(arm: Arm) -> dict[str, Any]:
    tokens = _tokens(arm)
    measured = {}
    for measure in _measures([arm]):
        values = [_share(report, measure) for _, report in sorted(arm.reports.items())]
        measured[measure] = {"seeds": values, **asdict(student(values))}
    return {
        "label": arm.label,
        "reference": arm.reference,
        "tokens": tokens,
        "train_tokens": arm.train_tokens,
        "epochs": round(tokens / arm.train_tokens, 2) if arm.train_tokens else None,
        "rephrase": dict(arm.rephrase) if arm.rephrase is not None else None,
        **measured,
    }


def _share(report: Mapping[str, Any], measure: str) -> float:
    cloze = report["cloze"]
    return float((cloze["answered"] if measure == "answered" else cloze)["accuracy"]["value"]) * 100


def _items(arm: Arm, measure: str) -> int:
    cloze = next(iter(arm.reports.values()))["cloze"]
    return int((cloze["answered"] if measure == "answered" else cloze)["items"])


def _measures(arms: Sequence[Arm]) -> list[str]:
    reports = [report for arm in arms for report in arm.reports.values()]
    return [m for m in MEASURES if m == "chosen" or all("answered" in report["cloze"] for report in reports)]


def _tokens(arm: Arm) -> int:
    return int(next(iter(arm.reports.values()))["tokens"])


def _refuse_unlike(arms: Sequence[Arm]) -> None:
    for arm in arms:
        if not arm.reports:
            raise AbruzziError(
                "bad_data",
                f"The arm {arm.key!r} has no report.",
                hint=f'Give the stage an input for each seed: "{arm.key}.0" = "<evaluate stage>.report".',
            )
        if any(report.get("cloze") is None for report in arm.reports.values()):
            raise AbruzziError(
                "bad_data",
                f"A report of the arm {arm.key!r} has no questions.",
                hint="The corpus needs sources with facts, and the evaluate stage evaluation.cloze_items above 0.",
            )
    trained = {f"{arm.key}.{seed}": report["tokens"] for arm in arms for seed, report in arm.reports.items()}
    if len(set(trained.values())) > 1:
        raise AbruzziError(
            "bad_data",
            f"The arms were trained on unequally many tokens: {', '.join(f'{k} {v:,}' for k, v in trained.items())}.",
            hint="Give all pretrain stages the same schedule.tokens and batch.",
        )
    asked = {
        f"{arm.key}.{seed}": {name: entry["items"] for name, entry in report["cloze"]["relations"].items()}
        for arm in arms
        for seed, report in arm.reports.items()
    }
    first, *others = asked.items()
    for name, questions in others:
        if questions != first[1]:
            raise AbruzziError(
                "bad_data",
                f"{first[0]} and {name} were not asked the same questions.",
                hint="Rephrase corpora of one corpus stage, and give all evaluate stages the same evaluation table.",
            )
