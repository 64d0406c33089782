"""comparison.json of losses as Markdown for people: the arms, their differences, and what agrees with the paper."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from abruzzi_jobs.evals.comparison.claims import percent
from abruzzi_jobs.evals.comparison.table import IS_REPLICA, beside_the_paper, interval

VERDICTS = ("higher, beyond chance", "lower, beyond chance", "not beyond chance", "cannot be said with one seed")


def losses_markdown(comparison: Mapping[str, Any], *, title: str) -> str:
    arms, budgets, seeds = comparison["arms"], comparison["budgets"], comparison["seeds"]
    logits = any(point["max_logit"] is not None for arm in arms.values() for point in arm["points"])
    head = ["arm", "parameters", "active", "tokens", "FLOPs", "optimizer's FLOPs", "held-out loss"]
    head += ["largest logit"] if logits else []
    lines = [f"# {title}", "", IS_REPLICA, "", f"| {' | '.join(head)} |", "|---|" + "---:|" * (len(head) - 1)]
    for arm in arms.values():
        for point in arm["points"]:
            cells = [arm["label"], f"{arm['parameters']:,}", f"{arm['active_parameters']:,}", f"{point['tokens']:,}"]
            cells += [f"{point['flops']:.3g}", f"{point['optimizer_flops']:.3g}", interval(point)]
            if logits:
                cells.append("–" if point["max_logit"] is None else f"{point['max_logit']['value']:.1f}")
            lines.append(f"| {' | '.join(cells)} |")
    lines += [
        "",
        f"Nats a token on held-out text, means over {seeds} {'seeds' if seeds > 1 else 'seed'} with 95 % intervals (Student's t). FLOPs are of forward and backward; "
        "the optimizer's own (Newton-Schulz) are beside them, and large here because the batch is small.",
        "",
        "## Differences",
        "",
        "| tokens | difference | of the loss | |",
        "|---:|---|---:|---|",
        *(
            f"| {e['tokens']:,} | {arms[e['of']]['label']} against {arms[e['over']]['label']} | {percent(e)} | {_said(e)} |"
            for tokens in budgets
            for e in comparison["differences"]
            if e["tokens"] == tokens
        ),
        "",
        "Taken seed by seed: trainings of one seed read the same text in the same order.",
        "",
        *beside_the_paper(comparison),
    ]
    return "\n".join(lines)


def _said(entry: Mapping[str, Any]) -> str:
    higher, lower, neither, unknown = VERDICTS
    if entry["low"] is None:
        return unknown
    return higher if entry["low"] > 0 else lower if entry["high"] < 0 else neither
