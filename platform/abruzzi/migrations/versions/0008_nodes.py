"""Nodes: of the platform. Everybody reads them; the node controller writes them; who may administer project `default` drains and returns them."""

from __future__ import annotations

from alembic import op

revision = "0008"
down_revision = "0006"

STATEMENTS = (
    """CREATE TABLE nodes (
         name text PRIMARY KEY CHECK (name <> ''),
         kind text NOT NULL CHECK (kind IN ('local', 'kubernetes')),
         pool text,
         state text NOT NULL CHECK (state IN ('ready', 'suspect', 'lost', 'quarantined', 'draining', 'drained')),
         reason text NOT NULL DEFAULT '',
         since timestamptz NOT NULL,
         facts jsonb NOT NULL DEFAULT '{}',
         attempts jsonb NOT NULL DEFAULT '{}',
         heartbeat_at timestamptz,
         faults jsonb NOT NULL DEFAULT '[]',
         quarantine jsonb,
         drain jsonb,
         forgiven_at timestamptz,
         returned jsonb,
         observed_at timestamptz NOT NULL
       )""",
    "ALTER TABLE nodes ENABLE ROW LEVEL SECURITY",
    "ALTER TABLE nodes FORCE ROW LEVEL SECURITY",
    "CREATE POLICY nodes_read ON nodes FOR SELECT TO abruzzi_app USING (true)",
    """CREATE POLICY nodes_steer ON nodes FOR UPDATE TO abruzzi_app
         USING ('default' = ANY (string_to_array(current_setting('abruzzi.projects', true), ',')))
         WITH CHECK ('default' = ANY (string_to_array(current_setting('abruzzi.projects', true), ',')))""",
    "CREATE POLICY nodes_controller ON nodes TO abruzzi_controller USING (true) WITH CHECK (true)",
    "CREATE POLICY nodes_owner ON nodes TO CURRENT_USER USING (true) WITH CHECK (true)",
    "GRANT SELECT, UPDATE (drain, quarantine, forgiven_at, returned) ON nodes TO abruzzi_app",
    "GRANT SELECT, INSERT, UPDATE, DELETE ON nodes TO abruzzi_controller",
    # Who of several controllers does what only one should do.
    """CREATE TABLE leaderships (
         name text PRIMARY KEY,
         owner text NOT NULL,
         expires_at timestamptz NOT NULL
       )""",
    "ALTER TABLE leaderships ENABLE ROW LEVEL SECURITY",
    "ALTER TABLE leaderships FORCE ROW LEVEL SECURITY",
    "CREATE POLICY leaderships_controller ON leaderships TO abruzzi_controller USING (true) WITH CHECK (true)",
    "CREATE POLICY leaderships_owner ON leaderships TO CURRENT_USER USING (true) WITH CHECK (true)",
    "GRANT SELECT, INSERT, UPDATE, DELETE ON leaderships TO abruzzi_controller",
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.get_bind().exec_driver_sql(statement)


def downgrade() -> None:
    op.get_bind().exec_driver_sql("DROP TABLE leaderships")
    op.get_bind().exec_driver_sql("DROP TABLE nodes")
