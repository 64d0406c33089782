"""A run may keep the key of its submission: the same key submits once, for as long as the run is there."""

from __future__ import annotations

from alembic import op

revision = "0010"
down_revision = "0008"


def upgrade() -> None:
    op.get_bind().exec_driver_sql(
        "ALTER TABLE runs ADD COLUMN submission_key text CONSTRAINT runs_submission_key_key UNIQUE"
    )


def downgrade() -> None:
    op.get_bind().exec_driver_sql("ALTER TABLE runs DROP COLUMN submission_key")
