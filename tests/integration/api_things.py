"""A valid request for every route, about things that exist: what an identity is answered is then the policy's doing and nobody else's."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psycopg
from api_server import RECIPE, ApiServer

from abruzzi.contracts.evaluation import SuiteSettings, SuiteSummary
from abruzzi.contracts.stage import DirectoryStore as StoreConfig
from abruzzi.contracts.stage import StageSpec
from abruzzi.contracts.states import ArtifactKind, Role, StageKind
from abruzzi.kit.ids import new_id
from abruzzi.store import DirectoryStore, commit_artifact

_numbers = itertools.count()


@dataclass
class Things:
    """One of each, in a project of one's own choice: a run whose stage `a` runs, its attempt, a checkpoint, a log, a token."""

    server: ApiServer
    project: str
    admin: str
    run_id: str
    attempt_id: str
    attempt_token: str
    token_id: str
    artifact_id: str = ""
    manifest_key: str = ""
    digest: str = ""
    subscription_id: str = field(default_factory=new_id)
    delivery_id: str = field(default_factory=new_id)
    evaluation_id: str = field(default_factory=new_id)
    message_id: int = 0
    """Of the outbox: that the run was submitted."""

    @classmethod
    def make(cls, server: ApiServer, project: str, folder: Path) -> Things:
        admin = server.token(Role.ADMIN, project=project)
        run_id = server.submit(admin)["id"]
        attempt_id = f"{run_id}-a-1"
        with psycopg.connect(server.owner_url, autocommit=True) as connection:
            connection.execute("UPDATE stages SET state = 'running' WHERE run_id = %s AND id = 'a'", (run_id,))
            connection.execute(
                "INSERT INTO attempts (id, project_id, run_id, stage_id, number, epoch, state, created_at) "
                "VALUES (%s, %s, %s, 'a', 1, 1, 'running', now())",
                (attempt_id, project, run_id),
            )
            row = connection.execute("SELECT id FROM outbox WHERE body->>'run_id' = %s", (run_id,)).fetchone()
            assert row is not None
        with server.client(admin) as client:
            token_id = client.post("tokens", json={"name": "somebody", "role": "viewer"}).json()["id"]
        attempt_token = server.token(Role.ATTEMPT, project=project, attempt=attempt_id)
        made = cls(server, project, admin, run_id, attempt_id, attempt_token, token_id)
        made.message_id = row[0]
        made._commit(folder)
        made._evaluate()
        made.quarantine()
        return made

    @property
    def ids(self) -> dict[str, str]:
        return {
            "run_id": self.run_id, "attempt_id": self.attempt_id, "artifact_id": self.artifact_id, "token_id": self.token_id, "rank": "0",
            "path": "file.txt", "subscription_id": self.subscription_id, "delivery_id": self.delivery_id, "message_id": str(self.message_id),
            "name": "spare", "noun": "things", "rubrics_name": "general", "stage_id": "a",
            "evaluation_id": self.evaluation_id, "other_id": self.evaluation_id, "table": "instruct",
        }  # fmt: skip

    @property
    def names(self) -> list[str]:
        """What nobody of another project may read anywhere."""
        return [
            self.run_id,
            self.artifact_id,
            self.token_id,
            self.subscription_id,
            self.delivery_id,
            self.evaluation_id,
        ]

    def end(self) -> None:
        """The run fails, whatever it does now."""
        with psycopg.connect(self.server.owner_url, autocommit=True) as connection:
            connection.execute("UPDATE runs SET state = 'failed' WHERE id = %s", (self.run_id,))

    def reopen(self) -> None:
        with psycopg.connect(self.server.owner_url, autocommit=True) as connection:
            connection.execute(
                "UPDATE runs SET state = 'pending', desired = 'run', revision = revision + 1 WHERE id = %s",
                (self.run_id,),
            )

    def hold_at_gate(self) -> None:
        """Stage `a` waits behind a gate that looks at `b`, which has ended and does not satisfy it."""
        self.reopen()
        with psycopg.connect(self.server.owner_url, autocommit=True) as connection:
            connection.execute("UPDATE stages SET state = 'succeeded' WHERE run_id = %s AND id = 'b'", (self.run_id,))
            connection.execute(
                "UPDATE stages SET state = 'waiting', gate = 'b.score >= 2', revision = revision + 1 WHERE run_id = %s AND id = 'a'",
                (self.run_id,),
            )

    def quarantine(self) -> None:
        """A subscription, a delivery and a message that could not be sent."""
        with psycopg.connect(self.server.owner_url, autocommit=True) as connection:
            connection.execute(
                "INSERT INTO subscriptions (id, project_id, channel, target, topics, created_by, created_at) "
                "VALUES (%s, %s, 'webhook', 'https://hooks.example', '{run.ended}', 'test', now()) ON CONFLICT (id) DO UPDATE SET removed_at = NULL",
                (self.subscription_id, self.project),
            )
            connection.execute(
                "INSERT INTO deliveries (id, project_id, subscription_id, topic, body, state, due_at, created_at) "
                "VALUES (%s, %s, %s, 'run.ended', '{}', 'quarantined', now(), now()) ON CONFLICT (id) DO UPDATE SET state = 'quarantined'",
                (self.delivery_id, self.project, self.subscription_id),
            )
            connection.execute("UPDATE outbox SET quarantined_at = now() WHERE id = %s", (self.message_id,))

    def _commit(self, folder: Path) -> None:
        contents = {
            "file.txt": "weights",
            "things.json": '{"rows": 1}',
            "scores.json": '{"sums@1": {"one": 1.0}}',
            "things.jsonl": '{"id": "one", "fate": "kept"}\n',
            "redteam.jsonl": '{"id": "one", "fate": "pass", "plugin": "privacy", "sub_plugin": "violation", "strategy": "basic"}\n',
        }
        for name, text in contents.items():
            (folder / name).write_text(text)
        spec = StageSpec(
            project_id=self.project, run_id=self.run_id, stage_id="a", attempt_id=self.attempt_id, epoch=1, kind=StageKind.CONTAINER, config={},
            store=StoreConfig(root=str(self.server.store)), output_prefix=f"projects/{self.project}/runs/{self.run_id}/a/",
        )  # fmt: skip
        self.manifest_key, manifest = commit_artifact(
            DirectoryStore(self.server.store), spec, kind=ArtifactKind.CHECKPOINT, name="final", files={name: folder / name for name in contents}, step=1
        )  # fmt: skip
        self.digest = manifest.digest()
        with self.server.client(self.attempt_token) as stage:
            body = {"manifest_key": self.manifest_key, "digest": self.digest}
            answer = stage.post(f"attempts/{self.attempt_id}/artifacts", json=body)
            assert answer.status_code == 202, answer.text
            self.artifact_id = answer.json()["artifact"]["id"]
            log = stage.put(f"attempts/{self.attempt_id}/logs/0", params={"offset": 0}, content=b"hello\n")
            assert log.status_code == 200, log.text

    def _evaluate(self) -> None:
        summary = SuiteSummary(
            suite="sums@1", settings=SuiteSettings(), items=1, answers=1, statuses={}, missing=0, score=None, truncation_rate=0.0
        )  # fmt: skip
        with psycopg.connect(self.server.owner_url, autocommit=True) as connection:
            connection.execute(
                "INSERT INTO evaluations (id, project_id, run_id, stage_id, artifact_id, suite, target, target_detail, items, summary, created_at) "
                "VALUES (%s, %s, %s, 'a', %s, 'sums@1', 'sha256:1', '{}', 1, %s, now())",
                (self.evaluation_id, self.project, self.run_id, self.artifact_id, summary.model_dump_json()),
            )


@dataclass(frozen=True)
class Asked:
    """A valid request. `body` and `query` are made anew for each."""

    status: int = 200
    """Of the answer to somebody who may."""
    query: Callable[[Things], dict[str, str]] = lambda t: {}
    body: Callable[[Things], Any] | None = None
    about_things: bool | None = None
    """Whether it names something of a project; None: when its path does."""
    before: Callable[[Things], None] = field(default=lambda t: None)

    def names_things(self, path: str) -> bool:
        return "{" in path if self.about_things is None else self.about_things


def _recipe(t: Things) -> dict[str, Any]:
    return {"recipe_toml": RECIPE}


def _rubrics(t: Things) -> dict[str, Any]:
    return {"based_on": 1, "rubrics": [{"name": "short", "kind": "human", "text": "Short."}]}


def forget_rubrics(t: Things) -> None:
    with psycopg.connect(t.server.owner_url, autocommit=True) as connection:
        connection.execute("DELETE FROM rubric_sets")


def make_pool(t: Things) -> None:
    with psycopg.connect(t.server.owner_url, autocommit=True) as connection:
        connection.execute(
            """INSERT INTO pools (name, spec, updated_by, updated_at) VALUES ('spare', '{"name": "spare", "kind": "kubernetes"}', 'test', now())
               ON CONFLICT DO NOTHING"""
        )


def make_node(t: Things) -> None:
    with psycopg.connect(t.server.owner_url, autocommit=True) as connection:
        connection.execute(
            "INSERT INTO nodes (name, kind, state, since, observed_at) VALUES ('spare', 'kubernetes', 'ready', now(), now()) ON CONFLICT DO NOTHING"
        )


REQUESTS: dict[tuple[str, str], Asked] = {
    ("POST", "/runs"): Asked(201, body=_recipe),
    ("POST", "/runs/{run_id}/cancel"): Asked(202, before=Things.reopen),
    ("POST", "/runs/{run_id}/retry"): Asked(202, body=lambda t: {}, before=Things.end),
    ("POST", "/runs/{run_id}/gates/{stage_id}/override"): Asked(
        202, body=lambda t: {"reason": "people looked"}, before=Things.hold_at_gate
    ),
    ("POST", "/runs/{run_id}/branch"): Asked(201, body=lambda t: {"artifact_id": t.artifact_id}),
    ("POST", "/runs/{run_id}/export"): Asked(202),
    ("POST", "/notifications"): Asked(
        201, body=lambda t: {"channel": "webhook", "target": "https://hooks.example/abruzzi", "topics": ["run.ended"]}
    ),
    ("POST", "/notifications/deliveries/{delivery_id}/retry"): Asked(before=Things.quarantine),
    ("POST", "/notifications/quarantine/{message_id}/retry"): Asked(before=Things.quarantine),
    ("POST", "/notifications/{subscription_id}/test"): Asked(202, before=Things.quarantine),
    ("DELETE", "/notifications/{subscription_id}"): Asked(204, before=Things.quarantine),
    ("GET", "/stages"): Asked(query=lambda t: {"run": t.run_id}, about_things=True),
    ("GET", "/artifacts"): Asked(query=lambda t: {"run": t.run_id}, about_things=True),
    ("GET", "/redteam/{artifact_id}"): Asked(),
    ("GET", "/evaluations/paper/{table}"): Asked(about_things=False),
    ("GET", "/artifacts/{artifact_id}/rows"): Asked(query=lambda t: {"noun": "things"}),
    ("PUT", "/artifacts/{artifact_id}/reviews"): Asked(body=lambda t: {"row_id": "one", "verdict": "accept"}),
    ("DELETE", "/artifacts/{artifact_id}/reviews"): Asked(204, query=lambda t: {"row_id": "one"}),
    ("GET", "/attempts/{attempt_id}/reviews"): Asked(query=lambda t: {"digest": t.digest}),
    ("GET", "/rubrics/{rubrics_name}"): Asked(about_things=False),
    ("PUT", "/rubrics/{rubrics_name}"): Asked(body=_rubrics, about_things=False, before=forget_rubrics),
    ("GET", "/metrics"): Asked(query=lambda t: {"run": t.run_id, "key": "train/loss"}, about_things=True),
    ("GET", "/logs"): Asked(query=lambda t: {"attempt": t.attempt_id}, about_things=True),
    ("GET", "/logs/stream"): Asked(query=lambda t: {"attempt": t.attempt_id}, about_things=True),
    ("POST", "/attempts/{attempt_id}/metrics"): Asked(
        202, body=lambda t: {"series": {"train/loss": {"steps": [1], "values": [1.0], "at": [0.0]}}}
    ),
    ("POST", "/attempts/{attempt_id}/heartbeats"): Asked(
        202, body=lambda t: {"rank": 0, "step": 1, "phase": "train", "at": 0.0}
    ),
    ("PUT", "/attempts/{attempt_id}/logs/{rank}"): Asked(query=lambda t: {"offset": "0"}, body=lambda t: b"hello\n"),
    ("POST", "/attempts/{attempt_id}/artifacts"): Asked(
        202, body=lambda t: {"manifest_key": t.manifest_key, "digest": t.digest}
    ),
    ("GET", "/pools/{name}"): Asked(about_things=False, before=make_pool),
    ("GET", "/pools/{name}/queue"): Asked(about_things=False, before=make_pool),
    ("PUT", "/pools/{name}"): Asked(body=lambda t: {"name": "spare", "kind": "kubernetes"}),
    ("DELETE", "/pools/{name}"): Asked(204, before=make_pool),
    ("GET", "/nodes/{name}"): Asked(about_things=False, before=make_node),
    ("POST", "/nodes/{name}/drain"): Asked(about_things=False, body=lambda t: {"reason": "a fan"}, before=make_node),
    ("POST", "/nodes/{name}/return"): Asked(about_things=False, body=lambda t: {"reason": "mended"}, before=make_node),
    ("POST", "/recipes"): Asked(201, body=_recipe),
    ("POST", "/recipes/validate"): Asked(body=_recipe),
    ("POST", "/plan"): Asked(body=_recipe),
    ("POST", "/tokens"): Asked(201, body=lambda t: {"name": "made", "role": "viewer"}),
    ("DELETE", "/tokens/{token_id}"): Asked(204),
    ("POST", "/projects"): Asked(201, body=lambda t: {"id": f"tenant-{next(_numbers)}", "name": "A tenant"}),
    ("DELETE", "/session"): Asked(204),
}
"""What is not here is a GET that needs nothing but its path."""


def asked(method: str, path: str) -> Asked:
    """`path` as the application has it. Raises AssertionError for a route that changes something and of which no valid request is known."""
    found = REQUESTS.get((method, path.removeprefix("/api/v1")))
    assert found is not None or method == "GET", f"{method} {path}: add a valid request to REQUESTS"
    return found or Asked()


def send(
    things: Things,
    method: str,
    path: str,
    token: str | None,
    *,
    body: Any = None,
    key: str | None = None,
    prepare: bool = True,
) -> httpx.Response:
    """The valid request about `things`, as the bearer of `token`. Of a stream only the head is read."""
    request = asked(method, path)
    if prepare:
        request.before(things)
    filled = path.replace(":path}", "}").format(**things.ids)
    headers = {"Authorization": f"Bearer {token}"} if token is not None else {}
    headers |= {"Idempotency-Key": key} if key is not None else {}
    made = body if body is not None else request.body(things) if request.body else None
    content: dict[str, Any] = {} if made is None else {"content": made} if isinstance(made, bytes) else {"json": made}
    with httpx.Client(base_url=things.server.url, headers=headers, timeout=120.0) as client:
        if not path.endswith("/stream"):
            return client.request(method, filled, params=request.query(things), **content)
        with client.stream(method, filled, params=request.query(things)) as answer:
            if not answer.is_success:
                answer.read()
            return answer
