"""Side work: the outbox counts tries and quarantines; subscriptions, deliveries, chores; artifacts remember checks and the end of their files."""

from __future__ import annotations

from alembic import op

from abruzzi.contracts.notification import Channel, DeliveryState

revision = "0003"
down_revision = "0004"

TABLES = ("subscriptions", "deliveries", "chores")
ROLES = ("abruzzi_app", "abruzzi_controller")


def _one_of(column: str, values: object) -> str:
    return f"CHECK ({column} IN ({', '.join(repr(str(v)) for v in values)}))"  # type: ignore[attr-defined]


STATEMENTS = (
    """ALTER TABLE outbox
         ADD COLUMN tries integer NOT NULL DEFAULT 0,
         ADD COLUMN not_before timestamptz NOT NULL DEFAULT now(),
         ADD COLUMN last_error text,
         ADD COLUMN quarantined_at timestamptz""",
    "DROP INDEX outbox_unsent_idx",
    "CREATE INDEX outbox_due_idx ON outbox (id) WHERE sent_at IS NULL AND quarantined_at IS NULL",
    "CREATE INDEX outbox_quarantined_idx ON outbox (project_id, id) WHERE quarantined_at IS NOT NULL",
    """ALTER TABLE artifacts
         ADD COLUMN checked_at timestamptz,
         ADD COLUMN checked_files integer NOT NULL DEFAULT 0,
         ADD COLUMN purged_at timestamptz""",
    "CREATE INDEX artifacts_check_idx ON artifacts (coalesce(checked_at, verified_at, created_at)) WHERE deleted_at IS NULL",
    "CREATE INDEX artifacts_purge_idx ON artifacts (deleted_at) WHERE deleted_at IS NOT NULL AND purged_at IS NULL",
    f"""CREATE TABLE subscriptions (
         id text PRIMARY KEY,
         project_id text NOT NULL REFERENCES projects(id),
         channel text NOT NULL {_one_of("channel", Channel)},
         target text NOT NULL,
         topics text[] NOT NULL,
         created_by text NOT NULL,
         created_at timestamptz NOT NULL,
         removed_at timestamptz,
         UNIQUE (id, project_id)
       )""",
    "CREATE INDEX subscriptions_project_id_idx ON subscriptions (project_id, created_at) WHERE removed_at IS NULL",
    f"""CREATE TABLE deliveries (
         id text PRIMARY KEY,
         project_id text NOT NULL,
         subscription_id text NOT NULL,
         message_id bigint,
         topic text NOT NULL,
         body text NOT NULL,
         state text NOT NULL {_one_of("state", DeliveryState)},
         tries integer NOT NULL DEFAULT 0,
         due_at timestamptz NOT NULL,
         last_error text,
         created_at timestamptz NOT NULL,
         sent_at timestamptz,
         UNIQUE (subscription_id, message_id),
         FOREIGN KEY (subscription_id, project_id) REFERENCES subscriptions(id, project_id)
       )""",
    "CREATE INDEX deliveries_due_idx ON deliveries (due_at) WHERE state = 'pending'",
    "CREATE INDEX deliveries_list_idx ON deliveries (project_id, created_at DESC, id DESC)",
    """CREATE TABLE chores (
         name text PRIMARY KEY,
         due_at timestamptz NOT NULL DEFAULT now(),
         started_at timestamptz,
         ended_at timestamptz,
         failures integer NOT NULL DEFAULT 0,
         last_error text,
         facts jsonb NOT NULL DEFAULT '{}'
       )""",
)


def upgrade() -> None:
    connection = op.get_bind()
    for statement in STATEMENTS:
        connection.exec_driver_sql(statement)
    mine = "project_id = ANY (string_to_array(current_setting('abruzzi.projects', true), ','))"
    for table in TABLES:
        connection.exec_driver_sql(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
        connection.exec_driver_sql(f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY")
        for role, visible in (("abruzzi_controller", "true"), ("CURRENT_USER", "true")):
            name = f"{table}_{'owner' if role == 'CURRENT_USER' else 'controller'}"
            connection.exec_driver_sql(
                f"CREATE POLICY {name} ON {table} TO {role} USING ({visible}) WITH CHECK ({visible})"
            )
        if table != "chores":
            connection.exec_driver_sql(
                f"CREATE POLICY {table}_app ON {table} TO abruzzi_app USING ({mine}) WITH CHECK ({mine})"
            )
    # Chores are the platform's own, of no project: the application shows them to people and changes nothing.
    connection.exec_driver_sql("CREATE POLICY chores_app ON chores FOR SELECT TO abruzzi_app USING (true)")
    connection.exec_driver_sql("GRANT SELECT ON chores TO abruzzi_app")
    connection.exec_driver_sql("GRANT SELECT, INSERT, UPDATE ON chores TO abruzzi_controller")
    for role in ROLES:
        connection.exec_driver_sql(f"GRANT SELECT, INSERT, UPDATE ON subscriptions, deliveries TO {role}")
    # Retention is the controller's and the workers' business.
    connection.exec_driver_sql("GRANT DELETE ON deliveries, tokens TO abruzzi_controller")


def downgrade() -> None:
    connection = op.get_bind()
    for table in reversed(TABLES):
        connection.exec_driver_sql(f"DROP TABLE {table} CASCADE")
    connection.exec_driver_sql("REVOKE DELETE ON tokens FROM abruzzi_controller")
    connection.exec_driver_sql("DROP INDEX artifacts_check_idx")
    connection.exec_driver_sql("DROP INDEX artifacts_purge_idx")
    connection.exec_driver_sql(
        "ALTER TABLE artifacts DROP COLUMN checked_at, DROP COLUMN checked_files, DROP COLUMN purged_at"
    )
    connection.exec_driver_sql("DROP INDEX outbox_due_idx")
    connection.exec_driver_sql("DROP INDEX outbox_quarantined_idx")
    connection.exec_driver_sql(
        "ALTER TABLE outbox DROP COLUMN tries, DROP COLUMN not_before, DROP COLUMN last_error, DROP COLUMN quarantined_at"
    )
    connection.exec_driver_sql("CREATE INDEX outbox_unsent_idx ON outbox (id) WHERE sent_at IS NULL")
