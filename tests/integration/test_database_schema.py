"""Migrations, grants, triggers: what the database itself holds to, whoever writes."""

from __future__ import annotations

import io

import psycopg
import pytest
from alembic import command
from sqlalchemy import make_url

from abruzzi.contracts.states import ArtifactKind, StageKind
from abruzzi.migrations import config, set_passwords, upgrade

RUN = """INSERT INTO runs (id, project_id, name, recipe_name, recipe, recipe_toml, state, created_by)
         VALUES ('a000000000', 'default', 'r', 'r', '{}', '', %s, 'me')"""


def test_models_and_migrations_describe_the_same_tables(shared_database):
    settings = config(shared_database.url("owner"))
    settings.stdout = told = io.StringIO()
    command.check(settings)  # raises where they differ, and says which tables
    assert "No new upgrade operations" in told.getvalue()


def test_migrating_again_changes_nothing(database):
    upgrade(database.url("owner"))
    with database.connect("owner") as connection:
        assert connection.execute("SELECT count(*) FROM projects").fetchone() == (1,)


def test_a_downgrade_leaves_nothing_and_can_be_undone(database):
    command.downgrade(config(database.url("owner")), "base")
    with database.connect("owner") as connection:
        left = connection.execute(
            "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p', 'S')"
        ).fetchall()
        functions = connection.execute(
            "SELECT proname FROM pg_proc WHERE pronamespace = 'public'::regnamespace"
        ).fetchall()
    assert left == [("alembic_version",)]
    assert functions == []
    upgrade(database.url("owner"))


@pytest.mark.parametrize(
    ("table", "words", "new"), [("stages", StageKind, "rephrase"), ("artifacts", ArtifactKind, "trajectories")]
)
def test_a_database_of_an_earlier_version_learns_every_kind(database, table, words, new):
    def known() -> str:
        with database.connect("owner") as connection:
            found = connection.execute(
                "SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conname = %s", [f"{table}_kind_check"]
            ).fetchone()
        assert found is not None
        return found[0]

    command.downgrade(config(database.url("owner")), "0011")
    assert f"'{new}'" not in known()
    upgrade(database.url("owner"))
    assert [word for word in words if f"'{word}'" not in known()] == []


def test_a_changed_password_takes_effect_at_the_next_migration(database, postgres):
    before = database.url("app")
    changed = make_url(before).set(password="other-secret").render_as_string(hide_password=False)
    try:
        upgrade(database.url("owner"), {"abruzzi_app": changed})
        psycopg.connect(changed).close()
        with pytest.raises(psycopg.OperationalError, match="password"):
            psycopg.connect(before)
    finally:
        set_passwords(database.url("owner"), {"abruzzi_app": before})
    psycopg.connect(before).close()


def test_every_table_forces_row_level_security_and_names_its_project(shared_database):
    with shared_database.connect("owner") as connection:
        tables = connection.execute(
            """SELECT c.relname, c.relrowsecurity AND c.relforcerowsecurity,
                      EXISTS (SELECT 1 FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attname = 'project_id' AND a.attnotnull)
               FROM pg_class c WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p') AND NOT c.relispartition
                 AND c.relname <> 'alembic_version'"""
        ).fetchall()
    assert len(tables) == 28
    assert [name for name, forced, _ in tables if not forced] == []
    # What is of no project: the list of projects, and the platform's own chores, leaderships, nodes and pools.
    assert sorted(name for name, _, has_project in tables if not has_project) == [
        "chores",
        "leaderships",
        "nodes",
        "pools",
        "projects",
    ]


@pytest.mark.parametrize("role", ["app", "controller"])
def test_partitions_cannot_be_reached_around_their_parents_policy(shared_database, role):
    with shared_database.connect(role) as connection:
        for parent in ("metric_points", "metric_tiers"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(f"TABLE {parent}_part_0")


@pytest.mark.parametrize("role", ["app", "controller"])
@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM runs",
        "DELETE FROM audit",
        "UPDATE audit SET actor = 'nobody'",
        "UPDATE events SET kind = 'nothing'",
        "DELETE FROM events",
        "DELETE FROM subscriptions",
        "TRUNCATE runs CASCADE",
        "SELECT * FROM alembic_version",
        "CREATE TABLE mine (id int)",
        "ALTER TABLE runs DISABLE ROW LEVEL SECURITY",
    ],
)
def test_the_application_cannot(shared_database, role, statement):
    with shared_database.connect(role) as connection, pytest.raises(psycopg.errors.InsufficientPrivilege):
        connection.execute(statement)


def test_the_application_sees_chores_and_changes_none_and_removes_no_token(shared_database):
    with shared_database.connect("app") as connection:
        connection.execute("SELECT * FROM chores")
        for statement in (
            "INSERT INTO chores (name) VALUES ('x')",
            "UPDATE chores SET failures = 0",
            "DELETE FROM tokens",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(statement)


def test_roles_are_neither_owner_nor_superuser_nor_above_policies(shared_database):
    with shared_database.connect("superuser") as connection:
        rows = connection.execute(
            "SELECT rolname, rolsuper OR rolbypassrls OR rolcreaterole OR rolcreatedb FROM pg_roles WHERE rolname IN ('abruzzi_app', 'abruzzi_controller')"
        ).fetchall()
        owned = connection.execute(
            "SELECT count(*) FROM pg_class WHERE relowner IN ('abruzzi_app'::regrole, 'abruzzi_controller'::regrole)"
        ).fetchone()
    assert sorted(rows) == [("abruzzi_app", False), ("abruzzi_controller", False)]
    assert owned == (0,)


@pytest.mark.parametrize("state", ["succeeded", "failed", "cancelled"])
def test_an_ended_run_stays_so_for_everybody(database, state):
    with database.connect("superuser") as connection:
        connection.execute(RUN, [state])
        with pytest.raises(psycopg.errors.CheckViolation, match="stays so"):
            connection.execute("UPDATE runs SET state = 'running'")
        with pytest.raises(psycopg.errors.CheckViolation, match="stays so"):
            connection.execute("UPDATE runs SET state = 'pending'")


def test_only_a_new_revision_opens_an_ended_run_and_only_at_its_beginning(database):
    with database.connect("superuser") as connection:
        connection.execute(RUN, ["failed"])
        with pytest.raises(psycopg.errors.CheckViolation, match="begins as pending"):
            connection.execute("UPDATE runs SET state = 'succeeded', revision = revision + 1")
        with pytest.raises(psycopg.errors.CheckViolation, match="begins as pending"):
            connection.execute("UPDATE runs SET revision = revision + 1")
        connection.execute("UPDATE runs SET state = 'pending', revision = revision + 1")
        with pytest.raises(psycopg.errors.CheckViolation, match="begins as pending"):
            connection.execute("UPDATE runs SET revision = revision - 1")
        assert connection.execute("SELECT state, revision FROM runs").fetchone() == ("pending", 2)


def test_the_outcome_of_an_attempt_is_written_once(database):
    with database.connect("superuser") as connection:
        connection.execute(RUN, ["running"])
        connection.execute(
            """INSERT INTO stages (run_id, id, project_id, position, kind, state, needs, config, bindings, world_size, max_attempts)
               VALUES ('a000000000', 's', 'default', 0, 'container', 'running', '{}', '{}', '{}', 1, 3)"""
        )
        connection.execute(
            """INSERT INTO attempts (id, project_id, run_id, stage_id, number, epoch, state, cause, exit_code, created_at)
               VALUES ('a000000000-s-1', 'default', 'a000000000', 's', 1, 1, 'failed', 'hang', 143, now())"""
        )
        for change in (
            "UPDATE attempts SET state = 'succeeded'",
            "UPDATE attempts SET cause = 'node'",
            "UPDATE attempts SET exit_code = 0",
        ):
            with pytest.raises(psycopg.errors.CheckViolation, match="stays so"):
                connection.execute(change)
        connection.execute("UPDATE attempts SET workload_removed = true")


def test_words_outside_the_contract_are_refused(database):
    with database.connect("superuser") as connection, pytest.raises(psycopg.errors.CheckViolation):
        connection.execute(RUN, ["paused"])
