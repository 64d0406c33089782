"""The word for the artifact that a stage of reinforcement learning makes beside its checkpoint."""

from __future__ import annotations

from alembic import op

revision = "0014"
down_revision = "0013"

BEFORE = (
    "corpus", "tokenizer", "dataset", "checkpoint", "report", "export", "files", "tools", "trajectories", "conversations",
)  # fmt: skip
AFTER = (*BEFORE, "rollouts")


def upgrade() -> None:
    _allow(AFTER)


def downgrade() -> None:
    _allow(BEFORE)


def _allow(kinds: tuple[str, ...]) -> None:
    op.drop_constraint("artifacts_kind_check", "artifacts")
    op.create_check_constraint("artifacts_kind_check", "artifacts", f"kind IN ({', '.join(map(repr, kinds))})")
