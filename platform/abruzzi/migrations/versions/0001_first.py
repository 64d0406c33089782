"""First schema: tenancy, runs, artifacts, events, telemetry. Row-level security is forced on every table."""

from __future__ import annotations

import re

from alembic import op
from sqlalchemy import text

from abruzzi.contracts.errors import AbruzziError
from abruzzi.contracts.states import ArtifactKind, AttemptState, Cause, Role, RunState, StageKind, StageState

revision = "0001"
down_revision = None

TABLES = (
    "projects", "tokens", "audit", "idempotency_keys", "recipes", "runs", "stages", "attempts", "ranks", "artifacts", "artifact_parents",
    "events", "outbox", "metric_points", "metric_tiers", "log_chunks",
)  # fmt: skip
DELETABLE = ("idempotency_keys", "outbox", "metric_points", "metric_tiers", "log_chunks")
"""What retention may delete; everything else stays as a record."""
ROLES = ("abruzzi_app", "abruzzi_controller")
PARTITIONS = 8


def _one_of(column: str, values: object) -> str:
    return f"CHECK ({column} IN ({', '.join(repr(str(v)) for v in values)}))"  # type: ignore[attr-defined]


DDL = f"""
CREATE TABLE projects (
  id text PRIMARY KEY CHECK (id ~ '^[a-z0-9]([a-z0-9-]{{0,38}}[a-z0-9])?$'),
  name text NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now()
);
CREATE TABLE tokens (
  id text PRIMARY KEY,
  project_id text NOT NULL REFERENCES projects(id),
  name text NOT NULL,
  role text NOT NULL {_one_of("role", Role)},
  secret_hash bytea NOT NULL,
  attempt_id text,
  created_by text NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now(),
  expires_at timestamptz NOT NULL,
  revoked_at timestamptz,
  last_used_at timestamptz,
  CHECK ((role = 'attempt') = (attempt_id IS NOT NULL))
);
CREATE INDEX tokens_project_id_idx ON tokens (project_id, created_at);
CREATE TABLE audit (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  project_id text NOT NULL,
  actor text NOT NULL,
  action text NOT NULL,
  object text NOT NULL,
  outcome text NOT NULL CHECK (outcome IN ('allowed', 'denied')),
  at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX audit_project_id_idx ON audit (project_id, id);
CREATE TABLE idempotency_keys (
  project_id text NOT NULL,
  actor text NOT NULL,
  key text NOT NULL,
  body_hash bytea NOT NULL,
  status integer NOT NULL,
  response text NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (project_id, actor, key)
);
CREATE TABLE recipes (
  project_id text NOT NULL REFERENCES projects(id),
  name text NOT NULL,
  version integer NOT NULL,
  digest text NOT NULL,
  toml text NOT NULL,
  resolved jsonb NOT NULL,
  created_by text NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (project_id, name, version)
);
CREATE TABLE runs (
  id text PRIMARY KEY CHECK (id ~ '^[a-z][0-9a-z]{{9}}$'),
  project_id text NOT NULL REFERENCES projects(id),
  name text NOT NULL,
  recipe_name text NOT NULL,
  recipe jsonb NOT NULL,
  recipe_toml text NOT NULL,
  state text NOT NULL {_one_of("state", RunState)},
  reason text,
  desired text NOT NULL DEFAULT 'run' CHECK (desired IN ('run', 'cancel', 'interrupt')),
  version integer NOT NULL DEFAULT 1,
  revision integer NOT NULL DEFAULT 1,
  last_epoch integer NOT NULL DEFAULT 0,
  headline jsonb NOT NULL DEFAULT '{{}}',
  parent_run_id text,
  parent_artifact_id text,
  created_by text NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now(),
  started_at timestamptz,
  ended_at timestamptz,
  lease_token bigint NOT NULL DEFAULT 0,
  lease_owner text,
  lease_expires_at timestamptz,
  wake_at timestamptz DEFAULT now(),
  UNIQUE (id, project_id),
  FOREIGN KEY (parent_run_id, project_id) REFERENCES runs(id, project_id)
);
CREATE INDEX runs_list_idx ON runs (project_id, created_at DESC, id DESC);
CREATE INDEX runs_due_idx ON runs (wake_at) WHERE wake_at IS NOT NULL;
CREATE TABLE stages (
  run_id text NOT NULL,
  id text NOT NULL,
  project_id text NOT NULL,
  position integer NOT NULL,
  kind text NOT NULL {_one_of("kind", StageKind)},
  state text NOT NULL {_one_of("state", StageState)},
  reason text,
  revision integer NOT NULL DEFAULT 1,
  needs text[] NOT NULL,
  gate text,
  config jsonb NOT NULL,
  bindings jsonb NOT NULL,
  world_size integer NOT NULL,
  max_attempts integer NOT NULL,
  attempts_before integer NOT NULL DEFAULT 0,
  hang_seconds double precision,
  not_before timestamptz,
  facts jsonb NOT NULL DEFAULT '{{}}',
  started_at timestamptz,
  ended_at timestamptz,
  PRIMARY KEY (run_id, id),
  FOREIGN KEY (run_id, project_id) REFERENCES runs(id, project_id)
);
CREATE TABLE attempts (
  id text PRIMARY KEY,
  project_id text NOT NULL,
  run_id text NOT NULL,
  stage_id text NOT NULL,
  number integer NOT NULL,
  epoch integer NOT NULL,
  state text NOT NULL {_one_of("state", AttemptState)},
  cause text {_one_of("cause", Cause)},
  exit_code integer,
  reason text,
  spec jsonb,
  resumed_from text,
  resume_step bigint,
  checkpoints_back integer NOT NULL DEFAULT 0,
  excluded_nodes text[] NOT NULL DEFAULT '{{}}',
  node text,
  stop_requested_at timestamptz,
  stop_cause text {_one_of("stop_cause", Cause)},
  stacks_requested_at timestamptz,
  workload_removed boolean NOT NULL DEFAULT false,
  created_at timestamptz NOT NULL,
  started_at timestamptz,
  ended_at timestamptz,
  FOREIGN KEY (run_id, stage_id) REFERENCES stages(run_id, id),
  FOREIGN KEY (run_id, project_id) REFERENCES runs(id, project_id),
  UNIQUE (run_id, stage_id, number),
  UNIQUE (run_id, epoch),
  UNIQUE (id, project_id)
);
CREATE TABLE ranks (
  attempt_id text NOT NULL,
  rank integer NOT NULL,
  project_id text NOT NULL,
  step bigint NOT NULL,
  total_steps bigint,
  phase text NOT NULL,
  progress double precision,
  message text NOT NULL,
  first_step bigint NOT NULL,
  first_at timestamptz NOT NULL,
  heartbeat_at timestamptz NOT NULL,
  phase_seconds jsonb NOT NULL DEFAULT '{{}}',
  PRIMARY KEY (attempt_id, rank),
  FOREIGN KEY (attempt_id, project_id) REFERENCES attempts(id, project_id)
);
CREATE TABLE artifacts (
  id text PRIMARY KEY,
  project_id text NOT NULL,
  run_id text NOT NULL,
  stage_id text NOT NULL,
  attempt_id text NOT NULL,
  kind text NOT NULL {_one_of("kind", ArtifactKind)},
  name text NOT NULL,
  step bigint,
  epoch integer NOT NULL,
  digest text NOT NULL,
  manifest_key text NOT NULL UNIQUE,
  size_bytes bigint NOT NULL,
  meta jsonb NOT NULL,
  verified_at timestamptz,
  deleted_at timestamptz,
  created_at timestamptz NOT NULL,
  UNIQUE (id, project_id),
  FOREIGN KEY (run_id, stage_id) REFERENCES stages(run_id, id),
  FOREIGN KEY (run_id, project_id) REFERENCES runs(id, project_id)
);
CREATE INDEX artifacts_run_id_idx ON artifacts (run_id, stage_id, created_at, id);
CREATE INDEX artifacts_digest_idx ON artifacts (digest);
CREATE TABLE artifact_parents (
  artifact_id text NOT NULL,
  parent_id text NOT NULL,
  project_id text NOT NULL,
  PRIMARY KEY (artifact_id, parent_id),
  FOREIGN KEY (artifact_id, project_id) REFERENCES artifacts(id, project_id),
  FOREIGN KEY (parent_id, project_id) REFERENCES artifacts(id, project_id)
);
CREATE INDEX artifact_parents_parent_id_idx ON artifact_parents (parent_id);
-- Position in the event log: the transaction's id, then a count within it. A sequence would not do: a transaction with a low id may take
-- a high number after one with a high id took a low number, and a reader below the oldest open transaction would pass the low number for ever.
CREATE FUNCTION abruzzi_event_position() RETURNS bigint LANGUAGE plpgsql VOLATILE AS $$
DECLARE n bigint := coalesce(nullif(current_setting('abruzzi.events_so_far', true), '')::bigint, 0) + 1;
BEGIN
  IF n >= 1048576 THEN
    RAISE EXCEPTION 'more than 1048575 events in one transaction';
  END IF;
  PERFORM set_config('abruzzi.events_so_far', n::text, true);
  RETURN (pg_current_xact_id()::text::bigint << 20) | n;
END $$;
CREATE TABLE events (
  id bigint PRIMARY KEY DEFAULT abruzzi_event_position(),
  xid xid8 NOT NULL DEFAULT pg_current_xact_id(),
  project_id text NOT NULL,
  run_id text,
  kind text NOT NULL,
  body jsonb NOT NULL,
  at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX events_run_id_idx ON events (run_id, id);
CREATE TABLE outbox (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  project_id text NOT NULL,
  kind text NOT NULL,
  body jsonb NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now(),
  sent_at timestamptz
);
CREATE INDEX outbox_unsent_idx ON outbox (id) WHERE sent_at IS NULL;
CREATE TABLE metric_points (
  attempt_id text NOT NULL,
  key text NOT NULL,
  step bigint NOT NULL,
  value double precision NOT NULL,
  at double precision NOT NULL,
  project_id text NOT NULL,
  PRIMARY KEY (attempt_id, key, step)
) PARTITION BY HASH (attempt_id);
CREATE TABLE metric_tiers (
  attempt_id text NOT NULL,
  key text NOT NULL,
  tier integer NOT NULL,
  bucket bigint NOT NULL,
  low double precision,
  high double precision,
  last_step bigint NOT NULL,
  last double precision NOT NULL,
  at double precision NOT NULL,
  points integer NOT NULL,
  total double precision NOT NULL DEFAULT 0,
  non_finite bigint[] NOT NULL DEFAULT '{{}}',
  project_id text NOT NULL,
  PRIMARY KEY (attempt_id, key, tier, bucket)
) PARTITION BY HASH (attempt_id);
CREATE TABLE log_chunks (
  attempt_id text NOT NULL,
  rank integer NOT NULL,
  start_offset bigint NOT NULL,
  end_offset bigint NOT NULL,
  object_key text NOT NULL,
  project_id text NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (attempt_id, rank, start_offset),
  CHECK (end_offset > start_offset)
);

-- Terminal states are immutable. A retry by a person opens the next revision in the same statement (docs/adr/0002).
CREATE FUNCTION abruzzi_terminal_is_final() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF NEW.revision < OLD.revision OR (NEW.revision > OLD.revision AND NEW.state NOT IN ('pending', 'waiting')) THEN
    RAISE EXCEPTION '% %: a new revision begins as pending or waiting', TG_TABLE_NAME, OLD.id USING ERRCODE = 'check_violation';
  END IF;
  IF OLD.state IN ('succeeded', 'failed', 'cancelled', 'skipped') AND NEW.state <> OLD.state AND NEW.revision = OLD.revision THEN
    RAISE EXCEPTION '% % is % and stays so', TG_TABLE_NAME, OLD.id, OLD.state USING ERRCODE = 'check_violation';
  END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER runs_terminal BEFORE UPDATE OF state, revision ON runs FOR EACH ROW EXECUTE FUNCTION abruzzi_terminal_is_final();
CREATE TRIGGER stages_terminal BEFORE UPDATE OF state, revision ON stages FOR EACH ROW EXECUTE FUNCTION abruzzi_terminal_is_final();
CREATE FUNCTION abruzzi_attempt_is_final() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF OLD.state IN ('succeeded', 'failed', 'cancelled', 'interrupted') AND (NEW.state, NEW.cause, NEW.exit_code) IS DISTINCT FROM (OLD.state, OLD.cause, OLD.exit_code) THEN
    RAISE EXCEPTION 'attempt % is % and stays so', OLD.id, OLD.state USING ERRCODE = 'check_violation';
  END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER attempts_terminal BEFORE UPDATE ON attempts FOR EACH ROW EXECUTE FUNCTION abruzzi_attempt_is_final();
"""


def upgrade() -> None:
    connection = op.get_bind()
    for statement in _statements(DDL):
        connection.exec_driver_sql(statement.replace("%", "%%"))
    for parent in ("metric_points", "metric_tiers"):
        for part in range(PARTITIONS):
            connection.exec_driver_sql(
                f"CREATE TABLE {parent}_part_{part} PARTITION OF {parent} FOR VALUES WITH (MODULUS {PARTITIONS}, REMAINDER {part})"
            )
    _roles()
    for table in TABLES:
        column = "id" if table == "projects" else "project_id"
        visible = f"{column} = ANY (string_to_array(current_setting('abruzzi.projects', true), ','))"
        for statement in (
            f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY",
            f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY",
            f"CREATE POLICY {table}_app ON {table} TO abruzzi_app USING ({visible}) WITH CHECK ({visible})",
            f"CREATE POLICY {table}_controller ON {table} TO abruzzi_controller USING (true) WITH CHECK (true)",
            f"CREATE POLICY {table}_owner ON {table} TO CURRENT_USER USING (true) WITH CHECK (true)",
        ):
            connection.exec_driver_sql(statement)
    for role in ROLES:
        connection.exec_driver_sql(f"GRANT USAGE ON SCHEMA public TO {role}")
        # By name, so that partitions are reached through their parent and its policy alone.
        connection.exec_driver_sql(f"GRANT SELECT, INSERT, UPDATE ON {', '.join(TABLES)} TO {role}")
        connection.exec_driver_sql(f"GRANT DELETE ON {', '.join(DELETABLE)} TO {role}")
        connection.exec_driver_sql(f"GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO {role}")
        # Append-only, for the application as well.
        connection.exec_driver_sql(f"REVOKE UPDATE ON audit, events FROM {role}")
    # A token is looked up before the project is known: a function that answers for one token id only.
    connection.exec_driver_sql("""
        CREATE FUNCTION abruzzi_find_token(token_id text) RETURNS SETOF tokens
        LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp
        AS $$ SELECT * FROM tokens WHERE id = token_id $$
    """)
    connection.exec_driver_sql("REVOKE ALL ON FUNCTION abruzzi_find_token(text) FROM PUBLIC")
    connection.exec_driver_sql("GRANT EXECUTE ON FUNCTION abruzzi_find_token(text) TO abruzzi_app, abruzzi_controller")
    connection.exec_driver_sql("INSERT INTO projects (id, name) VALUES ('default', 'Default')")


def downgrade() -> None:
    connection = op.get_bind()
    connection.exec_driver_sql("DROP FUNCTION abruzzi_find_token(text)")
    for table in reversed(TABLES):
        connection.exec_driver_sql(f"DROP TABLE {table} CASCADE")
    connection.exec_driver_sql("DROP FUNCTION abruzzi_terminal_is_final()")
    connection.exec_driver_sql("DROP FUNCTION abruzzi_attempt_is_final()")
    connection.exec_driver_sql("DROP FUNCTION abruzzi_event_position()")


def _statements(ddl: str) -> list[str]:
    """Split at semicolons that end a line, but not inside $$ bodies."""
    parts = re.split(r"(\$\$.*?\$\$)", ddl, flags=re.DOTALL)
    marked = "".join(p if p.startswith("$$") else p.replace(";\n", ";\0") for p in parts)
    return [s.strip() for s in marked.split("\0") if s.strip()]


def _roles() -> None:
    """Create the two roles where they are missing. Where the owner may not, an administrator has to: the message says how."""
    connection = op.get_bind()
    for role in ROLES:
        if (
            connection.execute(text("SELECT 1 FROM pg_roles WHERE rolname = :role"), {"role": role}).scalar()
            is not None
        ):
            continue
        create = f"CREATE ROLE {role} LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOBYPASSRLS"
        may = connection.execute(
            text("SELECT rolsuper OR rolcreaterole FROM pg_roles WHERE rolname = current_user")
        ).scalar_one()
        if not may:
            raise AbruzziError(
                "role_missing",
                f"The database role {role!r} is missing, and the owner may not create it.",
                status=500,
                hint=f"As an administrator of the database run: {create} PASSWORD '...';",
            )
        connection.exec_driver_sql(create)
