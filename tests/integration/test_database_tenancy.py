"""Row-level security with the application's own checks off: plain SQL as abruzzi_app."""

from __future__ import annotations

import psycopg
import pytest

SEED = """
INSERT INTO projects (id, name) VALUES ('{p}', '{p}');
INSERT INTO tokens (id, project_id, name, role, secret_hash, created_by, expires_at) VALUES ('t{p}', '{p}', 'n', 'admin', '', 'me', now());
INSERT INTO audit (project_id, actor, action, object, outcome) VALUES ('{p}', 'me', 'x', 'y', 'allowed');
INSERT INTO idempotency_keys (project_id, actor, key, body_hash, status, response) VALUES ('{p}', 'me', 'k', '', 201, '');
INSERT INTO recipes (project_id, name, version, digest, toml, resolved, created_by) VALUES ('{p}', 'r', 1, '', '', '{{}}', 'me');
INSERT INTO runs (id, project_id, name, recipe_name, recipe, recipe_toml, state, created_by) VALUES ('{p}00000000', '{p}', 'r', 'r', '{{}}', '', 'running', 'me');
INSERT INTO stages (run_id, id, project_id, position, kind, state, needs, config, bindings, world_size, max_attempts)
  VALUES ('{p}00000000', 's', '{p}', 0, 'container', 'running', '{{}}', '{{}}', '{{}}', 1, 3);
INSERT INTO attempts (id, project_id, run_id, stage_id, number, epoch, state, created_at) VALUES ('{p}00000000-s-1', '{p}', '{p}00000000', 's', 1, 1, 'running', now());
INSERT INTO ranks (attempt_id, rank, project_id, step, phase, message, first_step, first_at, heartbeat_at) VALUES ('{p}00000000-s-1', 0, '{p}', 1, 'train', '', 1, now(), now());
INSERT INTO artifacts (id, project_id, run_id, stage_id, attempt_id, kind, name, epoch, digest, manifest_key, size_bytes, meta, created_at)
  VALUES ('a{p}', '{p}', '{p}00000000', 's', '{p}00000000-s-1', 'files', 'f', 1, '', 'k{p}', 1, '{{}}', now()),
         ('b{p}', '{p}', '{p}00000000', 's', '{p}00000000-s-1', 'files', 'g', 1, '', 'l{p}', 1, '{{}}', now());
INSERT INTO artifact_parents (artifact_id, parent_id, project_id) VALUES ('a{p}', 'b{p}', '{p}');
INSERT INTO events (project_id, run_id, kind, body) VALUES ('{p}', '{p}00000000', 'run.state', '{{}}');
INSERT INTO outbox (project_id, kind, body) VALUES ('{p}', 'x', '{{}}');
INSERT INTO metric_points (attempt_id, key, step, value, at, project_id) VALUES ('{p}00000000-s-1', 'k', 1, 1, 1, '{p}');
INSERT INTO metric_tiers (attempt_id, key, tier, bucket, last_step, last, at, points, project_id) VALUES ('{p}00000000-s-1', 'k', 16, 0, 1, 1, 1, 1, '{p}');
INSERT INTO subscriptions (id, project_id, channel, target, topics, created_by, created_at) VALUES ('{p}sub', '{p}', 'webhook', 'https://x', '{{run.ended}}', 'x', now());
INSERT INTO deliveries (id, project_id, subscription_id, topic, body, state, due_at, created_at) VALUES ('{p}msg', '{p}', '{p}sub', 'run.ended', '{{}}', 'sent', now(), now());
INSERT INTO usage_runs (run_id, project_id, revision, rolled_at) VALUES ('{p}00000000', '{p}', 1, now());
INSERT INTO usage_days (run_id, pool, day, cause, project_id, gpu_ms, cpu_ms) VALUES ('{p}00000000', 'local', now(), 'train', '{p}', 1, 1);
INSERT INTO queue_entries (attempt_id, project_id, pool, position, since, ordered_by) VALUES ('{p}00000000-s-1', '{p}', 'local', 1, now(), 'kueue');
INSERT INTO reviews (project_id, artifact_digest, row_id, verdict, note, by, at) VALUES ('{p}', 'd', 'r', 'accept', '', 'me', now());
INSERT INTO rubric_sets (project_id, name, version, rubrics, by, at) VALUES ('{p}', 'n', 1, '[]', 'me', now());
INSERT INTO evaluations (id, project_id, run_id, stage_id, artifact_id, suite, target, target_detail, items, summary, created_at)
  VALUES ('{p}ev', '{p}', '{p}00000000', 's', 'a{p}', 'sums@1', 't', '{{}}', 1, '{{}}', now());
INSERT INTO log_chunks (attempt_id, rank, start_offset, end_offset, object_key, project_id) VALUES ('{p}00000000-s-1', 0, 0, 9, 'k', '{p}');
"""
TABLES = (
    "projects", "tokens", "audit", "idempotency_keys", "recipes", "runs", "stages", "attempts", "ranks", "artifacts",
    "artifact_parents", "events", "outbox", "metric_points", "metric_tiers", "log_chunks", "subscriptions", "deliveries",
    "usage_runs", "usage_days", "queue_entries", "reviews", "rubric_sets", "evaluations",
)  # fmt: skip
OF_THE_PLATFORM = ("chores", "leaderships", "nodes", "pools")
"""Of no project: test_database_schema.py, test_nodes.py and test_pools.py say who may do what to them."""
APPEND_ONLY = ("audit", "events", "rubric_sets", "evaluations")
READ_ONLY = ("usage_runs", "usage_days", "queue_entries")
"""To the application: controllers and workers write them."""
DELETABLE = ("idempotency_keys", "outbox", "metric_points", "metric_tiers", "log_chunks", "reviews")


@pytest.fixture(scope="module")
def tenants(shared_database):
    """Two projects, ours (aa) and theirs (bb), with a row in every table each. Nothing below succeeds in changing one."""
    with shared_database.connect("superuser") as connection:
        for project in ("aa", "bb"):
            connection.execute(SEED.format(p=project))
    return shared_database


def as_project(connection: psycopg.Connection, project: str) -> None:
    connection.execute("SELECT set_config('abruzzi.projects', %s, false)", [project])


def owner_column(table: str) -> str:
    return "id" if table == "projects" else "project_id"


def test_the_list_of_tables_is_complete(tenants):
    with tenants.connect("superuser") as connection:
        found = connection.execute(
            "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p') AND NOT relispartition"
        ).fetchall()
    assert {name for (name,) in found} == {*TABLES, *OF_THE_PLATFORM, "alembic_version"}


@pytest.mark.parametrize("table", TABLES)
def test_rows_of_another_project_are_invisible(tenants, table):
    with tenants.connect("app") as connection:
        as_project(connection, "aa")
        seen = connection.execute(f"SELECT DISTINCT {owner_column(table)} FROM {table}").fetchall()  # noqa: S608
        assert seen == [("aa",)]
        as_project(connection, "aa,bb")
        seen = connection.execute(f"SELECT DISTINCT {owner_column(table)} FROM {table}").fetchall()  # noqa: S608
        assert sorted(seen) == [("aa",), ("bb",)]


@pytest.mark.parametrize("table", TABLES)
def test_without_an_identity_nothing_is_visible(tenants, table):
    with tenants.connect("app") as connection:
        assert connection.execute(f"SELECT count(*) FROM {table}").fetchone() == (0,)  # noqa: S608
        as_project(connection, "")
        assert connection.execute(f"SELECT count(*) FROM {table}").fetchone() == (0,)  # noqa: S608


@pytest.mark.parametrize("table", TABLES)
def test_rows_of_another_project_cannot_be_changed_or_removed(tenants, table):
    column = owner_column(table)
    with tenants.connect("app") as connection:
        as_project(connection, "aa")
        if table not in (*APPEND_ONLY, *READ_ONLY):
            touched = connection.execute(f"UPDATE {table} SET {column} = {column} WHERE {column} = 'bb'")  # noqa: S608
            assert touched.rowcount == 0
        if table in DELETABLE:
            assert connection.execute(f"DELETE FROM {table} WHERE {column} = 'bb'").rowcount == 0  # noqa: S608


@pytest.mark.parametrize("table", TABLES)
def test_a_row_cannot_be_put_into_another_project(tenants, table):
    column = owner_column(table)
    with tenants.connect("superuser") as connection:
        columns = [
            name
            for (name,) in connection.execute(
                "SELECT column_name FROM information_schema.columns WHERE table_name = %s AND is_identity = 'NO' AND column_name <> 'xid' ORDER BY ordinal_position",
                [table],
            ).fetchall()
        ]
    values = ", ".join("'bb'" if name == column else name for name in columns)
    with tenants.connect("app") as connection:
        as_project(connection, "aa")
        refusal = "permission denied" if table in READ_ONLY else "row-level security"
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match=refusal):
            connection.execute(f"INSERT INTO {table} ({', '.join(columns)}) SELECT {values} FROM {table}")  # noqa: S608
        if table not in APPEND_ONLY:
            with pytest.raises(psycopg.errors.InsufficientPrivilege, match=refusal):
                connection.execute(f"UPDATE {table} SET {column} = 'bb'")  # noqa: S608


@pytest.mark.parametrize(
    "statement",
    [
        """INSERT INTO stages (run_id, id, project_id, position, kind, state, needs, config, bindings, world_size, max_attempts)
           VALUES ('bb00000000', 'mine', 'aa', 1, 'container', 'waiting', '{}', '{}', '{}', 1, 3)""",
        """INSERT INTO attempts (id, project_id, run_id, stage_id, number, epoch, state, created_at)
           VALUES ('x', 'aa', 'bb00000000', 's', 2, 2, 'created', now())""",
        """INSERT INTO ranks (attempt_id, rank, project_id, step, phase, message, first_step, first_at, heartbeat_at)
           VALUES ('bb00000000-s-1', 1, 'aa', 1, 'train', '', 1, now(), now())""",
        "INSERT INTO artifact_parents (artifact_id, parent_id, project_id) VALUES ('aaa', 'bbb', 'aa')",
        "UPDATE runs SET parent_run_id = 'bb00000000'",
    ],
)
def test_a_row_of_ours_cannot_hang_on_a_row_of_theirs(tenants, statement):
    """Foreign keys look past policies, so each carries the project."""
    with tenants.connect("app") as connection:
        as_project(connection, "aa")
        with pytest.raises(psycopg.errors.ForeignKeyViolation):
            connection.execute(statement)


def test_a_token_is_found_by_its_id_alone_and_only_one_at_a_time(tenants):
    with tenants.connect("app") as connection:
        assert connection.execute("SELECT project_id FROM abruzzi_find_token('tbb')").fetchall() == [("bb",)]
        assert connection.execute("SELECT project_id FROM abruzzi_find_token('%')").fetchall() == []
        assert connection.execute("SELECT count(*) FROM tokens").fetchone() == (0,)


def test_what_a_transaction_may_see_ends_with_it(tenants):
    with psycopg.connect(tenants.url("app")) as connection:
        connection.execute("SELECT set_config('abruzzi.projects', 'aa', true)")
        assert connection.execute("SELECT count(*) FROM runs").fetchone() == (1,)
        connection.commit()
        assert connection.execute("SELECT count(*) FROM runs").fetchone() == (0,)


def test_the_controller_sees_all_projects(tenants):
    with tenants.connect("controller") as connection:
        assert connection.execute("SELECT count(*) FROM runs").fetchone() == (2,)
