"""The word for the artifact of a redteam stage: attacks on a model, and their verdicts."""

from __future__ import annotations

from alembic import op

revision = "0016"
down_revision = "0015"

BEFORE = (
    "corpus", "tokenizer", "dataset", "checkpoint", "report", "export", "files", "tools", "trajectories", "conversations",
    "rollouts",
)  # fmt: skip
AFTER = (*BEFORE, "redteam")


def upgrade() -> None:
    _allow(AFTER)


def downgrade() -> None:
    _allow(BEFORE)


def _allow(kinds: tuple[str, ...]) -> None:
    op.drop_constraint("artifacts_kind_check", "artifacts")
    op.create_check_constraint("artifacts_kind_check", "artifacts", f"kind IN ({', '.join(map(repr, kinds))})")
