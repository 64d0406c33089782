"""Rubrics that people wrote: a row a version, never changed."""

from __future__ import annotations

from alembic import op

revision = "0015"
down_revision = "0014"

_MINE = "project_id = ANY (string_to_array(current_setting('abruzzi.projects', true), ','))"
STATEMENTS = (
    """CREATE TABLE rubric_sets (
         project_id text NOT NULL REFERENCES projects(id),
         name text NOT NULL CHECK (name <> ''),
         version integer NOT NULL CHECK (version > 0),
         rubrics jsonb NOT NULL,
         by text NOT NULL,
         at timestamptz NOT NULL,
         PRIMARY KEY (project_id, name, version)
       )""",
    "ALTER TABLE rubric_sets ENABLE ROW LEVEL SECURITY",
    "ALTER TABLE rubric_sets FORCE ROW LEVEL SECURITY",
    f"CREATE POLICY rubric_sets_app ON rubric_sets TO abruzzi_app USING ({_MINE}) WITH CHECK ({_MINE})",
    "CREATE POLICY rubric_sets_controller ON rubric_sets TO abruzzi_controller USING (true) WITH CHECK (true)",
    "CREATE POLICY rubric_sets_owner ON rubric_sets TO CURRENT_USER USING (true) WITH CHECK (true)",
    "GRANT SELECT, INSERT ON rubric_sets TO abruzzi_app",
    "GRANT SELECT ON rubric_sets TO abruzzi_controller",
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.get_bind().exec_driver_sql(statement)


def downgrade() -> None:
    op.get_bind().exec_driver_sql("DROP TABLE rubric_sets")
