"""Which rank of an attempt failed: its log says why, and peers' logs only that somebody is gone."""

from __future__ import annotations

from alembic import op

revision = "0019"
down_revision = "0018"


def upgrade() -> None:
    op.get_bind().exec_driver_sql("ALTER TABLE attempts ADD COLUMN failed_rank integer CHECK (failed_rank >= 0)")


def downgrade() -> None:
    op.get_bind().exec_driver_sql("ALTER TABLE attempts DROP COLUMN failed_rank")
