"""Attempts of their own width: an elastic stage goes on with fewer ranks where the pool has no place for all, and with all again."""

from __future__ import annotations

from alembic import op

revision = "0018"
down_revision = "0017"

_CAUSES = (
    "user_error", "bad_data", "infrastructure", "node", "preemption", "hang", "out_of_memory", "divergence", "poison", "cancelled", "unknown",
)  # fmt: skip
_POOL_RANKS = """CREATE OR REPLACE FUNCTION abruzzi_pool_ranks() RETURNS TABLE (pool text, running bigint, waiting bigint)
     LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
       SELECT pool, coalesce(sum(world_size) FILTER (WHERE holds), 0), coalesce(sum(world_size) FILTER (WHERE NOT holds), 0)
       FROM (
         SELECT s.config #>> '{{resources,pool}}' AS pool, {live_ranks},
                s.state = 'running' AND EXISTS (
                  SELECT FROM attempts a
                  WHERE a.run_id = s.run_id AND a.stage_id = s.id AND a.ended_at IS NULL AND a.held_at IS NOT NULL
                ) AS holds
         FROM stages s WHERE s.state IN ('running', 'pending', 'waiting')
       ) AS live GROUP BY 1
     $$"""
_POOL_QUEUE = """CREATE OR REPLACE FUNCTION abruzzi_pool_queue(asked_pool text) RETURNS TABLE (
         mine boolean, project_id text, run_id text, run_name text, stage_id text, attempt_id text, ranks integer, gpus integer,
         cpus double precision, memory bigint, since timestamptz, "position" integer, ordered_by text,
         waits_for text, reason text
       )
         LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
           SELECT seen.mine, CASE WHEN seen.mine THEN a.project_id END, CASE WHEN seen.mine THEN a.run_id END,
                  CASE WHEN seen.mine THEN r.name END, CASE WHEN seen.mine THEN a.stage_id END, CASE WHEN seen.mine THEN a.id END,
                  {ranks}, a.gpus, a.cpus, a.memory, coalesce(q.since, a.created_at), q.position, q.ordered_by,
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
         $$"""
_LIVE = """coalesce((SELECT max(n.world_size) FROM attempts n WHERE n.run_id = s.run_id AND n.stage_id = s.id AND n.ended_at IS NULL), s.world_size)
                 AS world_size"""


def upgrade() -> None:
    connection = op.get_bind()
    connection.exec_driver_sql("ALTER TABLE stages ADD COLUMN elastic jsonb")
    connection.exec_driver_sql("ALTER TABLE attempts ADD COLUMN world_size integer CHECK (world_size > 0)")
    connection.exec_driver_sql("ALTER TABLE attempts ADD COLUMN resize_to integer CHECK (resize_to > 0)")
    _allow((*_CAUSES, "resize"))
    connection.exec_driver_sql(_POOL_RANKS.format(live_ranks=_LIVE))
    connection.exec_driver_sql(_POOL_QUEUE.format(ranks="coalesce(a.world_size, s.world_size)"))


def downgrade() -> None:
    connection = op.get_bind()
    connection.exec_driver_sql(_POOL_RANKS.format(live_ranks="s.world_size"))
    connection.exec_driver_sql(_POOL_QUEUE.format(ranks="s.world_size"))
    for column in ("cause", "stop_cause"):
        connection.exec_driver_sql(f"UPDATE attempts SET {column} = 'preemption' WHERE {column} = 'resize'")
    _allow(_CAUSES)
    connection.exec_driver_sql("ALTER TABLE attempts DROP COLUMN world_size, DROP COLUMN resize_to")
    connection.exec_driver_sql("ALTER TABLE stages DROP COLUMN elastic")


def _allow(causes: tuple[str, ...]) -> None:
    for column in ("cause", "stop_cause"):
        op.drop_constraint(f"attempts_{column}_check", "attempts")
        op.create_check_constraint(
            f"attempts_{column}_check", "attempts", f"{column} IN ({', '.join(map(repr, causes))})"
        )
