"""The words for all kinds of stages and artifacts that the design names: a database made by an earlier version knows only those of its day."""

from __future__ import annotations

from alembic import op

revision = "0012"
down_revision = "0011"

_STAGES = ("corpus", "tokenize", "pretrain", "evaluate", "container")
_ARTIFACTS = ("corpus", "tokenizer", "dataset", "checkpoint", "report", "export", "files")
BEFORE: dict[str, tuple[str, ...]] = {"stages": _STAGES, "artifacts": _ARTIFACTS}
AFTER: dict[str, tuple[str, ...]] = {
    "stages": (*_STAGES, "rephrase", "synthesize", "instruct", "sft", "rl", "redteam"),
    "artifacts": (*_ARTIFACTS, "tools", "trajectories", "conversations"),
}


def upgrade() -> None:
    _allow(AFTER)


def downgrade() -> None:
    _allow(BEFORE)


def _allow(words: dict[str, tuple[str, ...]]) -> None:
    for table, kinds in words.items():
        op.drop_constraint(f"{table}_kind_check", table)
        op.create_check_constraint(f"{table}_kind_check", table, f"kind IN ({', '.join(map(repr, kinds))})")
