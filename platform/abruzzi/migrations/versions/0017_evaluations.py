"""Evaluations: a row a suite of a report. What a maintainer said of a gate stands with its stage."""

from __future__ import annotations

from alembic import op

revision = "0017"
down_revision = "0016"

_MINE = "project_id = ANY (string_to_array(current_setting('abruzzi.projects', true), ','))"
STATEMENTS = (
    """CREATE TABLE evaluations (
         id text PRIMARY KEY,
         project_id text NOT NULL REFERENCES projects(id),
         run_id text NOT NULL,
         stage_id text NOT NULL,
         artifact_id text NOT NULL,
         suite text NOT NULL CHECK (suite <> ''),
         target text NOT NULL CHECK (target <> ''),
         target_detail jsonb NOT NULL,
         score double precision CHECK (score BETWEEN 0 AND 1),
         items integer NOT NULL CHECK (items >= 0),
         summary jsonb NOT NULL,
         created_at timestamptz NOT NULL,
         UNIQUE (artifact_id, suite),
         FOREIGN KEY (artifact_id, project_id) REFERENCES artifacts(id, project_id),
         FOREIGN KEY (run_id, project_id) REFERENCES runs(id, project_id)
       )""",
    "CREATE INDEX evaluations_by_time ON evaluations (project_id, created_at DESC, id DESC)",
    "ALTER TABLE evaluations ENABLE ROW LEVEL SECURITY",
    "ALTER TABLE evaluations FORCE ROW LEVEL SECURITY",
    f"CREATE POLICY evaluations_app ON evaluations TO abruzzi_app USING ({_MINE}) WITH CHECK ({_MINE})",
    "CREATE POLICY evaluations_controller ON evaluations TO abruzzi_controller USING (true) WITH CHECK (true)",
    "CREATE POLICY evaluations_owner ON evaluations TO CURRENT_USER USING (true) WITH CHECK (true)",
    "GRANT SELECT, INSERT ON evaluations TO abruzzi_app",
    "GRANT SELECT, INSERT ON evaluations TO abruzzi_controller",
    "ALTER TABLE stages ADD COLUMN gate_override jsonb",
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.get_bind().exec_driver_sql(statement)


def downgrade() -> None:
    op.get_bind().exec_driver_sql("ALTER TABLE stages DROP COLUMN gate_override")
    op.get_bind().exec_driver_sql("DROP TABLE evaluations")
