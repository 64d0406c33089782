"""Runs that somebody holds, by an index: the controllers' question for due runs reads no others, however many have ended."""

from __future__ import annotations

from alembic import op

revision = "0009"
down_revision = "0007"


def upgrade() -> None:
    op.get_bind().exec_driver_sql(
        "CREATE INDEX runs_leased_idx ON runs (lease_expires_at) WHERE lease_owner IS NOT NULL"
    )


def downgrade() -> None:
    op.get_bind().exec_driver_sql("DROP INDEX runs_leased_idx")
