"""How full a pool is: a stage whose workload waits in the cluster's queue holds nothing, so its ranks wait; before, they counted as running."""

from __future__ import annotations

from alembic import op

revision = "0011"
down_revision = "0009"

BEFORE = """CREATE OR REPLACE FUNCTION abruzzi_pool_ranks() RETURNS TABLE (pool text, running bigint, waiting bigint)
     LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
       SELECT config #>> '{resources,pool}',
              coalesce(sum(world_size) FILTER (WHERE state = 'running'), 0),
              coalesce(sum(world_size) FILTER (WHERE state IN ('pending', 'waiting')), 0)
       FROM stages WHERE state IN ('running', 'pending', 'waiting') GROUP BY 1
     $$"""
AFTER = """CREATE OR REPLACE FUNCTION abruzzi_pool_ranks() RETURNS TABLE (pool text, running bigint, waiting bigint)
     LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
       SELECT pool, coalesce(sum(world_size) FILTER (WHERE holds), 0), coalesce(sum(world_size) FILTER (WHERE NOT holds), 0)
       FROM (
         SELECT s.config #>> '{resources,pool}' AS pool, s.world_size,
                s.state = 'running' AND EXISTS (
                  SELECT FROM attempts a
                  WHERE a.run_id = s.run_id AND a.stage_id = s.id AND a.ended_at IS NULL AND a.held_at IS NOT NULL
                ) AS holds
         FROM stages s WHERE s.state IN ('running', 'pending', 'waiting')
       ) AS live GROUP BY 1
     $$"""


def upgrade() -> None:
    op.get_bind().exec_driver_sql(AFTER)


def downgrade() -> None:
    op.get_bind().exec_driver_sql(BEFORE)
