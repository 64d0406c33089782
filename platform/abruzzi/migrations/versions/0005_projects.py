"""The platform's own admins may see the list of all projects."""

from __future__ import annotations

from alembic import op

revision = "0005"
down_revision = "0003"


def upgrade() -> None:
    connection = op.get_bind()
    connection.exec_driver_sql(
        "CREATE POLICY projects_names ON projects FOR SELECT TO abruzzi_app USING (current_setting('abruzzi.project_names', true) = 'all')"
    )


def downgrade() -> None:
    op.get_bind().exec_driver_sql("DROP POLICY projects_names ON projects")
