"""What an attempt asks for and since when it holds it, where the seconds of each rank went, GPU-hours by day, and places in queues."""

from __future__ import annotations

from alembic import op

revision = "0007"
down_revision = "0010"

TABLES = ("usage_days", "usage_runs", "queue_entries")

STATEMENTS = (
    "ALTER TABLE attempts ADD COLUMN pool text",
    "ALTER TABLE attempts ADD COLUMN gpus integer NOT NULL DEFAULT 0",
    "ALTER TABLE attempts ADD COLUMN cpus double precision NOT NULL DEFAULT 0",
    "ALTER TABLE attempts ADD COLUMN memory bigint NOT NULL DEFAULT 0",
    "ALTER TABLE attempts ADD COLUMN held_at timestamptz",
    "ALTER TABLE attempts ADD COLUMN waits_for text",
    "ALTER TABLE ranks ADD COLUMN spent jsonb NOT NULL DEFAULT '{}'",
    # Of attempts that were there before, what their pool gives now is the best that can be known.
    """UPDATE attempts a SET
         pool = coalesce(s.config #>> '{resources,pool}', 'local'),
         held_at = a.started_at,
         gpus = s.world_size * coalesce((p.spec #>> '{rank,gpus}')::integer, 0),
         cpus = s.world_size * coalesce((s.config #>> '{resources,threads}')::double precision, (p.spec #>> '{rank,cpus}')::double precision, 1),
         memory = s.world_size * coalesce((p.spec #>> '{rank,memory}')::bigint, 2147483648)
       FROM stages s LEFT JOIN pools p ON p.name = coalesce(s.config #>> '{resources,pool}', 'local')
       WHERE s.run_id = a.run_id AND s.id = a.stage_id""",
    "CREATE INDEX attempts_waiting_idx ON attempts (pool, created_at) WHERE state IN ('created', 'starting') AND held_at IS NULL",
    """CREATE TABLE usage_runs (
         run_id text PRIMARY KEY,
         project_id text NOT NULL,
         revision integer NOT NULL,
         rolled_at timestamptz NOT NULL,
         FOREIGN KEY (run_id, project_id) REFERENCES runs(id, project_id)
       )""",
    """CREATE TABLE usage_days (
         run_id text NOT NULL REFERENCES usage_runs(run_id) ON DELETE CASCADE,
         pool text NOT NULL,
         day date NOT NULL,
         cause text NOT NULL,
         project_id text NOT NULL,
         gpu_ms bigint NOT NULL,
         cpu_ms bigint NOT NULL,
         PRIMARY KEY (run_id, pool, day, cause)
       )""",
    "CREATE INDEX usage_days_day_idx ON usage_days (project_id, day)",
    """CREATE TABLE queue_entries (
         attempt_id text PRIMARY KEY,
         project_id text NOT NULL,
         pool text NOT NULL,
         position integer NOT NULL,
         since timestamptz NOT NULL,
         ordered_by text NOT NULL CHECK (ordered_by IN ('kueue', 'priority')),
         FOREIGN KEY (attempt_id, project_id) REFERENCES attempts(id, project_id)
       )""",
    "CREATE INDEX queue_entries_pool_idx ON queue_entries (pool, position)",
    # Who waits in a pool and in which order, over all projects. Of other projects only how much they ask for and since when: no names.
    """CREATE FUNCTION abruzzi_pool_queue(asked_pool text) RETURNS TABLE (
         mine boolean, project_id text, run_id text, run_name text, stage_id text, attempt_id text, ranks integer, gpus integer,
         cpus double precision, memory bigint, since timestamptz, "position" integer, ordered_by text,
         waits_for text, reason text
       )
         LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
           SELECT seen.mine, CASE WHEN seen.mine THEN a.project_id END, CASE WHEN seen.mine THEN a.run_id END,
                  CASE WHEN seen.mine THEN r.name END, CASE WHEN seen.mine THEN a.stage_id END, CASE WHEN seen.mine THEN a.id END,
                  s.world_size, a.gpus, a.cpus, a.memory, coalesce(q.since, a.created_at), q.position, q.ordered_by,
                  a.waits_for, CASE WHEN seen.mine THEN a.reason END
           FROM attempts a
           JOIN stages s ON s.run_id = a.run_id AND s.id = a.stage_id
           JOIN runs r ON r.id = a.run_id
           LEFT JOIN queue_entries q ON q.attempt_id = a.id
           CROSS JOIN LATERAL (
             SELECT coalesce(a.project_id = ANY (string_to_array(current_setting('abruzzi.projects', true), ',')), false) AS mine
           ) seen
           WHERE a.pool = asked_pool AND a.state IN ('created', 'starting') AND a.held_at IS NULL
           ORDER BY q.position NULLS LAST, a.created_at, a.id
         $$""",
    # What runs in a pool and how far the slowest rank of each is: what an estimate is made of, and no names.
    """CREATE FUNCTION abruzzi_pool_holders(asked_pool text) RETURNS TABLE (
         gpus integer, cpus double precision, memory bigint, total_steps bigint, step bigint, first_step bigint,
         first_at timestamptz, heartbeat_at timestamptz
       )
         LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
           SELECT a.gpus, a.cpus, a.memory, k.total_steps, k.step, k.first_step, k.first_at, k.heartbeat_at
           FROM attempts a
           LEFT JOIN LATERAL (
             SELECT * FROM ranks WHERE ranks.attempt_id = a.id
             ORDER BY coalesce(progress, step::double precision / nullif(total_steps, 0), 0), rank LIMIT 1
           ) k ON true
           WHERE a.pool = asked_pool AND a.held_at IS NOT NULL AND a.state IN ('created', 'starting', 'running', 'stopping')
         $$""",
    "REVOKE ALL ON FUNCTION abruzzi_pool_queue(text), abruzzi_pool_holders(text) FROM PUBLIC",
    "GRANT EXECUTE ON FUNCTION abruzzi_pool_queue(text), abruzzi_pool_holders(text) TO abruzzi_app, abruzzi_controller",
    "GRANT SELECT ON usage_days, usage_runs, queue_entries TO abruzzi_app",
    "GRANT SELECT, INSERT, UPDATE, DELETE ON usage_days, usage_runs, queue_entries TO abruzzi_controller",
)
VISIBLE = "project_id = ANY (string_to_array(current_setting('abruzzi.projects', true), ','))"


def upgrade() -> None:
    connection = op.get_bind()
    for statement in STATEMENTS:
        connection.exec_driver_sql(statement)
    for table in TABLES:
        for statement in (
            f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY",
            f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY",
            f"CREATE POLICY {table}_app ON {table} TO abruzzi_app USING ({VISIBLE}) WITH CHECK ({VISIBLE})",
            f"CREATE POLICY {table}_controller ON {table} TO abruzzi_controller USING (true) WITH CHECK (true)",
            f"CREATE POLICY {table}_owner ON {table} TO CURRENT_USER USING (true) WITH CHECK (true)",
        ):
            connection.exec_driver_sql(statement)


def downgrade() -> None:
    connection = op.get_bind()
    connection.exec_driver_sql("DROP FUNCTION abruzzi_pool_queue(text)")
    connection.exec_driver_sql("DROP FUNCTION abruzzi_pool_holders(text)")
    for table in ("queue_entries", "usage_days", "usage_runs"):
        connection.exec_driver_sql(f"DROP TABLE {table}")
    connection.exec_driver_sql("ALTER TABLE ranks DROP COLUMN spent")
    for column in ("pool", "gpus", "cpus", "memory", "held_at", "waits_for"):
        connection.exec_driver_sql(f"ALTER TABLE attempts DROP COLUMN {column}")
