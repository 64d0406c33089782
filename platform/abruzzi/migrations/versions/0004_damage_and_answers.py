"""When an artifact was found damaged; the headers of a remembered answer."""

from __future__ import annotations

from alembic import op

revision = "0004"
down_revision = "0001"


def upgrade() -> None:
    connection = op.get_bind()
    connection.exec_driver_sql("ALTER TABLE artifacts ADD COLUMN corrupt_at timestamptz")
    connection.exec_driver_sql("ALTER TABLE idempotency_keys ADD COLUMN headers jsonb NOT NULL DEFAULT '{}'")
    # Retention looks for old ones.
    connection.exec_driver_sql("CREATE INDEX idempotency_keys_created_at_idx ON idempotency_keys (created_at)")
    connection.exec_driver_sql("CREATE INDEX outbox_sent_idx ON outbox (sent_at) WHERE sent_at IS NOT NULL")


def downgrade() -> None:
    connection = op.get_bind()
    connection.exec_driver_sql("DROP INDEX outbox_sent_idx")
    connection.exec_driver_sql("DROP INDEX idempotency_keys_created_at_idx")
    connection.exec_driver_sql("ALTER TABLE idempotency_keys DROP COLUMN headers")
    connection.exec_driver_sql("ALTER TABLE artifacts DROP COLUMN corrupt_at")
