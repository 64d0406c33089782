"""What of a red team's rows everybody sees: where a row stands in the grid and what became of it. What was asked and answered is for those who
may read attacks (`Action.READ_ATTACKS`). Pure.

A list of what is shown, not of what is hidden: a key that nobody has thought of stays hidden.
"""

from __future__ import annotations

from typing import Any

from abruzzi.contracts.dataset import ReviewOut
from abruzzi.contracts.states import ArtifactKind

OPEN_FILES = frozenset({"redteam.json", "report.md", "calls.json"})
"""Of the artifact: tables and totals. All others hold what was asked."""
SHOWN = "read attacks"
"""Action in the audit log."""
_OPEN = frozenset({
    "id", "fate", "plugin", "sub_plugin", "strategy", "language", "rules", "judge", "turns", "attacker_refusals", "source", "licence",
    "generator", "is_llm", "generators", "role", "target", "attacker", "taken_back", "finish_reason", "endpoint", "sample", "at", "seconds",
    "model", "usage",
})  # fmt: skip
_OPEN_CHARACTERS = 200


def holds_attacks(kind: ArtifactKind) -> bool:
    return kind is ArtifactKind.REDTEAM


def unnoted(review: ReviewOut) -> ReviewOut:
    """The verdict, and who said it; a note may quote what was said."""
    return review.model_copy(update={"note": ""})


def veiled(value: Any, key: str | None = None) -> Any:
    """The row with its shape, and its texts hidden."""
    match value:
        case dict():
            return {name: veiled(inner, name) for name, inner in value.items()}
        case list():
            return [veiled(inner, key) for inner in value]
        case str() if key not in _OPEN or len(value) > _OPEN_CHARACTERS:
            return f"[hidden: {len(value)} characters]"
    return value
