"""comparison.json as Markdown for people: the table, the differences, and what the figures do not say."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from abruzzi_jobs.data.processing.shard import KEPT
from abruzzi_jobs.evals.comparison.arms import MEASURES

IS_REPLICA = "A small replica: its figures are not comparable with the published ones, and only differences beyond chance say anything."


def markdown(comparison: Mapping[str, Any], *, title: str, published: str) -> str:
    """`published`: whose figures stand beside ours."""
    arms, measures = comparison["arms"], list(comparison["items"])
    reference = any(arm["reference"] is not None for arm in arms.values())
    who = teachers(comparison)
    lines = [f"# {title}", "", f"{IS_REPLICA} Rewrites by {who}." if who else IS_REPLICA, ""]
    head = ["arm", *(MEASURES[m] for m in measures), *([published] if reference else []), "epochs", "seeds"]
    lines += [f"| {' | '.join(head)} |", "|---|" + "---:|" * (len(head) - 1)]
    for arm in arms.values():
        cells = [arm["label"], *(interval(arm[m], least=0.0) for m in measures)]
        if reference:
            cells.append("–" if arm["reference"] is None else f"{arm['reference']:.2f}")
        cells += ["–" if arm["epochs"] is None else f"{arm['epochs']:.1f}", str(len(arm[measures[0]]["seeds"]))]
        lines.append(f"| {' | '.join(cells)} |")
    asked = ", ".join(f"{number:,} {MEASURES[m]}" for m, number in comparison["items"].items())
    lines += [
        "",
        f"Per cent of questions ({asked}; chance among four {comparison['chance']:.0f} %). In brackets 95 % intervals of the mean over seeds "
        f"(Student's t). All arms saw {comparison['tokens']:,} tokens; epochs are these over the tokens of the arm's text.",
        "",
        "## Differences",
        "",
        *_differences(comparison),
        "",
    ]
    rewriting = _rewriting(arms)
    if rewriting:
        lines += ["## Rewrites", "", *rewriting, ""]
    return "\n".join([*lines, *beside_the_paper(comparison)])


def beside_the_paper(comparison: Mapping[str, Any]) -> list[str]:
    """What it found, and each of its claims with ours; nothing for a comparison of one's own."""
    study = comparison.get("study")
    if study is None:
        return []
    lines = ["## Beside the paper", "", f"Section {study['section']}: {study['finding']} ({study['conditions']}.)", ""]
    for claim in comparison["claims"]:
        lines += [f"- **{claim['verdict']}**: {claim['claim']} {claim['ours']}"]
    return [*lines, ""]


def teachers(comparison: Mapping[str, Any]) -> str:
    """Who rewrote: never a rule that passes for a language model."""
    found = [arm["rephrase"] for arm in comparison["arms"].values() if arm["rephrase"] is not None]
    if not found:
        return ""
    generators = sorted({name for entry in found for name in entry["generators"]})
    names = ", ".join(generators) or "nobody"
    return (
        names
        if all(entry["teacher"] == "llm" for entry in found)
        else f"STAND-IN ({names}), rules and no language model"
    )


def interval(entry: Mapping[str, Any], *, least: float = -math.inf) -> str:
    """`least`: a share is no less than nothing, though t's interval around a small one may be."""
    if entry["low"] is None:
        return f"{entry['value']:.2f} [one seed]"
    return f"{entry['value']:.2f} [{max(least, entry['low']):.2f}, {entry['high']:.2f}]"


def _differences(comparison: Mapping[str, Any]) -> list[str]:
    labels = {key: arm["label"] for key, arm in comparison["arms"].items()}
    lines = ["| measure | difference | points | |", "|---|---|---:|---|"]
    for entry in comparison["differences"]:
        if entry["low"] is None:
            verdict = "cannot be said with one seed"
        else:
            verdict = "beyond chance" if entry["low"] * entry["high"] > 0 else "not beyond chance"
        words = f"{labels[entry['of']]} − {labels[entry['over']]}"
        lines.append(f"| {MEASURES[entry['measure']]} | {words} | {interval(entry)} | {verdict} |")
    return lines


def _rewriting(arms: Mapping[str, Mapping[str, Any]]) -> list[str]:
    lines = []
    for arm in arms.values():
        entry = arm["rephrase"]
        if entry is None:
            continue
        fates = entry["rewrites"]
        total = sum(fates.values())
        lost = ", ".join(f"{reason} {number}" for reason, number in fates.items() if reason != KEPT and number)
        lines.append(
            f"- {arm['label']}: {total:,} rewrites by {', '.join(entry['generators'])} (teacher: {entry['teacher']}), {fates.get(KEPT, 0):,} kept, "
            f"{total - fates.get(KEPT, 0):,} rejected{f' ({lost})' if lost else ''}; "
            f"documents: {', '.join(f'{end} {number}' for end, number in entry['documents'].items())}."
        )
    return lines
