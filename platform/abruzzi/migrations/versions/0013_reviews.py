"""Reviews: what people say of rows of artifacts."""

from __future__ import annotations

from alembic import op

revision = "0013"
down_revision = "0012"

_MINE = "project_id = ANY (string_to_array(current_setting('abruzzi.projects', true), ','))"
STATEMENTS = (
    """CREATE TABLE reviews (
         project_id text NOT NULL REFERENCES projects(id),
         artifact_digest text NOT NULL,
         row_id text NOT NULL CHECK (row_id <> ''),
         verdict text NOT NULL CHECK (verdict IN ('accept', 'reject')),
         note text NOT NULL,
         by text NOT NULL,
         at timestamptz NOT NULL,
         PRIMARY KEY (project_id, artifact_digest, row_id)
       )""",
    "ALTER TABLE reviews ENABLE ROW LEVEL SECURITY",
    "ALTER TABLE reviews FORCE ROW LEVEL SECURITY",
    f"CREATE POLICY reviews_app ON reviews TO abruzzi_app USING ({_MINE}) WITH CHECK ({_MINE})",
    "CREATE POLICY reviews_controller ON reviews TO abruzzi_controller USING (true) WITH CHECK (true)",
    "CREATE POLICY reviews_owner ON reviews TO CURRENT_USER USING (true) WITH CHECK (true)",
    "GRANT SELECT, INSERT, UPDATE, DELETE ON reviews TO abruzzi_app",
    "GRANT SELECT ON reviews TO abruzzi_controller",
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.get_bind().exec_driver_sql(statement)


def downgrade() -> None:
    op.get_bind().exec_driver_sql("DROP TABLE reviews")
