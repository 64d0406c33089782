"""Pools: of the platform, not of a project. Everybody reads them; who may administer project `default` writes them."""

from __future__ import annotations

from alembic import op

revision = "0006"
down_revision = "0005"

STATEMENTS = (
    """CREATE TABLE pools (
         name text PRIMARY KEY CHECK (name ~ '^[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?$'),
         spec jsonb NOT NULL,
         status jsonb NOT NULL DEFAULT '{}',
         version integer NOT NULL DEFAULT 1,
         updated_by text NOT NULL,
         updated_at timestamptz NOT NULL
       )""",
    "ALTER TABLE pools ENABLE ROW LEVEL SECURITY",
    "ALTER TABLE pools FORCE ROW LEVEL SECURITY",
    "CREATE POLICY pools_read ON pools FOR SELECT TO abruzzi_app USING (true)",
    """CREATE POLICY pools_write ON pools TO abruzzi_app
         USING ('default' = ANY (string_to_array(current_setting('abruzzi.projects', true), ',')))
         WITH CHECK ('default' = ANY (string_to_array(current_setting('abruzzi.projects', true), ',')))""",
    "CREATE POLICY pools_controller ON pools TO abruzzi_controller USING (true) WITH CHECK (true)",
    "CREATE POLICY pools_owner ON pools TO CURRENT_USER USING (true) WITH CHECK (true)",
    "GRANT SELECT, INSERT, UPDATE, DELETE ON pools TO abruzzi_app, abruzzi_controller",
    # How full a pool is, over all projects, and nothing else about them.
    """CREATE FUNCTION abruzzi_pool_ranks() RETURNS TABLE (pool text, running bigint, waiting bigint)
         LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
           SELECT config #>> '{resources,pool}',
                  coalesce(sum(world_size) FILTER (WHERE state = 'running'), 0),
                  coalesce(sum(world_size) FILTER (WHERE state IN ('pending', 'waiting')), 0)
           FROM stages WHERE state IN ('running', 'pending', 'waiting') GROUP BY 1
         $$""",
    "REVOKE ALL ON FUNCTION abruzzi_pool_ranks() FROM PUBLIC",
    "GRANT EXECUTE ON FUNCTION abruzzi_pool_ranks() TO abruzzi_app, abruzzi_controller",
    """INSERT INTO pools (name, spec, updated_by, updated_at)
         VALUES ('local', '{"name": "local", "kind": "local"}', 'migration', now())""",
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.get_bind().exec_driver_sql(statement)


def downgrade() -> None:
    op.get_bind().exec_driver_sql("DROP FUNCTION abruzzi_pool_ranks()")
    op.get_bind().exec_driver_sql("DROP TABLE pools")
